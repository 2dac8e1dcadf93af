//! The canonical form of a request path: computed once, before anything looks at it, so that no two parties read
//! two paths. RFC 3986 section 6.2.2 and 5.2.4; Istio's `pathNormalization`, Envoy's `normalize_path`,
//! `merge_slashes` and `path_with_escaped_slashes_action`.

use std::borrow::Cow;
use std::fmt;

/// Which transformations are made. The default is Istio's `BASE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathNormalization {
    /// Resolve `.` and `..`, decode percent-encoded unreserved characters (`normalize_path`).
    pub normalize: bool,
    /// Make one slash of several.
    pub merge_slashes: bool,
    /// What `%2F` and `%5C` become.
    pub escaped_slashes: EscapedSlashes,
}

/// Envoy's `PathWithEscapedSlashesAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// Left as they are.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// Decoded, and the path is forwarded decoded.
    Unescape,
    /// Decoded, and the client is sent there.
    Redirect,
}

impl Default for PathNormalization {
    fn default() -> Self {
        Self { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep }
    }
}

impl PathNormalization {
    /// Leave the path as it came; only what can never be forwarded is refused.
    pub const NONE: Self =
        Self { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };
}

/// A path that is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Does not begin with `/`.
    NotAbsolute,
    /// A raw control character, space, DEL or non-ASCII byte.
    RawByte,
    /// `%00`.
    EncodedNul,
    /// A percent sign without two hexadecimal digits.
    BadEscape,
    /// `..` above the root.
    AboveRoot,
    /// `%2F` or `%5C` where configuration refuses them.
    EscapedSlash,
    /// A fragment, which has no place in a request.
    Fragment,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "path does not begin with a slash",
            Self::RawByte => "path holds a raw control or non-ASCII byte",
            Self::EncodedNul => "path holds %00",
            Self::BadEscape => "path holds a percent sign without two hexadecimal digits",
            Self::AboveRoot => "path climbs above the root",
            Self::EscapedSlash => "path holds an escaped slash",
            Self::Fragment => "path holds a fragment",
        })
    }
}

impl std::error::Error for PathError {}

impl PathNormalization {
    /// The canonical form of `path` (no query). Borrowed when nothing changes.
    pub fn canonical<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, PathError> {
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let mut suspicious = false;
        let mut previous = 0u8;
        for &b in bytes {
            match b {
                0..=0x20 | 0x7f.. => return Err(PathError::RawByte),
                b'#' => return Err(PathError::Fragment),
                b'%' | b'\\' => suspicious = true,
                b'.' if previous == b'/' => suspicious = true,
                b'/' if previous == b'/' => suspicious = true,
                _ => {}
            }
            previous = b;
        }
        if !suspicious {
            return Ok(Cow::Borrowed(path));
        }
        let decoded = self.decoded(bytes)?;
        let merged = if self.merge_slashes { merge_slashes(decoded) } else { decoded };
        let resolved = if self.normalize { without_dot_segments(&merged)? } else { merged };
        // Only ASCII went in and only ASCII came out.
        let text = String::from_utf8(resolved).map_err(|_| PathError::RawByte)?;
        Ok(if text == path { Cow::Borrowed(path) } else { Cow::Owned(text) })
    }

    /// Whether a client that asks for `path` is sent to its canonical form.
    pub fn redirects(&self, path: &str) -> bool {
        let is_slash = |digits: &[u8]| matches!(hex_pair(digits), Some(b'/' | b'\\'));
        self.escaped_slashes == EscapedSlashes::Redirect
            && path
                .as_bytes()
                .windows(3)
                .any(|three| matches!(three, [b'%', digits @ ..] if is_slash(digits)))
    }

