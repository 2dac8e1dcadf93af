//! Outlier detection where it is decided: one look at a time at the tallies that all threads write.

use crate::snapshot::{ClusterState, EndpointState, Snapshot};
use model::outlier::{Ejections, OutlierDetection, Reason, outstanding};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Which endpoints are out, by cluster. Outlives changes of configuration.
#[derive(Debug, Default)]
pub struct Outliers {
    clusters: BTreeMap<Box<str>, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    ejections: Ejections,
    /// When its interval ends.
    next: Duration,
}

/// What a look came to.
#[derive(Debug, Default)]
pub struct Look {
    /// When to look again, although nothing happens.
    pub next: Option<Duration>,
    /// Lines for people.
    pub told: Vec<String>,
}

impl Outliers {
    /// Looks at every cluster. `now` is the time since any fixed moment, `random` gives 64 random bits.
    pub fn look(&mut self, snapshot: &Snapshot, now: Duration, random: impl Fn() -> u64) -> Look {
        let mut look = Look::default();
        self.clusters.retain(|name, _| {
            let state = snapshot.clusters.get(name);
            let is_watched = state.is_some_and(|state| state.config.outlier_detection.is_some());
            if let Some(state) = state.filter(|_| !is_watched) {
                // Should it be watched again, it begins anew.
                state.endpoints.iter().for_each(|endpoint| endpoint.vitals.set_ejected(false));
            }
            is_watched
        });
        for (name, state) in &snapshot.clusters {
            let Some(rule) = &state.config.outlier_detection else { continue };
            let watched = self
                .clusters
                .entry(name.clone())
                .or_insert_with(|| Watched { ejections: Ejections::default(), next: now + rule.interval });
            watched.look(state, rule, now, &random, &mut look.told);
            look.next = Some(look.next.map_or(watched.next, |next| next.min(watched.next)));
        }
        look
    }
}

impl Watched {
    fn look(
        &mut self,
        state: &ClusterState,
        rule: &OutlierDetection,
        now: Duration,
        random: &impl Fn() -> u64,
        told: &mut Vec<String>,
    ) {
        self.ejections.retain(|id| state.endpoints.iter().any(|endpoint| endpoint.id == id));
        let mut found: Vec<(&Arc<EndpointState>, Reason, u32)> = Vec::new();
        for endpoint in &state.endpoints {
            let reached = endpoint.vitals.tally.take_reached(rule);
            found.extend(reached.map(|(reason, enforced)| (endpoint, reason, enforced)));
        }
        let mut changed = false;
        if now >= self.next {
            self.next = now + rule.interval;
            changed |= self.let_in(state, now, told);
            found.extend(in_interval(state, rule));
        }
        for (endpoint, reason, enforced) in found {
            let hosts = state.endpoints.len();
            let time = self.ejections.eject(endpoint.id, enforced, hosts, rule, now, random());
            if let Some(time) = time {
                endpoint.vitals.set_ejected(true);
                changed = true;
                let name = &state.config.name;
                told.push(format!(
                    "cluster `{name}`: endpoint {} is left out for {} s: {reason}",
                    endpoint.address,
                    time.as_secs_f64()
                ));
            }
        }
        if changed {
            state.refresh();
        }
    }

    fn let_in(&mut self, state: &ClusterState, now: Duration, told: &mut Vec<String>) -> bool {
        let back = self.ejections.tick(now);
        for endpoint in state.endpoints.iter().filter(|endpoint| back.contains(&endpoint.id)) {
            endpoint.vitals.set_ejected(false);
            endpoint.vitals.tally.forget();
            let name = &state.config.name;
            told.push(format!("cluster `{name}`: endpoint {} is used again", endpoint.address));
        }
        !back.is_empty()
    }
}

/// Endpoints that stand out in the interval that just ended.
fn in_interval<'s>(
    state: &'s ClusterState,
    rule: &OutlierDetection,
) -> Vec<(&'s Arc<EndpointState>, Reason, u32)> {
    let (mut answers, mut locals) = (Vec::new(), Vec::new());
    for endpoint in &state.endpoints {
        let [answered, connected] = endpoint.vitals.tally.take_interval();
        if !endpoint.vitals.is_ejected() {
            answers.push((endpoint.id, answered));
            locals.push((endpoint.id, connected));
        }
    }
    let mut found = outstanding(&answers, rule, false);
    if rule.split_local {
        found.extend(outstanding(&locals, rule, true));
    }
    let endpoint = |id: u64| state.endpoints.iter().find(|endpoint| endpoint.id == id);
    found.into_iter().filter_map(|(id, reason, enforced)| Some((endpoint(id)?, reason, enforced))).collect()
}
