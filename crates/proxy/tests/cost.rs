//! What a request costs, counted in allocations, which are the same on every machine. A change that makes a request dearer
//! by more than 3 % fails here; one that makes it cheaper lowers the number.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::{Read, Write};
use support::*;

/// Allocations of one small HTTP/1.1 request: both connections' parsers, the request stage and the record.
const PER_REQUEST: f64 = 25.0;
/// Requests that are measured, after as many to warm up.
const REQUESTS: usize = 200;

/// An endpoint on a thread of its own, so that its allocations are not counted.
fn endpoint() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    });
    address
}

async fn exchange(client: &mut tokio::io::DuplexStream, times: usize) {
    let mut answer = [0; 4096];
    for _ in 0..times {
        client.write_all(b"GET /a?b=c HTTP/1.1\r\nhost: shop\r\nuser-agent: test\r\n\r\n").await.unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"hello") {
            length += client.read(&mut answer[length..]).await.unwrap();
        }
    }
}

#[test]
fn a_small_request_costs_no_more_allocations_than_it_did() {
    let address = endpoint();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let proxy = Proxy::new(vec![route("/", Action::forward(to("a")))], vec![cluster("a", &[address])]);
    let mut client = local.block_on(&runtime, async {
        let mut client = proxy.connect();
        exchange(&mut client, REQUESTS).await;
        client
    });
    let counted = allocation_counter::measure(|| {
        local.block_on(&runtime, exchange(&mut client, REQUESTS));
    });
    let per_request = counted.count_total as f64 / REQUESTS as f64;
    println!("{per_request} allocations, {} bytes per request", counted.bytes_total as f64 / REQUESTS as f64);
    assert!(per_request <= PER_REQUEST * 1.03, "{per_request} allocations a request, {PER_REQUEST} before");
}
