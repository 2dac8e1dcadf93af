//! examples/request-timeouts: an answer in time, even if it is that there is none.

use crate::asking::{get, until};
use crate::mesh::REVIEWS;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(who_waits_is_answered_in_time);

async fn who_waits_is_answered_in_time(proxy: Proxy) {
    let mesh = proxy.run("request-timeouts");
    let gateway = mesh.gateway_address(80);
    let answer = get(&gateway, REVIEWS, &[]).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.body.contains("upstream request timeout"), "{answer:?}");
    assert!((0.45..1.9).contains(&answer.took.as_secs_f64()), "after half a second: {answer:?}");

    mesh.save("reviews.yaml", &mesh.text("reviews.yaml").replace("0.5s", "2.8s"));
    let patient =
        until("a longer timeout", || get(&gateway, REVIEWS, &[]), |answer| answer.status == 200).await;
    assert!(patient.took.as_secs_f64() >= 1.95, "the answer came with its delay: {patient:?}");
}
