#![allow(clippy::unwrap_used)]
use super::super::{MAGLEV_SIZE, RingShape, xx_hash};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// `h`ealthy, `d`egraded or `u`nhealthy endpoints of each priority, all in one locality of their own.
fn candidates(priorities: &[&str]) -> Vec<Candidate<'static>> {
    let mut all = Vec::new();
    for (priority, states) in priorities.iter().enumerate() {
        for state in states.chars() {
            let standing = match state {
                'h' => Standing::Healthy,
                'd' => Standing::Degraded,
                _ => Standing::Unhealthy,
            };
            let position = all.len() as u32;
            let key: &'static str = Box::leak(format!("10.0.0.{position}:80").into_boxed_str());
            let priority = priority as u32;
            all.push(Candidate {
                position,
                priority,
                locality: priority,
                locality_weight: None,
                weight: 1,
                standing,
                key,
                is_left: false,
            });
        }
    }
    all
}

fn spread(panic_threshold: f64) -> Spread {
    Spread { panic_threshold, ..Spread::default() }
}

fn ask(n: u64) -> Ask {
    Ask { hash: None, random: xx_hash(&n.to_le_bytes(), 0), turn: n, attempt: 0 }
}

/// Percent of picks that go to each endpoint.
fn percents(table: &Table) -> BTreeMap<u32, u32> {
    const PICKS: u64 = 20_000;
    let mut hits = BTreeMap::new();
    for n in 0..PICKS {
        if let Some(at) = table.pick(&ask(n), |_| 0) {
            *hits.entry(at).or_insert(0_u32) += 1;
        }
    }
    hits.into_iter().map(|(at, hits)| (at, (f64::from(hits) / PICKS as f64 * 100.0).round() as u32)).collect()
}

/// Percent of picks that go to each priority.
fn by_priority(priorities: &[&str], panic_threshold: f64) -> BTreeMap<u32, u32> {
    let all = candidates(priorities);
    let table = Table::new(LoadBalancing::Random, &spread(panic_threshold), &all);
    let mut sums = BTreeMap::new();
    for (at, percent) in percents(&table) {
        *sums.entry(all[at as usize].priority).or_insert(0) += percent;
    }
    sums
}

fn about(found: &BTreeMap<u32, u32>, wanted: &[(u32, u32)]) {
    let near = |(key, percent): &(u32, u32)| found.get(key).copied().unwrap_or(0).abs_diff(*percent) <= 2;
    assert!(wanted.iter().all(near) && found.len() == wanted.len(), "{found:?}, wanted {wanted:?}");
}

#[test]
fn a_priority_keeps_everything_while_seven_of_ten_are_healthy() {
    about(&by_priority(&["hhhhhhhhuu", "h"], 50.0), &[(0, 100)]);
}

#[test]
fn what_a_priority_cannot_take_goes_to_the_next() {
    about(&by_priority(&["hu", "hh"], 0.0), &[(0, 70), (1, 30)]);
    about(&by_priority(&["uu", "hh"], 0.0), &[(1, 100)]);
}

#[test]
fn health_short_of_the_whole_is_shared_in_proportion() {
    // 35 and 35 percent of what is needed: half each.
    about(&by_priority(&["huuu", "huuu"], 0.0), &[(0, 50), (1, 50)]);
}

#[test]
fn degraded_endpoints_come_after_healthy_ones_of_every_priority() {
    about(&by_priority(&["d", "h"], 0.0), &[(1, 100)]);
    about(&by_priority(&["d", "u"], 0.0), &[(0, 100)]);
}

#[test]
fn below_the_threshold_health_is_not_looked_at() {
    let all = candidates(&["huuuu"]);
    about(&percents(&Table::new(LoadBalancing::Random, &spread(0.0), &all)), &[(0, 100)]);
    let calm = percents(&Table::new(LoadBalancing::Random, &spread(50.0), &all));
    about(&calm, &[(0, 20), (1, 20), (2, 20), (3, 20), (4, 20)]);
    let strict = Spread { fail_in_panic: true, ..spread(50.0) };
    assert_eq!(percents(&Table::new(LoadBalancing::Random, &strict, &all)), BTreeMap::new());
}

#[test]
fn without_panic_nothing_is_picked_where_nothing_is_healthy() {
    for priorities in [&["uu"][..], &["u", "u"], &[]] {
        assert_eq!(by_priority(priorities, 0.0), BTreeMap::new());
    }
}

#[test]
fn in_total_panic_priorities_share_by_their_number_of_endpoints() {
    about(&by_priority(&["uuu", "u"], 50.0), &[(0, 75), (1, 25)]);
}

fn localities(weights: &[(Option<u32>, &str)]) -> Vec<Candidate<'static>> {
    let mut all = candidates(&weights.iter().map(|(_, states)| *states).collect::<Vec<_>>());
    for candidate in &mut all {
        candidate.locality_weight = weights[candidate.priority as usize].0;
        candidate.priority = 0;
    }
    all
}

