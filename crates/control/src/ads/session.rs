//! One ADS stream from its first request to its end: answers requests, passes on new generations, keeps the books of
//! what the proxy runs, and renews its certificate if it gets one from us.

use super::asked::Asked;
use super::dialect::{Dialect, Request, Response, read_node};
use super::incoming::Requests;
use super::outgoing::{Outgoing, framed};
use super::proof::Proof;
use super::{Hub, MAX_NAMES};
use crate::event::Event;
use crate::generation::{Generation, View};
use crate::node::{ProxyKind, ProxyNode};
use crate::serve::{entropy, stopped};
use crate::status::{Connected, Counters, ProxyStatus, RejectionStatus, short_type, truncate};
use identity::rotation::{Rotation, Step};
use model::tls::WORKLOAD_CERTIFICATE;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tonic::Status;
use xds::codec::type_url::SECRET;
use xds::resources::{Names, ResourceSet, VersionedResource};
use xds::server::Rejection;

/// Unanswered responses whose acknowledgement is waited for; older ones are forgotten.
const MAX_OUTSTANDING: usize = 256;
/// Resources blamed for one refusal that names none.
const MAX_BLAMED: usize = 20;
/// Longest wait for the first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How stock Envoy calls itself.
const ENVOY: &str = "envoy";
/// Pause where no certificate has to be renewed.
const IDLE: Duration = Duration::from_secs(3600);

/// One stream.
pub(super) struct Session<D: Dialect> {
    hub: Arc<Hub>,
    stream: D,
    node: ProxyNode,
    proof: Proof,
    place: Connected,
    responses: Outgoing,
    revision: u64,
    view: Arc<View>,
    certificate: Option<(VersionedResource, Rotation)>,
    asked: Asked,
    /// The view's resources, the certificate, and what was asked for.
    set: Arc<ResourceSet>,
    /// By nonce, what was sent and not answered yet.
    outstanding: BTreeMap<String, Sent>,
}

struct Sent {
    type_url: String,
    version: String,
    changed: Vec<Names>,
    removed: Vec<String>,
}

impl Sent {
    fn has(&self, name: &str) -> bool {
        let changed = self.changed.iter().flat_map(|names| names.iter());
        changed
            .map(|known| &**known)
            .chain(self.removed.iter().map(String::as_str))
            .any(|known| known == name)
    }
}

/// Why a stream ends.
enum End {
    /// The client is gone, or does not listen.
    Gone,
    /// We end it, and tell why.
    Closed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Closed(status)
    }
}

impl<D: Dialect> Session<D> {
    /// Serves a stream until it ends.
    pub(super) async fn serve(
        hub: Arc<Hub>,
        proof: Proof,
        peer: String,
        is_local: bool,
        mut requests: Requests<D::Request>,
        responses: Outgoing,
    ) {
        let mut name = peer.clone();
        let ended = async {
            let first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await;
            let first = first.map_err(|_| Status::deadline_exceeded("no request came within 30 s"))?;
            let Ok(Some(mut first)) = first else { return Err(End::Gone) };
            let node = first
                .take_node()
                .ok_or_else(|| Status::invalid_argument("the first request says no `node`"))?;
            let is_envoy = node.user_agent_name == ENVOY;
            let node = read_node(&node).map_err(Status::invalid_argument)?;
            name = node.id.chars().take(200).collect();
            if !is_local && let Err(reason) = proof.identity_of(&node) {
                return Err(Status::permission_denied(reason).into());
            }
            let mut session = Self::open(hub.clone(), proof, peer, node, responses.clone());
            if is_envoy {
                session.stream.mind_envoy();
            }
            session.run(first, requests).await
        };
        if let Err(End::Closed(status)) = ended.await {
            let stopping = *hub.stop.borrow();
            if !stopping {
                let reason = status.message().to_owned();
                (hub.report)(Event::Closed { proxy: name.escape_debug().to_string(), reason });
            }
            let _ = responses.send(Err(status)).await;
        }
    }

