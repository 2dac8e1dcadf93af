//! `ieum proxy`: the data plane, from an Envoy bootstrap.

use crate::memory;
use clap::Args;
use proxy::run::{IdentityOptions, Memory, Options, run};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run a proxy: a sidecar or a gateway, as an Envoy v3 bootstrap and its control plane say.
///
/// Static resources and ADS, delta or state-of-the-world, from ours or any other control plane. What a bootstrap asks for
/// and the proxy cannot do ends it with file, line and field; over ADS such a resource is refused and the last good one
/// stays. SIGTERM or Ctrl-C drains and ends. Exit code: 0 stopped, 1 cannot run, 2 usage.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    ieum proxy --bootstrap envoy.yaml\n  \
    ieum proxy -c envoy.yaml --state-dir .state   starts from the last good configuration\n  \
    curl -s 127.0.0.1:15000/help                  where the bootstrap's admin address is that")]
pub(crate) struct Proxy {
    /// Envoy v3 bootstrap, YAML or JSON.
    #[arg(long, short = 'c', value_name = "FILE")]
    bootstrap: PathBuf,
    /// Worker threads; as many as there are processors unless set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// Folder in which the last good configuration and the identity survive a restart.
    #[arg(long, alias = "base-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Certificate authority from which the proxy obtains its identity.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["ca_roots", "state_dir"])]
    ca: Option<String>,
    /// Authorities that may have signed the CA's own certificate.
    #[arg(long, value_name = "PEMFILE", requires = "ca")]
    ca_roots: Option<PathBuf>,
    /// Name that the CA's certificate must have.
    #[arg(long, value_name = "NAME", requires = "ca", default_value = "istiod.istio-system.svc")]
    ca_name: String,
    /// File with the token that proves who the proxy is, for its first certificate.
    #[arg(long, value_name = "FILE", requires = "ca")]
    join_token_file: Option<PathBuf>,
    /// Lifetime of the certificates asked for, such as `24h` or `10s`.
    #[arg(long, value_name = "DURATION", requires = "ca", default_value = "24h", value_parser = duration)]
    identity_lifetime: Duration,
    /// Admin address, instead of the one in the bootstrap.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// How long open connections have to end when the proxy is told to.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    drain_time: Duration,
}

impl Proxy {
    pub(crate) fn run(self) -> ExitCode {
        memory::start();
        let identity = match (self.ca, self.ca_roots, self.state_dir.clone()) {
            (Some(ca), Some(roots), Some(state_dir)) => Some(IdentityOptions {
                ca,
                roots,
                name: self.ca_name,
                join_token: self.join_token_file,
                lifetime: self.identity_lifetime,
                state_dir,
            }),
            _ => None,
        };
        let options = Options {
            bootstrap: self.bootstrap,
            concurrency: self.concurrency.map(usize::from),
            state_dir: self.state_dir,
            identity,
            admin: self.admin,
            drain_time: self.drain_time,
            memory: Memory { tidy: memory::tidy, forget: memory::forget },
        };
        match run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                for line in error.to_string().lines() {
                    eprintln!("error: {line}");
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// Reads `250ms`, `10s`, `5m` or `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("give a number with a unit: `250ms`, `10s`, `5m`, `24h`".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("`{text}` is not a possible duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert!(duration("10").is_err() && duration("-1s").is_err() && duration("s").is_err());
    }
}
