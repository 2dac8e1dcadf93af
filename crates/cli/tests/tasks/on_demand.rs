//! Tasks once more, with sidecars that are sent only what they call: rules hold for the first request as for any.

use crate::asking::{get, get_through};
use crate::mesh::eventually;
use crate::task::{Proxy, with_both_proxies};
use std::path::Path;

/// Has every sidecar sent only what it calls.
fn lean(folder: &Path) {
    let text = "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: lean, namespace: istio-system}\n\
        spec: {environmentVariables: {ISTIO_META_ON_DEMAND: 'true'}}\n";
    std::fs::write(folder.join("lean.yaml"), text).unwrap();
}

mod faults {
    use super::*;

    with_both_proxies!(the_first_request_is_delayed_or_aborted);

    async fn the_first_request_is_delayed_or_aborted(proxy: Proxy) {
        let mesh = proxy.run_changed("fault-injection", lean);
        let gateway = mesh.gateway_address(80);
        let ask = async |user: &str| {
            get(&gateway, "/api/v1/products/0/ratings", &[("cookie", &format!("user={user}"))]).await
        };
        let jason = ask("jason").await;
        assert!(jason.status == 200 && jason.took.as_secs_f64() > 1.95, "delayed by 2 s: {jason:?}");
        let kim = ask("kim").await;
        assert_eq!((kim.status, kim.body.trim()), (500, "fault filter abort"), "{kim:?}");
    }
}

mod mirrors {
    use super::*;

    with_both_proxies!(the_first_request_is_copied);

    async fn the_first_request_is_copied(proxy: Proxy) {
        let mesh = proxy.run_changed("mirroring", lean);
        let client = mesh.way_out("client");
        let answer = get_through(&client, "http://echo:8000/mirrored").await;
        assert_eq!((answer.status, answer.version().as_str()), (200, "v1"), "{answer:?}");
        let is_told = |line: &String| line.starts_with("[echo-v2 proxy]") && line.contains("GET /mirrored ");
        eventually("v2 has got a copy", || mesh.said().iter().any(is_told)).await;
    }
}
