//! The life of a workload's identity: restored from disk or asked for with a join token, published as the secrets
//! `default` and `ROOTCA`, renewed by mutual TLS with the current certificate, kept on disk.
//!
//! When to renew is `rotation`'s decision. What a failed renewal means for traffic is nobody's decision: the last
//! certificate stays published, and peers refuse it when it expires.

use crate::ca_connection::{CaError, CertificateAuthority, Proof};
use crate::certificate::CertificateFacts;
use crate::config;
use crate::csr::{self, KeyAndRequest};
use crate::rotation::{Alarm, Rotation, Step};
use crate::saved_identity::{self, SavedIdentity};
use model::tls::{CertificatePair, Secret, SecretContent, WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Longest wait for the CA to connect, and again to answer. A short-lived certificate waits less.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a workload must know to obtain its identity.
#[derive(Clone)]
pub struct WorkloadOptions {
    /// The CA, as `host:port`.
    pub ca_address: String,
    /// Authorities that may have signed the CA's own certificate, PEM. Those the CA hands out later are trusted as well.
    pub ca_roots_pem: Vec<u8>,
    /// DNS name the CA's certificate must have, such as `istiod.istio-system.svc`.
    pub ca_server_name: String,
    /// Proof for the first certificate; not needed while a saved one is valid.
    pub join_token: Option<JoinToken>,
    /// Directory in which the identity is kept, for this workload alone.
    pub state_dir: PathBuf,
    /// Lifetime asked for; the CA may give less.
    pub lifetime: Duration,
}

/// Where the join token is.
#[derive(Clone)]
pub enum JoinToken {
    /// The token itself.
    Inline(String),
    /// A file that holds it, read anew at each attempt, so that a spent token can be replaced.
    File(PathBuf),
}

impl JoinToken {
    async fn read(&self) -> Result<String, RenewalError> {
        let text = match self {
            Self::Inline(token) => token.clone(),
            Self::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|e| RenewalError::Token(format!("join token file `{}`: {e}", path.display())))?,
        };
        Ok(text.trim().to_owned())
    }
}

/// A workload's identity as configuration refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSecrets {
    /// The secret `default`: chain and key.
    pub certificate: Secret,
    /// The secret `ROOTCA`: the mesh's authorities, several during a root change.
    pub trust_bundle: Secret,
    /// What the certificate says.
    pub facts: CertificateFacts,
}

