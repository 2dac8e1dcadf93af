//! How long an exchange may take: the route's timeout, the longest duration, what `grpc-timeout` says, the time for the
//! request to come in. One timer for all of them, and none where there is no limit; silence is `upstream::Watch`'s.

use crate::failure::Failure;
use crate::upstream::BodyTally;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::listener::HttpConnectionManager;
use model::route::{Forward, GrpcTimeout};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Ends when a limit is reached: which.
pub(super) type Deadline = Pin<Box<dyn Future<Output = Failure>>>;

/// The limits of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// When it began.
    start: Instant,
    /// From the request's last byte on.
    answer: Option<Duration>,
    /// From its first byte on.
    whole: Option<Duration>,
    /// From its first byte on until its last.
    request: Option<Duration>,
}

/// The deadline of an exchange that began at `start`, if it has any.
pub(super) fn deadline(
    manager: &HttpConnectionManager,
    forward: &Forward,
    headers: &HeaderMap,
    start: Instant,
    tally: &Rc<BodyTally>,
) -> Option<Deadline> {
    let configured = forward.max_duration.or(manager.max_stream_duration).filter(|d| !d.is_zero());
    let whole = match forward.grpc_timeout.map(|timeout| asked(timeout, headers)) {
        Some(Some(asked)) => Some(asked),
        _ => configured,
    };
    // It is over before anything can be done where the request is here already.
    let request = manager.request_timeout.filter(|_| tally.ended.get().is_none());
    if forward.timeout.is_none() && whole.is_none() && request.is_none() {
        return None;
    }
    let limits = Limits { start, answer: forward.timeout, whole, request };
    let tally = tally.clone();
    Some(Box::pin(async move { limits.reached(&tally).await }))
}

impl Limits {
    async fn reached(self, tally: &BodyTally) -> Failure {
        loop {
            let now = Instant::now();
            let ended = tally.ended.get();
            let answer = self.answer.and_then(|limit| ended.unwrap_or(now).checked_add(limit));
            let whole = self.whole.and_then(|limit| self.start.checked_add(limit));
            let request = self.request.filter(|_| ended.is_none());
            let request = request.and_then(|limit| self.start.checked_add(limit));
            let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_over(whole) {
                return if ended.is_some() { Failure::MaxDurationAnswer } else { Failure::MaxDuration };
            }
            if is_over(request) {
                return Failure::RequestTimeout;
            }
            if ended.is_some() && is_over(answer) {
                return Failure::Timeout;
            }
            match [answer, whole, request].into_iter().flatten().min() {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Tells the endpoint of the time that is left to it where that is less than the client asks for.
pub(super) fn shorten(timeout: GrpcTimeout, headers: &mut HeaderMap) {
    let wanted = headers.get(GRPC_TIMEOUT).and_then(|v| parse(v.to_str().ok()?));
    if let (Some(given), Some(wanted)) = (asked(timeout, headers), wanted)
        && given < wanted
        && let Ok(value) = HeaderValue::try_from(format!("{}m", given.as_millis()))
    {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// What the client asks for, as far as it is believed (gRPC over HTTP/2, "Timeout").
fn asked(timeout: GrpcTimeout, headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let asked = parse(text)?;
    // Zero is no limit of the client's, and then the longest counts.
    let asked = match (asked.is_zero(), timeout.max) {
        (true, max) => return max,
        (false, Some(max)) => asked.min(max),
        (false, None) => asked,
    };
    Some(if timeout.offset < asked { asked - timeout.offset } else { asked })
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_client_is_believed_as_far_as_is_configured() {
        let ask = |text: &'static str, max, offset| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            let offset = Duration::from_millis(offset);
            asked(GrpcTimeout { max, offset }, &headers).map(|d| d.as_millis())
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(ask("100m", None, 0), Some(100));
        assert_eq!(ask("2S", second, 0), Some(1000));
        assert_eq!(ask("2S", None, 500), Some(1500));
        assert_eq!(ask("100m", None, 500), Some(100), "an offset leaves something");
        assert_eq!(ask("0m", second, 0), Some(1000));
        for bad in ["", "5", "m", "-1S", "1x", "123456789S", "1.5S"] {
            assert_eq!(ask(bad, second, 0), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_waited_for_from_the_requests_end_on() {
        let tally = Rc::new(BodyTally::default());
        let second = Duration::from_secs(1);
        let limits = |answer, whole, request| Limits { start: Instant::now(), answer, whole, request };
        let whole = limits(Some(second), Some(second * 3), None);
        assert_eq!(whole.reached(&tally).await, Failure::MaxDuration);
        assert_eq!(
            limits(None, Some(second), Some(second / 2)).reached(&tally).await,
            Failure::RequestTimeout
        );
        tally.ended.set(Some(Instant::now()));
        assert_eq!(limits(Some(second), None, None).reached(&tally).await, Failure::Timeout);
    }
}
