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
    /// Only that it is there, and in answers not even that.
    SeenPresence,
    /// All of its list but the last entry, which only has to be there.
    AllButLast,
}

/// Header (a `*` at the end takes any ending), what of it is compared, and why not all.
pub const NORMALIZED: [(&str, Compared, &str); 5] = [
    ("date", Compared::Presence, "the clock goes on between the two"),
    (
        "x-request-id",
        Compared::SeenPresence,
        "each proxy makes its own, and ours tells it in its own answers",
    ),
    (
        "x-forwarded-for",
        Compared::AllButLast,
        "for a client on loopback Envoy names an address of its host instead",
    ),
    ("x-envoy-*", Compared::No, "Envoy's diagnostics, which a bootstrap cannot turn off one by one"),
    ("x-ieum-*", Compared::No, "our diagnostics: the reason of an answer of our own"),
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
            headers(&mut text, &answer.headers, Place::Answer { own: !own_bodies });
            if own_bodies {
                body(&mut text, &answer.body);
            }
            headers(&mut text, &answer.trailers, Place::Seen);
            if answer.broken {
                text.push_str("  broken off\n");
            }
        }
        for seen in &self.seen {
            let Seen { upstream, method, target, version, .. } = seen;
            let _ = writeln!(text, "seen by {upstream}: {method} {target} {version}");
            headers(&mut text, &seen.headers, Place::Seen);
            body(&mut text, &seen.body);
            headers(&mut text, &seen.trailers, Place::Seen);
        }
        text
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In an answer; the proxy's `own` has words, and with them length and type, of its own.
    Answer {
        own: bool,
    },
    Seen,
}

fn headers(text: &mut String, lines: &[(String, String)], place: Place) {
    let mut lines: Vec<&(String, String)> = lines.iter().collect();
    // The order between different names means nothing; between lines of one name it does.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in lines {
        let is_words = matches!(name.as_str(), "content-length" | "content-type");
        let rule = NORMALIZED.iter().find(|(pattern, ..)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        });
        let value = match rule.map(|(_, compared, _)| compared) {
            _ if is_words && place == (Place::Answer { own: true }) => continue,
            None => value.clone(),
            Some(Compared::SeenPresence) if place != Place::Seen => continue,
            Some(Compared::No) => continue,
            Some(Compared::Presence | Compared::SeenPresence) => "...".to_owned(),
            Some(Compared::AllButLast) => match value.rsplit_once(',') {
                Some((all, _)) => format!("{all},..."),
                None => "...".to_owned(),
            },
        };
        let _ = writeln!(text, "  {name}: {value}");
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
