//! Faults put in on purpose: holding a request back, answering it with a failure. Which request is hit is decided in
//! `model::fault`.

use super::answer::Answer;
use super::{Edits, Stage};
use crate::record::{Exchange, RouteTaken};
use crate::request::AnswerBody;
use crate::snapshot::HttpState;
use http::Response;
use http::request::Parts;
use model::fault::{AbortAnswer, Fault, FaultDecision};
use model::filter::Setting;
use model::log_filter::grpc_status_of;
use model::route::{Action, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const TOKEN: &str = "fault_filter_abort";
const WORDS: &str = "fault filter abort";

/// A fault that counts as active while this lives.
struct Active<'h>(&'h AtomicU32);

impl<'h> Active<'h> {
    /// `None` when as many as allowed are active already.
    fn begin(http: &'h HttpState, fault: &Fault) -> Option<Self> {
        let active = &http.active_faults;
        match fault.max_active.is_some_and(|max| active.load(Ordering::Relaxed) >= max) {
            true => None,
            false => {
                active.fetch_add(1, Ordering::Relaxed);
                Some(Self(active))
            }
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The faults for requests on this route, if any.
pub(super) fn configured<'t>(http: &'t Arc<HttpState>, taken: &'t RouteTaken) -> Option<&'t Fault> {
    let placed = http.manager.filters.fault.as_ref()?;
    match taken.filter_setting(|settings| settings.fault.as_ref()) {
        Some(Setting::Disabled) => None,
        Some(Setting::Use(fault)) => Some(fault),
        None => (!placed.disabled).then_some(&placed.config),
    }
}

impl Stage<'_> {
    /// Holds the request back, if it is to be; returns what it is to be answered with here.
    pub(super) async fn suffer(
        &self,
        fault: &Fault,
        exchange: &mut Exchange,
        taken: &RouteTaken,
        parts: &Parts,
    ) -> Option<AbortAnswer> {
        let decision = self.decide(fault, taken, parts)?;
        let _active = Active::begin(self.http, fault)?;
        if let Some(delay) = decision.delay {
            exchange.flags = "DI";
            tokio::time::sleep(delay).await;
        }
        decision.abort
    }

    fn decide(&self, fault: &Fault, taken: &RouteTaken, parts: &Parts) -> Option<FaultDecision> {
        let cluster = match taken.route().map(|route| &route.action) {
            Some(Action::Forward(forward)) => match &forward.target {
                Target::Cluster(name) => Some(name.as_str()),
                _ => None,
            },
            _ => None,
        };
        let local = &self.context.local;
        fault.decide(&self.head.view(parts), cluster, [local.random(), local.random()])
    }

    /// Answers with a fault.
    pub(super) fn abort(
        &self,
        mut exchange: Box<Exchange>,
        taken: &RouteTaken,
        parts: &Parts,
        fault: AbortAnswer,
    ) -> Response<AnswerBody> {
        exchange.details = TOKEN;
        exchange.flags = if exchange.flags == "DI" { "DI,FI" } else { "FI" };
        let (status, grpc_status) = match fault {
            AbortAnswer::Http(status) => (status, grpc_status_of(status)),
            AbortAnswer::Grpc(status) => (200, status),
            AbortAnswer::Header => (503, grpc_status_of(503)),
        };
        let abort = configured(self.http, taken).and_then(|fault| fault.abort.as_ref());
        let words = abort.map(|abort| abort.body.as_str()).filter(|body| !body.is_empty()).unwrap_or(WORDS);
        let answer: Answer = self.refusal.answer_with(status, grpc_status, TOKEN, words);
        // As in Envoy, only routes that send on have edits for answers that are not their own.
        let sends_on = taken.route().is_some_and(|route| matches!(route.action, Action::Forward(_)));
        self.local_answer(exchange, answer, sends_on.then_some(Edits { taken, weighted: None, parts }))
    }
}
