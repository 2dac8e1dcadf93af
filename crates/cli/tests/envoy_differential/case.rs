//! One case: what is sent, and what must come of it at either proxy.

use std::net::SocketAddr;

use testing::differential::{Maker, Outcome};
use testing::exchange::{Answer, Connection, Request2, exchange, exchange2};

/// Where a proxy listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listeners {
    /// Every route; HTTP/1.0 too.
    pub(crate) main: SocketAddr,
    /// The same with slashes merged and escaped ones refused.
    pub(crate) paths: SocketAddr,
    /// The same with escaped slashes decoded.
    pub(crate) unescaped: SocketAddr,
    /// Bytes passed on.
    pub(crate) tcp: SocketAddr,
    /// Escaped slashes are decoded by a redirect, underscores in header names refused.
    pub(crate) strict: SocketAddr,
    /// Headers with underscores in their names are dropped.
    pub(crate) dropping: SocketAddr,
    /// What a load balancer in front says is taken off.
    pub(crate) proxied: SocketAddr,
}

type Play = Box<dyn Fn(&Listeners) -> Vec<Answer> + Send + Sync>;
type Check = Box<dyn Fn(&Outcome) -> Result<(), String> + Send + Sync>;

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) play: Play,
    pub(crate) checks: Vec<Check>,
    /// Who makes the answer.
    pub(crate) maker: Maker,
    /// Why the two differ; `docs/differences.md` tells users.
    pub(crate) differs: Option<&'static str>,
}

/// A case that does what `play` does.
pub(crate) fn play(
    name: &'static str,
    play: impl Fn(&Listeners) -> Vec<Answer> + Send + Sync + 'static,
) -> Case {
    Case { name, play: Box::new(play), checks: Vec::new(), maker: Maker::Route, differs: None }
}

/// A case that sends these bytes to the listener `main` and reads one answer. `@` stands for the case's own mark.
pub(crate) fn raw(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    play(name, move |at| vec![exchange(at.main, &bytes)])
}

/// A GET of `target` at `main.test`, with more header lines.
pub(crate) fn get(name: &'static str, target: &str, lines: &[&str]) -> Case {
    raw(name, request(name, "GET", target, lines, ""))
}

/// A request of any method with a body.
pub(crate) fn send(name: &'static str, method: &str, target: &str, lines: &[&str], body: &str) -> Case {
    raw(name, request(name, method, target, lines, body))
}

/// The bytes of a request to `main.test`, unless a line names another host.
pub(crate) fn request(name: &str, method: &str, target: &str, lines: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        text.push_str("Host: main.test\r\n");
    }
    text.push_str(&format!("x-case: {}\r\n", name.replace(' ', "-")));
    for line in lines {
        text.push_str(&format!("{line}\r\n"));
    }
    if !body.is_empty()
        && !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:"))
    {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// A request over HTTP/2 to the listener `main`.
pub(crate) fn http2(
    name: &'static str,
    build: impl Fn(http::request::Builder) -> Request2 + Send + Sync + 'static,
) -> Case {
    play(name, move |at| {
        let builder = http::Request::builder().header("x-case", name.replace(' ', "-"));
        vec![exchange2(at.main, build(builder))]
    })
}

/// A case on one connection of its own.
pub(crate) fn talk(
    name: &'static str,
    talk: impl Fn(&mut Connection) -> Vec<Answer> + Send + Sync + 'static,
) -> Case {
    play(name, move |at| talk(&mut Connection::open(at.main)))
}

impl Case {
    /// Sends it to another listener instead; only for cases of [`get`], [`send`] and [`raw`].
    pub(crate) fn at(self, listener: fn(&Listeners) -> SocketAddr) -> Self {
        let play = self.play;
        let play = move |at: &Listeners| play(&Listeners { main: listener(at), ..*at });
        Self { play: Box::new(play), ..self }
    }

    fn check(mut self, check: impl Fn(&Outcome) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// The last answer has this status.
    pub(crate) fn status(self, status: u16) -> Self {
        self.check(move |outcome| equal("status", &last(outcome).status, &status))
    }

    /// The answer has this header.
    pub(crate) fn header(self, name: &'static str, value: &'static str) -> Self {
        self.check(move |outcome| equal(name, &last(outcome).header(name), &Some(value)))
    }

    /// The answer does not have this header.
    pub(crate) fn no_header(self, name: &'static str) -> Self {
        self.check(move |outcome| equal(name, &last(outcome).header(name), &None))
    }

    /// The answer has this body.
    pub(crate) fn body(self, body: &'static str) -> Self {
        self.check(move |outcome| {
            equal("body", &String::from_utf8_lossy(&last(outcome).body).as_ref(), &body)
        })
    }

    /// A 200 by this route.
    pub(crate) fn route(self, route: &'static str) -> Self {
        self.status(200).header("x-route", route)
    }

    /// Upstreams saw these targets, in this order.
    pub(crate) fn seen(self, targets: &'static [&'static str]) -> Self {
        self.check(move |outcome| {
            let seen: Vec<&str> = outcome.seen.iter().map(|seen| seen.target.as_str()).collect();
            equal("targets seen", &seen.as_slice(), &targets)
        })
    }

    /// The upstream saw this header, lines joined by `|`.
    pub(crate) fn seen_header(self, name: &'static str, value: &'static str) -> Self {
        self.check(move |outcome| {
            let headers = outcome.seen.iter().flat_map(|seen| &seen.headers);
            let values: Vec<&str> = headers.filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
            equal(name, &values.join("|").as_str(), &value)
        })
    }

    /// The upstream saw this body.
    pub(crate) fn seen_body(self, body: &'static str) -> Self {
        self.check(move |outcome| {
            let seen = outcome.seen.first().map(|seen| String::from_utf8_lossy(&seen.body).into_owned());
            equal("body seen", &seen.as_deref(), &Some(body))
        })
    }

    /// The answer is the proxy's own, with this status, and no upstream saw anything.
    pub(crate) fn refused(self, status: u16) -> Self {
        self.own().status(status).seen(&[])
    }

    /// The answer is the proxy's own: its words may be.
    pub(crate) fn own(self) -> Self {
        Self { maker: Maker::Proxy, ..self }
    }

    /// The answer is given before a request could be made out, and no upstream saw anything.
    pub(crate) fn garbled(self) -> Self {
        Self { maker: Maker::Framing, ..self }
    }

    /// The two differ, for this reason.
    pub(crate) fn differs(self, reason: &'static str) -> Self {
        Self { differs: Some(reason), ..self }
    }
}

fn last(outcome: &Outcome) -> &Answer {
    outcome.answers.last().expect("each case reads an answer")
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, expected {expected:?}")) }
}
