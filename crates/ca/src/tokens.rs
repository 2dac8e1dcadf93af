//! Join tokens: how a workload that has no certificate yet proves who it is. In memory only, as hashes.
//!
//! A one-time token is spent by its first use. If only the answer was lost, the same key may be certified with it again:
//! that gives nothing to anyone who does not hold the key. Reusable tokens are for stock Envoy, which shows the same token
//! on every ADS connection. Time is an argument.

use aws_lc_rs::digest;
use identity::spiffe::{SpiffeError, SpiffeId};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Shortest token accepted from a file, in bytes; those minted here have 64.
const MIN_TOKEN_BYTES: usize = 16;

/// A hash of a token is all that is kept. Looking it up leaks no more than the hash does, and tokens are random.
type Hash = [u8; 32];

fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

struct Entry {
    identity: SpiffeId,
    /// `None` for tokens from a file: the file is their life.
    expires: Option<SystemTime>,
    usage: Usage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Usage {
    Reusable,
    Unspent,
    /// By the key with this fingerprint.
    Spent([u8; 32]),
}

impl Entry {
    fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// The tokens that are out.
pub struct JoinTokens {
    entries: Mutex<HashMap<Hash, Entry>>,
    capacity: usize,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinTokens({} of at most {})", self.entries().len(), self.capacity)
    }
}

impl JoinTokens {
    /// Holds at most `capacity` tokens, spent ones included until they expire.
    pub fn new(capacity: usize) -> Self {
        Self { entries: Mutex::default(), capacity }
    }

    /// A new token that certifies one key for `identity` until `ttl` from `now`.
    pub fn mint(&self, identity: SpiffeId, ttl: Duration, now: SystemTime) -> Result<String, TokenError> {
        self.mint_with(Usage::Unspent, identity, ttl, now)
    }

    /// A new token that can be shown any number of times until `ttl` from `now`.
    pub fn mint_reusable(
        &self,
        identity: SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        self.mint_with(Usage::Reusable, identity, ttl, now)
    }

    fn mint_with(
        &self,
        usage: Usage,
        identity: SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let token = random_token().ok_or(TokenError::NoRandomness)?;
        let expires = now.checked_add(ttl);
        let mut entries = self.entries();
        entries.retain(|_, entry| !entry.has_expired(now));
        if entries.len() >= self.capacity {
            return Err(TokenError::Full { capacity: self.capacity });
        }
        entries.insert(hash(&token), Entry { identity, expires, usage });
        Ok(token)
    }

    /// Whose token this is; a one-time token is spent by it, except for the key it was already spent for.
    pub fn redeem(
        &self,
        token: &str,
        key_fingerprint: &[u8; 32],
        now: SystemTime,
    ) -> Result<SpiffeId, TokenError> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&hash(token)).ok_or(TokenError::Unknown)?;
        if entry.has_expired(now) {
            return Err(TokenError::Expired { identity: entry.identity.clone() });
        }
        match entry.usage {
            Usage::Spent(key) if key != *key_fingerprint => {
                return Err(TokenError::Spent { identity: entry.identity.clone() });
            }
            Usage::Unspent => entry.usage = Usage::Spent(*key_fingerprint),
            Usage::Spent(_) | Usage::Reusable => {}
        }
        Ok(entry.identity.clone())
    }

    /// Whose reusable token this is. A one-time token proves nothing here: it is for one certificate only.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<SpiffeId, TokenError> {
        let entries = self.entries();
        let entry = entries.get(&hash(token)).ok_or(TokenError::Unknown)?;
        if entry.has_expired(now) {
            return Err(TokenError::Expired { identity: entry.identity.clone() });
        }
        match entry.usage {
            Usage::Reusable => Ok(entry.identity.clone()),
            Usage::Unspent | Usage::Spent(_) => {
                Err(TokenError::NotReusable { identity: entry.identity.clone() })
            }
        }
    }

    /// Adds tokens from a file. Those already known stay as they are, so a spent one stays spent when the file is read
    /// again. Returns how many were new.
    pub fn merge(&self, lines: Vec<TokenLine>, now: SystemTime) -> Result<usize, TokenError> {
        let mut entries = self.entries();
        entries.retain(|_, entry| !entry.has_expired(now));
        let before = entries.len();
        for line in lines {
            let key = hash(&line.token);
            if entries.contains_key(&key) {
                continue;
            }
            if entries.len() >= self.capacity {
                return Err(TokenError::Full { capacity: self.capacity });
            }
            let usage = if line.reusable { Usage::Reusable } else { Usage::Unspent };
            entries.insert(key, Entry { identity: line.identity, expires: None, usage });
        }
        Ok(entries.len().saturating_sub(before))
    }

    /// [`JoinTokens::merge`] of a whole file, after which tokens that an earlier reading added and this one does not list are
    /// no longer known. One that is listed again later counts as new.
    pub fn replace_listed(&self, lines: Vec<TokenLine>, now: SystemTime) -> Result<usize, TokenError> {
        let listed: HashSet<Hash> = lines.iter().map(|line| hash(&line.token)).collect();
        self.entries().retain(|key, entry| entry.expires.is_some() || listed.contains(key));
        self.merge(lines, now)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Hash, Entry>> {
        // Every change is a single insert or assignment, so a panic elsewhere leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits in hex: a token nobody guesses. `None` when the system has no randomness.
pub fn random_token() -> Option<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A token handed over in a file, one JSON object per line.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenLine {
    /// The token.
    pub token: String,
    /// Whom it stands for.
    pub identity: SpiffeId,
    /// Whether it can be used more than once.
    pub reusable: bool,
}

impl fmt::Debug for TokenLine {
    /// Never prints the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenLine(for {}, reusable: {}, token hidden)", self.identity, self.reusable)
    }
}

impl TokenLine {
    /// The line as [`parse_lines`] reads it, without line end.
    pub fn to_json(&self) -> String {
        let identity = self.identity.to_string();
        serde_json::json!({"token": self.token, "identity": identity, "reusable": self.reusable}).to_string()
    }
}

/// The line on the wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    token: String,
    identity: String,
    #[serde(default)]
    reusable: bool,
}