    fn open(hub: Arc<Hub>, proof: Proof, peer: String, mut node: ProxyNode, responses: Outgoing) -> Self {
        if D::NAME != "delta" {
            // Whoever asks in the other dialect for one more name is told everything again.
            node.on_demand = Some(false);
        }
        let generation = hub.generations.borrow().clone();
        let view = generation.view(&node, None);
        let kind = match node.kind {
            ProxyKind::Sidecar => "sidecar",
            ProxyKind::Router => "gateway",
            ProxyKind::Grpc => "grpc",
        };
        let identity = match &proof {
            Proof::Identity(identity) => Some(identity.to_string()),
            Proof::Nothing(_) => None,
        };
        let status = ProxyStatus {
            id: node.id.clone(),
            kind: kind.to_owned(),
            peer,
            dialect: D::NAME,
            identity,
            connected_since: SystemTime::now(),
            offered_revision: generation.revision,
            served_revision: None,
            acked: BTreeMap::new(),
            rejections: Vec::new(),
            no_certificate: None,
        };
        let place = hub.proxies.join(status);
        let (revision, set) = (generation.revision, view.set.clone());
        Self {
            stream: D::new(MAX_NAMES),
            outstanding: BTreeMap::new(),
            certificate: None,
            asked: Asked::default(),
            hub,
            node,
            proof,
            place,
            responses,
            revision,
            view,
            set,
        }
    }

