//! examples/locality-distribute: places get the shares that are written for them.

use crate::asking::get_through;
use crate::task::{Proxy, with_both_proxies};
use std::collections::BTreeMap;

with_both_proxies!(places_get_their_shares);

async fn places_get_their_shares(proxy: Proxy) {
    let mesh = proxy.run("locality-distribute");
    let client = mesh.way_out("client");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..300 {
        let answer = get_through(&client, "http://hello:8000/").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        *counts.entry(answer.version()).or_default() += 1;
    }
    let count = |place: &str| counts.get(place).copied().unwrap_or(0);
    assert!((175..=245).contains(&count("near")), "70 of 100: {counts:?}");
    assert!((32..=90).contains(&count("next")), "20 of 100: {counts:?}");
    assert!((9..=54).contains(&count("far")), "10 of 100: {counts:?}");
}
