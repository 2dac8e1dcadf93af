//! Requests that are answered before they are routed on: health checks of this proxy, and what another site's page made
//! a browser send.

use super::answer::Answer;
use super::{Cause, Stage};
use crate::failure::Failure;
use crate::record::{Exchange, RouteTaken};
use crate::upstream::{FillError, Replay};
use http::request::Parts;
use model::filter::Setting;
use model::health_answer::HealthAnswer;

impl Stage<'_> {
    /// The answer to a health check of this proxy.
    pub(super) fn health_answer(&self, exchange: &mut Exchange, parts: &Parts) -> Option<Answer> {
        let filters = &self.http.manager.filters.health;
        let filter = filters.iter().find(|filter| filter.takes(&self.head.view(parts)))?;
        exchange.is_health_check = true;
        let is_well = self.is_well(filter);
        exchange.details = if is_well { "health_check_ok" } else { "health_check_failed" };
        Some(Answer::new(if is_well { 200 } else { 503 }))
    }

    fn is_well(&self, filter: &HealthAnswer) -> bool {
        filter.clusters.iter().all(|(name, wanted)| {
            let Some(cluster) = self.snapshot.clusters.get(name.as_str()) else { return false };
            let (usable, all) = cluster.head_count();
            // Of nothing, any share but all of it is healthy.
            match all {
                0 => *wanted <= 0.0,
                all => 100.0 * usable as f64 >= wanted * all as f64,
            }
        })
    }

    /// Bytes that a request's body may have, where it is to be read before it is sent on.
    pub(super) fn body_limit(&self, taken: &RouteTaken) -> Option<u32> {
        let placed = self.http.manager.filters.buffer.as_ref()?;
        match taken.filter_setting(|settings| settings.buffer.as_ref()) {
            Some(setting) => setting.used().copied(),
            None => (!placed.disabled).then_some(placed.config),
        }
    }

    /// Refuses what another site's page made a browser send.
    pub(super) fn refuse_forged(&self, taken: &RouteTaken, parts: &Parts) -> Option<Cause> {
        let placed = self.http.manager.filters.csrf.as_ref()?;
        let csrf = match taken.filter_setting(|settings| settings.csrf.as_ref()) {
            Some(Setting::Disabled) => return None,
            Some(Setting::Use(csrf)) => csrf,
            None if placed.disabled => return None,
            None => &placed.config,
        };
        let is_looked_at = csrf.share.takes(self.context.local.random());
        match !is_looked_at || csrf.allows(&parts.method, &self.head.authority, &parts.headers) {
            true => None,
            false => Some(Failure::Forged.into()),
        }
    }
}

/// Reads a request's body before it is sent on.
pub(super) async fn read_whole(replay: &Replay, max: u32) -> Result<(), Cause> {
    replay.fill(max.into()).await.map_err(|error| match error {
        FillError::TooLarge => Failure::BodyTooLarge.into(),
        FillError::Broken => Failure::ClientGone.into(),
    })
}
