//! `ieum sample`: the services of the demo, one process each. They know nothing of the mesh: they speak HTTP, call each
//! other by name through whatever `http_proxy` says, and pass trace headers on, as a well-behaved application does.

use crate::runtime;
use clap::{Args, ValueEnum};
use std::fmt;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

mod productpage;
mod page;
mod details;
mod reviews;
mod ratings;
mod client;
mod echo;
mod grpc;
mod websocket;
mod knobs;
mod http;
mod lines;
mod tls;
mod listen;

/// Run one of the demo's services.
///
/// productpage, details, reviews and ratings are a small bookstore; echo answers with what it received, over HTTP/1.1,
/// HTTP/2, gRPC and WebSocket; tcp-echo says every line back with its version before it. SIGTERM or Ctrl-C stops accepting and gives requests in flight 5 seconds.
#[derive(Args)]
#[command(
    disable_version_flag = true,
    after_help = "Environment, where no flag is given:\n  \
        PORT, HOST, SERVICE_VERSION  as --port, --host, --version\n  \
        POD_NAME, HOSTNAME, CLUSTER_NAME  what the service calls itself in its answers\n  \
        http_proxy, no_proxy  how it reaches the others\n  \
        DETAILS_HOSTNAME, DETAILS_SERVICE_PORT, REVIEWS_..., RATINGS_..., SERVICES_DOMAIN  where the others are"
)]
pub(crate) struct Sample {
    /// The service.
    name: Name,
    /// TCP port to listen on, 0 for any that is free [default: 9080].
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    host: Option<IpAddr>,
    /// What version to be. reviews: v1 shows no stars, v2 black ones, v3 red ones [default: v1].
    #[arg(long)]
    version: Option<String>,
    #[command(flatten)]
    tls: tls::Files,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Productpage,
    Details,
    Reviews,
    Ratings,
    Echo,
    TcpEcho,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Name::Productpage => "productpage",
            Name::Details => "details",
            Name::Reviews => "reviews",
            Name::Ratings => "ratings",
            Name::Echo => "echo",
            Name::TcpEcho => "tcp-echo",
        }
    }
}

/// What one process of a service says about itself.
#[derive(Clone, Debug)]
struct Instance {
    /// The pod's name, or the host's.
    name: String,
    version: String,
    cluster: Option<String>,
}

/// A setting that cannot be used.
#[derive(Debug, PartialEq)]
struct SettingError {
    setting: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is \"{}\", expected {}", self.setting, self.value.escape_debug(), self.expected)
    }
}

impl std::error::Error for SettingError {}

/// Environment variables; a parameter so that tests need not change those of the process.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Sample {
    /// Serves until a signal. Exit code: 0 stopped, 1 cannot listen, 2 unusable settings.
    pub(crate) fn run(self) -> ExitCode {
        let environment = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let (address, instance) = match self.settle(&environment) {
            Ok(settled) => settled,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        };
        let tls = match self.tls.acceptor() {
            Ok(tls) => tls,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        };
        // Tunnels and WebSockets end with the process; waiting for them would outlast the 5 seconds promised.
        let served = runtime::block_on(async {
            let served = serve(self.name, address, tls, instance, &environment).await;
            served.map_err(|error| format!("cannot listen on {}:{}: {error}", address.0, address.1))
        });
        runtime::exit_code(served.map(|()| ExitCode::SUCCESS))
    }

    fn settle(&self, environment: Environment) -> Result<((IpAddr, u16), Instance), SettingError> {
        let port = match self.port {
            Some(port) => port,
            None => setting(environment, "PORT", "a number from 0 to 65535")?.unwrap_or(9080),
        };
        let host = match self.host {
            Some(host) => host,
            None => setting(environment, "HOST", "an IP address")?.unwrap_or([127, 0, 0, 1].into()),
        };
        let version = self
            .version
            .clone()
            .or_else(|| environment("SERVICE_VERSION"))
            .unwrap_or_else(|| "v1".to_owned());
        if matches!(self.name, Name::Reviews) && !reviews::VERSIONS.contains(&version.as_str()) {
            return Err(SettingError { setting: "version", value: version, expected: "v1, v2 or v3" });
        }
        let name = environment("POD_NAME").or_else(|| environment("HOSTNAME")).unwrap_or_else(host_name);
        Ok(((host, port), Instance { name, version, cluster: environment("CLUSTER_NAME") }))
    }
}

fn setting<T: std::str::FromStr>(
    environment: Environment,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, SettingError> {
    let Some(value) = environment(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| SettingError { setting: name, value, expected })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

async fn serve(
    name: Name,
    address: (IpAddr, u16),
    tls: Option<TlsAcceptor>,
    instance: Instance,
    environment: Environment<'_>,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    // One line, when connections are accepted: what a script that started us with port 0 waits for.
    let scheme = match (name, &tls) {
        (Name::TcpEcho, _) => "tcp",
        (_, None) => "http",
        (_, Some(_)) => "https",
    };
    println!("{} {} listening on {scheme}://{}", name.text(), instance.version, listener.local_addr()?);
    match name {
        Name::Productpage => {
            let page = productpage::Productpage::new(instance, environment);
            http::serve(listener, tls, Arc::new(page)).await
        }
        Name::Details => http::serve(listener, tls, Arc::new(details::Details::new(instance))).await,
        Name::Reviews => {
            http::serve(listener, tls, Arc::new(reviews::Reviews::new(instance, environment))).await
        }
        Name::Ratings => http::serve(listener, tls, Arc::new(ratings::Ratings::new(instance))).await,
        Name::Echo => http::serve(listener, tls, Arc::new(echo::Echo::new(instance))).await,
        Name::TcpEcho => lines::serve(listener, instance).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(name: Name) -> Sample {
        Sample { name, port: None, host: None, version: None, tls: tls::Files::default() }
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_defaults() {
        let environment = |name: &str| match name {
            "PORT" => Some("1234".to_owned()),
            "SERVICE_VERSION" => Some("v2".to_owned()),
            "HOSTNAME" => Some("pod-a".to_owned()),
            _ => None,
        };
        let (address, instance) = sample(Name::Echo).settle(&environment).unwrap();
        assert_eq!(address, ([127, 0, 0, 1].into(), 1234));
        assert_eq!((instance.name.as_str(), instance.version.as_str()), ("pod-a", "v2"));
        let flags = Sample { port: Some(5), version: Some("v3".to_owned()), ..sample(Name::Reviews) };
        let (address, instance) = flags.settle(&environment).unwrap();
        assert_eq!((address.1, instance.version.as_str()), (5, "v3"));
    }

    #[test]
    fn a_port_that_is_no_number_is_told_with_its_value() {
        let environment = |name: &str| (name == "PORT").then(|| "http".to_owned());
        let error = sample(Name::Echo).settle(&environment).unwrap_err();
        assert_eq!(error.to_string(), "PORT is \"http\", expected a number from 0 to 65535");
    }

    #[test]
    fn reviews_has_three_versions() {
        let environment = |name: &str| (name == "SERVICE_VERSION").then(|| "v4".to_owned());
        let error = sample(Name::Reviews).settle(&environment).unwrap_err();
        assert_eq!(error.to_string(), "version is \"v4\", expected v1, v2 or v3");
    }
}
