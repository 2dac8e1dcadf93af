//! examples/fault-injection: delays and aborts, by who asks and by share.

use crate::asking::get;
use crate::task::{Proxy, with_both_proxies};
use std::time::Duration;

with_both_proxies!(faults_hit_whom_they_are_for);

const RATINGS: &str = "/api/v1/products/0/ratings";

async fn faults_hit_whom_they_are_for(proxy: Proxy) {
    let mesh = proxy.run("fault-injection");
    let gateway = mesh.gateway_address(80);
    let as_user = async |user: &str| get(&gateway, RATINGS, &[("cookie", &format!("user={user}"))]).await;

    let jason = as_user("jason").await;
    assert_eq!(jason.status, 200, "{jason:?}");
    assert!(jason.took.as_secs_f64() > 1.95, "delayed by 2 s: {jason:?}");
    let kim = as_user("kim").await;
    assert_eq!((kim.status, kim.body.trim()), (500, "fault filter abort"), "{kim:?}");
    let mut broken = 0;
    for _ in 0..60 {
        let lou = as_user("lou").await;
        assert!([200, 503].contains(&lou.status), "{lou:?}");
        broken += usize::from(lou.status == 503);
    }
    assert!((12..=48).contains(&broken), "half of the requests are aborted: {broken} of 60");
    for _ in 0..10 {
        let other = get(&gateway, RATINGS, &[]).await;
        assert_eq!(other.status, 200, "{other:?}");
        assert!(other.took < Duration::from_millis(1900), "{other:?}");
    }

    let page = get(&gateway, "/productpage", &[("cookie", "user=kim")]).await;
    assert_eq!(page.status, 200, "a page without stars is a page: {page:?}");
}
