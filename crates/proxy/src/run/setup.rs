//! What has to be right before a proxy can start: flags, the bootstrap, its static resources, the last good
//! configuration.

use crate::discovery::{self, Discovery, Hub, LastGood, Scope};
use crate::mark;
use crate::notice::tell;
use crate::record::{NodeLabels, Telemetry};
use crate::snapshot::Live;
use identity::workload::{JoinToken, WorkloadOptions};
use model::metadata::Value;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xds::bootstrap::{self, Ads, Bootstrap, Node, Problems};

/// How memory is given back; the program that has the allocator knows.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Gives back what the calling thread freed. Called every few seconds on each thread.
    pub tidy: fn(),
    /// Lets go of pages that can be had again. Called after the start, and every few seconds while the proxy rests.
    pub forget: fn(),
}

/// What a proxy is started with.
#[derive(Clone)]
pub struct Options {
    /// The bootstrap, YAML or JSON.
    pub bootstrap: PathBuf,
    /// Worker threads; as many as there are processors unless set.
    pub concurrency: Option<usize>,
    /// Where the last good configuration and the identity are kept; nothing is kept without it.
    pub state_dir: Option<PathBuf>,
    /// How the workload's identity is obtained, if it has one.
    pub identity: Option<IdentityOptions>,
    /// Admin address instead of the bootstrap's.
    pub admin: Option<SocketAddr>,
    /// Longest time that open connections have to end.
    pub drain_time: Duration,
    /// How memory is given back.
    pub memory: Memory,
}

/// How a workload's identity is obtained.
#[derive(Clone)]
pub struct IdentityOptions {
    /// The CA, as `host:port`.
    pub ca: String,
    /// File with the authorities that may have signed the CA's certificate, PEM.
    pub roots: PathBuf,
    /// Name that the CA's certificate must have.
    pub name: String,
    /// File with the join token.
    pub join_token: Option<PathBuf>,
    /// Lifetime asked for.
    pub lifetime: Duration,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
}

impl IdentityOptions {
    pub(super) fn workload_options(self) -> Result<WorkloadOptions, String> {
        let roots = std::fs::read(&self.roots);
        Ok(WorkloadOptions {
            ca_address: self.ca,
            ca_roots_pem: roots.map_err(|e| format!("CA roots `{}`: {e}", self.roots.display()))?,
            ca_server_name: self.name,
            join_token: self.join_token.map(JoinToken::File),
            state_dir: self.state_dir,
            lifetime: self.lifetime,
        })
    }
}

/// Why a proxy does not start.
#[derive(Debug)]
pub enum RunError {
    /// The bootstrap, one line for each problem.
    Bootstrap(Problems),
    /// The identity cannot even be asked for.
    Identity(String),
    /// The admin address is taken, or is not ours.
    Admin(SocketAddr, io::Error),
    /// A static listener's address cannot be had: which, and why.
    Listener(String, String),
    /// Signals cannot be received.
    Signals(io::Error),
    /// The control thread cannot run.
    Runtime(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap(problems) => problems.fmt(f),
            Self::Identity(reason) => f.write_str(reason),
            Self::Admin(address, error) => write!(f, "admin address {address}: {error}"),
            Self::Listener(name, why) => write!(f, "listener `{name}` cannot listen: {why}"),
            Self::Signals(error) => write!(f, "signals cannot be received: {error}"),
            Self::Runtime(error) => write!(f, "the control thread cannot run: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Everything that a proxy begins with.
pub(super) struct Setup {
    pub(super) node: Node,
    pub(super) ads: Option<Ads>,
    pub(super) hub: Hub,
    pub(super) last_good: Option<LastGood>,
    pub(super) concurrency: usize,
    pub(super) admin_address: Option<SocketAddr>,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Setup {
    pub(super) fn new(options: &Options) -> Result<Self, RunError> {
        let bootstrap = read_bootstrap(&options.bootstrap)?;
        for ignored in &bootstrap.ignored {
            tell(format_args!("warning: {ignored}"));
        }
        if let Some(mark) = bootstrap.mark {
            mark::set(mark);
        }
        let ads = bootstrap.ads.as_ref();
        let mut discovery = Discovery::new(Scope {
            ads: ads.is_some(),
            delta: ads.is_some_and(|ads| ads.delta),
            listeners: bootstrap.lds,
            clusters: bootstrap.cds,
            identity: options.identity.is_some(),
        });
        let now = std::time::Instant::now();
        discovery::add_static(&mut discovery, &bootstrap, now)
            .map_err(|problems| RunError::Bootstrap(Problems(problems)))?;
        let metadata = Value::Struct(bootstrap.node.metadata.clone());
        let telemetry = Telemetry::new(NodeLabels::from_metadata(&bootstrap.node.id, &metadata));
        let hub = Hub::new(discovery, Live::new(telemetry.clone()));
        let directory = options.state_dir.as_ref().filter(|_| ads.is_some());
        let last_good = directory.map(|directory| LastGood::new(directory, &bootstrap.node.id));
        restore(&hub, last_good.as_ref());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            hub,
            last_good,
            concurrency: options.concurrency.unwrap_or(cores).max(1),
            admin_address: options.admin.or(bootstrap.admin),
            telemetry,
            // Copies: what was read goes back whole, with the thread that read it.
            node: bootstrap.node.clone(),
            ads: bootstrap.ads.clone(),
        })
    }
}

/// Reads the bootstrap in a thread of its own: reading takes megabytes for a moment, and an allocator that keeps what
/// each thread freed gives it back when that thread ends.
fn read_bootstrap(path: &Path) -> Result<Bootstrap, RunError> {
    let path = path.to_owned();
    let reading =
        std::thread::Builder::new().name("bootstrap".to_owned()).spawn(move || bootstrap::read(&path));
    match reading.map_err(RunError::Runtime)?.join() {
        Ok(outcome) => outcome.map_err(RunError::Bootstrap),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Puts the last good configuration in force. One that cannot be used is told, and the proxy starts without.
fn restore(hub: &Hub, file: Option<&LastGood>) {
    let saved = match file.map(|file| (file, file.read())) {
        None | Some((_, Ok(None))) => Vec::new(),
        Some((_, Ok(Some(saved)))) => {
            let resources: usize = saved.iter().map(|response| response.resources.len()).sum();
            tell(format_args!("last good configuration in use: {resources} resources"));
            saved
        }
        Some((file, Err(reason))) => {
            tell(format_args!("last good configuration `{}` is not used: {reason}", file.path().display()));
            Vec::new()
        }
    };
    hub.feed(|discovery, now| discovery.restore(saved, now));
}
