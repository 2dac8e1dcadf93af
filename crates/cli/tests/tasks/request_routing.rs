//! examples/request-routing: who asks decides which version answers.

use crate::asking::get;
use crate::mesh::REVIEWS;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(users_see_the_versions_that_the_rules_say);

async fn users_see_the_versions_that_the_rules_say(proxy: Proxy) {
    let mesh = proxy.run("request-routing");
    let gateway = mesh.gateway_address(80);
    for (cookie, version) in [("", "v1"), ("user=jason", "v2"), ("user=early-bird", "v3"), ("user=kim", "v1")]
    {
        for _ in 0..15 {
            let answer = get(&gateway, REVIEWS, &[("cookie", cookie)]).await;
            assert_eq!((answer.status, answer.version().as_str()), (200, version), "{cookie}: {answer:?}");
        }
    }
}
