//! Who may be picked, laid out once for many picks: priorities with their shares, localities with their weights, rings.
//! A pick allocates nothing.

use super::hash::{Maglev, Member, Ring};
use super::{Choices, LoadBalancing, Spread, Weights, pick};

/// So much health is taken for full health, in percent: a priority gives away traffic only below 72 % of healthy
/// endpoints.
const OVERPROVISIONING: u64 = 140;

/// An endpoint, as far as picking is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'c> {
    /// Its position among all endpoints.
    pub position: u32,
    /// 0 is tried first.
    pub priority: u32,
    /// Which locality it is in; localities are numbered by whoever asks.
    pub locality: u32,
    /// The weight of that locality.
    pub locality_weight: Option<u32>,
    /// Its own weight.
    pub weight: u32,
    /// Whether it can be used.
    pub standing: Standing,
    /// What it is hashed by.
    pub key: &'c str,
    /// Other priorities than its are wanted.
    pub is_left: bool,
}

/// Whether an endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Healthy,
    /// If nothing better is there.
    Degraded,
    /// Only in panic.
    Unhealthy,
}

/// One pick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask {
    /// What the request is hashed to, if it is.
    pub hash: Option<u64>,
    /// Any 64 random bits.
    pub random: u64,
    /// Counts picks.
    pub turn: u64,
    /// Picks made for this request before, of which none was good.
    pub attempt: u32,
}

/// Who may be picked, and how often.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    policy: LoadBalancing,
    choices: Choices,
    /// [`Spread::hash_balance`].
    bound: Option<u32>,
    shares: Vec<Share>,
}

/// Some endpoints' part of all requests.
#[derive(Debug, Clone, PartialEq)]
struct Share {
    /// Sum of the shares up to and including this one, in percent.
    end: u64,
    /// Of `parts`.
    weights: Weights,
    parts: Vec<Part>,
}

/// Endpoints of one locality, or of all.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    positions: Vec<u32>,
    /// Their shares of what the part gets; only where they are hashed.
    portions: Vec<f64>,
    order: Order,
}

#[derive(Debug, Clone, PartialEq)]
enum Order {
    Weighted(Weights),
    Ring(Ring),
    Maglev(Maglev),
}

/// Endpoints of one priority.
#[derive(Default)]
struct Level<'c> {
    all: Vec<&'c Candidate<'c>>,
    healthy: usize,
    degraded: usize,
    is_left: bool,
}

impl Level<'_> {
    /// Health in percent, a little more than is there.
    fn availability(&self, count: usize) -> u64 {
        (OVERPROVISIONING * count as u64).checked_div(self.all.len() as u64).unwrap_or(0).min(100)
    }

    fn is_in_panic(&self, threshold: f64) -> bool {
        let usable = (self.healthy + self.degraded) as f64;
        let percent = if self.all.is_empty() { 0.0 } else { 100.0 * usable / self.all.len() as f64 };
        percent < threshold.min(100.0)
    }
}

impl Table {
    /// The table of `candidates` under a policy.
    pub fn new(policy: LoadBalancing, spread: &Spread, candidates: &[Candidate<'_>]) -> Self {
        let levels = levels(candidates);
        let choices = Choices { count: spread.choices, bias: spread.bias };
        let mut table = Self { policy, choices, bound: spread.hash_balance, shares: Vec::new() };
        let mut end = 0;
        for load in loads(&levels, spread.panic_threshold) {
            if load.percent == 0 {
                continue;
            }
            let Some(level) = levels.get(load.level) else { continue };
            end += load.percent;
            let suits = |c: &&&Candidate<'_>| match load.of {
                None => !spread.fail_in_panic,
                Some(standing) => c.standing == standing,
            };
            let members: Vec<&Candidate<'_>> = level.all.iter().filter(suits).copied().collect();
            // In panic localities do not count.
            let by_locality = spread.weighted_localities && load.of.is_some();
            table.shares.push(Share::new(end, policy, &members, by_locality, &level.all));
        }
        table.shares.shrink_to_fit();
        table
    }

    /// Position of the endpoint to use; `None` when there is none. `active` tells how many requests the endpoint at a
    /// position is working on.
    pub fn pick(&self, ask: &Ask, active: impl Fn(u32) -> u32) -> Option<u32> {
        let share = match self.shares.as_slice() {
            [only] => only,
            all => {
                let draw = match self.policy.is_consistent() {
                    true => ask.hash.unwrap_or(ask.random),
                    false => ask.random,
                };
                let at = draw % 100;
                all.iter().find(|share| at < share.end)?
            }
        };
        let part = match share.parts.as_slice() {
            [only] => only,
            all => all.get(share.weights.position((ask.random >> 20).checked_rem(share.weights.total())?))?,
        };
        let hash = ask.hash.unwrap_or(ask.random);
        let bounded = |at: usize| match self.bound {
            Some(percent) => part.within(percent, at, hash, &active),
            None => at,
        };
        let at = match &part.order {
            Order::Ring(ring) => bounded(ring.pick(hash, ask.attempt)?),
            Order::Maglev(maglev) => bounded(maglev.pick(hash, ask.attempt)?),
            Order::Weighted(weights) => {
                let active = |at: usize| part.positions.get(at).map_or(0, |position| active(*position));
                pick(self.policy, weights, active, ask.turn, ask.random, self.choices)?
            }
        };
        part.positions.get(at).copied()
    }

