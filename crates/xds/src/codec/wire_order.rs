//! One byte string for one value. Protobuf maps are written in whatever order a hash map yields, so that the same
//! configuration encoded twice would differ and look like a change; here the entries of known maps are put in order.

/// Where maps are in a message.
pub(crate) struct Shape {
    /// Numbers of map fields.
    maps: &'static [u64],
    /// Fields that hold messages with maps in them, map entries included.
    fields: &'static [(u64, &'static Shape)],
}

static VALUE: Shape = Shape { maps: &[], fields: &[(5, &STRUCT), (6, &LIST)] };
static LIST: Shape = Shape { maps: &[], fields: &[(1, &VALUE)] };
static STRUCT_ENTRY: Shape = Shape { maps: &[], fields: &[(2, &VALUE)] };
static STRUCT: Shape = Shape { maps: &[1], fields: &[(1, &STRUCT_ENTRY)] };
static METADATA_ENTRY: Shape = Shape { maps: &[], fields: &[(2, &STRUCT)] };
static METADATA: Shape = Shape { maps: &[1], fields: &[(1, &METADATA_ENTRY)] };

/// Health by cluster, for the filter that answers checks.
pub(crate) static HEALTH_ANSWERS: Shape = Shape { maps: &[4], fields: &[] };
/// What retries leave out by metadata.
pub(crate) static OMIT_HOSTS: Shape = Shape { maps: &[], fields: &[(1, &METADATA)] };

static WEIGHTED: Shape = Shape { maps: &[10], fields: &[(3, &METADATA)] };
static WEIGHTED_ALL: Shape = Shape { maps: &[], fields: &[(1, &WEIGHTED)] };
static FORWARD: Shape = Shape { maps: &[], fields: &[(3, &WEIGHTED_ALL), (4, &METADATA)] };
pub(crate) static ROUTE: Shape = Shape { maps: &[13], fields: &[(2, &FORWARD), (4, &METADATA)] };
pub(crate) static VIRTUAL_HOST: Shape = Shape { maps: &[15], fields: &[(3, &ROUTE)] };
pub(crate) static ROUTES: Shape = Shape { maps: &[16], fields: &[(2, &VIRTUAL_HOST)] };
static REPLY_FORMAT: Shape = Shape { maps: &[], fields: &[(2, &STRUCT)] };
static MAPPER: Shape = Shape { maps: &[], fields: &[(4, &REPLY_FORMAT)] };
static REPLIES: Shape = Shape { maps: &[], fields: &[(1, &MAPPER), (2, &REPLY_FORMAT)] };
pub(crate) static HTTP: Shape = Shape { maps: &[], fields: &[(4, &ROUTES), (38, &REPLIES)] };

static RULES: Shape = Shape { maps: &[2], fields: &[] };
pub(crate) static RBAC: Shape = Shape { maps: &[], fields: &[(1, &RULES), (2, &RULES)] };

static NOTE: Shape = Shape { maps: &[], fields: &[(3, &STRUCT)] };
pub(crate) static NOTES: Shape = Shape { maps: &[], fields: &[(3, &NOTE)] };

static LOG_FORMAT: Shape = Shape { maps: &[], fields: &[(2, &STRUCT)] };
pub(crate) static FILE_ACCESS_LOG: Shape = Shape { maps: &[], fields: &[(5, &LOG_FORMAT)] };
pub(crate) static LISTENER: Shape = Shape { maps: &[], fields: &[(6, &METADATA)] };

static ENDPOINT: Shape = Shape { maps: &[], fields: &[(3, &METADATA)] };
static LOCALITY: Shape = Shape { maps: &[], fields: &[(2, &ENDPOINT)] };
pub(crate) static ENDPOINTS: Shape = Shape { maps: &[], fields: &[(2, &LOCALITY)] };

static TRANSPORT_MATCH: Shape = Shape { maps: &[], fields: &[(2, &STRUCT)] };
static SUBSETS: Shape = Shape { maps: &[], fields: &[(2, &STRUCT)] };
pub(crate) static CLUSTER: Shape =
    Shape { maps: &[], fields: &[(22, &SUBSETS), (25, &METADATA), (33, &ENDPOINTS), (43, &TRANSPORT_MATCH)] };

/// `message` with its maps in order. Only the order of map entries changes, and so no length does.
pub(crate) fn ordered(message: &[u8], shape: &Shape) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    // What was just encoded can be read; if it could not, it is better left alone.
    match reorder(message, shape, &mut out) {
        Some(()) => out,
        None => message.to_vec(),
    }
}

/// Writes `message` with its maps in order behind what is in `out`.
fn reorder(message: &[u8], shape: &Shape, out: &mut Vec<u8>) -> Option<()> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let field = Field::first(rest)?;
        let (whole, after) = rest.split_at_checked(field.end)?;
        rest = after;
        let inner = shape.fields.iter().find(|(number, _)| *number == field.number);
        let mut entry = Vec::new();
        let is_entry = shape.maps.contains(&field.number);
        let place = if is_entry { &mut entry } else { &mut *out };
        match (inner, field.content_at) {
            (Some((_, inner)), Some(at)) => {
                let (head, content) = whole.split_at_checked(at)?;
                place.extend_from_slice(head);
                reorder(content, inner, place)?;
            }
            _ => place.extend_from_slice(whole),
        }
        if is_entry {
            entries.push(entry);
        }
    }
    // Entries begin with their lengths; any total order will do.
    entries.sort();
    entries.iter().for_each(|entry| out.extend_from_slice(entry));
    Some(())
}

/// Where a field of an encoded message lies.
pub(crate) struct Field {
    pub(crate) number: u64,
    /// Where its content begins, if it is length-delimited.
    pub(crate) content_at: Option<usize>,
    pub(crate) end: usize,
}

impl Field {
    pub(crate) fn first(bytes: &[u8]) -> Option<Self> {
        let (tag, at) = varint(bytes)?;
        let (content_at, end) = match tag & 7 {
            0 => (None, at + varint(bytes.get(at..)?)?.1),
            1 => (None, at + 8),
            2 => {
                let (length, size) = varint(bytes.get(at..)?)?;
                (Some(at + size), (at + size).checked_add(usize::try_from(length).ok()?)?)
            }
            5 => (None, at + 4),
            _ => return None,
        };
        Some(Self { number: tag >> 3, content_at, end })
    }
}

/// A number, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}