/// Something that happened to the identity; its text is a log line.
#[derive(Debug)]
pub enum Event {
    /// A saved identity is in use.
    Restored(CertificateFacts),
    /// A saved identity cannot be used; a new one is asked for.
    NotRestored {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Others could read the saved key until now.
    KeyWasExposed {
        /// The file.
        path: PathBuf,
    },
    /// A new certificate is in use.
    Issued(CertificateFacts),
    /// The new identity could not be written; it is in use all the same.
    NotSaved {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No certificate this time.
    Failed {
        /// Why not.
        reason: String,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
    /// The certificate in use is about to expire, or has.
    Alarm(Alarm, CertificateFacts),
}

impl Event {
    /// Whether someone should look into it.
    pub fn is_problem(&self) -> bool {
        !matches!(self, Self::Restored(_) | Self::Issued(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored(facts) => write!(f, "identity restored: {facts}"),
            Self::NotRestored { path, reason } => {
                write!(f, "saved identity `{}` is not used: {reason}", path.display())
            }
            Self::KeyWasExposed { path } => {
                write!(f, "saved identity `{}` could be read by others; its mode is now 0600", path.display())
            }
            Self::Issued(facts) => write!(f, "identity issued: {facts}"),
            Self::NotSaved { path, reason } => {
                write!(
                    f,
                    "identity could not be saved to `{}`: {reason}; a restart needs a join token",
                    path.display()
                )
            }
            Self::Failed { reason, retry_in } => {
                write!(f, "identity not obtained: {reason}; next attempt in {:.1} s", retry_in.as_secs_f64())
            }
            Self::Alarm(Alarm::QuarterLeft, facts) => {
                write!(f, "{facts} has less than a quarter of its life left and could not be renewed")
            }
            Self::Alarm(Alarm::Expired, facts) => write!(f, "{facts} HAS EXPIRED; peers refuse it"),
        }
    }
}

/// Keeps the identity alive until nobody receives from `publish` any more. Spawn it.
///
/// `publish` holds `None` until there is an identity, and afterwards the newest one.
pub async fn run<R>(options: WorkloadOptions, publish: watch::Sender<Option<Arc<WorkloadSecrets>>>, report: R)
where
    R: Fn(Event) + Send,
{
    let mut workload = Workload { options, publish, report, current: None, pending: None };
    let mut rotation = workload.restore().await;
    loop {
        match rotation.advance(SystemTime::now()) {
            Step::Wait(pause) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = workload.publish.closed() => return,
                }
            }
            Step::Alarm(alarm) => workload.alarm(alarm),
            Step::Renew => match workload.renew(&rotation).await {
                Ok(renewed) => rotation = renewed,
                Err(error) => {
                    let retry_in = rotation.failed(SystemTime::now(), entropy());
                    (workload.report)(Event::Failed { reason: error.to_string(), retry_in });
                }
            },
        }
    }
}

struct Workload<R> {
    options: WorkloadOptions,
    publish: watch::Sender<Option<Arc<WorkloadSecrets>>>,
    report: R,
    current: Option<(SavedIdentity, CertificateFacts)>,
    /// The key of a request not yet answered. It is kept over retries: when only the answer was lost, the CA accepts the
    /// spent token once more for the same key.
    pending: Option<KeyAndRequest>,
}

impl<R: Fn(Event)> Workload<R> {
    async fn restore(&mut self) -> Rotation {
        let path = saved_identity::path(&self.options.state_dir);
        let state_dir = self.options.state_dir.clone();
        let loaded = tokio::task::spawn_blocking(move || saved_identity::load(&state_dir)).await;
        let reason = match loaded {
            Ok(Ok(None)) => return Rotation::without_certificate(),
            Ok(Ok(Some((identity, was_exposed)))) => {
                if was_exposed {
                    (self.report)(Event::KeyWasExposed { path: path.clone() });
                }
                match config::check_identity(&identity.pair, &identity.roots_pem, SystemTime::now()) {
                    Ok(facts) => {
                        (self.report)(Event::Restored(facts.clone()));
                        return self.adopt(identity, facts);
                    }
                    Err(reason) => reason,
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        (self.report)(Event::NotRestored { path, reason });
        Rotation::without_certificate()
    }

    async fn renew(&mut self, rotation: &Rotation) -> Result<Rotation, RenewalError> {
        let request = match self.pending.take() {
            Some(request) => request,
            None => csr::generate(None).map_err(|e| RenewalError::Unusable(e.to_string()))?,
        };
        let answer = self.ask(&request, rotation).await;
        let (chain, key_pem) = match answer {
            Ok(chain) => (chain, request.key_pem),
            Err(error) => {
                self.pending = Some(request);
                return Err(error);
            }
        };
        let Some((roots, chain)) = chain.split_last().filter(|(_, chain)| !chain.is_empty()) else {
            return Err(RenewalError::Unusable("the CA sent no chain with roots".to_owned()));
        };
        let pair = CertificatePair { chain_pem: join_pem(chain), key_pem: key_pem.into_bytes() };
        let identity =
            SavedIdentity { pair, roots_pem: roots.clone().into_bytes(), obtained: SystemTime::now() };
        let facts = config::check_identity(&identity.pair, &identity.roots_pem, identity.obtained)
            .map_err(RenewalError::Unusable)?;
        self.save(&identity).await;
        (self.report)(Event::Issued(facts.clone()));
        Ok(self.adopt(identity, facts))
    }

    /// Asks with the current certificate while it is valid; with the join token otherwise, or when that was refused.
    async fn ask(&self, request: &KeyAndRequest, rotation: &Rotation) -> Result<Vec<String>, RenewalError> {
        let options = &self.options;
        let current = self.current.as_ref().map(|(identity, _)| identity);
        let own_roots = current.map(|identity| identity.roots_pem.as_slice()).unwrap_or_default();
        let authority = CertificateAuthority {
            address: &options.ca_address,
            server_name: &options.ca_server_name,
            roots_pem: [options.ca_roots_pem.as_slice(), b"\n", own_roots].concat(),
            timeout: (options.lifetime / 4).clamp(Duration::from_secs(1), LONGEST_TIMEOUT),
        };
        let mut refused = None;
        if let Some(identity) = current.filter(|_| rotation.holds_valid(SystemTime::now())) {
            let proof = Proof::Certificate(&identity.pair);
            match authority.certify(proof, &request.csr_pem, options.lifetime).await {
                Err(error @ CaError::Refused(..)) if options.join_token.is_some() => refused = Some(error),
                answer => return answer.map_err(RenewalError::Ca),
            }
        }
        let Some(token) = &options.join_token else {
            return Err(RenewalError::Token(
                "there is neither a valid certificate nor a join token".to_owned(),
            ));
        };
        let token = token.read().await?;
        let answer = authority.certify(Proof::Token(&token), &request.csr_pem, options.lifetime).await;
        // With both refused, the certificate's refusal is the one to look into: a token is expected to be spent.
        answer.map_err(|error| RenewalError::Ca(refused.unwrap_or(error)))
    }

    async fn save(&self, identity: &SavedIdentity) {
        let (state_dir, identity) = (self.options.state_dir.clone(), identity.clone());
        let saved = tokio::task::spawn_blocking(move || saved_identity::save(&state_dir, &identity)).await;
        let reason = match saved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        (self.report)(Event::NotSaved { path: saved_identity::path(&self.options.state_dir), reason });
    }

    fn adopt(&mut self, identity: SavedIdentity, facts: CertificateFacts) -> Rotation {
        let secret = |name: &str, content| Secret { name: name.to_owned(), content };
        let secrets = WorkloadSecrets {
            certificate: secret(WORKLOAD_CERTIFICATE, SecretContent::Certificate(identity.pair.clone())),
            trust_bundle: secret(
                WORKLOAD_TRUST_BUNDLE,
                SecretContent::TrustBundle(identity.roots_pem.clone()),
            ),
            facts: facts.clone(),
        };
        self.publish.send_replace(Some(Arc::new(secrets)));
        let rotation = Rotation::new(identity.obtained, facts.not_after, entropy());
        self.current = Some((identity, facts));
        rotation
    }

    fn alarm(&self, alarm: Alarm) {
        if let Some((_, facts)) = &self.current {
            (self.report)(Event::Alarm(alarm, facts.clone()));
        }
    }
}

/// PEM texts one after the other, each ending its line.
fn join_pem(parts: &[String]) -> Vec<u8> {
    let mut joined = String::new();
    for part in parts {
        joined.push_str(part);
        if !part.ends_with('\n') {
            joined.push('\n');
        }
    }
    joined.into_bytes()
}

/// Spreads workloads in time; without randomness they merely spread less.
fn entropy() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Why a renewal failed.
#[derive(Debug)]
enum RenewalError {
    Ca(CaError),
    Token(String),
    Unusable(String),
}

impl fmt::Display for RenewalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(error) => write!(f, "{error}"),
            Self::Token(reason) => f.write_str(reason),
            Self::Unusable(reason) => write!(f, "the new identity cannot be used: {reason}"),
        }
    }
}