    /// Positions of all that may be used.
    pub fn positions(&self) -> impl Iterator<Item = u32> {
        self.shares.iter().flat_map(|share| &share.parts).flat_map(|part| part.positions.iter().copied())
    }

    /// Number of endpoints that may be picked.
    pub fn usable(&self) -> usize {
        self.shares.iter().flat_map(|share| &share.parts).map(|part| part.positions.len()).sum()
    }
}

impl Share {
    fn new(
        end: u64,
        policy: LoadBalancing,
        members: &[&Candidate<'_>],
        by_locality: bool,
        level: &[&Candidate<'_>],
    ) -> Self {
        let weights = match by_locality {
            true => locality_weights(members, level),
            false => Vec::new(),
        };
        // Where no locality has a weight, none counts.
        if weights.is_empty() || weights.iter().all(|(_, weight)| *weight == 0.0) {
            let part = Part::new(policy, members, |c| f64::from(c.weight.max(1)));
            return Self { end, weights: Weights::new([1]), parts: vec![part] };
        }
        let of = |c: &Candidate<'_>| {
            weights.iter().find(|(locality, _)| *locality == c.locality).map_or(0.0, |(_, weight)| *weight)
        };
        if policy.is_consistent() {
            let sum = |locality: u32| -> f64 {
                let inside = members.iter().filter(|c| c.locality == locality);
                inside.map(|c| f64::from(c.weight.max(1))).sum()
            };
            let weight = |c: &Candidate<'_>| f64::from(c.weight.max(1)) / sum(c.locality) * of(c);
            return Self { end, weights: Weights::new([1]), parts: vec![Part::new(policy, members, weight)] };
        }
        let mut parts = Vec::new();
        let mut shares = Vec::new();
        for (locality, weight) in weights.iter().filter(|(_, weight)| *weight > 0.0) {
            let inside: Vec<&Candidate<'_>> =
                members.iter().filter(|c| c.locality == *locality).copied().collect();
            if !inside.is_empty() {
                parts.push(Part::new(policy, &inside, |c| f64::from(c.weight.max(1))));
                // In thousandths: health makes a fraction of a weight.
                shares.push((weight * 1000.0).min(f64::from(u32::MAX)) as u32);
            }
        }
        Self { end, weights: Weights::new(shares), parts }
    }
}

/// What each locality weighs: its weight, less what of its health is missing.
fn locality_weights(members: &[&Candidate<'_>], level: &[&Candidate<'_>]) -> Vec<(u32, f64)> {
    let mut found: Vec<(u32, f64)> = Vec::new();
    for candidate in members {
        if found.iter().any(|(locality, _)| *locality == candidate.locality) {
            continue;
        }
        let count =
            |all: &[&Candidate<'_>]| all.iter().filter(|c| c.locality == candidate.locality).count() as f64;
        let health = (OVERPROVISIONING as f64 / 100.0 * count(members) / count(level)).min(1.0);
        found.push((candidate.locality, f64::from(candidate.locality_weight.unwrap_or(0)) * health));
    }
    found
}

impl Part {
    fn new(
        policy: LoadBalancing,
        members: &[&Candidate<'_>],
        weight: impl Fn(&Candidate<'_>) -> f64,
    ) -> Self {
        let hashed = || -> Vec<Member<'_>> {
            let sum: f64 = members.iter().map(|c| weight(c)).sum();
            members.iter().map(|c| (c.key, weight(c) / sum)).filter(|(_, share)| *share > 0.0).collect()
        };
        let order = match policy {
            LoadBalancing::RingHash(size) => Order::Ring(Ring::new(&hashed(), size)),
            LoadBalancing::Maglev(size) => Order::Maglev(Maglev::new(&hashed(), size)),
            _ => Order::Weighted(Weights::new(members.iter().map(|c| c.weight))),
        };
        let weighs = |c: &&&Candidate<'_>| !policy.is_consistent() || weight(c) > 0.0;
        let portions = match policy.is_consistent() {
            true => hashed().into_iter().map(|(_, share)| share).collect(),
            false => Vec::new(),
        };
        Self { positions: members.iter().filter(weighs).map(|c| c.position).collect(), portions, order }
    }

    /// `at`, or where that one has more than its part of the requests under way, another one: in an order that only the
    /// hash decides.
    fn within(&self, percent: u32, at: usize, hash: u64, active: &impl Fn(u32) -> u32) -> usize {
        let busy = |at: usize| self.positions.get(at).map_or(0, |position| u64::from(active(*position)));
        let all: u64 = (0..self.positions.len()).map(busy).sum();
        let slots = ((all + 1) * u64::from(percent)).div_ceil(100) as f64;
        let load = |at: usize| {
            let own = (slots * self.portions.get(at).copied().unwrap_or(0.0)).ceil().max(1.0);
            busy(at) as f64 / own
        };
        if load(at) <= 1.0 {
            return at;
        }
        let mut order: Vec<usize> = (0..self.positions.len()).collect();
        let mut random = hash | 1;
        let (mut best, mut least) = (at, load(at));
        for number in 0..order.len() {
            random = random.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            let other = number + random as usize % (order.len() - number);
            order.swap(number, other);
            let Some(next) = order.get(number).copied() else { break };
            let found = load(next);
            if found <= 1.0 {
                return next;
            }
            if found < least {
                (best, least) = (next, found);
            }
        }
        best
    }
}

fn levels<'c>(candidates: &'c [Candidate<'c>]) -> Vec<Level<'c>> {
    // Priorities are few and near 0; one that is far off must not cost memory.
    let mut numbers: Vec<u32> = candidates.iter().map(|c| c.priority).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut levels: Vec<Level<'c>> = numbers.iter().map(|_| Level::default()).collect();
    for candidate in candidates {
        let Ok(at) = numbers.binary_search(&candidate.priority) else { continue };
        let Some(level) = levels.get_mut(at) else { continue };
        level.all.push(candidate);
        level.is_left |= candidate.is_left;
        match candidate.standing {
            Standing::Healthy => level.healthy += 1,
            Standing::Degraded => level.degraded += 1,
            Standing::Unhealthy => {}
        }
    }
    levels
}

/// What a priority gets.
struct Load {
    level: usize,
    percent: u64,
    /// Of which of its endpoints; `None` of all, in panic.
    of: Option<Standing>,
}

/// Shares of the priorities: as much as health allows to the first, the rest to the next, and degraded endpoints last.
fn loads(levels: &[Level<'_>], panic_threshold: f64) -> Vec<Load> {
    let mut healthy: Vec<u64> = levels.iter().map(|l| l.availability(l.healthy)).collect();
    let mut degraded: Vec<u64> = levels.iter().map(|l| l.availability(l.degraded)).collect();
    let mut total = healthy.iter().chain(&degraded).sum::<u64>().min(100);
    let is_short = total < 100;
    let panics = |level: &Level<'_>| is_short && level.is_in_panic(panic_threshold);
    let is_any_left = levels.iter().any(|level| level.is_left);
    if !levels.is_empty() && !is_any_left && levels.iter().all(&panics) {
        return loads_in_panic(levels);
    }
    if is_any_left {
        // Who panics is as it was: only the shares change.
        let left = || levels.iter().map(|level| level.is_left);
        healthy.iter_mut().chain(&mut degraded).zip(left().chain(left())).for_each(|(available, is_left)| {
            if is_left {
                *available = 0;
            }
        });
        total = healthy.iter().chain(&degraded).sum::<u64>().min(100);
    }
    if total == 0 {
        return Vec::new();
    }
    let mut left = 100;
    let mut loads = Vec::new();
    for (standing, availability) in [(Standing::Healthy, &healthy), (Standing::Degraded, &degraded)] {
        for (level, available) in availability.iter().enumerate() {
            let percent = (available * 100 / total).min(left);
            left -= percent;
            let of = levels.get(level).is_none_or(|level| !panics(level)).then_some(standing);
            if *available > 0 {
                loads.push(Load { level, percent, of });
            }
        }
    }
    // What rounding leaves goes to the first.
    if let Some(first) = loads.first_mut() {
        first.percent += left;
    }
    loads
}

/// Nothing is healthy enough anywhere: each priority gets what its number of endpoints is worth.
fn loads_in_panic(levels: &[Level<'_>]) -> Vec<Load> {
    let total: usize = levels.iter().map(|level| level.all.len()).sum();
    let share = |(level, l): (usize, &Level<'_>)| {
        let percent = (100 * l.all.len()).checked_div(total).unwrap_or(0) as u64;
        Load { level, percent, of: None }
    };
    let mut loads: Vec<Load> = levels.iter().enumerate().map(share).collect();
    let left = 100 - loads.iter().map(|load| load.percent).sum::<u64>().min(100);
    if let Some(first) = loads.first_mut() {
        first.percent += left;
    }
    loads
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
