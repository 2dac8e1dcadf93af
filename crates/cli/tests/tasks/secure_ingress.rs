//! examples/secure-ingress: TLS with a certificate for each host, and with one of the client.

use crate::asking::{get, get_tls};
use crate::task::{Proxy, make_certificates, with_both_proxies};

with_both_proxies!(each_host_has_its_certificate_and_one_asks_for_the_clients);

async fn each_host_has_its_certificate_and_one_asks_for_the_clients(proxy: Proxy) {
    let mesh = proxy.run_changed("secure-ingress", make_certificates);
    let gateway = mesh.gateway_address(443);
    let ask = |host: &str, client: Option<&str>| get_tls(&gateway, host, &mesh.folder, client);

    let shop = ask("shop.example.com", None);
    assert!(shop.contains("HTTP/1.1 200") && shop.contains("CN = shop.example.com"), "{shop}");
    let bank = ask("bank.example.com", Some("client"));
    assert!(bank.contains("HTTP/1.1 200") && bank.contains("CN = bank.example.com"), "{bank}");
    let stranger = ask("bank.example.com", None);
    assert!(!stranger.contains("HTTP/1.1"), "no certificate, no answer: {stranger}");
    assert!(stranger.contains("certificate required"), "the client is told why: {stranger}");
    let elsewhere = ask("elsewhere.example.com", None);
    assert!(!elsewhere.contains("HTTP/1.1"), "nobody is called so here: {elsewhere}");

    let plain = get(&mesh.gateway_address(80), "/x", &[("host", "shop.example.com")]).await;
    assert_eq!((plain.status, plain.header("location")), (301, "https://shop.example.com/x"), "{plain:?}");
}
