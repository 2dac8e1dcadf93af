//! Copies of requests to other clusters. Nobody waits for their answers: a mirror that is slow, dead or behind loses its
//! copy, and the request goes on as if there were none. Their number and the bytes that wait for them are bounded by
//! `upstream::Mirrors`.

use super::Stage;
use super::edits::Outbound;
use super::forward::Plan;
use super::mutations::mutate_copy;
use crate::local::Local;
use crate::record::Exchange;
use crate::snapshot::ClusterState;
use crate::upstream::{MirrorSeat, Outgoing, Replay, Sent};
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt;
use model::rewrite::split_authority;
use model::route::{Mirror, MirrorTarget};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Time for a copy where the route has no limit.
const TIME: Duration = Duration::from_secs(60);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A copy on its way.
struct Copy {
    local: Rc<Local>,
    cluster: Arc<ClusterState>,
    method: Method,
    authority: String,
    target: PathAndQuery,
    scheme: &'static str,
    headers: HeaderMap,
    version: Version,
    body: Outgoing,
    _seat: MirrorSeat,
}

impl Stage<'_> {
    /// Sends the copies that the route asks for.
    pub(super) fn mirror(
        &self,
        exchange: &Exchange,
        plan: &Plan<'_>,
        parts: &Parts,
        out: &Outbound,
        replay: &Replay,
    ) {
        for mirror in &plan.forward.mirrors {
            if mirror.share.is_some_and(|share| !share.takes(self.context.local.random())) {
                continue;
            }
            if let Some(copy) = self.copy(exchange, mirror, parts, out, replay) {
                let time = plan.forward.timeout.unwrap_or(TIME);
                tokio::task::spawn_local(async move {
                    // Nobody is interested in how it ends.
                    let _ = tokio::time::timeout(time, copy.send()).await;
                });
            }
        }
    }

    fn copy(
        &self,
        exchange: &Exchange,
        mirror: &Mirror,
        parts: &Parts,
        out: &Outbound,
        replay: &Replay,
    ) -> Option<Copy> {
        let name = match &mirror.target {
            MirrorTarget::Cluster(name) => name.as_str(),
            MirrorTarget::Header(name) => parts.headers.get(name)?.to_str().ok()?,
        };
        let cluster = self.snapshot.cluster(name, self.context.local.random())?.clone();
        let local = &self.context.local;
        let seat = local.mirrors().take_seat()?;
        let authority = match (&mirror.host, mirror.keep_host) {
            (Some(host), _) => host.clone(),
            (None, true) => out.authority.clone(),
            (None, false) => shadow(&out.authority),
        };
        let mut headers = mutate_copy(&mirror.edits, exchange, &self.head, parts);
        if let Some(sampled) = mirror.trace_sampled {
            set_sampled(&mut headers, sampled);
        }
        Some(Copy {
            local: local.clone(),
            cluster,
            method: parts.method.clone(),
            authority,
            target: PathAndQuery::try_from(out.target.as_str()).ok()?,
            scheme: self.head.scheme,
            headers,
            version: parts.version,
            body: replay.copy(&seat),
            _seat: seat,
        })
    }
}

impl Copy {
    async fn send(self) -> Option<()> {
        let endpoint = self.cluster.pick(self.local.random())?.clone();
        let lease = self.local.pools().lease(&self.cluster, &endpoint, self.version).await;
        let mut lease = lease.ok()?;
        let mut headers = self.headers;
        let uri = match lease.is_http2() {
            true => {
                let mut uri = http::uri::Parts::default();
                uri.scheme = Some(if self.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
                uri.authority = Some(Authority::try_from(self.authority).ok()?);
                uri.path_and_query = Some(self.target);
                Uri::from_parts(uri).ok()?
            }
            false => {
                headers.insert(HOST, HeaderValue::try_from(self.authority).ok()?);
                Uri::from(self.target)
            }
        };
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.version_mut() = if lease.is_http2() { Version::HTTP_2 } else { Version::HTTP_11 };
        let Sent::Answer(answer) = lease.send(request).await else { return None };
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        lease.release();
        Some(())
    }
}

/// The host with `-shadow` behind it, before the port.
fn shadow(authority: &str) -> String {
    match split_authority(authority) {
        (host, Some(port)) => format!("{host}-shadow:{port}"),
        (host, None) => format!("{host}-shadow"),
    }
}

/// Sets the flag in the trace context that says whether it is recorded (W3C Trace Context, "trace-flags").
fn set_sampled(headers: &mut HeaderMap, sampled: bool) {
    let Some(parent) = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok()) else { return };
    let Some((head, _)) = parent.rsplit_once('-') else { return };
    let changed = format!("{head}-{}", if sampled { "01" } else { "00" });
    if let Ok(value) = HeaderValue::try_from(changed) {
        headers.insert(TRACEPARENT, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_shadow_is_told_by_its_host_and_keeps_the_port() {
        assert_eq!(shadow("reviews"), "reviews-shadow");
        assert_eq!(shadow("reviews:9080"), "reviews-shadow:9080");
    }

    #[test]
    fn a_copy_is_recorded_or_not_as_the_mirror_says() {
        let mut headers = HeaderMap::new();
        set_sampled(&mut headers, false);
        assert!(headers.is_empty());
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-a-b-01"));
        set_sampled(&mut headers, false);
        assert_eq!(headers.get(TRACEPARENT).unwrap(), "00-a-b-00");
    }
}
