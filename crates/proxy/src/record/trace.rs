//! Trace context: W3C `traceparent` made or continued, B3 accepted and, where it came, passed on beside it.
//! Spans are not reported anywhere from here; each hop only takes its place in the trace.

use http::{HeaderMap, HeaderName, HeaderValue};
use model::listener::Tracing;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

const SAMPLED: u8 = 1;
/// Trace ids made here are random in all their bits (W3C Trace Context level 2).
const RANDOM: u8 = 2;

/// Where a request stands in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace; never 0.
    pub(crate) id: u128,
    /// Our own span.
    span: u64,
    /// The caller's span; 0 when the trace begins here.
    parent: u64,
    flags: u8,
    /// `traceparent` came and was well-formed.
    from_w3c: bool,
    came: B3Forms,
}

/// In which forms B3 came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct B3Forms {
    single: bool,
    several: bool,
}

/// What a caller said of the trace its request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    id: u128,
    span: u64,
    /// `None` when the decision is left to us.
    sampled: Option<bool>,
    random: bool,
}

impl Trace {
    /// The trace that a request belongs to, with a span of our own in it. `random` is any 64 random bits.
    pub(crate) fn of(headers: &HeaderMap, tracing: &Tracing, random: u64) -> Self {
        let mut entropy = Entropy(random ^ thread_random());
        let several = || [B3_TRACE, B3_SAMPLED, B3_FLAGS].iter().any(|name| headers.contains_key(name));
        let came = B3Forms { single: headers.contains_key(&B3), several: several() };
        let mut said = w3c(headers);
        let from_w3c = said.is_some();
        let mut decision = None;
        if !from_w3c && (came.single || came.several) {
            (said, decision) = b3(headers);
        }
        let decide = |entropy: &mut Entropy| {
            let share = tracing.random_sampling_percent.clamp(0.0, 100.0) * 10_000.0;
            entropy.next() % 1_000_000 < share as u64
        };
        let span = entropy.nonzero();
        let (id, parent, sampled, random) = match said {
            Some(said) => (said.id, said.span, said.sampled, said.random),
            None => (u128::from(entropy.nonzero()) << 64 | u128::from(entropy.next()), 0, decision, true),
        };
        let sampled = sampled.unwrap_or_else(|| decide(&mut entropy));
        let flags = if sampled { SAMPLED } else { 0 } | if random { RANDOM } else { 0 };
        Self { id, span, parent, flags, from_w3c, came }
    }

    /// The trace id of a request that is passed on as it is; `None` when it has none.
    pub(crate) fn id_of(headers: &HeaderMap) -> Option<u128> {
        w3c(headers).or_else(|| b3(headers).0).map(|said| said.id)
    }

