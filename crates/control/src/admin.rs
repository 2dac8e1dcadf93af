//! The admin port: `/status` for people and tools, `/metrics` for Prometheus, `/ready` for supervisors. It changes nothing.
//! Only requests that name a loopback host are answered, so that no web page can read it through a name of its own.

use crate::serve::stopped;
use crate::status::{Counters, Proxies};
use api::{Diagnostic, Severity};
use arc_swap::ArcSwap;
use bytes::Bytes;
use ca::authority::Authority;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Diagnostics shown; all are counted.
const MAX_DIAGNOSTICS: usize = 1000;

/// What the configuration came to.
#[derive(Debug, Default)]
pub(crate) struct ConfigurationStatus {
    /// The revision in force.
    pub(crate) revision: u64,
    /// Files read.
    pub(crate) files: usize,
    /// Resources in force.
    pub(crate) resources: usize,
    /// What is wrong.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// What the admin port shows.
pub(crate) struct Admin {
    /// What the configuration came to.
    pub(crate) configuration: Arc<ArcSwap<ConfigurationStatus>>,
    /// Who is connected.
    pub(crate) proxies: Arc<Proxies>,
    /// The authority.
    pub(crate) authority: Arc<Authority>,
    /// Lifetime of the certificates it issues.
    pub(crate) certificate_lifetime: Duration,
}

type Answer = Response<Full<Bytes>>;

/// Serves the admin port until told to stop.
pub(crate) async fn serve(admin: Arc<Admin>, listener: TcpListener, stop: watch::Receiver<bool>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stop.clone()) => return,
        };
        let Ok((io, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let admin = admin.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = admin.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_headers(64)
                .max_buf_size(32 << 10)
                .serve_connection(TokioIo::new(io), service);
            // A connection that fails is its client's business.
            tokio::select! {
                _ = serving => {}
                () = stopped(stop) => {}
            }
            drop(permit);
        });
    }
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Answer {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(is_loopback_host) {
            let text = "this port answers only to loopback host names, such as 127.0.0.1 or localhost\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, text.to_owned());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match request.uri().path() {
            "/" => plain(StatusCode::OK, "/status\n/metrics\n/ready\n".to_owned()),
            "/ready" => plain(StatusCode::OK, "ready\n".to_owned()),
            "/status" => {
                let text = format!("{:#}\n", self.status());
                answer(StatusCode::OK, HeaderValue::from_static("application/json"), text)
            }
            "/metrics" => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer(StatusCode::OK, kind, self.metrics())
            }
            _ => plain(StatusCode::NOT_FOUND, "there are /status, /metrics and /ready\n".to_owned()),
        }
    }

    /// What `/status` shows.
    pub(crate) fn status(&self) -> Value {
        let configuration = self.configuration.load();
        let shown = configuration.diagnostics.iter().take(MAX_DIAGNOSTICS).map(diagnostic);
        json!({
            "revision": configuration.revision,
            "config": {
                "files": configuration.files,
                "resources": configuration.resources,
                "errors": configuration.count(Severity::Error),
                "warnings": configuration.count(Severity::Warning),
                "diagnostics": shown.collect::<Vec<_>>(),
            },
            "proxies": self.proxies.to_json(),
            "ca": {
                "trust_domain": self.authority.trust_domain(),
                "certificate_lifetime_s": self.certificate_lifetime.as_secs(),
                "issued_over_sds": self.proxies.counters.certificates.load(Ordering::Relaxed),
                "denied_over_sds": self.proxies.counters.denials.load(Ordering::Relaxed),
                "warnings": self.authority.warnings(),
            },
        })
    }

    fn metrics(&self) -> String {
        let configuration = self.configuration.load();
        let Counters { pushes, resources, refusals, streams, certificates, denials } = &self.proxies.counters;
        let now = |value: usize| value as u64;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows: [(&str, &str, &str, u64); 11] = [
            (
                "ieum_control_revision",
                "gauge",
                "Revision of the configuration in force.",
                configuration.revision,
            ),
            ("ieum_control_config_files", "gauge", "Files read.", now(configuration.files)),
            ("ieum_control_config_resources", "gauge", "Resources in force.", now(configuration.resources)),
            (
                "ieum_control_config_errors",
                "gauge",
                "Errors in the configuration.",
                now(configuration.count(Severity::Error)),
            ),
            ("ieum_control_connected_proxies", "gauge", "Streams open now.", now(self.proxies.count())),
            ("ieum_control_streams_total", "counter", "Streams opened.", count(streams)),
            ("ieum_control_pushes_total", "counter", "Responses sent to proxies.", count(pushes)),
            ("ieum_control_pushed_resources_total", "counter", "Resources in them.", count(resources)),
            ("ieum_control_nacks_total", "counter", "Responses that proxies refused.", count(refusals)),
            (
                "ieum_control_sds_certificates_total",
                "counter",
                "Certificates issued over SDS.",
                count(certificates),
            ),
            ("ieum_control_sds_denials_total", "counter", "Certificates denied over SDS.", count(denials)),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}

impl ConfigurationStatus {
    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == severity).count()
    }
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": diagnostic.severity.as_str(),
        "resource": diagnostic.resource,
        "file": &*diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "field": diagnostic.field,
        "message": diagnostic.message,
        "help": diagnostic.help,
    })
}

fn plain(status: StatusCode, text: String) -> Answer {
    answer(status, HeaderValue::from_static("text/plain; charset=utf-8"), text)
}

fn answer(status: StatusCode, kind: HeaderValue, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    answer
}

/// Whether a `Host` header names this machine, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_answered() {
        for host in ["localhost", "LOCALHOST:15014", "127.0.0.1:1", "127.9.9.9", "[::1]:15014", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
