//! The journey of a request, in order: one snapshot, the head made canonical, the route, the action, the record.
//!
//! Every stage takes the part it needs and returns facts; one [`Exchange`](crate::record::Exchange) carries them to the
//! record when the answer's body ends. What happens to a connection is `connection`'s, to an endpoint `upstream`'s.

mod affinity;
mod answer;
mod cors;
mod edits;
mod fault;
mod forward;
mod guards;
mod head;
mod limits;
mod local_reply;
mod mirror;
mod mutations;
mod permit;
mod passing;
mod quoted;
mod relay;
mod retrying;
mod rewriting;
mod session;
mod tries;
mod tunnel;
mod waiting;

pub use answer::{AnswerBody, BodyError};
pub use tunnel::Tunnel;

use crate::failure::Failure;
use crate::local::Local;
use crate::record::{ConnectionRecord, Exchange, RequestRecord, RouteTaken};
use crate::snapshot::{HttpState, NetworkState, Snapshot};
use crate::wire::Incoming;
use answer::{Answer, Refusal, UNPROCESSED};
use edits::Edits;
use head::Head;
use http::{HeaderValue, Request, Response};
use model::route::Action;
use model::routing::{Found, NoRoute};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// What the requests of one connection share.
pub struct Context {
    /// The thread's belongings.
    pub local: Rc<Local>,
    /// The listener it came in at.
    pub listener: Box<str>,
    /// The connection.
    pub connection: Arc<ConnectionRecord>,
    /// The peer's address, as `x-forwarded-for` writes it.
    peer: HeaderValue,
    current: RefCell<(Arc<Snapshot>, Arc<HttpState>)>,
}

impl Context {
    /// The context of a connection that chose `http`, as compiled in `snapshot`.
    pub fn new(
        local: Rc<Local>,
        listener: &str,
        connection: Arc<ConnectionRecord>,
        snapshot: Arc<Snapshot>,
        http: Arc<HttpState>,
    ) -> Rc<Self> {
        let current = RefCell::new((snapshot, http));
        // An address is always proper in a header.
        let peer = HeaderValue::from_str(&connection.remote.ip().to_string());
        let peer = peer.unwrap_or(HeaderValue::from_static("unknown"));
        Rc::new(Self { local, listener: listener.into(), connection, peer, current })
    }

    /// What is configured for this connection's listener.
    pub(crate) fn http(&self) -> Arc<HttpState> {
        self.current().1
    }

    /// The snapshot in force, and what it says of this connection's listener. A listener or chain that is gone goes on
    /// for the connections it has.
    fn current(&self) -> (Arc<Snapshot>, Arc<HttpState>) {
        let snapshot = self.local.snapshot();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&current.0, &snapshot) {
            let chain = snapshot.listeners.get(&*self.listener);
            let chain = chain.and_then(|l| l.chain_named(&self.connection.chain));
            if let Some(NetworkState::Http(http)) = chain.map(|c| &c.network) {
                current.1 = http.clone();
            }
            current.0 = snapshot;
        }
        (current.0.clone(), current.1.clone())
    }
}

/// Answers one request. It always has an answer; what breaks off later breaks off the answer's body.
pub async fn serve(context: &Rc<Context>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (snapshot, http) = context.current();
    let (mut parts, body) = request.into_parts();
    let random = || context.local.random();
    let exceeded = relay::exceeded(&http.manager.heads, &parts.headers);
    let (mut head, refused) =
        Head::new(&mut parts, &http.manager, &context.connection, &context.peer, random);
    relay::append_via(&mut parts.headers, &http.manager.via);
    let exchange = http.recorder.begin(&context.connection, &record(&head, &parts));
    mutations::mutate_early(&http.manager.early_edits, &exchange, &mut head, &mut parts);
    let quoted = quoted::quote(&http.manager, &head, &parts);
    let refusal = Refusal::new(&head, &parts.headers);
    let stage = Stage {
        context,
        snapshot: &snapshot,
        http: &http,
        head,
        refusal,
        quoted,
        requoted: OnceCell::new(),
        grant: OnceCell::new(),
    };
    match exceeded.or(refused) {
        Some(failure) => stage.refuse(exchange, failure.into()),
        None if stage.head.redirects => stage.send_to_canonical(exchange, &parts),
        None => match stage.routed(exchange, parts, body).await {
            Ok(answer) => answer,
            Err(unrouted) => Box::pin(stage.route_again(*unrouted)).await,
        },
    }
}

