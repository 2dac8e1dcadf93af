//! The join tokens that a file hands over, read again whenever someone shows a token and the file has changed.
//! What a token proves is for `ca` to say.

use crate::event::{Event, Report};
use ca::tokens::{JoinTokens, TokenError, parse_lines};
use identity::spiffe::SpiffeId;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Tokens that may be out at once, spent ones included.
const CAPACITY: usize = 100_000;
/// Largest file read, in bytes.
const FILE_SIZE_LIMIT: u64 = 64 << 20;

/// The tokens, and the file they come from.
pub(crate) struct JoinTokenFile {
    tokens: Arc<JoinTokens>,
    path: Option<PathBuf>,
    seen: Mutex<Option<Fingerprint>>,
    report: Report,
}

/// What differs when a file was written: inode, size, and time to the nanosecond.
type Fingerprint = (u64, u64, i64, i64);

impl JoinTokenFile {
    /// Tokens of the file at `path`, if there is one.
    pub(crate) fn new(path: Option<PathBuf>, report: Report) -> Self {
        Self { tokens: Arc::new(JoinTokens::new(CAPACITY)), path, seen: Mutex::default(), report }
    }

    /// The tokens, for the certificate service. Call [`Self::refresh`] before it looks at one.
    pub(crate) fn tokens(&self) -> Arc<JoinTokens> {
        self.tokens.clone()
    }

    /// Whose reusable token this is.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<SpiffeId, TokenError> {
        self.refresh(now);
        self.tokens.verify(token, now)
    }

    /// Reads the file if it has changed. Problems are reported and leave the tokens known before.
    pub(crate) fn refresh(&self, now: SystemTime) {
        let Some(path) = &self.path else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A supervisor may write its first token later; until then there are none.
        let Ok(facts) = std::fs::metadata(path) else { return };
        let fingerprint = (facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec());
        if *seen == Some(fingerprint) {
            return;
        }
        let problem = |text: String| (self.report)(Event::JoinTokens { path: path.clone(), text });
        *seen = Some(fingerprint);
        if facts.len() > FILE_SIZE_LIMIT {
            return problem(format!("has {} bytes; at most {FILE_SIZE_LIMIT} are read", facts.len()));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return problem(format!("cannot be read: {error}")),
        };
        let (lines, errors) = parse_lines(&text);
        errors.iter().for_each(|error| problem(error.to_string()));
        // Of a file that is being written, what is missing may still come.
        let merged = match errors.is_empty() && text.ends_with('\n') {
            true => self.tokens.replace_listed(lines, now),
            false => self.tokens.merge(lines, now),
        };
        if let Err(error) = merged {
            problem(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_written_a_moment_ago_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let events = Arc::new(Mutex::new(Vec::new()));
        let report: Report = {
            let events = events.clone();
            Arc::new(move |event: Event| events.lock().unwrap().push(event.to_string()))
        };
        let file = JoinTokenFile::new(Some(path.clone()), report);
        let token = "0123456789abcdef";
        let now = SystemTime::now();
        assert_eq!(file.verify(token, now), Err(TokenError::Unknown));
        let line =
            format!(r#"{{"token":"{token}","identity":"spiffe://cluster.local/ns/a/sa/b","reusable":true}}"#);
        std::fs::write(&path, format!("{line}\nnonsense\n")).unwrap();
        assert_eq!(file.verify(token, now).unwrap().namespace(), "a");
        file.verify(token, now).unwrap();
        let events = events.lock().unwrap();
        assert_eq!(events.len(), 1, "told once: {events:?}");
        assert!(events[0].contains("line 2"));
    }

    #[test]
    fn a_token_taken_off_the_file_counts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let file = JoinTokenFile::new(Some(path.clone()), Arc::new(|_| {}));
        let line = |token: &str| {
            format!("{{\"token\":\"{token}\",\"identity\":\"spiffe://td/ns/a/sa/b\",\"reusable\":true}}\n")
        };
        let now = SystemTime::now();
        std::fs::write(&path, line("0123456789abcdef")).unwrap();
        file.verify("0123456789abcdef", now).unwrap();
        std::fs::write(&path, line("0123456789abcdef") + &line("fedcba9876543210")).unwrap();
        file.verify("fedcba9876543210", now).unwrap();
        std::fs::write(&path, line("fedcba9876543210")).unwrap();
        assert_eq!(file.verify("0123456789abcdef", now), Err(TokenError::Unknown));
    }
}
