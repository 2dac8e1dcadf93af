//! Envoy's message descriptors, as the build script keeps them, and a pool of those that one document needs.
//! The whole set would cost tens of megabytes once loaded; what a bootstrap names is a fraction of it.

use prost_reflect::{DescriptorError, DescriptorPool};

/// One encoded `FileDescriptorProto`: its bytes, and the files it imports by their place in [`FILES`].
struct File {
    start: usize,
    end: usize,
    imports: &'static [usize],
}

// `FILES`, each after those it imports, the first of them the options that others use; and `MESSAGES`, the names of all
// messages with the place of their file, sorted.
include!(concat!(env!("OUT_DIR"), "/descriptors.rs"));

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Place of the file that describes options.
const OPTIONS: usize = 0;

/// Whether a message of this full name is described.
pub(crate) fn is_known(message: &str) -> bool {
    place(message).is_some()
}

/// A pool with these messages and all they refer to; unknown ones are passed over.
pub(crate) fn pool<'a>(messages: impl Iterator<Item = &'a str>) -> Result<DescriptorPool, DescriptorError> {
    let mut wanted = [false; FILES.len()];
    let mut open: Vec<usize> = std::iter::once(OPTIONS).chain(messages.filter_map(place)).collect();
    while let Some(at) = open.pop() {
        if let (Some(seen), Some(file)) = (wanted.get_mut(at), FILES.get(at))
            && !std::mem::replace(seen, true)
        {
            open.extend(file.imports);
        }
    }
    let mut pool = DescriptorPool::new();
    for (file, _) in FILES.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
        pool.decode_file_descriptor_proto(BYTES.get(file.start..file.end).unwrap_or_default())?;
    }
    Ok(pool)
}

fn place(message: &str) -> Option<usize> {
    let at = MESSAGES.binary_search_by_key(&message, |(name, _)| name).ok()?;
    MESSAGES.get(at).map(|(_, file)| usize::from(*file))
}

/// Loads everything and looks every message up.
#[cfg(test)]
pub(super) fn check() -> Result<(), String> {
    let pool = pool(MESSAGES.iter().map(|(name, _)| *name)).map_err(|error| error.to_string())?;
    let missing = MESSAGES.iter().find(|(name, _)| pool.get_message_by_name(name).is_none());
    missing.map_or(Ok(()), |(name, _)| Err(format!("`{name}` is not in its file")))
}
