//! Comparing what two proxies do with the same request: what the client got, and what the upstreams saw.
//! Everything counts except what [`NORMALIZED`] lists with its reason.

use std::fmt::Write as _;

use crate::exchange::Answer;
use crate::upstream::Seen;

/// What of a header is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Nothing.
    No,
    /// Only that it is there.
    Presence,
}

/// Header (a `*` at the end takes any ending), what of it is compared, and why not all.
pub const NORMALIZED: [(&str, Compared, &str); 5] = [
    ("date", Compared::Presence, "the clock goes on between the two"),
    ("x-request-id", Compared::Presence, "each proxy makes its own"),
    ("x-envoy-*", Compared::No, "Envoy's diagnostics, which the bootstrap cannot turn off one by one"),
    ("x-ieum-*", Compared::No, "our diagnostics: the reason of an answer of our own"),
    ("x-case", Compared::No, "names the case and the proxy to the upstream"),
];

/// What a case came to at one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What the client got, one for each request it sent.
    pub answers: Vec<Answer>,
    /// What upstreams saw, in order.
    pub seen: Vec<Seen>,
}

impl Outcome {
    /// As text to compare and to read. The body of an answer the proxy made itself is left out unless `own_bodies`:
    /// its words are the proxy's.
    pub fn text(&self, own_bodies: bool) -> String {
        let mut text = String::new();
        for answer in &self.answers {
            let _ = writeln!(text, "answer {} {} {:?}", answer.version, answer.status, answer.interim);
            headers(&mut text, &answer.headers, !own_bodies);
            if own_bodies {
                body(&mut text, &answer.body);
            }
            headers(&mut text, &answer.trailers, false);
            if answer.broken {
                text.push_str("  broken off\n");
            }
        }
        for seen in &self.seen {
            let Seen { upstream, method, target, version, .. } = seen;
            let _ = writeln!(text, "seen by {upstream}: {method} {target} {version}");
            headers(&mut text, &seen.headers, false);
            body(&mut text, &seen.body);
            headers(&mut text, &seen.trailers, false);
        }
        text
    }
}

fn headers(text: &mut String, lines: &[(String, String)], without_length: bool) {
    let mut lines: Vec<&(String, String)> = lines.iter().collect();
    // The order between different names means nothing; between lines of one name it does.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in lines {
        let is_left_out = without_length && matches!(name.as_str(), "content-length" | "content-type");
        let rule = NORMALIZED.iter().find(|(pattern, ..)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        });
        match rule {
            _ if is_left_out => {}
            None => _ = writeln!(text, "  {name}: {value}"),
            Some((_, Compared::Presence, _)) => _ = writeln!(text, "  {name}: ..."),
            Some((_, Compared::No, _)) => {}
        }
    }
}

fn body(text: &mut String, body: &[u8]) {
    const LONGEST: usize = 300;
    if body.is_empty() {
        return;
    }
    let start = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
    let sum = body.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let _ = writeln!(text, "  {} bytes, sum {sum:x}: {start:?}", body.len());
}

/// Both texts, lines marked that only one of them has; `None` when they are the same.
pub fn difference(ours: &str, theirs: &str) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let mut text = String::new();
    let (mine, other): (Vec<&str>, Vec<&str>) = (ours.lines().collect(), theirs.lines().collect());
    for line in &other {
        let mark = if mine.contains(line) { " " } else { "-" };
        let _ = writeln!(text, "  {mark} {line}");
    }
    for line in mine.iter().filter(|line| !other.contains(line)) {
        let _ = writeln!(text, "  + {line}");
    }
    Some(text)
}
