//! HTTP/1 on the wire: what is answered, what is refused, where one request ends.

use crate::harness::*;

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    in_time(async {
        let proxy = web(2);
        let mut stream = proxy.connect("web").await;
        stream.write_all(format!("{GET}{GET}").as_bytes()).await.unwrap();
        for _ in 0..2 {
            assert!(answer(&mut stream).await.ends_with("\r\n\r\nhello"));
        }
        for byte in GET.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.contains("connection: close"));
        proxy.counts("ieum_connections_total{listener=\"web\"}", 1).await;
    });
}

#[test]
fn a_client_is_told_which_rule_of_framing_it_broke_after_the_answers_it_is_due() {
    in_time(async {
        let proxy = web(1);
        let smuggled =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        let text = say(&proxy, smuggled).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.contains("x-ieum-reason: framing.content_length_with_transfer_encoding\r\n"), "{text}");
        assert!(text.contains("connection: close\r\n"), "{text}");

        let text = say(&proxy, &format!("{GET}{smuggled}")).await;
        let (first, second) = text.split_once("hello").unwrap();
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(second.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");

        for (request, reason) in [
            ("GET / HTTP/1.1\nhost: a\n\n", "framing.bare_line_break"),
            ("GET / HTTP/1.1\r\n\r\n", "framing.host_missing"),
            ("GET <> HTTP/1.1\r\nhost: a\r\n\r\n", "framing.target"),
            (
                &format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000)),
                "request_headers_too_large",
            ),
        ] {
            let text = say(&proxy, request).await;
            assert!(text.contains(&format!("x-ieum-reason: {reason}\r\n")), "{reason}: {text}");
            assert_eq!(text.matches("HTTP/1.1 4").count(), 1, "{text}");
        }
    });
}

#[test]
fn a_broken_chunk_ends_the_request_and_the_connection() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let mut client = proxy.connect("web").await;
        let head = "POST /to-a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"abc\r\n") {
            seen.push(endpoint.read_u8().await.unwrap());
        }
        client.write_all(b"3\nxyz\r\n0\r\n\r\n").await.unwrap();
        let mut after = Vec::new();
        let _ = endpoint.read_to_end(&mut after).await;
        assert!(!after.windows(3).any(|w| w == b"xyz"), "what is behind the fault goes nowhere");
        let mut text = Vec::new();
        let _ = client.read_to_end(&mut text).await;
        assert!(text.windows(8).filter(|w| w == b"HTTP/1.1").count() <= 1);
    });
}

#[test]
fn tunnel_bytes_wait_for_the_endpoint_to_agree() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let ask = "GET /to-a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let mut client = proxy.connect("web").await;
        client.write_all(format!("{ask}early").as_bytes()).await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(endpoint.read_u8().await.unwrap());
        }
        let mut early = [0; 1];
        let waited = tokio::time::timeout(Duration::from_millis(50), endpoint.peek(&mut early)).await;
        assert!(waited.is_err(), "nothing comes before the endpoint agreed");
        endpoint
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhi",
            )
            .await
            .unwrap();
        let mut five = [0; 5];
        endpoint.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"early");
        assert!(answer(&mut client).await.starts_with("HTTP/1.1 101 "));
        let mut two = [0; 2];
        client.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"hi");
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut endpoint).await, "");
        drop(endpoint);
        assert_eq!(rest(&mut client).await, "");

        // Refused, what follows is the next request.
        let asked = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
        let text =
            say(&proxy, &format!("{asked}GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        // What follows a refused CONNECT is not.
        let text = say(&proxy, &format!("CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n{GET}")).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    });
}

#[test]
fn a_request_ends_when_its_client_goes_away() {
    in_time(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(
            1,
            vec![listener("web", vec![chain("main", http("hello"))])],
            vec![cluster("a", &[upstream.local_addr().unwrap()])],
        );
        let mut client = proxy.connect("web").await;
        client.write_all(b"GET /to-a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (mut endpoint, _) = upstream.accept().await.unwrap();
        endpoint.read_u8().await.unwrap();
        drop(client);
        // The endpoint learns of it, whatever it was about to answer.
        let _ = endpoint.read_to_end(&mut Vec::new()).await;
    });
}

#[test]
fn no_bytes_bring_a_thread_down() {
    in_time(async {
        let mut plain = chain("plain", http("hello"));
        plain.condition.transport_protocol = Some("raw_buffer".into());
        let mut inspected = listener("web", vec![plain]);
        inspected.inspect = Inspection { tls: true, http: true, ..Inspection::default() };
        let proxy = Proxy::start(1, vec![inspected], vec![]);
        let mut random = 7u64;
        let mut byte = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 56) as u8
        };
        let begins: [&[u8]; 6] = [
            b"",
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x00\xc8\x01",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        ];
        for round in 0..120 {
            let mut bytes = begins[round % begins.len()].to_vec();
            bytes.extend((0..200).map(|_| byte()));
            let mut client = proxy.connect("web").await;
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
        assert!(say(&proxy, "GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
        proxy.counts("ieum_panics_total", 0).await;
    });
}
