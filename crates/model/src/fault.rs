//! Faults put in on purpose: which requests are delayed or aborted, and how (`envoy.filters.http.fault`).
//! Waiting and answering are the proxy's.

use crate::fraction::Fraction;
use crate::header::{HeaderMatch, RequestHead};
use http::HeaderMap;
use std::time::Duration;

/// Faults for requests that match.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    /// Some are held back for a while.
    pub delay: Option<Delay>,
    /// Some are answered here.
    pub abort: Option<Abort>,
    /// Only requests with such headers.
    pub headers: Vec<HeaderMatch>,
    /// Only requests to this cluster; empty for all.
    pub upstream_cluster: String,
    /// Faults under way at once; more are not put in. `None` is no limit.
    pub max_active: Option<u32>,
    /// Only requests whose `x-envoy-downstream-service-node` is one of these; empty for all.
    pub downstream_nodes: Vec<String>,
}

/// Requests held back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    /// For how long.
    pub time: DelayTime,
    /// Which share of them.
    pub share: Fraction,
}

/// How long a request is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayTime {
    /// So long.
    Fixed(Duration),
    /// As the request's header `x-envoy-fault-delay-request` says, in milliseconds.
    Header,
}

/// Requests answered with a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// With what.
    pub answer: AbortAnswer,
    /// Which share of them.
    pub share: Fraction,
    /// The body of the answer; empty for the usual words.
    pub body: String,
}

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortAnswer {
    /// This HTTP status.
    Http(u16),
    /// This gRPC status.
    Grpc(u32),
    /// As the request's header `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultDecision {
    /// It is held back for so long.
    pub delay: Option<Duration>,
    /// It is then answered with this; never [`AbortAnswer::Header`].
    pub abort: Option<AbortAnswer>,
}

const NODE: &str = "x-envoy-downstream-service-node";
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_SHARE: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_SHARE: &str = "x-envoy-fault-abort-request-percentage";

impl Fault {
    /// What happens to a request to `cluster`, given 64 random bits for each of delay and abort.
    pub fn decide(
        &self,
        head: &RequestHead<'_>,
        cluster: Option<&str>,
        random: [u64; 2],
    ) -> Option<FaultDecision> {
        if !self.upstream_cluster.is_empty() && cluster != Some(self.upstream_cluster.as_str()) {
            return None;
        }
        if !self.headers.iter().all(|h| h.matches(head)) {
            return None;
        }
        if !self.downstream_nodes.is_empty() {
            let node = head.headers.get(NODE).and_then(|node| node.to_str().ok())?;
            self.downstream_nodes.iter().find(|wanted| *wanted == node)?;
        }
        let delay = self.delay.and_then(|delay| delay.of(head.headers, random[0]));
        let abort = self.abort.as_ref().and_then(|abort| abort.of(head.headers, random[1]));
        (delay.is_some() || abort.is_some()).then_some(FaultDecision { delay, abort })
    }
}

impl Delay {
    fn of(self, headers: &HeaderMap, random: u64) -> Option<Duration> {
        let (time, share) = match self.time {
            DelayTime::Fixed(time) => (time, self.share),
            DelayTime::Header => {
                let time = Duration::from_millis(number(headers, DELAY)?);
                (time, share_of(headers, DELAY_SHARE, self.share))
            }
        };
        (!time.is_zero() && share.takes(random)).then_some(time)
    }
}

impl Abort {
    /// With the usual words.
    pub fn new(answer: AbortAnswer, share: Fraction) -> Self {
        Self { answer, share, body: String::new() }
    }

    fn of(&self, headers: &HeaderMap, random: u64) -> Option<AbortAnswer> {
        let (answer, share) = match self.answer {
            AbortAnswer::Header => {
                let http = number(headers, ABORT).and_then(|n| u16::try_from(n).ok());
                let http = http.filter(|status| (200..600).contains(status)).map(AbortAnswer::Http);
                let grpc = || number(headers, ABORT_GRPC).and_then(|n| u32::try_from(n).ok());
                let answer = http.or_else(|| grpc().map(AbortAnswer::Grpc))?;
                (answer, share_of(headers, ABORT_SHARE, self.share))
            }
            answer => (answer, self.share),
        };
        share.takes(random).then_some(answer)
    }
}

/// A request may ask for a smaller share than is configured, never for a larger one.
fn share_of(headers: &HeaderMap, name: &str, configured: Fraction) -> Fraction {
    let asked = number(headers, name).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    asked.map_or(configured, |asked| configured.at_most(asked))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::{HeaderValue, Method};

    fn decide(fault: &Fault, headers: &[(&'static str, &'static str)], random: u64) -> FaultDecision {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            query: None,
            headers: &map,
        };
        fault.decide(&head, Some("c"), [random, random]).unwrap_or_default()
    }

    #[test]
    fn a_share_of_requests_is_hit_and_the_rest_is_not() {
        let half = Fraction { numerator: 50, denominator: 100 };
        let fault = Fault { abort: Some(Abort::new(AbortAnswer::Http(503), half)), ..Fault::default() };
        assert_eq!(decide(&fault, &[], 49).abort, Some(AbortAnswer::Http(503)));
        assert_eq!(decide(&fault, &[], 50).abort, None);
        let other = Fault { upstream_cluster: "d".into(), ..fault };
        assert_eq!(decide(&other, &[], 49), FaultDecision::default());
    }

    #[test]
    fn headers_ask_for_faults_only_where_that_is_configured_and_never_for_more() {
        let half = Fraction { numerator: 50, denominator: 100 };
        let fault = Fault {
            delay: Some(Delay { time: DelayTime::Header, share: half }),
            abort: Some(Abort::new(AbortAnswer::Header, half)),
            ..Fault::default()
        };
        let asked = [(DELAY, "250"), (ABORT_GRPC, "14"), (DELAY_SHARE, "100"), (ABORT_SHARE, "10")];
        let ms = Some(Duration::from_millis(250));
        let both = FaultDecision { delay: ms, abort: Some(AbortAnswer::Grpc(14)) };
        assert_eq!(decide(&fault, &asked, 9), both);
        assert_eq!(decide(&fault, &asked, 49), FaultDecision { delay: ms, abort: None });
        assert_eq!(decide(&fault, &asked, 50), FaultDecision::default());
        assert_eq!(decide(&fault, &[(ABORT, "999"), (DELAY, "-1")], 0), FaultDecision::default());
        let fixed = Fault {
            delay: Some(Delay { time: DelayTime::Fixed(Duration::from_secs(1)), share: half }),
            ..Fault::default()
        };
        assert_eq!(decide(&fixed, &asked, 0).delay, Some(Duration::from_secs(1)));
    }
}
