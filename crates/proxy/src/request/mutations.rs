//! Edits that the filter `header_mutation` makes to requests and answers, those made before a route is looked for, and
//! those to copies. What they say is `model::mutation`'s.

use super::Stage;
use super::edits::{Outbound, apply, apply_fields, filled};
use super::head::Head;
use crate::record::{Exchange, RouteTaken};
use http::HeaderMap;
use http::request::Parts;
use model::filter::{FilterSettings, Setting};
use model::format::Template;
use model::mutation::{Mutation, Mutations, edit_query};

impl Stage<'_> {
    /// The filter's own edits, then what table, host and route say, the last word where it belongs.
    fn mutations<'t>(&'t self, taken: Option<&'t RouteTaken>) -> Vec<&'t Mutations> {
        let Some(placed) = self.http.manager.filters.mutations.as_deref() else { return Vec::new() };
        let table = taken.and_then(|taken| taken.table.config().filters.as_deref());
        let host = taken.and_then(RouteTaken::virtual_host).and_then(|host| host.filters.as_deref());
        let route = taken.and_then(RouteTaken::route).and_then(|route| route.filters.as_deref());
        let of = |settings: Option<&'t FilterSettings>| settings.and_then(|s| s.mutations.as_ref());
        let mut said = vec![of(table), of(host), of(route)];
        // The most specific word on whether it does anything counts for all of it.
        if matches!(said.iter().rev().flatten().next(), Some(Setting::Disabled)) {
            return Vec::new();
        }
        let is_off = placed.disabled && said.iter().all(Option::is_none);
        if is_off {
            return Vec::new();
        }
        if !placed.config.most_specific_wins {
            said.reverse();
        }
        let own = std::iter::once(&placed.config.own);
        own.chain(said.into_iter().flatten().filter_map(Setting::used)).collect()
    }

    /// Edits a request that is sent on.
    pub(super) fn mutate_request(
        &self,
        exchange: &Exchange,
        taken: &RouteTaken,
        parts: &mut Parts,
        out: &mut Outbound,
    ) {
        for mutations in self.mutations(Some(taken)) {
            if mutations.leaves_requests() {
                continue;
            }
            for mutation in &mutations.request {
                match mutation {
                    Mutation::Set(edit) => {
                        let value = filled(&edit.value, exchange, &self.head.view(parts), None);
                        apply(edit, value, &mut parts.headers, Some(&mut *out));
                    }
                    other => remove(other, &mut parts.headers),
                }
            }
            if !mutations.query.is_empty() {
                let view = self.head.view(parts);
                let fill = |template: &Template| {
                    let value = filled(template, exchange, &view, None)?;
                    value.to_str().ok().map(str::to_owned)
                };
                out.target = edit_query(&out.target, &mutations.query, fill);
            }
        }
    }

    /// Edits an answer, an endpoint's or our own.
    pub(super) fn mutate_answer(
        &self,
        exchange: &Exchange,
        taken: Option<&RouteTaken>,
        headers: &mut HeaderMap,
    ) {
        let Some(request) = self.quotable() else { return };
        for mutation in self.mutations(taken).iter().flat_map(|mutations| &mutations.response) {
            match mutation {
                Mutation::Set(edit) => {
                    let value = filled(&edit.value, exchange, &request, Some(headers));
                    apply(edit, value, headers, None);
                }
                other => remove(other, headers),
            }
        }
    }
}

/// Edits before a route is looked for. Only what is known of the request itself can be filled in.
pub(super) fn mutate_early(edits: &[Mutation], exchange: &Exchange, head: &mut Head, parts: &mut Parts) {
    for mutation in edits {
        match mutation {
            Mutation::Set(edit) => {
                let value = filled(&edit.value, exchange, &head.view(parts), None);
                let mut out = Outbound::new(head);
                apply(edit, value, &mut parts.headers, Some(&mut out));
                head.replace(out);
            }
            other => remove(other, &mut parts.headers),
        }
    }
}

/// Edits a copy's headers.
pub(super) fn mutate_copy(edits: &[Mutation], exchange: &Exchange, head: &Head, parts: &Parts) -> HeaderMap {
    let mut headers = parts.headers.clone();
    for mutation in edits {
        match mutation {
            Mutation::Set(edit) => {
                let value = filled(&edit.value, exchange, &head.view(parts), None);
                apply_fields(edit, value.as_ref().map(|v| v.as_bytes()), &mut headers);
            }
            other => remove(other, &mut headers),
        }
    }
    headers
}

fn remove(mutation: &Mutation, headers: &mut HeaderMap) {
    match mutation {
        Mutation::Remove(name) => drop(headers.remove(name)),
        Mutation::RemoveMatching(names) => {
            let found = |name: &&http::HeaderName| names.matches(name.as_str().as_bytes());
            let gone: Vec<_> = headers.keys().filter(found).cloned().collect();
            gone.iter().for_each(|name| drop(headers.remove(name)));
        }
        Mutation::Set(_) => {}
    }
}
