//! examples/mirroring: a version that nobody waits for gets a copy of every request.

use crate::asking::get_through;
use crate::mesh::eventually;
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(copies_go_to_the_mirror_and_its_answers_nowhere);

async fn copies_go_to_the_mirror_and_its_answers_nowhere(proxy: Proxy) {
    let mesh = proxy.run("mirroring");
    let client = mesh.way_out("client");
    let told = |who: &str, path: &str, authority: &str| {
        let about = format!("GET {path} ");
        let is_told = |line: &&String| {
            line.starts_with(&format!("[{who} proxy]")) && line.contains(&about) && line.contains(authority)
        };
        mesh.said().iter().filter(is_told).count()
    };
    for _ in 0..10 {
        let answer = get_through(&client, "http://echo:8000/mirrored").await;
        assert_eq!((answer.status, answer.version().as_str()), (200, "v1"), "{answer:?}");
    }
    eventually("v2 has got ten copies", || told("echo-v2", "/mirrored", "echo-shadow:8000") == 10).await;
    eventually("v1 has got each once", || told("echo-v1", "/mirrored", "\"echo:8000\"") == 10).await;
}
