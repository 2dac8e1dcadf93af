//! Picking an endpoint: pure, given who is usable, how busy each is, and 64 random bits.
//! Counting active requests and knowing who is usable is the proxy's work.

/// How a cluster's endpoints are picked (`Cluster.LbPolicy` and `load_balancing_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancing {
    /// In turn.
    RoundRobin,
    /// The less busy of two picked at random. Istio's default.
    #[default]
    LeastRequest,
    /// At random.
    Random,
}

/// An endpoint as picking sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Share of traffic; 0 counts as 1.
    pub weight: u32,
    /// Requests it is working on.
    pub active: u32,
}

/// Position of the endpoint to use; `None` when there is none. `turn` counts picks, for [`LoadBalancing::RoundRobin`].
///
/// Weighted round robin walks the weights laid end to end in steps that spread an endpoint's turns out over the
/// round. Least request compares `active + 1` over weight, as Envoy does with an active-request bias of 1.
pub fn pick(policy: LoadBalancing, candidates: &[Candidate], turn: u64, random: u64) -> Option<usize> {
    let weight = |c: &Candidate| u64::from(c.weight.max(1));
    let total: u64 = candidates.iter().map(weight).sum();
    let last = candidates.len().checked_sub(1)?;
    let at_weight = |mut at: u64| {
        let found = candidates.iter().position(|c| {
            let here = at < weight(c);
            at = at.saturating_sub(weight(c));
            here
        });
        found.unwrap_or(last)
    };
    Some(match policy {
        LoadBalancing::Random => at_weight(random % total),
        LoadBalancing::RoundRobin if total == candidates.len() as u64 => (turn % total) as usize,
        LoadBalancing::RoundRobin => at_weight(turn.wrapping_mul(coprime_step(total)) % total),
        LoadBalancing::LeastRequest => {
            let (first, second) = two_of(candidates.len() as u64, random);
            match (candidates.get(first), candidates.get(second)) {
                (Some(a), Some(b)) if load(b, a) < load(a, b) => second,
                _ => first,
            }
        }
    })
}

/// `a`'s load, scaled by the other's weight so that two can be compared without division.
fn load(a: &Candidate, b: &Candidate) -> u64 {
    (u64::from(a.active) + 1) * u64::from(b.weight.max(1))
}

/// Two positions below `count`, different when there are two.
fn two_of(count: u64, random: u64) -> (usize, usize) {
    let first = (random >> 32) % count;
    match count {
        1 => (0, 0),
        _ => (first as usize, ((first + 1 + (random & 0xffff_ffff) % (count - 1)) % count) as usize),
    }
}

/// A step near the golden section of `total` that visits every position once a round.
fn coprime_step(total: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let start = (total as f64 * 0.618) as u64;
    (start.max(1)..total.max(2)).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn with_weights(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().map(|&weight| Candidate { weight, active: 0 }).collect()
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(pick(LoadBalancing::LeastRequest, &[], 0, 0), None);
    }

    #[test]
    fn the_less_busy_of_two_is_picked_and_a_heavier_one_carries_more() {
        let idle = Candidate { weight: 1, active: 0 };
        let busy = Candidate { weight: 1, active: 5 };
        let strong = Candidate { weight: 10, active: 5 };
        for random in [0, 1, 1 << 32, u64::MAX] {
            assert_eq!(pick(LoadBalancing::LeastRequest, &[busy, idle], 0, random), Some(1));
            assert_eq!(pick(LoadBalancing::LeastRequest, &[idle, strong], 0, random), Some(1));
        }
    }

    proptest! {
        #[test]
        fn a_round_of_round_robin_gives_each_endpoint_its_weight(
            weights in prop::collection::vec(1u32..9, 1..8), start in 0u64..1_000_000,
        ) {
            let candidates = with_weights(&weights);
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut hits = vec![0u32; weights.len()];
            for turn in start..start + total {
                hits[pick(LoadBalancing::RoundRobin, &candidates, turn, 0).unwrap()] += 1;
            }
            prop_assert_eq!(hits, weights);
        }

        #[test]
        fn every_pick_is_one_of_the_candidates(count in 1usize..9, turn: u64, random: u64) {
            let candidates = with_weights(&vec![1; count]);
            for policy in [LoadBalancing::RoundRobin, LoadBalancing::LeastRequest, LoadBalancing::Random] {
                prop_assert!(pick(policy, &candidates, turn, random).unwrap() < count);
            }
        }
    }
}
