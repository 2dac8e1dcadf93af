//! Workloads obtaining and renewing their identity from a served authority: TLS, gRPC, files and clock are real.
#![allow(clippy::unwrap_used)]

mod common;

use common::{HOUR, Mesh, id, mesh};
use identity::certificate::{CertificateFacts, parse_chain};
use identity::config::server_config;
use identity::handshake;
use identity::istio_ca::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateServer, IstioCertificateService,
};
use identity::workload::{Event, JoinToken, WorkloadOptions, WorkloadSecrets, run};
use ieum_ca::service::CertificateService;
use ieum_ca::tokens::{JoinTokens, TokenError};
use model::tls::{DownstreamTls, SecretContent, SecretSource};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

const BOUND: Duration = Duration::from_secs(20);
const CA_NAME: &str = "istiod.istio-system.svc";

/// A served authority; it stops when dropped.
struct ServedCa {
    mesh: Mesh,
    address: String,
    tokens: Arc<JoinTokens>,
    tasks: Vec<AbortHandle>,
}

impl Drop for ServedCa {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The service, which can be told to lose the next answer on its way.
struct Lossy {
    service: CertificateService,
    lose_next: Arc<AtomicBool>,
}

impl IstioCertificateService for Lossy {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let answer = self.service.create_certificate(request).await;
        match self.lose_next.swap(false, Ordering::SeqCst) {
            true => Err(Status::unavailable("the answer was lost")),
            false => answer,
        }
    }
}

impl ServedCa {
    async fn start(max_lifetime: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, mesh(), max_lifetime, Arc::default())
    }

    fn on(listener: TcpListener, mesh: Mesh, max_lifetime: Duration, lose_next: Arc<AtomicBool>) -> Self {
        let now = SystemTime::now();
        let pair = mesh.authority.control_plane_certificate(&id("istiod"), &[CA_NAME], HOUR, now).unwrap();
        let tls = DownstreamTls {
            tickets: true,
            certificates: vec![SecretSource::Inline(pair)],
            require_client_certificate: false,
            ..mesh.server("istiod")
        };
        let tls = server_config(&tls, &|_| None).unwrap();
        let authority =
            ieum_ca::authority::Authority::open(&mesh.dir.path().join("ca"), "cluster.local", now).unwrap();
        let tokens = Arc::new(JoinTokens::new(100));
        let service = CertificateService::new(Arc::new(authority), tokens.clone(), max_lifetime);
        let address = listener.local_addr().unwrap().to_string();
        let (streams, incoming) = mpsc::channel(10);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, streams) = (tls.clone(), streams.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = handshake::accept(stream, tls).await {
                        let _ = streams.send(Ok::<_, std::io::Error>(stream)).await;
                    }
                });
            }
        });
        let serving = tonic::transport::Server::builder()
            .add_service(IstioCertificateServer::new(Lossy { service, lose_next }))
            .serve_with_incoming(ReceiverStream::new(incoming));
        let serving = tokio::spawn(serving);
        Self { mesh, address, tokens, tasks: vec![accepting.abort_handle(), serving.abort_handle()] }
    }

    fn token(&self, account: &str) -> Option<JoinToken> {
        Some(JoinToken::Inline(self.tokens.mint(id(account), HOUR, SystemTime::now()).unwrap()))
    }

    fn options(&self, name: &str, join_token: Option<JoinToken>) -> WorkloadOptions {
        WorkloadOptions {
            ca_address: self.address.clone(),
            ca_roots_pem: self.mesh.authority.roots_pem().as_bytes().to_vec(),
            ca_server_name: CA_NAME.to_owned(),
            join_token,
            state_dir: self.state_dir(name),
            lifetime: HOUR,
        }
    }

    fn state_dir(&self, name: &str) -> PathBuf {
        self.mesh.dir.path().join(name)
    }
}

