//! A configuration's journey, and the control plane that makes it: files → resources in force → translated → published
//! → acknowledged or refused. [`start`] runs all of it in this process; `ieum control` is a shell around it.
//!
//! ```text
//! watch         a file was touched                                            plane::watching
//!   files       all texts as of now, half-saved ones bridged                  plane::files
//!   store       resources in force, last good versions kept                   plane::configuration
//!   translate   listeners, routes, clusters, endpoints, and what is wrong     plane::configuration
//!   generation  one immutable state, each resource encoded once               generation
//!   ads         to every stream what changed for it; back come ACK and NACK   ads::session
//!   status      what each proxy runs, and which line of which file it refused admin
//! ```

use crate::admin::{self, Admin};
use crate::ads::{DiscoveryService, Hub};
use crate::event::{Event, Report};
use crate::generation::Generation;
use crate::join_tokens::JoinTokenFile;
use crate::secrets::SecretIssuer;
use crate::serve::{self, OwnCertificate, entropy};
use crate::status::Proxies;
use crate::watch::{Signal, Watch};
use arc_swap::ArcSwap;
use ca::authority::Authority;
use certificates::Certificates;
use configuration::Configuration;
use identity::istio_ca::IstioCertificateServer;
use identity::rotation::Rotation;
use rustls::ServerConfig;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

mod watching;
mod configuration;
mod files;
mod certificates;

/// Longest wait for streams to end when the plane stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Folder of the authority below the state folder.
const AUTHORITY_FOLDER: &str = "ca";
/// The mesh's public roots below the state folder, for whoever must know them before it is given any.
const ROOTS_FILE: &str = "root-cert.pem";

/// How to run a control plane. Port 0 takes any that is free.
#[derive(Debug, Clone)]
pub struct PlaneOptions {
    /// Files and folders of configuration.
    pub config: Vec<PathBuf>,
    /// Where xDS is served in plaintext; a loopback address.
    pub xds: SocketAddr,
    /// Where xDS and certificates are served over TLS.
    pub xds_tls: SocketAddr,
    /// Where the admin port is; a loopback address.
    pub admin: SocketAddr,
    /// Where keys are kept.
    pub state_dir: PathBuf,
    /// A file of join tokens.
    pub join_tokens: Option<PathBuf>,
    /// Lifetime of certificates.
    pub certificate_lifetime: Duration,
}

/// Where a control plane really listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// xDS in plaintext.
    pub xds: SocketAddr,
    /// xDS and certificates over TLS.
    pub xds_tls: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

/// A control plane that cannot run.
#[derive(Debug)]
pub struct PlaneError(String);

impl fmt::Display for PlaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlaneError {}

impl From<String> for PlaneError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// A running control plane. Dropping it lets it end soon; [`Plane::stop`] waits until it has.
pub struct Plane {
    addresses: Addresses,
    admin: Arc<Admin>,
    roots_file: PathBuf,
    generations: watch::Receiver<Arc<Generation>>,
    stop: watch::Sender<bool>,
    signals: Sender<Signal>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts a control plane: when this returns the configuration has been read and all ports are open.
pub async fn start(options: PlaneOptions, report: Report) -> Result<Plane, PlaneError> {
    let sockets = Sockets::open(&options).await?;
    let addresses = sockets.addresses()?;
    let mut configuration = Configuration::new(options.config.clone(), report.clone());
    let first = configuration.load();
    let authority = open_authority(&options, &first.trust_domain, &report)?;
    let issuer = SecretIssuer::new(authority.clone(), options.certificate_lifetime);
    let trust_bundle = issuer.trust_bundle();

    let (publish, generations) = watch::channel(Arc::new(first.publish(&trust_bundle, None)));
    let (stop, stopped) = watch::channel(false);
    let (signals, inbox) = channel();
    let configuration_status = configuration.status();
    let watch = Watch::new(&options.config, signals.clone(), inbox);
    watching::spawn(watch, configuration, publish, trust_bundle, report.clone())?;

    let proxies = Arc::new(Proxies::default());
    let tokens = Arc::new(JoinTokenFile::new(options.join_tokens.clone(), report.clone()));
    let admin = Arc::new(Admin {
        configuration: configuration_status,
        proxies: proxies.clone(),
        authority: authority.clone(),
        certificate_lifetime: options.certificate_lifetime,
    });
    let own = OwnCertificate::new(authority.clone(), options.certificate_lifetime)?;
    let (tls, rotation) = own.issue(SystemTime::now(), entropy())?;
    let hub = Hub {
        generations: generations.clone(),
        proxies,
        issuer,
        tokens: tokens.clone(),
        report: report.clone(),
        stop: stopped.clone(),
    };
    let server = Server {
        hub: Arc::new(hub),
        certificates: Certificates::new(authority, tokens, options.certificate_lifetime),
        stopped,
        report,
    };
    let tasks = server.spawn(sockets, admin.clone(), own, tls, rotation);
    let roots_file = options.state_dir.join(ROOTS_FILE);
    Ok(Plane { addresses, admin, roots_file, generations, stop, signals, tasks })
}

impl Plane {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A file with the mesh's public roots, PEM.
    pub fn roots_file(&self) -> &std::path::Path {
        &self.roots_file
    }

