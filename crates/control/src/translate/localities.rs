//! Which endpoints are nearer to a client, and which share of requests places get: a DestinationRule's
//! `localityLbSetting`, or else the mesh's.
//!
//! Nearness counts only where failing endpoints are found out, by outlier detection; without that, nobody would ever go
//! further away.

use super::policy::Policy;
use super::workload::Workload;
use api::networking::{LocalityDistribute, LocalityLoadBalancerSetting};
use model::endpoint::{Endpoint, Locality, LocalityEndpoints};
use std::collections::{BTreeMap, BTreeSet};

/// Where a client is: `region/zone/subzone`, and its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Whereabouts {
    pub(super) locality: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// Puts endpoints in the order in which a client should use them.
pub(super) struct Order<'o> {
    client: &'o Whereabouts,
    setting: Option<&'o LocalityLoadBalancerSetting>,
    has_failover: bool,
}

/// How far away places are where a region was written that another fails over to.
const ELSEWHERE: usize = 4;

impl<'o> Order<'o> {
    /// `None` where all places are alike: nobody knows where the client is, or wants to.
    pub(super) fn of(
        client: Option<&'o Whereabouts>,
        policy: &'o Policy,
        mesh: Option<&'o LocalityLoadBalancerSetting>,
    ) -> Option<Self> {
        let setting = policy.load_balancer.as_ref().and_then(|lb| lb.locality_lb_setting.as_ref()).or(mesh);
        let is_on = setting.and_then(|setting| setting.enabled) != Some(false);
        let client = client.filter(|_| is_on)?;
        Some(Self { client, setting, has_failover: policy.outlier_detection.is_some() })
    }

    /// The shares that the client's place gives to others.
    fn distribution(&self) -> Option<&'o LocalityDistribute> {
        let covers = |share: &&LocalityDistribute| is_in(&self.client.locality, &share.from);
        self.setting?.distribute.iter().find(covers)
    }

    /// Whether the weights of places count.
    pub(super) fn is_weighted(&self) -> bool {
        self.distribution().is_some()
    }

    /// How far away `workload` is; 0 is nearest.
    pub(super) fn distance(&self, workload: &Workload) -> usize {
        if !self.has_failover || self.is_weighted() {
            return 0;
        }
        let labels = self.setting.map(|setting| setting.failover_priority.as_slice()).unwrap_or_default();
        if !labels.is_empty() {
            return labels.len() - labels.iter().take_while(|label| self.agrees(label, workload)).count();
        }
        let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let (mine, theirs) = (parts(&self.client.locality), parts(&workload.locality));
        let same = mine.iter().zip(&theirs).take_while(|(a, b)| a == b).count().min(3);
        let same = if mine.len() == theirs.len() && same == mine.len() { 3 } else { same };
        match 3 - same {
            3 if !self.is_failover_region(theirs.first()) => ELSEWHERE,
            distance => distance,
        }
    }

    /// Whether a label, `key` or `key=value`, is the same at client and workload.
    fn agrees(&self, label: &str, workload: &Workload) -> bool {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (label, self.client.labels.get(label).map(String::as_str)),
        };
        workload.labels.get(key).map(String::as_str) == wanted
    }

    /// Whether the client's region fails over to `region`; every region may where nothing is said.
    fn is_failover_region(&self, region: Option<&String>) -> bool {
        let own = self.client.locality.split('/').next().unwrap_or_default();
        let written = self.setting.map(|setting| setting.failover.as_slice()).unwrap_or_default();
        let to = written.iter().find(|failover| failover.from == own).map(|failover| &failover.to);
        to.is_none() || to == region
    }

    /// Gives places the shares that are written; places without one get nothing.
    pub(super) fn share_out(&self, places: &mut Vec<LocalityEndpoints>) {
        let Some(share) = self.distribution() else { return };
        let weight = |place: &LocalityEndpoints| place.weight.unwrap_or(0);
        let mut shares: Vec<Option<u32>> = vec![None; places.len()];
        // The most specific first, so that `a/*` gets what `a/b/*` leaves.
        let mut to: Vec<(&String, &u32)> = share.to.iter().collect();
        to.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        for (pattern, percent) in to {
            let open: Vec<usize> = (0..places.len())
                .filter(|at| shares.get(*at).is_some_and(Option::is_none))
                .filter(|at| places.get(*at).is_some_and(|place| is_in(&text(&place.locality), pattern)))
                .collect();
            let total: u64 = open.iter().filter_map(|at| places.get(*at)).map(|p| u64::from(weight(p))).sum();
            for at in open {
                let Some(place) = places.get(at) else { continue };
                // In hundredths of a percent, so that small places do not vanish.
                let part = u64::from(*percent) * 100 * u64::from(weight(place)) / total.max(1);
                if let Some(share) = shares.get_mut(at) {
                    *share = u32::try_from(part).ok().filter(|part| *part > 0);
                }
            }
        }
        for (place, share) in places.iter_mut().zip(&shares) {
            place.weight = *share;
        }
        places.retain(|place| place.weight.is_some());
    }
}

fn text(locality: &Locality) -> String {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    parts.into_iter().take_while(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

/// Whether a place is the one that `pattern` names, or below it: `region/zone/*`, `region`, `*`.
fn is_in(place: &str, pattern: &str) -> bool {
    let pattern = pattern.trim_end_matches('*').trim_end_matches('/');
    let rest = place.strip_prefix(pattern);
    pattern.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The places of endpoints, each with how far away it is; distances that nobody has are left out.
pub(super) fn places(endpoints: BTreeMap<(usize, &str), Vec<Endpoint>>) -> Vec<LocalityEndpoints> {
    let distances: BTreeSet<usize> = endpoints.keys().map(|(distance, _)| *distance).collect();
    let priority = |distance: &usize| distances.iter().take_while(|known| *known < distance).count();
    let place = |((distance, place), endpoints): ((usize, &str), Vec<Endpoint>)| {
        let mut parts = place.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        LocalityEndpoints {
            locality: Locality { region: next(), zone: next(), sub_zone: next() },
            weight: Some(endpoints.iter().fold(0, |sum: u32, e| sum.saturating_add(e.weight))),
            priority: u32::try_from(priority(&distance)).unwrap_or(u32::MAX),
            endpoints,
        }
    };
    endpoints.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_its_zone_its_region_and_everywhere() {
        assert!(
            is_in("a/b/c", "a/b/*") && is_in("a/b/c", "a/*") && is_in("a/b/c", "*") && is_in("a/b/c", "a")
        );
        assert!(is_in("a/b/c", "a/b/c") && is_in("a/b", "a/b/*"));
        assert!(!is_in("ab/c", "a/*") && !is_in("a", "a/b"));
    }
}