fn record<'a>(head: &'a Head, parts: &'a http::request::Parts) -> RequestRecord<'a> {
    RequestRecord {
        method: &parts.method,
        target: &head.target,
        authority: &head.authority,
        scheme: head.scheme,
        version: parts.version,
        headers: &parts.headers,
        id: &head.id,
        client: head.client,
    }
}

/// Why a request is answered here.
struct Cause {
    failure: Failure,
    /// A sentence for the log.
    detail: Option<String>,
    /// It would have been tried again, had a try been left.
    exhausted: bool,
    /// No application can have begun with the request.
    unprocessed: bool,
}

impl Cause {
    fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self { failure, detail: Some(detail.into()), exhausted: false, unprocessed: false }
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        Self { failure, detail: None, exhausted: false, unprocessed: false }
    }
}

fn no_route(missing: NoRoute) -> Failure {
    match missing {
        NoRoute::UnknownHost => Failure::UnknownHost,
        NoRoute::NoMatch => Failure::NoRoute,
    }
}

/// Adds Envoy's flag for "retry limit exceeded".
fn with_retries_exhausted(flags: &'static str) -> &'static str {
    match flags {
        "UF" => "UF,URX",
        "UC" => "UC,URX",
        "UT" => "UT,URX",
        "UPE" => "UPE,URX",
        "-" => "URX",
        other => other,
    }
}

/// A request whose virtual host is not there and can be asked for.
struct Unrouted {
    exchange: Box<Exchange>,
    parts: http::request::Parts,
    body: Incoming,
    /// The name to ask for.
    host: String,
}

/// What every stage after the head may look at.
struct Stage<'s> {
    context: &'s Rc<Context>,
    snapshot: &'s Arc<Snapshot>,
    http: &'s Arc<HttpState>,
    head: Head,
    refusal: Refusal,
    /// The head as it came in, where something may quote it.
    quoted: Option<Box<quoted::Quoted>>,
    /// The same as it is sent on.
    requoted: OnceCell<Box<quoted::Quoted>>,
    /// Leave for another origin's page to read the answer.
    grant: OnceCell<Box<cors::Grant>>,
}