    /// The roots themselves, PEM.
    pub fn roots_pem(&self) -> &str {
        self.admin.authority.roots_pem()
    }

    /// The revision being served.
    pub fn revision(&self) -> u64 {
        self.generations.borrow().revision
    }

    /// Waits for a revision after `revision`; returns it.
    pub async fn revision_after(&self, revision: u64) -> u64 {
        let mut generations = self.generations.clone();
        match generations.wait_for(|generation| generation.revision > revision).await {
            Ok(generation) => generation.revision,
            // The thread that publishes is gone; there will be no other.
            Err(_) => std::future::pending().await,
        }
    }

    /// What `GET /status` answers.
    pub fn status(&self) -> serde_json::Value {
        self.admin.status()
    }

    /// Ends all streams, then everything else. Proxies keep what they have.
    pub async fn stop(mut self) {
        let _ = self.signals.send(Signal::Stop);
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut self.tasks);
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let ended = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        let _ = self.stop.send(true);
    }
}

/// The three ports, taken before anything else is done.
struct Sockets {
    xds: TcpListener,
    xds_tls: TcpListener,
    admin: TcpListener,
}

impl Sockets {
    async fn open(options: &PlaneOptions) -> Result<Self, String> {
        Ok(Self {
            xds: serve::bind_loopback("xDS in plaintext", "--xds", options.xds).await?,
            xds_tls: serve::bind("xDS over TLS", "--xds-tls", options.xds_tls).await?,
            admin: serve::bind_loopback("the admin port", "--admin", options.admin).await?,
        })
    }

    fn addresses(&self) -> Result<Addresses, String> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(|e| e.to_string());
        Ok(Addresses {
            xds: address(&self.xds)?,
            xds_tls: address(&self.xds_tls)?,
            admin: address(&self.admin)?,
        })
    }
}

fn open_authority(
    options: &PlaneOptions,
    trust_domain: &str,
    report: &Report,
) -> Result<Arc<Authority>, String> {
    let folder = options.state_dir.join(AUTHORITY_FOLDER);
    let authority = Authority::open(&folder, trust_domain, SystemTime::now()).map_err(|e| e.to_string())?;
    for warning in authority.warnings() {
        report(Event::Authority(warning.clone()));
    }
    let roots = options.state_dir.join(ROOTS_FILE);
    identity::private_file::write(&roots, authority.roots_pem().as_bytes())
        .map_err(|e| format!("`{}` cannot be written: {e}", roots.display()))?;
    Ok(Arc::new(authority))
}

/// What is served, before it is.
struct Server {
    hub: Arc<Hub>,
    certificates: Certificates,
    stopped: watch::Receiver<bool>,
    report: Report,
}

impl Server {
    fn spawn(
        self,
        sockets: Sockets,
        admin: Arc<Admin>,
        own: OwnCertificate,
        tls: Arc<ServerConfig>,
        rotation: Rotation,
    ) -> Vec<JoinHandle<()>> {
        let Self { hub, certificates, stopped, report } = self;
        let tls = Arc::new(ArcSwap::from(tls));
        let plain = ReceiverStream::new(serve::accept_plain(sockets.xds));
        let plain = serve::limited_server()
            .add_service(DiscoveryService::server(hub.clone()))
            .serve_with_incoming_shutdown(plain, serve::stopped(stopped.clone()));
        let secured = ReceiverStream::new(serve::accept_tls(sockets.xds_tls, tls.clone(), report.clone()));
        let secured = serve::limited_server()
            .add_service(DiscoveryService::server(hub))
            .add_service(IstioCertificateServer::new(certificates))
            .serve_with_incoming_shutdown(secured, serve::stopped(stopped.clone()));
        let fresh = own.keep_fresh(tls, rotation, report);
        let ended = serve::stopped(stopped.clone());
        vec![
            // Neither ends with an error: connections that fail end by themselves.
            tokio::spawn(async move { drop(plain.await) }),
            tokio::spawn(async move { drop(secured.await) }),
            tokio::spawn(admin::serve(admin, sockets.admin, stopped)),
            tokio::spawn(async move {
                tokio::select! {
                    () = fresh => {}
                    () = ended => {}
                }
            }),
        ]
    }
}
