//! Picking an endpoint: pure, given who is usable, how busy each is, and 64 random bits.
//! Counting active requests and knowing who is usable is the proxy's work.

mod subsets;
mod table;
mod hash;
mod spread;

pub use hash::{MAGLEV_SIZE, PlaceHash, RingShape, xx_hash};
pub use spread::{Criteria, Fallback, SUBSET_NAMESPACE, SlowStart, Spread, SubsetSelector, Subsets};
pub use subsets::SubsetTables;
pub use table::{Ask, Candidate, Standing, Table};

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
    /// By the request's hash, on a ring like this.
    RingHash(RingShape),
    /// By the request's hash, in a table of this size, which is prime.
    Maglev(u32),
}

impl LoadBalancing {
    /// Whether the same hash leads to the same endpoint.
    pub fn is_consistent(self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }
}

/// The weights of the endpoints that may be picked, laid end to end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weights {
    /// Sum of the weights up to and including each position.
    ends: Vec<u64>,
    /// A step that spreads an endpoint's turns out over a round.
    step: u64,
    /// All are the same.
    is_even: bool,
}

impl Weights {
    /// Weights in order; 0 counts as 1.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut total = 0;
        let ends: Vec<u64> = weights
            .into_iter()
            .map(|weight| {
                total += u64::from(weight.max(1));
                total
            })
            .collect();
        let step = if total == ends.len() as u64 { 1 } else { coprime_step(total) };
        let weight = |at: usize| {
            ends.get(at).map(|end| end - at.checked_sub(1).and_then(|p| ends.get(p)).unwrap_or(&0))
        };
        let is_even = (1..ends.len()).all(|at| weight(at) == weight(0));
        Self { ends, step, is_even }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The position whose stretch holds `at`, which is below the total.
    fn position(&self, at: u64) -> usize {
        self.ends.partition_point(|end| *end <= at)
    }

    fn weight(&self, position: usize) -> u64 {
        let before = position.checked_sub(1).and_then(|p| self.ends.get(p)).copied().unwrap_or(0);
        self.ends.get(position).map_or(1, |end| end - before)
    }
}

/// Position of the endpoint to use; `None` when there is none. `active` tells how many requests an endpoint is working
/// on; `turn` counts picks, for [`LoadBalancing::RoundRobin`].
///
/// Weighted round robin walks the weights in steps that spread an endpoint's turns out over the round. Least request
/// compares `active`, to the power of the bias, over weight; where weights differ, the first of the two is drawn by weight. The cost does not grow with the
/// number of endpoints, but for a binary search. Policies that are consistent have tables of their own; here they pick
/// at random.
pub fn pick(
    policy: LoadBalancing,
    weights: &Weights,
    active: impl Fn(usize) -> u32,
    turn: u64,
    random: u64,
    choices: Choices,
) -> Option<usize> {
    let total = weights.total();
    if total == 0 {
        return None;
    }
    Some(match policy {
        LoadBalancing::Random | LoadBalancing::RingHash(_) | LoadBalancing::Maglev(_) => {
            weights.position(random % total)
        }
        LoadBalancing::RoundRobin => weights.position(turn.wrapping_mul(weights.step) % total),
        LoadBalancing::LeastRequest => {
            let count = weights.len() as u64;
            let less = |best: usize, other: usize| {
                let load = |at: usize| choices.load(active(at), weights);
                // Crosswise, so that two loads are compared without division.
                let scaled = |at: usize, by: usize| load(at) * weights.weight(by) as f64;
                match scaled(other, best) < scaled(best, other) {
                    true => other,
                    false => best,
                }
            };
            let (mut first, mut second) = two_of(count, random);
            if !weights.is_even {
                // Where none is busy, weights alone decide.
                first = weights.position((random >> 20) % total);
                second = match count {
                    1 => first,
                    _ => (first + 1 + ((random & 0xf_ffff) % (count - 1)) as usize) % count as usize,
                };
            }
            let mut bits = random;
            (2..choices.count).fold(if choices.count < 2 { first } else { less(first, second) }, |best, _| {
                bits = bits.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
                less(best, (bits % count) as usize)
            })
        }
    })
}

/// What [`LoadBalancing::LeastRequest`] compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choices {
    /// So many endpoints.
    pub count: u32,
    /// How much their requests count where weights differ: 0 not at all, 1 as much as weights.
    pub bias: f64,
}