impl Stage<'_> {
    async fn routed(
        &self,
        mut exchange: Box<Exchange>,
        parts: http::request::Parts,
        body: Incoming,
    ) -> Result<Response<AnswerBody>, Box<Unrouted>> {
        if let Some(answer) = self.health_answer(&mut exchange, &parts) {
            return Ok(self.local_answer(exchange, answer, None));
        }
        let Some(table) = &self.http.routes else {
            return Ok(self.refuse(exchange, Failure::RoutesMissing.into()));
        };
        let head = self.head.view(&parts);
        let found = match table.find(&head, self.context.local.random()) {
            Ok(found) => found,
            // Who may do nothing here is not told what there is.
            Err(missing) => {
                return match (self.authorize(&parts), self.missing_host(table, missing)) {
                    (Err(cause), _) => Ok(self.refuse(exchange, cause)),
                    (Ok(_), Some(host)) => Err(Box::new(Unrouted { exchange, parts, body, host })),
                    (Ok(_), None) => Ok(self.refuse(exchange, no_route(missing).into())),
                };
            }
        };
        let taken = RouteTaken { table: table.clone(), host: found.host_index, route: found.route_index };
        exchange.route = Some(taken.clone());
        Ok(self.on_route(exchange, &taken, &found, parts, body).await)
    }

    /// Answers a request whose route is found.
    async fn on_route(
        &self,
        mut exchange: Box<Exchange>,
        taken: &RouteTaken,
        found: &Found<'_>,
        parts: http::request::Parts,
        body: Incoming,
    ) -> Response<AnswerBody> {
        let head = self.head.view(&parts);
        if found.virtual_host.require_tls && self.head.scheme != "https" {
            let location = model::rewrite::location(&head::to_https(), &found.route.condition, &head);
            return self.redirect(exchange, taken, &parts, 301, &location);
        }
        if let Some(answer) = self.cross_origin(taken, &parts) {
            exchange.details = "cors_response";
            return self.local_answer(exchange, answer, None);
        }
        self.note(&mut exchange, &parts);
        let permit = match self.authorize(&parts) {
            Ok(permit) => permit,
            Err(cause) => {
                let edits = Edits { taken, weighted: None, parts: &parts };
                return self.refuse_on_route(exchange, cause, edits);
            }
        };
        // What few requests go through is boxed, here and below: the others have no room for it to move about.
        if let Some(fault) = fault::configured(self.http, taken)
            && let Some(abort) = Box::pin(self.suffer(fault, &mut exchange, taken, &parts)).await
        {
            return self.abort(exchange, taken, &parts, abort);
        }
        if let Some(cause) = self.refuse_forged(taken, &parts) {
            return self.refuse_on_route(exchange, cause, Edits { taken, weighted: None, parts: &parts });
        }
        match &found.route.action {
            Action::Redirect(redirect) => {
                let redirect = self.made_redirect(redirect, &exchange, &parts);
                let location = model::rewrite::location(&redirect, &found.route.condition, &head);
                self.redirect(exchange, taken, &parts, redirect.status, &location)
            }
            Action::Respond(direct) => self.respond(exchange, taken, &parts, direct),
            Action::Forward(forward) => self.forward(permit, exchange, taken, forward, parts, body).await,
        }
    }

    /// Sends the client to the canonical form of the path it asked for; gRPC clients do not follow.
    fn send_to_canonical(
        &self,
        mut exchange: Box<Exchange>,
        parts: &http::request::Parts,
    ) -> Response<AnswerBody> {
        if model::routing::is_grpc(&parts.headers) {
            return self.refuse(exchange, Failure::BadPath.into());
        }
        exchange.details = "path_normalization_failed";
        let mut answer = Answer::new(307);
        answer.set(http::header::LOCATION, self.head.target.as_bytes());
        self.local_answer(exchange, answer, None)
    }

    /// Refuses a request that no route took.
    fn refuse(&self, exchange: Box<Exchange>, cause: Cause) -> Response<AnswerBody> {
        self.refuse_with(exchange, cause, None)
    }

    /// Refuses a request on its route, whose edits the answer gets as any other.
    fn refuse_on_route(
        &self,
        exchange: Box<Exchange>,
        cause: Cause,
        edits: Edits<'_>,
    ) -> Response<AnswerBody> {
        self.refuse_with(exchange, cause, Some(edits))
    }

    fn refuse_with(
        &self,
        mut exchange: Box<Exchange>,
        cause: Cause,
        edits: Option<Edits<'_>>,
    ) -> Response<AnswerBody> {
        let outcome = cause.failure.outcome();
        exchange.details = outcome.token;
        exchange.flags = if cause.exhausted { with_retries_exhausted(outcome.flags) } else { outcome.flags };
        exchange.transport_failure = cause.detail.or(exchange.transport_failure.take());
        let mut answer = self.refusal.answer(cause.failure);
        if cause.unprocessed && self.context.connection.is_mutual_tls() {
            answer.set(UNPROCESSED, b"1");
        }
        self.local_answer(exchange, answer, edits)
    }

    fn redirect(
        &self,
        mut exchange: Box<Exchange>,
        taken: &RouteTaken,
        parts: &http::request::Parts,
        status: u16,
        location: &str,
    ) -> Response<AnswerBody> {
        exchange.details = "direct_response";
        let mut answer = Answer::new(status);
        answer.set(http::header::LOCATION, location.as_bytes());
        self.local_answer(exchange, answer, Some(Edits { taken, weighted: None, parts }))
    }

    fn respond(
        &self,
        mut exchange: Box<Exchange>,
        taken: &RouteTaken,
        parts: &http::request::Parts,
        direct: &model::route::DirectResponse,
    ) -> Response<AnswerBody> {
        exchange.details = "direct_response";
        let mut answer = Answer::new(direct.status).with_body(direct.body.clone().into());
        if !direct.body.is_empty() {
            answer.set(http::header::CONTENT_TYPE, b"text/plain");
        }
        self.local_answer(exchange, answer, Some(Edits { taken, weighted: None, parts }))
    }

    fn local_answer(
        &self,
        mut exchange: Box<Exchange>,
        mut answer: Answer,
        edits: Option<Edits<'_>>,
    ) -> Response<AnswerBody> {
        exchange.status = answer.status();
        if let Some(edits) = edits {
            self.edit_answer(&exchange, &edits, answer.headers_mut());
        }
        self.map_reply(&mut exchange, &mut answer);
        self.mutate_answer(&exchange, exchange.route.as_ref(), answer.headers_mut());
        self.write_grant(answer.headers_mut());
        let host = exchange.route.as_ref().and_then(RouteTaken::virtual_host);
        let tells = exchange.attempts > 0 && host.is_some_and(|host| host.attempt_count_in_response);
        self.sign(answer.headers_mut(), tells.then_some(exchange.attempts));
        let mut response = answer.into_response(self.http.server.as_ref());
        exchange.edit_response(response.headers_mut());
        exchange.answered(response.status().as_u16(), response.headers());
        exchange.bytes_sent = answer::known_length(response.body());
        exchange.finish();
        response
    }
}
