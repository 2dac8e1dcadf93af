//! examples/egress: out of the mesh goes what is declared, and rules are for that, too.

use crate::asking::get_through;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(what_is_declared_is_reached_and_nothing_else);

async fn what_is_declared_is_reached_and_nothing_else(proxy: Proxy) {
    let mesh = proxy.run("egress");
    let client = mesh.way_out("client");
    let answer = get_through(&client, "http://api.example.com/hello").await;
    assert_eq!((answer.status, answer.version().as_str()), (200, "outside"), "{answer:?}");
    assert_eq!(answer.json()["authority"], "api.example.com");
    let unknown = get_through(&client, "http://other.example.com/").await;
    assert!([404, 502].contains(&unknown.status), "nobody has declared it: {unknown:?}");
    let late = get_through(&client, "http://api.example.com/?delay=3s").await;
    assert_eq!(late.status, 504, "a timeout of 1 s: {late:?}");
    assert!((0.95..2.9).contains(&late.took.as_secs_f64()), "{late:?}");
}
