//! examples/egress-tls-origination: applications speak plain HTTP, their sidecars TLS.

use crate::asking::{get_through, until};
use crate::task::{Proxy, make_certificates, with_both_proxies};

with_both_proxies!(sidecars_speak_tls_for_their_applications);

async fn sidecars_speak_tls_for_their_applications(proxy: Proxy) {
    let mesh = proxy.run_changed("egress-tls-origination", make_certificates);
    let client = mesh.way_out("client");
    for (host, version, shows_certificate) in
        [("shop.example.com", "shop", false), ("bank.example.com", "bank", true)]
    {
        let answer = get_through(&client, &format!("http://{host}/")).await;
        assert_eq!((answer.status, answer.version().as_str()), (200, version), "{answer:?}");
        let tls = &answer.json()["tls"];
        assert_eq!(tls["server_name"], host);
        assert_eq!(tls["client_certificate"], shows_certificate);
    }

    let stricter = "credentialName: shop-authority\n      subjectAltNames: [somebody-else.example.com]";
    mesh.save("egress.yaml", &mesh.text("egress.yaml").replace("credentialName: shop-authority", stricter));
    let ask = || get_through(&client, "http://shop.example.com/");
    until("a server that is somebody else is refused", ask, |answer| answer.status == 503).await;
}
