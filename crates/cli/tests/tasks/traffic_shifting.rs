//! examples/traffic-shifting: a new version takes over in steps.

use crate::asking::{Answer, get, until};
use crate::mesh::REVIEWS;
use crate::task::{Proxy, with_both_proxies};
use std::cell::Cell;

with_both_proxies!(weights_say_who_gets_how_much);

async fn weights_say_who_gets_how_much(proxy: Proxy) {
    let mesh = proxy.run("traffic-shifting");
    let gateway = mesh.gateway_address(80);
    let mut shifted = 0;
    for _ in 0..200 {
        let answer = get(&gateway, REVIEWS, &[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        match answer.version().as_str() {
            "v3" => shifted += 1,
            other => assert_eq!(other, "v1"),
        }
    }
    assert!((68..=132).contains(&shifted), "half of the requests go to v3: {shifted} of 200");

    let rule = mesh.text("reviews.yaml");
    let all = rule.replacen("weight: 50", "weight: 0", 1).replacen("weight: 50", "weight: 100", 1);
    mesh.save("reviews.yaml", &all);
    // So many in a row are no luck.
    let in_a_row = Cell::new(0);
    let is_enough = |answer: &Answer| {
        in_a_row.set(if answer.version() == "v3" { in_a_row.get() + 1 } else { 0 });
        in_a_row.get() == 25
    };
    until("everything has shifted", || get(&gateway, REVIEWS, &[]), is_enough).await;
}
