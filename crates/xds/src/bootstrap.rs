//! Envoy's v3 bootstrap, YAML or JSON: who the proxy is, what it is given, and where it asks for the rest.
//!
//! Every problem is named with file, line and field. What a bootstrap says and we do not follow is refused where
//! traffic would differ for it, and told in [`Bootstrap::ignored`] where only the proxy's own conduct would.
//! Static resources stay protos here: the codec decodes them, as it does those of ADS.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use envoy_types::pb::envoy::config::{cluster::v3 as cluster, core::v3 as core, listener::v3 as listener};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use model::metadata::Fields;

pub(crate) mod descriptors;
mod extract;
mod message;
mod yaml;

/// A bootstrap, read and checked.
#[derive(Debug)]
pub struct Bootstrap {
    /// Who the proxy is.
    pub node: Node,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// `static_resources.listeners`.
    pub static_listeners: Vec<listener::Listener>,
    /// `static_resources.clusters`.
    pub static_clusters: Vec<cluster::Cluster>,
    /// `static_resources.secrets`.
    pub static_secrets: Vec<tls::Secret>,
    /// The aggregated discovery service, when there is one.
    pub ads: Option<Ads>,
    /// Listeners are asked for over ADS.
    pub lds: bool,
    /// Clusters are asked for over ADS.
    pub cds: bool,
    /// The mark of packets to endpoints (`cluster_manager.upstream_bind_config`).
    pub mark: Option<u32>,
    /// Fields that are written and have no effect here, with the reason.
    pub ignored: Vec<Problem>,
    /// Where each field is written.
    pub source: Source,
}

/// Who the proxy is.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
    /// Free-form facts about it.
    pub metadata: Fields,
    /// Where it runs.
    pub locality: Locality,
    /// The same as requests carry it, with who is asking: `ieum` and its version.
    pub proto: core::Node,
}

/// Where a proxy runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone in it.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

/// The aggregated discovery service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ads {
    /// The static cluster it is reached through.
    pub cluster: String,
    /// `:authority` of its requests; the cluster's name unless said otherwise.
    pub authority: String,
    /// Delta rather than state of the world.
    pub delta: bool,
    /// gRPC metadata that each stream begins with.
    pub initial_metadata: Vec<(String, String)>,
    /// The node is sent with the first request of a stream only.
    pub node_on_first_only: bool,
}

/// Where a bootstrap's fields are written.
#[derive(Debug, Clone)]
pub struct Source {
    file: String,
    tree: yaml::Node,
}

impl Source {
    /// Names a problem with `field`, a path such as `static_resources.listeners[0].filter_chains[1]`.
    pub fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        let line = self.tree.line_of(field);
        Problem { file: self.file.clone(), line, field: field.to_owned(), message: message.into() }
    }
}

/// Something wrong in a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1; 0 when the file could not be read at all.
    pub line: u32,
    /// The field; empty when the text itself is at fault.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.field.is_empty() {
            write!(f, "`{}`: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong in a bootstrap; one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads a file.
pub fn read(path: &Path) -> Result<Bootstrap, Problems> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        Problems(vec![Problem { file: file.clone(), line: 0, field: String::new(), message }])
    })?;
    parse(&text, &file)
}

/// Reads a text; `file` is what problems call it.
pub fn parse(text: &str, file: &str) -> Result<Bootstrap, Problems> {
    let tree = yaml::parse(text).map_err(|(line, message)| {
        Problems(vec![Problem { file: file.to_owned(), line, field: String::new(), message }])
    })?;
    let source = Source { file: file.to_owned(), tree };
    if !source.tree.is_mapping() {
        return Err(Problems(vec![source.problem("", "a bootstrap is a mapping of fields, such as `node`")]));
    }
    match message::read(&source.tree) {
        Ok(message) => extract::extract(message, source),
        Err((field, message)) => Err(Problems(vec![source.problem(&field, message)])),
    }
}

#[cfg(test)]
#[path = "bootstrap/tests.rs"]
mod tests;
