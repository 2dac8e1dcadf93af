//! examples/circuit-breaking: what is too much is refused at once, and who fails is left alone for a while.

use crate::asking::{get_through, until};
use crate::task::{Proxy, with_both_proxies};
use futures_util::future::join_all;
use std::time::Duration;

with_both_proxies!(limits_hold_and_failing_endpoints_rest);

async fn limits_hold_and_failing_endpoints_rest(proxy: Proxy) {
    let mesh = proxy.run("circuit-breaking");
    let client = mesh.way_out("client");
    let ask = |url: &'static str| get_through(&client, url);
    for _ in 0..5 {
        let answer = ask("http://echo:8000/").await;
        assert_eq!(answer.status, 200, "one after the other is not too much: {answer:?}");
    }

    let answers = join_all((0..8).map(|_| ask("http://echo:8000/?delay=1s"))).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!served.is_empty() && served.len() <= 3, "one connection, one more waits: {answers:?}");
    for answer in refused {
        assert_eq!((answer.status, answer.header("x-envoy-overloaded")), (503, "true"), "{answer:?}");
        assert!(answer.body.contains("overflow"), "says why: {answer:?}");
        assert!(answer.took < Duration::from_secs(1), "refused at once: {answer:?}");
    }

    assert_eq!(ask("http://echo:8000/?status=500").await.status, 500);
    let resting =
        |answer: &crate::asking::Answer| answer.status == 503 && answer.body.contains("no healthy upstream");
    until("the endpoint that failed is left alone", || ask("http://echo:8000/"), resting).await;
    until("and comes back", || ask("http://echo:8000/"), |answer| answer.status == 200).await;
}
