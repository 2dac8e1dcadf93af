//! Hosts and paths that are made per request, from what is known of the exchange or from the path itself.

use super::Stage;
use super::edits::{Outbound, filled};
use crate::record::Exchange;
use http::request::Parts;
use model::format::Template;
use model::rewrite::substituted;
use model::route::{HostRewrite, PathRewrite, Redirect};
use std::borrow::Cow;

impl Stage<'_> {
    /// The host that is made per request, if the rewrite is of that kind.
    pub(super) fn made_host(
        &self,
        rewrite: &HostRewrite,
        exchange: &Exchange,
        parts: &Parts,
        out: &Outbound,
    ) -> Option<String> {
        match rewrite {
            HostRewrite::Path(substitution) => {
                let path = out.target.split_once('?').map_or(out.target.as_str(), |(path, _)| path);
                Some(substituted(substitution, path))
            }
            HostRewrite::Formatted(template) => self.made(template, exchange, parts),
            _ => None,
        }
        .filter(|host| !host.is_empty())
    }

    /// The rewrite with what is made per request filled in.
    pub(super) fn made_path<'r>(
        &self,
        rewrite: &'r PathRewrite,
        exchange: &Exchange,
        parts: &Parts,
    ) -> Cow<'r, PathRewrite> {
        match rewrite {
            PathRewrite::Formatted(template) => match self.made(template, exchange, parts) {
                Some(path) => Cow::Owned(PathRewrite::Full(path)),
                None => Cow::Borrowed(rewrite),
            },
            _ => Cow::Borrowed(rewrite),
        }
    }

    /// The redirect with its path filled in.
    pub(super) fn made_redirect<'r>(
        &self,
        redirect: &'r Redirect,
        exchange: &Exchange,
        parts: &Parts,
    ) -> Cow<'r, Redirect> {
        match &redirect.path {
            Some(path @ PathRewrite::Formatted(_)) => {
                let path = Some(self.made_path(path, exchange, parts).into_owned());
                Cow::Owned(Redirect { path, ..redirect.clone() })
            }
            _ => Cow::Borrowed(redirect),
        }
    }

    fn made(&self, template: &Template, exchange: &Exchange, parts: &Parts) -> Option<String> {
        let value = filled(template, exchange, &self.head.view(parts), None)?;
        value.to_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
    }
}