#[test]
fn localities_share_by_weight_less_what_is_missing_of_their_health() {
    let weighted = Spread { weighted_localities: true, ..Spread::default() };
    for policy in [LoadBalancing::RoundRobin, LoadBalancing::LeastRequest, LoadBalancing::Random] {
        let all = localities(&[(Some(3), "h"), (Some(1), "hh"), (None, "h")]);
        about(&percents(&Table::new(policy, &weighted, &all)), &[(0, 75), (1, 13), (2, 13)]);
        let half = localities(&[(Some(1), "hu"), (Some(1), "h")]);
        about(&percents(&Table::new(policy, &weighted, &half)), &[(0, 41), (2, 59)]);
    }
    let all = localities(&[(Some(3), "h"), (Some(1), "hh")]);
    about(
        &percents(&Table::new(LoadBalancing::Random, &Spread::default(), &all)),
        &[(0, 33), (1, 33), (2, 33)],
    );
}

#[test]
fn a_hash_leads_to_the_same_endpoint_again_and_to_others_at_further_attempts() {
    let all = candidates(&["hhhh"]);
    for policy in [LoadBalancing::RingHash(RingShape::default()), LoadBalancing::Maglev(MAGLEV_SIZE)] {
        let table = Table::new(policy, &Spread::default(), &all);
        for n in 0..100 {
            let hash = Some(xx_hash(&n.to_string().into_bytes(), 0));
            let picks: Vec<Option<u32>> =
                (0..50).map(|turn| table.pick(&Ask { hash, ..ask(turn) }, |_| 0)).collect();
            assert!(picks.windows(2).all(|two| two[0] == two[1]));
            let attempts: std::collections::BTreeSet<_> =
                (0..20).filter_map(|attempt| table.pick(&Ask { hash, attempt, ..ask(n) }, |_| 0)).collect();
            assert!(attempts.len() > 1);
        }
    }
}

#[test]
fn consistent_hashing_heeds_the_weights_of_localities() {
    let weighted = Spread { weighted_localities: true, ..Spread::default() };
    let all = localities(&[(Some(3), "h"), (Some(1), "hh"), (Some(0), "h")]);
    let table = Table::new(LoadBalancing::Maglev(MAGLEV_SIZE), &weighted, &all);
    about(&percents(&table), &[(0, 75), (1, 13), (2, 13)]);
}

proptest! {
    #[test]
    fn every_pick_is_usable_and_there_is_one_whenever_something_is_healthy(
        priorities in prop::collection::vec("[hdu]{0,6}", 1..4), n: u64, policy in 0usize..5,
    ) {
        let policies = [
            LoadBalancing::RoundRobin,
            LoadBalancing::LeastRequest,
            LoadBalancing::Random,
            LoadBalancing::RingHash(RingShape { minimum: 64, maximum: 128, ..RingShape::default() }),
            LoadBalancing::Maglev(251),
        ];
        let all = candidates(&priorities.iter().map(String::as_str).collect::<Vec<_>>());
        let table = Table::new(policies[policy], &spread(0.0), &all);
        let found = table.pick(&ask(n), |_| 0);
        let usable = all.iter().any(|c| c.standing != Standing::Unhealthy);
        prop_assert_eq!(found.is_some(), usable);
        if let Some(at) = found {
            prop_assert_ne!(all[at as usize].standing, Standing::Unhealthy);
        }
    }
}

#[test]
fn no_endpoint_gets_much_more_than_its_part_of_what_is_hashed() {
    let keys = ["a", "b", "c"];
    let candidates: Vec<Candidate<'_>> = (0..3)
        .map(|position| Candidate {
            position,
            priority: 0,
            locality: 0,
            locality_weight: None,
            weight: 1,
            standing: Standing::Healthy,
            key: keys[position as usize],
            is_left: false,
        })
        .collect();
    let bounded = Spread { hash_balance: Some(120), ..Spread::default() };
    let table = Table::new(LoadBalancing::Maglev(251), &bounded, &candidates);
    let mut active = [0_u32; 3];
    for _ in 0..30 {
        let ask = Ask { hash: Some(7), ..Ask::default() };
        active[table.pick(&ask, |at| active[at as usize]).unwrap() as usize] += 1;
    }
    assert!(active.iter().all(|count| (1..=14).contains(count)), "{active:?}");
    let free = Table::new(LoadBalancing::Maglev(251), &Spread::default(), &candidates);
    let always = |_| free.pick(&Ask { hash: Some(7), ..Ask::default() }, |_| 9);
    assert!((0..9).map(always).all(|at| at == always(0)));
}

#[test]
fn priorities_that_are_left_get_nothing_and_who_panics_is_as_before() {
    let without = |priorities: &[&str], left: u32| -> Vec<u32> {
        let mut all = candidates(priorities);
        all.iter_mut().for_each(|candidate| candidate.is_left = candidate.priority == left);
        percents(&Table::new(LoadBalancing::Random, &spread(50.0), &all)).into_keys().collect()
    };
    assert_eq!(without(&["hh", "h", "h"], 0), [2]);
    assert_eq!(without(&["hh", "huuu"], 0), [2], "it is not in panic, as the first is healthy");
    assert_eq!(without(&["hu", "huuu"], 1), [0]);
    assert_eq!(without(&["hh", "uu"], 0), [], "there is nothing else");
}
