//! A server outside that is told who asks, by the PROXY protocol (`proxyProtocol` of a DestinationRule).

use crate::asking::get_through;
use crate::task::{Proxy, with_both_proxies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

with_both_proxies!(a_server_is_told_who_asks);

async fn a_server_is_told_who_asks(proxy: Proxy) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let mesh = proxy.run_changed("egress", |folder| {
        std::fs::write(folder.join("told.yaml"), told(port)).unwrap();
    });
    let client = mesh.way_out("client");
    let answer = get_through(&client, "http://told.example.com/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let words: Vec<&str> = answer.body.split(' ').collect();
    assert_eq!(words[..3], ["PROXY", "TCP4", "127.0.0.1"], "{answer:?}");
    assert!(client.ends_with(&format!(":{}", words[5].trim())), "to {client}: {answer:?}");
}

/// Answers one request with the first line that came.
async fn answer(mut stream: TcpStream) {
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut said).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().next().unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", first.len());
    let _ = stream.write_all(format!("{head}{first}").as_bytes()).await;
}

fn told(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: told}}
spec:
  hosts: [told.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: told}}
spec:
  host: told.example.com
  trafficPolicy: {{proxyProtocol: {{version: V1}}}}
"
    )
}