    fn decoded(&self, bytes: &[u8]) -> Result<Vec<u8>, PathError> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((&b, tail)) = rest.split_first() {
            rest = tail;
            match b {
                b'%' => {
                    let digits = tail.get(..2).ok_or(PathError::BadEscape)?;
                    let value = hex_pair(digits).ok_or(PathError::BadEscape)?;
                    rest = tail.get(2..).unwrap_or_default();
                    match value {
                        0 => return Err(PathError::EncodedNul),
                        b'/' | b'\\' => match self.escaped_slashes {
                            EscapedSlashes::Keep => out.extend([&b"%"[..], digits].concat()),
                            EscapedSlashes::Reject => return Err(PathError::EscapedSlash),
                            EscapedSlashes::Unescape | EscapedSlashes::Redirect => out.push(b'/'),
                        },
                        // Unreserved characters mean the same either way; everything else keeps its escape.
                        v if self.normalize && is_unreserved(v) => out.push(v),
                        _ => out.extend([&b"%"[..], digits].concat()),
                    }
                }
                b'\\' if self.normalize => out.push(b'/'),
                _ => out.push(b),
            }
        }
        Ok(out)
    }
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let value = |b: &u8| (*b as char).to_digit(16);
    Some((value(high)? * 16 + value(low)?) as u8)
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

fn merge_slashes(path: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for b in path {
        if b != b'/' || out.last() != Some(&b'/') {
            out.push(b);
        }
    }
    out
}

/// RFC 3986, 5.2.4, but a `..` above the root is an error rather than ignored.
fn without_dot_segments(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<&[u8]> = path.split(|b| *b == b'/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (at, segment) in segments.into_iter().enumerate() {
        match segment {
            b"." if at == last => kept.push(b""),
            b"." => {}
            b".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
                if at == last {
                    kept.push(b"");
                }
            }
            other => kept.push(other),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn base(path: &str) -> Result<String, PathError> {
        PathNormalization::default().canonical(path).map(Cow::into_owned)
    }

    #[test]
    fn dot_segments_are_resolved_even_when_they_are_escaped() {
        assert_eq!(base("/a/./b/../c").unwrap(), "/a/c");
        assert_eq!(base("/a/%2e%2E/admin").unwrap(), "/admin");
        assert_eq!(base("/a/..").unwrap(), "/");
        assert_eq!(base("/a/.").unwrap(), "/a/");
        assert_eq!(base("/a\\..\\b").unwrap(), "/b");
    }

    #[test]
    fn what_two_parties_could_read_differently_is_refused() {
        assert_eq!(base("/a%00b"), Err(PathError::EncodedNul));
        assert_eq!(base("/../etc"), Err(PathError::AboveRoot));
        assert_eq!(base("/a%2"), Err(PathError::BadEscape));
        assert_eq!(base("/a%zz"), Err(PathError::BadEscape));
        assert_eq!(base("/a\u{7f}"), Err(PathError::RawByte));
        assert_eq!(base("/é"), Err(PathError::RawByte));
        assert_eq!(base("a"), Err(PathError::NotAbsolute));
        assert_eq!(base("/a#b"), Err(PathError::Fragment));
    }

    #[test]
    fn an_escaped_slash_stays_by_default_and_obeys_configuration() {
        assert_eq!(base("/a%2Fb%5c").unwrap(), "/a%2Fb%5c");
        let with = |escaped_slashes| PathNormalization { escaped_slashes, ..Default::default() };
        assert_eq!(with(EscapedSlashes::Reject).canonical("/a%2fb"), Err(PathError::EscapedSlash));
        assert_eq!(with(EscapedSlashes::Unescape).canonical("/a%2f..%5cb").unwrap(), "/b");
    }

    #[test]
    fn slashes_are_merged_only_where_asked() {
        assert_eq!(base("//a//b").unwrap(), "//a//b");
        let merge = PathNormalization { merge_slashes: true, ..Default::default() };
        assert_eq!(merge.canonical("//a///b/").unwrap(), "/a/b/");
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_its_own_canonical_form(path in "/[a-c./%2eEfF\\\\]{0,24}", merge: bool) {
            let n = PathNormalization { merge_slashes: merge, ..Default::default() };
            if let Ok(once) = n.canonical(&path) {
                prop_assert_eq!(n.canonical(&once).unwrap(), once.clone());
            }
        }
    }
}
