//! examples/sni-passthrough: TLS goes through as it is, to where its server name says.

use crate::asking::get_tls;
use crate::task::{Proxy, make_certificates, with_both_proxies};

with_both_proxies!(the_certificate_is_the_applications_own);

async fn the_certificate_is_the_applications_own(proxy: Proxy) {
    let mesh = proxy.run_changed("sni-passthrough", make_certificates);
    let gateway = mesh.gateway_address(443);
    let echo = get_tls(&gateway, "echo.example.com", &mesh.folder, None);
    assert!(echo.contains("CN = echo.example.com") && echo.contains("HTTP/1.1 200"), "{echo}");
    assert!(echo.contains("\"server_name\": \"echo.example.com\""), "TLS ends at the application: {echo}");
    let other = get_tls(&gateway, "other.example.com", &mesh.folder, None);
    assert!(!other.contains("HTTP/1.1") && !other.contains("BEGIN CERTIFICATE"), "{other}");
}