    /// Puts it into the request that is sent on.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if !self.from_w3c {
            // Without a valid parent its state means nothing.
            headers.remove(&TRACESTATE);
        }
        let mut text = [0u8; 55];
        text[..3].copy_from_slice(b"00-");
        write_hex(self.id, &mut text[3..35]);
        text[35] = b'-';
        write_hex(u128::from(self.span), &mut text[36..52]);
        text[52] = b'-';
        write_hex(u128::from(self.flags), &mut text[53..55]);
        set(headers, TRACEPARENT, &text);
        if self.came.single || self.came.several {
            self.write_b3(headers);
        }
    }

    fn write_b3(&self, headers: &mut HeaderMap) {
        let sampled = if self.flags & SAMPLED != 0 { "1" } else { "0" };
        if self.came.single {
            let mut text = format!("{:032x}-{:016x}-{sampled}", self.id, self.span);
            if self.parent != 0 {
                text.push_str(&format!("-{:016x}", self.parent));
            }
            set(headers, B3, text.as_bytes());
        }
        if self.came.several {
            set(headers, B3_TRACE, format!("{:032x}", self.id).as_bytes());
            set(headers, B3_SPAN, format!("{:016x}", self.span).as_bytes());
            match self.parent {
                0 => drop(headers.remove(&B3_PARENT)),
                parent => set(headers, B3_PARENT, format!("{parent:016x}").as_bytes()),
            }
            // The debug flag implies a decision; both together are an error in B3.
            if headers.get(&B3_FLAGS).is_none_or(|flags| flags.as_bytes() != b"1") {
                set(headers, B3_SAMPLED, sampled.as_bytes());
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert(name, value);
    }
}

/// `traceparent` as W3C Trace Context has it; a malformed or repeated one counts as none.
fn w3c(headers: &HeaderMap) -> Option<Said> {
    let text = only(headers, &TRACEPARENT)?;
    let version = lower_hex(text.get(..2)?)? as u8;
    let well_formed = match version {
        0 => text.len() == 55,
        0xff => false,
        _ => matches!(text.get(55), None | Some(b'-')),
    };
    let dashes = [2, 35, 52].iter().all(|&at| text.get(at) == Some(&b'-'));
    if !well_formed || !dashes {
        return None;
    }
    let id = lower_hex(text.get(3..35)?)?;
    let span = lower_hex(text.get(36..52)?)? as u64;
    let flags = lower_hex(text.get(53..55)?)? as u8;
    let said = Said { id, span, sampled: Some(flags & SAMPLED != 0), random: flags & RANDOM != 0 };
    (id != 0 && span != 0).then_some(said)
}

/// B3, in one header or several; beside it the decision to sample, which may come without a trace.
fn b3(headers: &HeaderMap) -> (Option<Said>, Option<bool>) {
    if let Some(text) = only(headers, &B3) {
        let mut parts = text.split(|&b| b == b'-');
        let first = parts.next().unwrap_or_default();
        let Some(span) = parts.next() else { return (None, b3_decision(first)) };
        let sampled = parts.next().and_then(b3_decision);
        return (b3_said(first, span, sampled), sampled);
    }
    let debug = only(headers, &B3_FLAGS) == Some(b"1");
    let sampled = if debug { Some(true) } else { only(headers, &B3_SAMPLED).and_then(b3_decision) };
    let said = match (only(headers, &B3_TRACE), only(headers, &B3_SPAN)) {
        (Some(id), Some(span)) => b3_said(id, span, sampled),
        _ => None,
    };
    (said, sampled)
}

fn b3_said(id: &[u8], span: &[u8], sampled: Option<bool>) -> Option<Said> {
    if !(id.len() == 16 || id.len() == 32) || span.len() != 16 {
        return None;
    }
    let (id, span) = (hex(id)?, hex(span)? as u64);
    (id != 0 && span != 0).then_some(Said { id, span, sampled, random: false })
}

fn b3_decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?;
    all.next().is_none().then(|| value.as_bytes())
}

fn lower_hex(text: &[u8]) -> Option<u128> {
    if text.iter().any(u8::is_ascii_uppercase) { None } else { hex(text) }
}

fn hex(text: &[u8]) -> Option<u128> {
    let digit = |b: &u8| (*b as char).to_digit(16).map(u128::from);
    text.iter().try_fold(0u128, |n, b| Some(n << 4 | digit(b)?))
}

