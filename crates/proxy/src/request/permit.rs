//! Authorization: the stage that makes a [`Permit`], without which nothing is sent on. What the rules say is
//! `model::authorization`'s.

use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::Exchange;
use http::request::Parts;
use model::authorization::{ShadowRules, Subject};
use model::header::RequestHead;

/// Proof that a request was authorized. Nobody else can make one.
pub(super) struct Permit(());

/// Where the verdicts of rules that are tried out are noted.
const NOTES: &str = "envoy.filters.http.rbac";

impl Stage<'_> {
    /// The request, as rules see it.
    fn subject<'s>(&'s self, head: &'s RequestHead<'s>) -> Subject<'s> {
        let connection = &self.context.connection;
        Subject {
            head,
            peer: connection.peer_uri.as_deref(),
            direct: connection.remote.ip(),
            client: self.head.client.ip(),
            destination: connection.local,
            server_name: connection.server_name.as_deref(),
        }
    }

    /// Notes what is to be noted of every request, and what rules that are tried out say of it.
    pub(super) fn note(&self, exchange: &mut Exchange, parts: &Parts) {
        let filters = &self.http.manager.filters;
        for note in &filters.notes {
            if !note.joins && exchange.noted.0.contains_key(&note.namespace) {
                continue;
            }
            for (key, value) in note.fields.iter() {
                exchange.noted.set(&note.namespace, key, value.clone());
            }
        }
        let head = self.head.view(parts);
        for ShadowRules { rules, prefix } in &filters.shadows {
            let verdict = rules.judge(&self.subject(&head));
            let result = if verdict.allowed { "allowed" } else { "denied" };
            exchange.noted.set(NOTES, &format!("{prefix}shadow_engine_result"), result);
            if let Some(policy) = verdict.policy {
                exchange.noted.set(NOTES, &format!("{prefix}shadow_effective_policy_id"), policy);
            }
        }
    }

    /// Leave for the request, if every rule of the connection manager gives it.
    pub(super) fn authorize(&self, parts: &Parts) -> Result<Permit, Cause> {
        let filters = &self.http.manager.filters.authorization;
        if filters.is_empty() {
            return Ok(Permit(()));
        }
        let head = self.head.view(parts);
        let subject = self.subject(&head);
        for rules in filters {
            let verdict = rules.judge(&subject);
            if !verdict.allowed {
                let why = match verdict.policy {
                    Some(policy) => format!("policy `{policy}` denies it"),
                    None => "no policy allows it".to_owned(),
                };
                return Err(Cause::new(Failure::Denied, why));
            }
        }
        Ok(Permit(()))
    }
}