impl Default for Choices {
    fn default() -> Self {
        Self { count: 2, bias: 1.0 }
    }
}

impl Choices {
    fn load(&self, active: u32, weights: &Weights) -> f64 {
        match self.bias {
            _ if weights.is_even => f64::from(active),
            1.0 => f64::from(active),
            // Only weights count.
            0.0 => 0.0,
            bias => f64::from(active).powf(bias),
        }
    }
}

/// Which of several groups gets a request: the first as long as it is healthy, the next for what it cannot take, and the
/// first again where none is. `healths` are in percent, `random` any 64 random bits.
pub fn first_with_room(healths: &[u32], random: u64) -> usize {
    let total = healths.iter().sum::<u32>().min(100);
    let Some(at) = (random % 100).checked_mul(u64::from(total)) else { return 0 };
    let mut end = 0;
    let found = healths.iter().position(|health| {
        end += u64::from(*health) * 100;
        at < end
    });
    found.unwrap_or(0)
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

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(
            pick(LoadBalancing::LeastRequest, &Weights::new([]), |_| 0, 0, 0, Choices::default()),
            None
        );
    }

    #[test]
    fn the_less_busy_of_two_is_picked_and_a_heavier_one_carries_more() {
        for random in [0, 1, 1 << 32, u64::MAX] {
            let of = |weights: [u32; 2], active: [u32; 2]| {
                pick(
                    LoadBalancing::LeastRequest,
                    &Weights::new(weights),
                    |at| active[at],
                    0,
                    random,
                    Choices::default(),
                )
            };
            assert_eq!(of([1, 1], [5, 0]), Some(1));
            assert_eq!(of([1, 10], [1, 5]), Some(1));
        }
    }

    #[test]
    fn the_bias_says_how_much_requests_count_beside_weights() {
        let of = |bias| {
            let choices = Choices { count: 2, bias };
            let active = |at: usize| [2, 5][at];
            pick(LoadBalancing::LeastRequest, &Weights::new([1, 4]), active, 0, 0, choices)
        };
        assert_eq!([of(1.0), of(2.0)], [Some(1), Some(0)]);
        let idle = |random: u64| {
            let random = random << 20;
            pick(LoadBalancing::LeastRequest, &Weights::new([1, 3]), |_| 0, 0, random, Choices::default())
        };
        assert_eq!((0..8).filter(|random| idle(*random) == Some(0)).count(), 2);
    }

    #[test]
    fn the_next_group_gets_what_the_first_cannot_take() {
        let shares = |healths: &[u32]| {
            let mut hits = vec![0; healths.len()];
            (0..100).for_each(|random| hits[first_with_room(healths, random)] += 1);
            hits
        };
        assert_eq!(shares(&[100, 100]), [100, 0]);
        assert_eq!(shares(&[70, 100]), [70, 30]);
        assert_eq!(shares(&[0, 100]), [0, 100]);
        assert_eq!(shares(&[30, 10]), [75, 25]);
        assert_eq!(shares(&[0, 0]), [100, 0]);
    }

    #[test]
    fn with_as_many_choices_as_it_takes_the_least_busy_is_found() {
        let weights = Weights::new([1; 8]);
        let active = |at: usize| if at == 5 { 0 } else { 9 };
        let found = (0..200_u64).filter(|n| {
            let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            pick(LoadBalancing::LeastRequest, &weights, active, 0, random, Choices { count: 32, bias: 1.0 })
                == Some(5)
        });
        assert!(found.count() > 180);
    }

    proptest! {
        #[test]
        fn a_round_of_round_robin_gives_each_endpoint_its_weight(
            weights in prop::collection::vec(1u32..9, 1..8), start in 0u64..1_000_000,
        ) {
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut hits = vec![0u32; weights.len()];
            for turn in start..start + total {
                hits[pick(LoadBalancing::RoundRobin, &Weights::new(weights.clone()), |_| 0, turn, 0, Choices::default()).unwrap()] += 1;
            }
            prop_assert_eq!(hits, weights);
        }

        #[test]
        fn every_pick_is_one_of_the_candidates(count in 1usize..9, turn: u64, random: u64) {
            let weights = Weights::new(vec![1; count]);
            for policy in [LoadBalancing::RoundRobin, LoadBalancing::LeastRequest, LoadBalancing::Random] {
                prop_assert!(pick(policy, &weights, |_| 0, turn, random, Choices::default()).unwrap() < count);
            }
        }
    }
}
