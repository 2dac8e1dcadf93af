#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn rule() -> OutlierDetection {
    OutlierDetection { max_percent: 100, ..OutlierDetection::default() }
}

fn reasons(tally: &Tally, rule: &OutlierDetection) -> Vec<Reason> {
    tally.take_reached(rule).map(|(reason, _)| reason).collect()
}

#[test]
fn five_errors_in_a_row_are_told_once_and_a_success_begins_anew() {
    let (tally, rule) = (Tally::default(), rule());
    let told: Vec<bool> = (0..4).map(|_| tally.record(Verdict::Answered(500), &rule)).collect();
    assert_eq!(told, [false; 4]);
    tally.record(Verdict::Answered(200), &rule);
    let told: Vec<bool> = (0..7).map(|_| tally.record(Verdict::Answered(500), &rule)).collect();
    assert_eq!(told, [false, false, false, false, true, false, false]);
    assert_eq!(reasons(&tally, &rule), [Reason::Consecutive5xx]);
    assert_eq!(reasons(&tally, &rule), []);
}

#[test]
fn a_500_is_no_gateway_error() {
    let gateway = Some(Trigger { count: 2, enforced: 100 });
    let rule = OutlierDetection { consecutive_gateway: gateway, consecutive_5xx: None, ..rule() };
    let tally = Tally::default();
    let told = [503, 500, 502, 504].map(|status| tally.record(Verdict::Answered(status), &rule));
    assert_eq!(told, [false, false, false, true]);
    assert_eq!(reasons(&tally, &rule), [Reason::ConsecutiveGateway]);
}

#[test]
fn local_failures_count_as_server_errors_unless_they_are_split_off() {
    let five = |rule: &OutlierDetection| {
        let tally = Tally::default();
        for _ in 0..5 {
            tally.record(Verdict::Broken, rule);
        }
        reasons(&tally, rule)
    };
    assert_eq!(five(&rule()), [Reason::Consecutive5xx]);
    let local = Some(Trigger { count: 5, enforced: 100 });
    let split = OutlierDetection { split_local: true, consecutive_local: local, ..rule() };
    assert_eq!(five(&split), [Reason::ConsecutiveLocal]);
}

#[test]
fn the_time_out_grows_with_each_ejection_up_to_its_bound_and_shrinks_with_good_conduct() {
    let rule = OutlierDetection { max_ejection: 70 * SECOND, ..rule() };
    let mut ejections = Ejections::default();
    let mut now = Duration::ZERO;
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let length = ejections.eject(7, 100, 1, &rule, now, 0).unwrap();
        assert!(ejections.tick(now + length - SECOND).is_empty());
        now += length;
        assert_eq!(ejections.tick(now), [7]);
        lengths.push(length.as_secs());
    }
    assert_eq!(lengths, [30, 60, 70, 70]);
    for _ in 0..3 {
        ejections.tick(now);
    }
    assert_eq!(ejections.eject(7, 100, 1, &rule, now, 0), Some(60 * SECOND));
}

#[test]
fn an_ejection_that_is_not_enforced_does_not_happen() {
    let mut ejections = Ejections::default();
    assert_eq!(ejections.eject(1, 0, 1, &rule(), Duration::ZERO, 0), None);
    assert_eq!(ejections.eject(1, 50, 1, &rule(), Duration::ZERO, 50), None);
    assert!(ejections.eject(1, 50, 1, &rule(), Duration::ZERO, 49).is_some());
}

#[test]
fn one_of_two_is_ejected_even_at_ten_percent_but_not_the_second() {
    let rule = OutlierDetection { max_percent: 10, ..rule() };
    let mut ejections = Ejections::default();
    assert!(ejections.eject(1, 100, 2, &rule, Duration::ZERO, 0).is_some());
    assert_eq!(ejections.eject(2, 100, 2, &rule, Duration::ZERO, 0), None);
    let none = OutlierDetection { max_percent: 0, ..rule };
    let mut ejections = Ejections::default();
    assert_eq!(ejections.eject(1, 100, 2, &none, Duration::ZERO, 0), None);
    let always_one = OutlierDetection { always_one: true, ..none };
    assert!(ejections.eject(1, 100, 2, &always_one, Duration::ZERO, 0).is_some());
}

#[test]
fn a_success_rate_far_below_the_others_stands_out() {
    let rate = SuccessRate {
        minimum_hosts: 5,
        request_volume: 100,
        deviation: 1900,
        enforced: 100,
        enforced_local: 0,
    };
    let rule = OutlierDetection { success_rate: Some(rate), ..rule() };
    let mut counts: Vec<(u64, (u32, u32))> = (0..5).map(|id| (id, (100, 0))).collect();
    counts.push((5, (50, 50)));
    assert_eq!(outstanding(&counts, &rule, false), [(5, Reason::SuccessRate, 100)]);
    counts.truncate(4);
    assert_eq!(outstanding(&counts, &rule, false), []);
}

#[test]
fn a_share_of_failures_stands_out_whatever_the_others_do() {
    let share = FailureShare {
        threshold: 85,
        minimum_hosts: 1,
        request_volume: 50,
        enforced: 100,
        enforced_local: 0,
    };
    let rule = OutlierDetection { failure_share: Some(share), ..rule() };
    let counts = [(1, (0, 60)), (2, (9, 51)), (3, (10, 50)), (4, (0, 49))];
    let found: Vec<u64> = outstanding(&counts, &rule, false).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(found, [1, 2]);
}

proptest! {
    #[test]
    fn never_more_than_one_beyond_the_allowed_share_is_out(
        ids in prop::collection::vec(0u64..20, 1..60), max_percent in 0u32..=100,
    ) {
        let rule = OutlierDetection { max_percent, ..rule() };
        let mut ejections = Ejections::default();
        for id in ids {
            ejections.eject(id, 100, 20, &rule, Duration::ZERO, 0);
        }
        prop_assert!(ejections.out() as u32 * 100 < max_percent * 20 + 100 * 20 / 20 + 100);
        prop_assert!(ejections.out() <= 20);
    }

    #[test]
    fn everyone_is_let_in_again(ids in prop::collection::vec(0u64..20, 1..60)) {
        let mut ejections = Ejections::default();
        for id in ids {
            ejections.eject(id, 100, 20, &rule(), Duration::ZERO, 0);
        }
        let out = ejections.out();
        prop_assert_eq!(ejections.tick(Duration::from_secs(3600)).len(), out);
        prop_assert_eq!(ejections.out(), 0);
    }
}
