//! examples/tcp-traffic-shifting: the same for bytes of which nobody knows what they say.

use crate::asking::hello;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(connections_are_shared_out_by_weight);

async fn connections_are_shared_out_by_weight(proxy: Proxy) {
    let mesh = proxy.run("tcp-traffic-shifting");
    let (gateway, client) = (mesh.gateway_address(31400), mesh.way_out("client"));
    for (from, way, address) in
        [("outside", None, gateway.as_str()), ("inside", Some(client.as_str()), "tcp-echo:9000")]
    {
        let mut second = 0;
        for _ in 0..150 {
            match hello(way, address).await.as_str() {
                "v2 hello" => second += 1,
                other => assert_eq!(other, "v1 hello"),
            }
        }
        assert!((10..=52).contains(&second), "a fifth of those from {from} go to v2: {second} of 150");
    }
}
