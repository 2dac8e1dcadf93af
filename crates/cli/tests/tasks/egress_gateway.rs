//! examples/egress-gateway: what leaves the mesh does so through one gateway.

use crate::asking::get_through;
use crate::mesh::eventually;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(requests_leave_through_the_gateway);

async fn requests_leave_through_the_gateway(proxy: Proxy) {
    let mesh = proxy.run("egress-gateway");
    let client = mesh.way_out("client");
    let answer = get_through(&client, "http://api.example.com/hello").await;
    assert_eq!((answer.status, answer.version().as_str()), (200, "outside"), "{answer:?}");
    assert_eq!(answer.json()["authority"], "api.example.com");
    let told = |who: &str, way: &str| {
        let is_told =
            |line: &String| line.starts_with(who) && line.contains("GET /hello ") && line.contains(way);
        mesh.said().iter().any(is_told)
    };
    let gateway = "outbound|443|api|istio-egressgateway.istio-system.svc.cluster.local";
    eventually("the client's sidecar tells that it asked the gateway", || told("[client proxy]", gateway))
        .await;
    let outside = "outbound|80||api.example.com";
    eventually("the gateway tells that it asked outside", || told("[egress]", outside)).await;
    let unknown = get_through(&client, "http://other.example.com/").await;
    assert!([404, 502].contains(&unknown.status), "nobody has declared it: {unknown:?}");
}