fn write_hex(value: u128, out: &mut [u8]) {
    let mut rest = value;
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

/// A trace id as logs show it.
pub(crate) fn id_text(id: u128) -> [u8; 32] {
    let mut text = [0; 32];
    write_hex(id, &mut text);
    text
}

/// SplitMix64: well mixed, not secret. Ids need to be distinct, nothing more.
struct Entropy(u64);

impl Entropy {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn nonzero(&mut self) -> u64 {
        self.next().max(1)
    }
}

/// Bits that no other thread has, so that a weak `random` does not make ids collide.
fn thread_random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::process::id()));
    }
    STATE.with(|state| {
        let mut entropy = Entropy(state.get());
        let next = entropy.next();
        state.set(entropy.0);
        next
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NEVER: Tracing = Tracing { random_sampling_percent: 0.0 };
    const ALWAYS: Tracing = Tracing { random_sampling_percent: 100.0 };
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn pass(sent: &[(&str, &str)], tracing: &Tracing) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Trace::of(&headers, tracing, 7).write(&mut headers);
        headers
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let headers = pass(&[("traceparent", PARENT), ("tracestate", "a=b")], &NEVER);
        let ours = text(&headers, "traceparent");
        assert_eq!(ours.len(), 55);
        assert!(ours.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && ours.ends_with("-01"), "{ours}");
        assert!(!ours.contains("b7ad6b7169203331"), "the caller's span is not ours");
        assert_eq!(text(&headers, "tracestate"), "a=b");
        assert!(!headers.contains_key("b3") && !headers.contains_key("x-b3-traceid"));
    }

    #[test]
    fn a_trace_begins_where_there_is_none_and_is_sampled_by_share() {
        let (yes, no) = (pass(&[], &ALWAYS), pass(&[], &NEVER));
        assert!(text(&yes, "traceparent").ends_with("-03"), "{yes:?}");
        assert!(text(&no, "traceparent").ends_with("-02"), "{no:?}");
        assert_ne!(text(&yes, "traceparent")[3..35], text(&no, "traceparent")[3..35]);
    }

    #[test]
    fn a_malformed_or_repeated_parent_begins_a_new_trace_and_loses_its_state() {
        let long = format!("{PARENT}-x");
        let upper = PARENT.to_uppercase();
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let reserved = PARENT.replacen("00-", "ff-", 1);
        for bad in ["", "x", &long, &upper, zero, &reserved, &PARENT[..54]] {
            let headers = pass(&[("traceparent", bad), ("tracestate", "a=b")], &NEVER);
            assert!(!text(&headers, "traceparent").contains("0af7651916cd43dd"), "{bad}");
            assert!(!headers.contains_key("tracestate"), "{bad}");
        }
        let twice = pass(&[("traceparent", PARENT), ("traceparent", PARENT)], &NEVER);
        assert!(!text(&twice, "traceparent").contains("0af7651916cd43dd"));
        assert_eq!(twice.get_all("traceparent").iter().count(), 1);
        let future = format!("{}-more", PARENT.replacen("00-", "01-", 1));
        let headers = pass(&[("traceparent", &future)], &NEVER);
        assert!(
            text(&headers, "traceparent").starts_with("00-0af7651916cd43dd"),
            "later versions are continued"
        );
    }

    #[test]
    fn b3_in_several_headers_is_continued_and_passed_on() {
        let sent = [
            ("x-b3-traceid", "463AC35C9F6413AD"),
            ("x-b3-spanid", "a2fb4a1d1a96d312"),
            ("x-b3-sampled", "1"),
        ];
        let headers = pass(&sent, &NEVER);
        let parent = text(&headers, "traceparent");
        assert!(
            parent.starts_with("00-0000000000000000463ac35c9f6413ad-") && parent.ends_with("-01"),
            "{parent}"
        );
        assert_eq!(text(&headers, "x-b3-traceid"), "0000000000000000463ac35c9f6413ad");
        assert_eq!(text(&headers, "x-b3-spanid"), &parent[36..52]);
        assert_eq!(text(&headers, "x-b3-parentspanid"), "a2fb4a1d1a96d312");
        assert_eq!(text(&headers, "x-b3-sampled"), "1");
    }

    #[test]
    fn b3_in_one_header_is_continued_and_may_be_only_a_decision() {
        let headers =
            pass(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90")], &NEVER);
        let parent = text(&headers, "traceparent").to_owned();
        assert!(
            parent.starts_with("00-80f198ee56343ba864fe8b2a57d3eff7-") && parent.ends_with("-01"),
            "{parent}"
        );
        let ours = format!("80f198ee56343ba864fe8b2a57d3eff7-{}-1-e457b5a2e4d86bd1", &parent[36..52]);
        assert_eq!(text(&headers, "b3"), ours);
        assert!(text(&pass(&[("b3", "0")], &ALWAYS), "traceparent").ends_with("-02"));
        assert!(text(&pass(&[("b3", "junk-x-y")], &ALWAYS), "traceparent").ends_with("-03"));
    }

    #[test]
    fn ids_made_with_the_same_random_number_differ() {
        let ids: std::collections::HashSet<u128> =
            (0..1000).map(|_| Trace::of(&HeaderMap::new(), &NEVER, 0).id).collect();
        assert_eq!(ids.len(), 1000);
    }

    proptest::proptest! {
        #[test]
        fn whatever_came_a_well_formed_parent_goes_on(
            parent in "00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|[ -~]{0,60}",
            b3 in "[0-9a-f]{16,32}-[0-9a-f]{16}-[01d]|[ -~]{0,60}",
            id in "[0-9a-fA-F]{16}|[ -~]{0,40}",
        ) {
            let sent = [("traceparent", &*parent), ("b3", &*b3), ("x-b3-traceid", &*id), ("x-b3-spanid", &*id)];
            let headers = pass(&sent, &NEVER);
            proptest::prop_assert!(w3c(&headers).is_some(), "{headers:?}");
            proptest::prop_assert!(self::b3(&headers).0.is_some(), "{headers:?}");
        }
    }
}
