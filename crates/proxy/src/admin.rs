//! The admin interface, as Envoy's: what the proxy is doing, what it was told, and a few switches. For people and tools
//! on this machine: without `Host` checks any web page could talk to it, so on loopback only loopback names are answered.
//!
//! It changes nothing itself: switches are sent to `run` as [`Command`]s.

mod clusters;
mod dump;
mod server;

use crate::discovery::{Hub, Stage, Status};
use crate::worker::ListenerStatus;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use xds::bootstrap::Node;

/// Connections served at the same time.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head to come in.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head read, and most fields in it.
const MAX_HEAD: (usize, usize) = (16 << 10, 64);

/// What somebody asked the proxy to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End at once.
    Quit,
    /// Take no new connections; gracefully, those that are open are told to go.
    Drain {
        /// Whether open connections are told.
        graceful: bool,
    },
}

/// What the proxy was started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The bootstrap's path.
    pub bootstrap: String,
    /// Worker threads.
    pub concurrency: usize,
    /// How long a drain lasts at most.
    pub drain_time: Duration,
}

/// All that can be seen and switched.
pub struct Admin {
    /// What the proxy was told.
    pub hub: Hub,
    /// How the ADS stream is doing, if there is one.
    pub stream: Option<Rc<RefCell<Status>>>,
    /// How the threads that serve are doing with their listeners.
    pub listeners: Box<dyn Fn() -> Vec<ListenerStatus>>,
    /// Who the proxy is.
    pub node: Node,
    /// What it was started with.
    pub settings: Settings,
    /// When it was started.
    pub started: Instant,
    /// It is going away.
    pub draining: Cell<bool>,
    /// Somebody said that it should pass for unhealthy.
    pub unhealthy: Cell<bool>,
    /// Where switches go.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// An answer; its body is complete.
pub type Answer = http::Response<Full<Bytes>>;

/// Whether the proxy can serve, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Live,
    /// It is going away.
    Draining,
    /// Clusters are awaited.
    PreInitializing,
    /// Listeners are awaited.
    Initializing,
}

impl State {
    /// Envoy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

impl Admin {
    /// Whether the proxy can serve.
    pub fn state(&self) -> State {
        if self.draining.get() || self.unhealthy.get() {
            return State::Draining;
        }
        match self.hub.read(|discovery| discovery.stage()) {
            Stage::Clusters => State::PreInitializing,
            Stage::Listeners => State::Initializing,
            Stage::Complete if !self.all_listen() => State::Initializing,
            Stage::Complete => State::Live,
        }
    }

    /// Answers a request. `loopback` says that the interface itself is on loopback.
    pub fn answer(&self, method: &Method, target: &str, headers: &HeaderMap, loopback: bool) -> Answer {
        if loopback && !is_local_host(headers) {
            return refusal(
                StatusCode::FORBIDDEN,
                "host_not_allowed: use a loopback address or `localhost`\n",
            );
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_switch = matches!(
            path,
            "/quitquitquit"
                | "/drain_listeners"
                | "/healthcheck/fail"
                | "/healthcheck/ok"
                | "/logging"
                | "/reopen_logs"
        );
        let allowed = if is_switch { "POST" } else { "GET, HEAD" };
        if !allowed.split(", ").any(|name| name == method.as_str()) {
            let mut answer =
                refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("Method Not Allowed: use {allowed}\n"));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        if is_switch { self.switch(path, query) } else { self.show(path, query) }
    }

    fn show(&self, path: &str, query: &str) -> Answer {
        let as_json = has(query, "format", "json");
        match path {
            "/" | "/help" => text(HELP.to_owned()),
            "/ready" => self.ready(),
            "/stats/prometheus" => prometheus(self.prometheus()),
            "/stats" if has(query, "format", "prometheus") => prometheus(self.prometheus()),
            "/stats" => text(server::plain_stats(&self.prometheus())),
            "/config_dump" => json(&dump::config_dump(self, has_key(query, "include_eds"))),
            "/clusters" if as_json => json(&clusters::as_json(&self.hub.live().current())),
            "/clusters" => text(clusters::as_text(&self.hub.live().current())),
            "/listeners" if as_json => json(&self.listeners_json()),
            "/listeners" => text(self.listeners_text()),
            "/server_info" => json(&self.server_info()),
            "/certs" => json(&self.certificates()),
            "/memory" => json(&server::memory()),
            _ => refusal(StatusCode::NOT_FOUND, &format!("invalid path\n{HELP}")),
        }
    }

    fn switch(&self, path: &str, query: &str) -> Answer {
        match path {
            "/quitquitquit" => self.send(Command::Quit),
            "/drain_listeners" => self.send(Command::Drain { graceful: has_key(query, "graceful") }),
            "/healthcheck/fail" => self.unhealthy.set(true),
            "/healthcheck/ok" => self.unhealthy.set(false),
            "/reopen_logs" => self.hub.live().telemetry().reopen_logs(),
            _ => return refusal(StatusCode::NOT_IMPLEMENTED, "there are no log levels to change\n"),
        }
        text("OK\n".to_owned())
    }

    fn send(&self, command: Command) {
        // Whoever would receive it is gone only when the process is about to end.
        let _ = self.commands.send(command);
    }
}

const HELP: &str = "\
GET  /ready                 200 LIVE when the proxy can serve, else 503
GET  /stats/prometheus      metrics
GET  /stats                 metrics, one a line
GET  /config_dump           what the proxy was told, by resource (?include_eds)
GET  /clusters              clusters and their endpoints (?format=json)
GET  /listeners             listeners and their addresses (?format=json)
GET  /server_info           version, state, node, control plane
GET  /certs                 certificates in use
GET  /memory                memory of the process
POST /drain_listeners       take no new connections (?graceful)
POST /healthcheck/fail      pass for unhealthy; /healthcheck/ok ends it
POST /reopen_logs           open log files anew
POST /quitquitquit          end
";

/// Serves the interface. Never returns.
pub async fn serve(listener: TcpListener, admin: Rc<Admin>) {
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, most likely: others have to finish first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (method, headers) = (request.method(), request.headers());
                let target = request.uri().path_and_query().map_or("", |target| target.as_str());
                let mut answer = admin.answer(method, target, headers, loopback);
                if method == Method::HEAD {
                    *answer.body_mut() = Full::default();
                }
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let (bytes, fields) = MAX_HEAD;
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(bytes)
                .max_headers(fields);
            // A client that breaks off is its own loss.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

/// Whether `Host` names this machine: another name is how a web page would reach us.
fn is_local_host(headers: &HeaderMap) -> bool {
    // HTTP/1.0 tools send none; browsers always do.
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

fn has(query: &str, key: &str, value: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=') == Some((key, value)))
}

fn has_key(query: &str, key: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(key) && !pair.ends_with("=false"))
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = http::Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("cache-control", HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn text(body: String) -> Answer {
    answer(StatusCode::OK, "text/plain; charset=UTF-8", body)
}

fn prometheus(body: String) -> Answer {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn refusal(status: StatusCode, body: &str) -> Answer {
    answer(status, "text/plain; charset=UTF-8", body.to_owned())
}

fn json(value: &serde_json::Value) -> Answer {
    answer(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

#[cfg(test)]
mod tests;
