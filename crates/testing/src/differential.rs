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
pub const NORMALIZED: [(&str, Compared, &str); 8] = [
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
    (
        "x-envoy-upstream-service-time",
        Compared::No,
        "Envoy's measurement, which our metrics and logs tell instead",
    ),
    (
        "x-envoy-expected-rq-timeout-ms",
        Compared::No,
        "Envoy's hint to the upstream, which nothing of ours reads",
    ),
    ("x-envoy-internal", Compared::No, "Envoy's guess where a client is, which nothing of ours reads"),
    ("x-envoy-external-address", Compared::No, "the same"),
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

/// Who made an answer, and so what of it can be the same at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Maker {
    /// An upstream, or the route itself: everything is compared.
    #[default]
    Route,
    /// The proxy: its words are its own, and whether the connection lives on, which Envoy ends where it has not read a
    /// request to its end.
    Proxy,
    /// The proxy, before it could make out a request: which listener's `server` it is has not been asked yet.
    Framing,
}

impl Outcome {
    /// As text to compare and to read.
    pub fn text(&self, maker: Maker) -> String {
        let mut text = String::new();
        for answer in &self.answers {
            // What answers bytes that are not HTTP cannot know which version of it they are.
            let version = if maker == Maker::Framing { "HTTP" } else { answer.version.as_str() };
            let _ = writeln!(text, "answer {version} {} {:?}", answer.status, answer.interim);
            headers(&mut text, &answer.headers, Place::Answer(maker));
            if maker == Maker::Route {
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
    Answer(Maker),
    Seen,
}

impl Place {
    fn leaves_out(self, name: &str) -> bool {
        let is_words = matches!(name, "content-length" | "content-type" | "connection" | "grpc-message");
        match self {
            Self::Seen | Self::Answer(Maker::Route) => false,
            Self::Answer(Maker::Proxy) => is_words,
            Self::Answer(Maker::Framing) => is_words || matches!(name, "date" | "server"),
        }
    }
}

fn headers(text: &mut String, lines: &[(String, String)], place: Place) {
    let mut lines: Vec<&(String, String)> = lines.iter().collect();
    // The order between different names means nothing; between lines of one name it does.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in lines {
        if place.leaves_out(name) {
            continue;
        }
        let rule = NORMALIZED.iter().find(|(pattern, ..)| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        });
        let value = match rule.map(|(_, compared, _)| compared) {
            // Its words are the same in any case (RFC 9110, 7.6.1).
            None if name == "connection" => value.to_ascii_lowercase(),
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
    let mut only_mine: Vec<&str> = ours.lines().collect();
    for line in theirs.lines() {
        let found = only_mine.iter().position(|mine| *mine == line);
        let mark = if found.map(|at| only_mine.remove(at)).is_some() { " " } else { "-" };
        let _ = writeln!(text, "  {mark} {line}");
    }
    for line in only_mine {
        let _ = writeln!(text, "  + {line}");
    }
    Some(text)
}
