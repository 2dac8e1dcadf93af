//! What happens in the control plane that people should hear of. An event's text is a log line.

use api::Diagnostic;
use model::provenance::Provenance;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where events go. Called from any thread; it should return quickly.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something is wrong with the configuration since now.
    Wrong(Diagnostic),
    /// Something is no longer wrong.
    Mended(Diagnostic),
    /// A new revision is being served.
    Published {
        /// Its number.
        revision: u64,
        /// Resources in force.
        resources: usize,
    },
    /// A proxy refused a resource.
    Refused {
        /// The proxy's node id.
        proxy: String,
        /// The short name of the resource's type.
        kind: String,
        /// The resource's name.
        resource: String,
        /// The proxy's reason.
        message: String,
        /// What the user wrote that it came from.
        provenance: Option<Provenance>,
    },
    /// A proxy asked for a certificate and did not get it.
    NoCertificate {
        /// The proxy's node id.
        proxy: String,
        /// Why not.
        reason: String,
    },
    /// A stream was closed by us.
    Closed {
        /// The proxy's node id, or its address where it has not said who it is.
        proxy: String,
        /// Why.
        reason: String,
    },
    /// The file of join tokens has a problem.
    JoinTokens {
        /// The file.
        path: PathBuf,
        /// Which.
        text: String,
    },
    /// Something about the certificate authority or our own certificate.
    Authority(String),
    /// Something that should never happen.
    Fault(String),
}

impl Event {
    /// Whether someone should look into it.
    pub fn is_problem(&self) -> bool {
        !matches!(self, Self::Mended(_) | Self::Published { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(diagnostic) => diagnostic.fmt(f),
            Self::Mended(diagnostic) => {
                write!(f, "{}: mended: ", diagnostic.file)?;
                for part in [&diagnostic.resource, &diagnostic.field].into_iter().filter(|p| !p.is_empty()) {
                    write!(f, "{part}: ")?;
                }
                f.write_str(&diagnostic.message)
            }
            Self::Published { revision, resources } => {
                write!(f, "revision {revision} is being served: {resources} resources")
            }
            Self::Refused { proxy, kind, resource, message, provenance } => {
                write!(f, "{proxy} refused {kind} {resource}")?;
                if let Some(provenance) = provenance {
                    write!(f, ", made from {provenance}")?;
                }
                // It comes from a peer: one line, and no control characters.
                write!(f, ": {}", message.escape_debug())
            }
            Self::NoCertificate { proxy, reason } => write!(f, "no certificate for {proxy}: {reason}"),
            Self::Closed { proxy, reason } => write!(f, "stream of {proxy} closed: {reason}"),
            Self::JoinTokens { path, text } => write!(f, "join tokens `{}`: {text}", path.display()),
            Self::Authority(text) | Self::Fault(text) => f.write_str(text),
        }
    }
}