/// Reads JSON lines `{"token": …, "identity": "spiffe://…", "reusable": false}`; blank lines are passed over, and so is a
/// last line that is still being written. Bad lines are reported and the rest counts.
pub fn parse_lines(text: &str) -> (Vec<TokenLine>, Vec<TokenFileError>) {
    let mut lines = Vec::new();
    let mut errors = Vec::new();
    let mut texts = text.split_inclusive('\n').enumerate().filter(|(_, t)| !t.trim().is_empty()).peekable();
    while let Some((index, text)) = texts.next() {
        let unfinished = texts.peek().is_none() && !text.ends_with('\n');
        match parse_line(text.trim()) {
            Ok(line) => lines.push(line),
            Err(TokenLineFlaw::Json) if unfinished => {}
            Err(flaw) => errors.push(TokenFileError { line: index.saturating_add(1), flaw }),
        }
    }
    (lines, errors)
}

fn parse_line(text: &str) -> Result<TokenLine, TokenLineFlaw> {
    // What serde says could quote the token.
    let raw: RawLine = serde_json::from_str(text).map_err(|_| TokenLineFlaw::Json)?;
    if raw.token.len() < MIN_TOKEN_BYTES || !raw.token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(TokenLineFlaw::Token);
    }
    let identity = raw.identity.parse().map_err(TokenLineFlaw::Identity)?;
    Ok(TokenLine { token: raw.token, identity, reusable: raw.reusable })
}

/// A line of a token file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFileError {
    /// Counted from 1.
    pub line: usize,
    flaw: TokenLineFlaw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenLineFlaw {
    Json,
    Token,
    Identity(SpiffeError),
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.flaw {
            TokenLineFlaw::Json => {
                write!(f, "not a JSON object with `token`, `identity` and, if wanted, `reusable`")
            }
            TokenLineFlaw::Token => {
                write!(f, "`token` must have at least {MIN_TOKEN_BYTES} printable characters")
            }
            TokenLineFlaw::Identity(error) => write!(f, "`identity`: {error}"),
        }
    }
}

impl std::error::Error for TokenFileError {}

/// Why a token does not count, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// Never minted here, or forgotten after it expired.
    Unknown,
    /// Its time is over.
    Expired {
        /// Whose it was.
        identity: SpiffeId,
    },
    /// Already used, for another key.
    Spent {
        /// Whose it was.
        identity: SpiffeId,
    },
    /// A one-time token shown where only a reusable one counts.
    NotReusable {
        /// Whose it is.
        identity: SpiffeId,
    },
    /// As many tokens are out as are kept.
    Full {
        /// How many that is.
        capacity: usize,
    },
    /// The system has no randomness.
    NoRandomness,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "join token is not known here"),
            Self::Expired { identity } => write!(f, "join token for `{identity}` has expired"),
            Self::Spent { identity } => write!(f, "join token for `{identity}` has already been used"),
            Self::NotReusable { identity } => {
                write!(f, "join token for `{identity}` is for one certificate, not for a session")
            }
            Self::Full { capacity } => write!(f, "{capacity} join tokens are out, which is the limit"),
            Self::NoRandomness => write!(f, "no randomness for a join token"),
        }
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
