//! examples/traffic-shifting: a new version takes over in steps.

use crate::asking::{get, until};
use crate::mesh::REVIEWS;
use crate::task::{Proxy, with_both_proxies};

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
    // Four in a row could be luck; fifteen after that are not.
    for _ in 0..4 {
        until("v3 answers", || get(&gateway, REVIEWS, &[]), |answer| answer.version() == "v3").await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for _ in 0..15 {
        let answer = get(&gateway, REVIEWS, &[]).await;
        assert_eq!(answer.version(), "v3", "everything has shifted");
    }
}
