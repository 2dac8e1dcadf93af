//! Names of headers in capitals, as `header_key_format` says.

use super::bench::{Server, both};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Names of a head's fields that matter here, as they were written.
fn names(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let names =
        head.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| line.split(':').next());
    let wanted = ["host", "soapaction", "x-forwarded-proto", "content-length", "date", "user-agent"];
    let mut found: Vec<&str> =
        names.filter(|name| wanted.contains(&name.to_ascii_lowercase().as_str())).collect();
    found.sort_by_key(|name| name.to_ascii_lowercase());
    found.join(" ")
}

/// The head of the answer to a request whose names are in capitals here and there.
fn ask(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        "GET / HTTP/1.1\r\nHOST: main.test\r\nSOAPAction: x\r\nuser-Agent: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn names_of_headers_are_written_as_envoy_writes_them() {
    let one = Server::start("one");
    both(
        include_str!("casing.yaml"),
        &[("ONE", one.port())],
        |bench| {
            one.take_first();
            let mut seen = Vec::new();
            for port in ["KEEP", "PROPER", "LOWER"] {
                let answer = ask(bench.at(port));
                let asked = one.take_first();
                seen.push(names(asked.first().map_or(&b""[..], Vec::as_slice)));
                seen.push(names(&answer));
            }
            seen
        },
        &[
            "HOST SOAPAction user-Agent x-forwarded-proto",
            "content-length date",
            "Host Soapaction User-Agent X-Forwarded-Proto",
            "Content-Length Date",
            "host soapaction user-agent x-forwarded-proto",
            "content-length date",
        ],
    );
}
