//! Authorization: the stage that makes a [`Permit`], without which nothing is sent on. What the rules say is
//! `model::authorization`'s.

use super::{Cause, Stage};
use crate::failure::Failure;
use http::request::Parts;
use model::authorization::Subject;

/// Proof that a request was authorized. Nobody else can make one.
pub(super) struct Permit(());

impl Stage<'_> {
    /// Leave for the request, if every rule of the connection manager gives it.
    pub(super) fn authorize(&self, parts: &Parts) -> Result<Permit, Cause> {
        let filters = &self.http.manager.filters.authorization;
        if filters.is_empty() {
            return Ok(Permit(()));
        }
        let connection = &self.context.connection;
        let head = self.head.view(parts);
        let subject = Subject {
            head: &head,
            peer: connection.peer_uri.as_deref(),
            direct: connection.remote.ip(),
            client: self.head.client.ip(),
            destination: connection.local,
            server_name: connection.server_name.as_deref(),
        };
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