    async fn run(mut self, first: D::Request, mut requests: Requests<D::Request>) -> Result<(), End> {
        let mut generations = self.hub.generations.clone();
        let stop = stopped(self.hub.stop.clone());
        tokio::pin!(stop);
        // What changed since the view was taken is noticed at once.
        generations.mark_changed();
        self.answer(first).await?;
        let alarm = tokio::time::sleep(self.pause());
        tokio::pin!(alarm);
        loop {
            if self.certificate.is_some() || alarm.is_elapsed() {
                alarm.as_mut().reset(Instant::now() + self.pause());
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.answer(request).await?,
                    Ok(None) | Err(_) => return Err(End::Gone),
                },
                changed = generations.changed() => {
                    changed.map_err(|_| stopping())?;
                    let generation = generations.borrow_and_update().clone();
                    self.renew(&generation).await?;
                }
                () = &mut alarm => self.renew_certificate().await?,
                () = &mut stop => return Err(stopping().into()),
            }
        }
    }

    /// Answers one request and enters what it says into the books.
    async fn answer(&mut self, request: D::Request) -> Result<(), End> {
        if request.type_url() == SECRET
            && request.asks_for(WORKLOAD_CERTIFICATE)
            && self.certificate.is_none()
        {
            self.issue();
        }
        if self.asked.note(&request) && self.view.offer.is_some() {
            self.assemble();
        }
        let answered = self.outstanding.remove(request.nonce());
        if let (Some(sent), false) = (&answered, request.is_refusal()) {
            self.enter_acknowledgement(sent);
        }
        let responses =
            self.stream.request(request, &self.set).map_err(|e| Status::resource_exhausted(e.to_string()))?;
        for rejection in self.stream.take_rejections() {
            self.enter_refusal(rejection);
        }
        for response in responses {
            self.send(response).await?;
        }
        self.enter_served();
        Ok(())
    }

    /// Passes a new generation on.
    async fn renew(&mut self, generation: &Generation) -> Result<(), End> {
        if generation.revision == self.revision {
            return Ok(());
        }
        self.revision = generation.revision;
        self.view = generation.view(&self.node, Some(&self.view));
        self.send_changes().await?;
        self.place.status().offered_revision = self.revision;
        self.enter_served();
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), End> {
        self.assemble();
        for response in self.stream.change(&self.set) {
            self.send(response).await?;
        }
        Ok(())
    }

    /// Puts together what this client is served by now.
    fn assemble(&mut self) {
        if self.certificate.is_none() && self.view.offer.is_none() {
            self.set = self.view.set.clone();
            return;
        }
        let mut set = ResourceSet::clone(&self.view.set);
        if let Some((certificate, _)) = &self.certificate {
            set.insert_shared(SECRET, WORKLOAD_CERTIFICATE, certificate.clone());
        }
        if let Some(offer) = &self.view.offer {
            self.asked.add_to(&mut set, offer);
        }
        self.set = Arc::new(set);
    }

    async fn send(&mut self, response: D::Response) -> Result<(), End> {
        let counters = &self.hub.proxies.counters;
        Counters::add(&counters.pushes, 1);
        Counters::add(&counters.resources, response.size());
        let sent = Sent {
            type_url: response.type_url().to_owned(),
            version: response.version().to_owned(),
            changed: response.changed().to_vec(),
            removed: response.removed().to_vec(),
        };
        self.outstanding.insert(response.nonce().to_owned(), sent);
        if self.outstanding.len() > MAX_OUTSTANDING {
            self.outstanding.pop_first();
        }
        self.responses.send(Ok(framed(response.into_parts()))).await.map_err(|_| End::Gone)
    }

    fn enter_acknowledgement(&mut self, sent: &Sent) {
        // In the state-of-the-world dialect only the last response of a type is answered.
        self.outstanding.retain(|_, other| D::NAME == "delta" || other.type_url != sent.type_url);
        let mut status = self.place.status();
        status.acked.insert(sent.type_url.clone(), sent.version.clone());
        match D::NAME {
            "delta" => status.accept(&sent.type_url, |name| sent.has(name)),
            _ => status.rejections.retain(|r| r.type_url != sent.type_url),
        }
    }

    fn enter_refusal(&mut self, mut rejection: Rejection) {
        Counters::add(&self.hub.proxies.counters.refusals, 1);
        truncate(&mut rejection.message);
        let Rejection { type_url, names, message } = rejection;
        let mentioned: BTreeSet<&String> = names.iter().filter(|name| message.contains(*name)).collect();
        let blamed = if mentioned.is_empty() { names.iter().collect() } else { mentioned };
        for resource in blamed.into_iter().take(MAX_BLAMED) {
            let provenance = self.view.provenance(&self.node, &type_url, resource, &message);
            (self.hub.report)(Event::Refused {
                proxy: self.node.id.clone(),
                kind: short_type(&type_url).to_owned(),
                resource: resource.clone(),
                message: message.clone(),
                provenance: provenance.clone(),
            });
            self.place.status().reject(RejectionStatus {
                type_url: type_url.clone(),
                resource: resource.clone(),
                message: message.clone(),
                provenance,
            });
        }
    }

    /// A proxy runs a revision when it has acknowledged everything it was sent and refuses nothing.
    fn enter_served(&mut self) {
        let mut status = self.place.status();
        if self.outstanding.is_empty() && status.rejections.is_empty() && !status.acked.is_empty() {
            status.served_revision = Some(self.revision);
        }
    }

    /// Makes a certificate, if the client may have one.
    fn issue(&mut self) {
        let now = SystemTime::now();
        let counters = &self.hub.proxies.counters;
        let issued = self.proof.identity_of(&self.node).and_then(|identity| {
            self.hub.issuer.issue(identity, now, entropy()).map_err(|error| error.to_string())
        });
        match issued {
            Ok(issued) => {
                Counters::add(&counters.certificates, 1);
                self.certificate = Some((issued.resource, issued.rotation));
                self.assemble();
                self.place.status().no_certificate = None;
            }
            Err(reason) => {
                Counters::add(&counters.denials, 1);
                let is_new =
                    self.place.status().no_certificate.replace(reason.clone()).as_ref() != Some(&reason);
                if is_new {
                    (self.hub.report)(Event::NoCertificate { proxy: self.node.id.clone(), reason });
                }
            }
        }
    }

    /// How long the certificate needs no attention.
    fn pause(&mut self) -> Duration {
        match &mut self.certificate {
            None => IDLE,
            Some((_, rotation)) => match rotation.advance(SystemTime::now()) {
                Step::Wait(pause) => pause,
                Step::Renew | Step::Alarm(_) => Duration::ZERO,
            },
        }
    }

    async fn renew_certificate(&mut self) -> Result<(), End> {
        let now = SystemTime::now();
        let Some((_, rotation)) = &mut self.certificate else { return Ok(()) };
        if !matches!(rotation.advance(now), Step::Renew) {
            return Ok(());
        }
        let Ok(identity) = self.proof.identity_of(&self.node) else { return Ok(()) };
        match self.hub.issuer.issue(identity, now, entropy()) {
            Ok(issued) => {
                Counters::add(&self.hub.proxies.counters.certificates, 1);
                self.certificate = Some((issued.resource, issued.rotation));
                self.send_changes().await
            }
            Err(error) => {
                rotation.failed(now, entropy());
                let text = format!("certificate of {} is not renewed: {error}", self.node.id);
                (self.hub.report)(Event::Authority(text));
                Ok(())
            }
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping")
}
