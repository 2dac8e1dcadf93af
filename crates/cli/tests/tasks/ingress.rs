//! examples/ingress: one host, of which two paths are let in.

use crate::asking::get;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(what_is_written_is_let_in_and_nothing_else);

async fn what_is_written_is_let_in_and_nothing_else(proxy: Proxy) {
    let mesh = proxy.run("ingress");
    let gateway = mesh.gateway_address(80);
    for (host, path, status) in [
        ("echo.example.com", "/status/200", 200),
        ("echo.example.com", "/delay/5?status=418", 418),
        ("echo.example.com", "/headers", 404),
        ("echo.example.com", "/", 404),
        ("other.example.com", "/status/200", 404),
    ] {
        let answer = get(&gateway, path, &[("host", host)]).await;
        assert_eq!(answer.status, status, "{host} {path}: {answer:?}");
    }
}
