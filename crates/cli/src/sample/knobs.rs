//! What a client can ask of `echo`'s answer, by query (`?status=503`) or header (`x-echo-status: 503`).
//! Asking only; `echo` does it.

use super::http::pairs;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::time::Duration;

/// The header of a knob is its name after this.
const PREFIX: &str = "x-echo-";
const NAMES: [&str; 9] =
    ["delay", "status", "size", "header", "trailers", "chunks", "interval", "close", "mirror"];
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const LARGEST_SIZE: u64 = 1 << 30;

/// How to answer. Query beats header where both are given; `header` adds up.
#[derive(Debug, PartialEq)]
pub(super) struct Knobs {
    /// Wait before answering.
    pub(super) delay: Duration,
    pub(super) status: StatusCode,
    /// A body of so many bytes instead of the report.
    pub(super) size: Option<u64>,
    /// Further headers of the answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// End the answer with trailers.
    pub(super) trailers: bool,
    /// Send the body in so many pieces.
    pub(super) chunks: Option<u32>,
    /// Wait between pieces.
    pub(super) interval: Duration,
    pub(super) close: Option<Close>,
    /// Answer with the body of the request, as it arrives.
    pub(super) mirror: bool,
}

/// Where to break off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Close {
    /// Before the answer.
    Before,
    /// After its head and half of its body.
    Within,
}

/// A knob with a value it does not have.
#[derive(Debug, PartialEq)]
pub(super) struct KnobError {
    knob: String,
    value: String,
    expected: &'static str,
}

impl fmt::Display for KnobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is \"{}\", expected {}", self.knob, self.value.escape_debug(), self.expected)
    }
}

impl std::error::Error for KnobError {}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            delay: Duration::ZERO,
            status: StatusCode::OK,
            size: None,
            headers: Vec::new(),
            trailers: false,
            chunks: None,
            interval: Duration::ZERO,
            close: None,
            mirror: false,
        }
    }
}

impl Knobs {
    /// Reads the knobs of a request; queries and headers that are none are the application's and left alone.
    pub(super) fn read(query: &str, headers: &HeaderMap) -> Result<Self, KnobError> {
        let mut knobs = Knobs::default();
        for name in NAMES {
            for value in headers.get_all(format!("{PREFIX}{name}")) {
                knobs.turn(name, &String::from_utf8_lossy(value.as_bytes()))?;
            }
        }
        for (name, value) in pairs(query) {
            knobs.turn(&name, &value)?;
        }
        Ok(knobs)
    }

    fn turn(&mut self, knob: &str, value: &str) -> Result<(), KnobError> {
        let wrong = |expected| KnobError { knob: knob.to_owned(), value: value.to_owned(), expected };
        let duration = || duration(value).ok_or_else(|| wrong("a duration up to 1 h, like 100ms or 1.5s"));
        let flag = || flag(value).ok_or_else(|| wrong("1 or 0"));
        match knob {
            "delay" => self.delay = duration()?,
            "interval" => self.interval = duration()?,
            "trailers" => self.trailers = flag()?,
            "mirror" => self.mirror = flag()?,
            "status" => {
                let status = StatusCode::from_bytes(value.as_bytes()).ok();
                let last = status.filter(|status| !status.is_informational());
                self.status = last.ok_or_else(|| wrong("a status from 200 to 999"))?;
            }
            "size" => {
                let size = value.parse().ok().filter(|size| *size <= LARGEST_SIZE);
                self.size = Some(size.ok_or_else(|| wrong("a number of bytes up to 1073741824"))?);
            }
            "chunks" => {
                let chunks = value.parse().ok().filter(|chunks| (1..=1_000_000).contains(chunks));
                self.chunks = Some(chunks.ok_or_else(|| wrong("a number from 1 to 1000000"))?);
            }
            "header" => {
                self.headers.push(header(value).ok_or_else(|| wrong("a header, like Name:value"))?);
            }
            "close" => {
                self.close = match value {
                    "body" => Some(Close::Within),
                    _ => flag().map_err(|_| wrong("1 or body"))?.then_some(Close::Before),
                };
            }
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// `100ms`, `1.5s`, `2m`, `250us`; a bare number is milliseconds.
fn duration(value: &str) -> Option<Duration> {
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let unit_s = match unit {
        "" | "ms" => 1e-3,
        "us" => 1e-6,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let duration = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit_s).ok()?;
    (duration <= LONGEST_WAIT).then_some(duration)
}

/// Headers that say how the message is framed cannot be asked for: they would make it a lie.
fn header(value: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = value.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let framing = ["content-length", "transfer-encoding", "connection", "upgrade"].contains(&name.as_str());
    let value = HeaderValue::from_bytes(value.trim().as_bytes()).ok()?;
    (!framing).then_some((name, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(query: &str) -> Result<Knobs, KnobError> {
        Knobs::read(query, &HeaderMap::new())
    }

    #[test]
    fn knobs_are_read_from_the_query() {
        let knobs =
            read("delay=100ms&status=503&size=10&chunks=5&interval=1.5s&trailers=1&close=body&other=x");
        let knobs = knobs.unwrap();
        assert_eq!((knobs.delay, knobs.interval), (Duration::from_millis(100), Duration::from_millis(1500)));
        assert_eq!(
            (knobs.status, knobs.size, knobs.chunks),
            (StatusCode::SERVICE_UNAVAILABLE, Some(10), Some(5))
        );
        assert_eq!((knobs.trailers, knobs.close), (true, Some(Close::Within)));
    }

    #[test]
    fn headers_turn_knobs_and_the_query_wins() {
        let mut headers = HeaderMap::new();
        headers.insert("x-echo-status", HeaderValue::from_static("500"));
        headers.insert("x-echo-header", HeaderValue::from_static("A: 1"));
        assert_eq!(Knobs::read("", &headers).unwrap().status, 500);
        let knobs = Knobs::read("status=404&header=b:2", &headers).unwrap();
        assert_eq!(knobs.status, 404);
        let names: Vec<_> = knobs.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_duration_has_a_unit_and_an_end() {
        let durations = [("5", 5_000), ("250us", 250), ("2m", 120_000_000), ("0.5s", 500_000)];
        for (text, microseconds) in durations {
            assert_eq!(duration(text), Some(Duration::from_micros(microseconds)), "{text}");
        }
        for text in ["", "s", "1.2.3s", "-1s", "5d", "2h", "1e9s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_that_a_knob_does_not_have_is_told() {
        let told = |query| read(query).unwrap_err().to_string();
        assert_eq!(told("status=101"), "status is \"101\", expected a status from 200 to 999");
        assert_eq!(
            told("delay=soon"),
            "delay is \"soon\", expected a duration up to 1 h, like 100ms or 1.5s"
        );
        assert_eq!(
            told("header=content-length:3"),
            "header is \"content-length:3\", expected a header, like Name:value"
        );
        for query in ["size=-1", "size=99999999999", "chunks=0", "close=2", "trailers=x", "header=a"] {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
