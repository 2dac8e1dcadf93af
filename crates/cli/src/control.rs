//! `ieum control`: the control plane as a process of its own. What it does is `control::plane`'s; this reads flags, prints
//! events, and stops it on a signal.

use crate::runtime;
use clap::Args;
use control::event::{Event, Report};
use control::plane::{self, Plane, PlaneOptions};
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run the control plane: configuration from files, served to proxies over xDS, with the mesh's certificate authority.
///
/// Changes of the files apply as they are saved. A resource that becomes wrong keeps its last good version, and what is
/// wrong is printed with file, line and advice. SIGTERM or Ctrl-C ends all streams; proxies keep what they have.
/// Exit code: 0 stopped, 1 cannot run, 2 usage.
#[derive(Args)]
#[command(after_help = "Examples:\n  ieum control --config manifests/\n  \
        ieum control --config manifests/ --xds 127.0.0.1:0 --json | jq .xds\n  \
        curl -s 127.0.0.1:15014/status")]
pub(crate) struct Control {
    /// File or folder of configuration; may be given several times.
    #[arg(long, required = true, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Where xDS is served in plaintext, to this machine only. Port 0 takes any that is free, here and below.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15010")]
    xds: SocketAddr,
    /// Where xDS and certificates are served over TLS.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15012")]
    xds_tls: SocketAddr,
    /// Where /status, /metrics and /ready are, for this machine only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
    /// Where the authority's key is kept; made at the first start.
    #[arg(long, value_name = "DIR", default_value = ".ieum/control")]
    state_dir: PathBuf,
    /// File of join tokens, one JSON object per line: {"token": "…", "identity": "spiffe://…", "reusable": false}.
    #[arg(long, value_name = "FILE")]
    join_tokens: Option<PathBuf>,
    /// Lifetime of certificates, such as 24h, 90m or 10s.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    certificate_lifetime: Duration,
    /// Print one JSON line with the addresses when all is ready.
    #[arg(long)]
    json: bool,
}

impl Control {
    pub(crate) fn run(self) -> ExitCode {
        runtime::exit_code(runtime::block_on(self.serve()).map(|()| ExitCode::SUCCESS))
    }

    async fn serve(self) -> Result<(), String> {
        // Before anything is started, so that no signal goes by unnoticed.
        let mut stops = Stops::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
        let options = PlaneOptions {
            config: self.config,
            xds: self.xds,
            xds_tls: self.xds_tls,
            admin: self.admin,
            state_dir: self.state_dir,
            join_tokens: self.join_tokens,
            certificate_lifetime: self.certificate_lifetime,
        };
        let report: Report = Arc::new(print_event);
        let plane = plane::start(options, report).await.map_err(|error| error.to_string())?;
        print_ready(&plane, self.json);
        stops.next().await;
        plane.stop().await;
        Ok(())
    }
}

/// The signals that end the process.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn print_event(event: Event) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{event}");
}

fn print_ready(plane: &Plane, as_json: bool) {
    let plane::Addresses { xds, xds_tls, admin } = plane.addresses();
    let roots = plane.roots_file().display().to_string();
    let text = match as_json {
        true => json!({
            "ready": true, "xds": xds.to_string(), "xds_tls": xds_tls.to_string(), "admin": admin.to_string(),
            "roots": roots,
        })
        .to_string(),
        false => format!(
            "control plane ready: xDS {xds}, xDS and certificates over TLS {xds_tls}, status http://{admin}/status"
        ),
    };
    // A closed standard output is no reason to stop serving.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let parsed = api::duration::parse(text).map_err(|error| error.to_string())?;
    match parsed >= Duration::from_secs(1) {
        true => Ok(parsed),
        false => Err("at least 1s is needed".to_owned()),
    }
}
