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
    eventually("the gateway tells of the request", || {
        mesh.said().iter().any(|line| line.starts_with("[egress]") && line.contains("GET /hello "))
    })
    .await;
    let way = |line: &String| line.starts_with("[client proxy]") && line.contains("GET /hello ");
    let said = mesh.said();
    let to = said.iter().find(|line| way(line)).unwrap();
    assert!(to.contains("outbound|443|api|istio-egressgateway.istio-system.svc.cluster.local"), "{to}");
    let unknown = get_through(&client, "http://other.example.com/").await;
    assert!([404, 502].contains(&unknown.status), "nobody has declared it: {unknown:?}");
}