/// A running workload; it stops when dropped.
struct Workload {
    secrets: watch::Receiver<Option<Arc<WorkloadSecrets>>>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Workload {
    fn start(options: WorkloadOptions) -> Self {
        let (publish, secrets) = watch::channel(None);
        let (report, events) = mpsc::unbounded_channel();
        tokio::spawn(run(options, publish, move |event| {
            let _ = report.send(event);
        }));
        Self { secrets, events }
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(BOUND, self.events.recv()).await.unwrap().unwrap()
    }

    /// The next certificate; anything else that happens before is a failure.
    async fn issued(&mut self) -> CertificateFacts {
        match self.event().await {
            Event::Issued(facts) => facts,
            other => panic!("{other}"),
        }
    }

    async fn failure(&mut self) -> String {
        match self.event().await {
            event @ Event::Failed { .. } => event.to_string(),
            other => panic!("{other}"),
        }
    }

    async fn secrets(&mut self) -> Arc<WorkloadSecrets> {
        let held = tokio::time::timeout(BOUND, self.secrets.wait_for(Option::is_some)).await.unwrap();
        held.unwrap().clone().unwrap()
    }
}

#[tokio::test]
async fn a_token_becomes_a_certificate_and_a_private_file() {
    let ca = ServedCa::start(HOUR).await;
    let mut workload = Workload::start(ca.options("web", ca.token("web")));
    assert_eq!(workload.issued().await.spiffe, Some(id("web").to_string()));
    let secrets = workload.secrets().await;
    assert_eq!(
        (secrets.certificate.name.as_str(), secrets.trust_bundle.name.as_str()),
        ("default", "ROOTCA")
    );
    let SecretContent::TrustBundle(roots) = &secrets.trust_bundle.content else { panic!("{secrets:?}") };
    assert_eq!(roots, ca.mesh.authority.roots_pem().as_bytes());
    let file = ca.state_dir("web").join("workload-identity.json");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn short_lived_certificates_are_renewed_again_and_again_without_the_token() {
    let ca = ServedCa::start(Duration::from_secs(1)).await;
    let mut workload = Workload::start(ca.options("web", ca.token("web")));
    let mut serials = std::collections::HashSet::new();
    for _ in 0..4 {
        let facts = workload.issued().await;
        assert_eq!(facts.spiffe, Some(id("web").to_string()));
        assert!(facts.not_after > SystemTime::now(), "renewed in time");
        serials.insert(facts.serial);
    }
    assert_eq!(serials.len(), 4);
}

#[tokio::test]
async fn a_restart_needs_neither_token_nor_ca_while_the_saved_certificate_is_valid() {
    let ca = ServedCa::start(HOUR).await;
    let first = Workload::start(ca.options("web", ca.token("web"))).secrets().await;
    let mut options = ca.options("web", None);
    options.ca_address = "127.0.0.1:1".to_owned();
    let mut again = Workload::start(options);
    assert!(matches!(again.event().await, Event::Restored(_)));
    assert_eq!(again.secrets().await, first);
}

#[tokio::test]
async fn a_restarted_workload_renews_with_its_saved_certificate() {
    let ca = ServedCa::start(Duration::from_secs(2)).await;
    let first = Workload::start(ca.options("web", ca.token("web"))).secrets().await;
    let mut again = Workload::start(ca.options("web", None));
    assert!(matches!(again.event().await, Event::Restored(_)));
    let renewed = again.issued().await;
    assert_eq!(renewed.spiffe, first.facts.spiffe);
    assert_ne!(renewed.serial, first.facts.serial);
}

#[tokio::test]
async fn a_spent_token_is_told_so_and_a_new_one_in_its_file_is_picked_up() {
    let ca = ServedCa::start(HOUR).await;
    let token = ca.tokens.mint(id("web"), HOUR, SystemTime::now()).unwrap();
    let file = ca.mesh.dir.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    Workload::start(ca.options("web", Some(JoinToken::File(file.clone())))).secrets().await;
    // The same token for a workload with another key.
    let mut thief = Workload::start(ca.options("elsewhere", Some(JoinToken::File(file.clone()))));
    let failure = thief.failure().await;
    assert!(
        failure.contains("join token for `spiffe://cluster.local/ns/shop/sa/web` has already been used"),
        "{failure}"
    );
    assert!(!failure.contains(&token));
    std::fs::write(&file, ca.tokens.mint(id("late"), HOUR, SystemTime::now()).unwrap()).unwrap();
    let issued = loop {
        match thief.event().await {
            Event::Issued(facts) => break facts,
            Event::Failed { .. } => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(issued.spiffe, Some(id("late").to_string()));
}

#[tokio::test]
async fn a_lost_answer_does_not_strand_the_workload() {
    let lose_next = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = ServedCa::on(listener, mesh(), HOUR, lose_next);
    let mut workload = Workload::start(ca.options("web", ca.token("web")));
    assert!(workload.failure().await.contains("the answer was lost"));
    assert_eq!(workload.issued().await.spiffe, Some(id("web").to_string()));
}

#[tokio::test]
async fn a_ca_that_comes_later_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mesh = mesh();
    let tokens_dir = tempfile::tempdir().unwrap();
    let file = tokens_dir.path().join("token");
    std::fs::write(&file, "not yet").unwrap();
    let mut workload = Workload::start(WorkloadOptions {
        ca_address: address.to_string(),
        ca_roots_pem: mesh.authority.roots_pem().as_bytes().to_vec(),
        ca_server_name: CA_NAME.to_owned(),
        join_token: Some(JoinToken::File(file.clone())),
        state_dir: tokens_dir.path().join("state"),
        lifetime: HOUR,
    });
    let failure = workload.failure().await;
    assert!(failure.contains("cannot be reached") && failure.contains("refused"), "{failure}");
    let ca = ServedCa::on(TcpListener::bind(address).await.unwrap(), mesh, HOUR, Arc::default());
    std::fs::write(&file, ca.tokens.mint(id("web"), HOUR, SystemTime::now()).unwrap()).unwrap();
    assert_eq!(workload.secrets().await.facts.spiffe, Some(id("web").to_string()));
}

#[tokio::test]
async fn an_impostor_does_not_get_to_see_the_token() {
    let (ca, impostor) = (ServedCa::start(HOUR).await, ServedCa::start(HOUR).await);
    let token = ca.tokens.mint(id("web"), HOUR, SystemTime::now()).unwrap();
    let mut options = ca.options("web", Some(JoinToken::Inline(token.clone())));
    options.ca_address = impostor.address.clone();
    let failure = Workload::start(options.clone()).failure().await;
    assert!(failure.contains("was issued by an authority that is not trusted here"), "{failure}");
    // A workload of the right mesh is no CA either.
    options.ca_address = ca.address.clone();
    options.ca_server_name = "ca.other.svc".to_owned();
    let failure = Workload::start(options).failure().await;
    assert!(failure.contains("expected DNS `ca.other.svc`"), "{failure}");
    assert_eq!(ca.tokens.redeem(&token, &[0; 32], SystemTime::now()), Ok(id("web")), "still unspent");
}

#[tokio::test]
async fn a_damaged_saved_identity_is_reported_and_replaced() {
    let ca = ServedCa::start(HOUR).await;
    std::fs::create_dir(ca.state_dir("web")).unwrap();
    std::fs::write(ca.state_dir("web").join("workload-identity.json"), "{").unwrap();
    let mut workload = Workload::start(ca.options("web", ca.token("web")));
    assert!(matches!(workload.event().await, Event::NotRestored { .. }));
    workload.issued().await;
}

#[tokio::test]
async fn two_roots_reach_the_workload_during_a_root_change() {
    let (mesh, next) = (mesh(), common::mesh());
    std::fs::write(mesh.dir.path().join("ca/also-trusted.pem"), next.authority.roots_pem()).unwrap();
    let ca = ServedCa::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), mesh, HOUR, Arc::default());
    let secrets = Workload::start(ca.options("web", ca.token("web"))).secrets().await;
    let SecretContent::TrustBundle(roots) = &secrets.trust_bundle.content else { panic!("{secrets:?}") };
    assert_eq!(parse_chain(roots).unwrap().len(), 2);
}

fn ask(csr: &str, validity_s: i64, authorization: Option<&str>) -> Request<IstioCertificateRequest> {
    let body = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: validity_s, metadata: None };
    let mut request = Request::new(body);
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn refusals_have_the_right_code_and_a_broken_request_spends_nothing() {
    let mesh = mesh();
    let tokens = Arc::new(JoinTokens::new(10));
    let service = CertificateService::new(Arc::new(mesh.authority), tokens.clone(), HOUR);
    let token = tokens.mint(id("web"), HOUR, SystemTime::now()).unwrap();
    let bearer = format!("Bearer {token}");
    let csr = identity::csr::generate(None).unwrap().csr_pem;
    for (request, code, says) in [
        (ask(&csr, 60, None), Code::Unauthenticated, "client certificate or `authorization"),
        (ask(&csr, 60, Some("Basic x")), Code::Unauthenticated, "not of the form"),
        (ask(&csr, 60, Some("Bearer invented")), Code::Unauthenticated, "not known here"),
        (ask("nonsense", 60, Some(&bearer)), Code::InvalidArgument, "not PKCS#10"),
        (ask(&csr, -1, Some(&bearer)), Code::InvalidArgument, "negative"),
    ] {
        let status = service.create_certificate(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    service.create_certificate(ask(&csr, 60, Some(&bearer))).await.unwrap();
    let other = tokens.redeem(&token, &[0; 32], SystemTime::now());
    assert!(matches!(other, Err(TokenError::Spent { .. })));
}

#[tokio::test]
async fn a_lifetime_is_what_was_wished_for_but_no_more_than_allowed() {
    let mesh = mesh();
    let tokens = Arc::new(JoinTokens::new(10));
    let token = tokens.mint_reusable(id("web"), HOUR, SystemTime::now()).unwrap();
    let service = CertificateService::new(Arc::new(mesh.authority), tokens, HOUR);
    let csr = identity::csr::generate(None).unwrap().csr_pem;
    for (wish_s, granted_s) in [(0, 3600), (60, 60), (i64::MAX, 3600)] {
        let request = ask(&csr, wish_s, Some(&format!("bearer {token}")));
        let answer = service.create_certificate(request).await.unwrap().into_inner();
        let leaf = parse_chain(answer.cert_chain[0].as_bytes()).unwrap();
        let facts = identity::certificate::facts(&leaf[0]).unwrap();
        let life = facts.not_after.duration_since(SystemTime::now()).unwrap().as_secs_f64();
        assert!((life - f64::from(granted_s)).abs() < 2.0, "{wish_s}: {life}");
    }
}
