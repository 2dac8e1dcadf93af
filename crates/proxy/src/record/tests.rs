//! Recorders as the rest of the proxy uses them, from a request's head to log lines and metrics.
#![allow(clippy::unwrap_used)]

mod exposition;
mod fixture;

use super::peer::{PEER_METADATA, PEER_METADATA_ID};
use super::*;
use exposition::check_exposition;
use fixture::*;
use http::HeaderMap;
use model::cluster::Transport;
use model::format::Template;
use model::header::RequestHead;
use model::listener::*;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One finished request on an outbound listener.
fn outbound_exchange(recorder: &Arc<Recorder>) -> Box<Exchange> {
    let sent = headers(&[("user-agent", "curl/8"), ("x-envoy-original-path", "/forged")]);
    let mut exchange = recorder.begin(&connection(None), &request(&sent));
    exchange.start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_337_906_007);
    exchange.route = Some(route());
    exchange.cluster = Some(cluster("outbound|9080|v3|reviews.default.svc.cluster.local"));
    exchange.edit_request(&mut headers(&[]), 1);
    exchange.upstream = Some(upstream(Some(SERVER)));
    exchange.attempts = 1;
    exchange.details = "via_upstream";
    exchange.bytes_sent = 295;
    exchange.response_start = Some(exchange.start + Duration::from_millis(4));
    exchange.answered(200, &headers(&[("x-envoy-upstream-service-time", "3"), ("server", "x")]));
    exchange
}

#[test]
fn istios_text_format_comes_out_as_istio_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let format = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
        \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
        \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
        %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let recorder =
        Recorder::http(&telemetry, &manager(vec![text_log(&path, format)]), &listener(Direction::Outbound));
    outbound_exchange(&recorder).finish();
    telemetry.flush_logs();
    let expected = "[2026-03-01T04:05:06.007Z] \"GET /reviews/0?x=\"y\" HTTP/2\" 200 - via_upstream - \"-\" 0 295 4 \
        3 \"-\" \"curl/8\" \"id-1\" \"reviews:9080\" \"127.1.0.5:9080\" \
        outbound|9080|v3|reviews.default.svc.cluster.local 127.0.0.1:40000 127.1.0.5:9080 10.0.0.1:1234 \
        outbound_.9080_._.reviews reviews-route\n";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn the_upstreams_time_is_in_the_log_though_no_header_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let log = text_log(&path, "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%\n");
    let recorder = Recorder::http(&telemetry, &manager(vec![log]), &listener(Direction::Outbound));
    for upstream in [Some(upstream(None)), None] {
        let mut exchange = recorder.begin(&connection(None), &request(&headers(&[])));
        exchange.upstream = upstream;
        exchange.request_end = Some(exchange.start + Duration::from_millis(3));
        exchange.response_start = Some(exchange.start + Duration::from_millis(10));
        exchange.answered(200, &headers(&[]));
        exchange.finish();
    }
    telemetry.flush_logs();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "7\n-\n", "an answer of our own had no upstream");
}

#[test]
fn a_request_whose_client_left_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let log = text_log(&path, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    let recorder = Recorder::http(&telemetry, &manager(vec![log]), &listener(Direction::Outbound));
    drop(recorder.begin(&connection(None), &request(&headers(&[]))));
    telemetry.flush_logs();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0 DC downstream_remote_disconnect\n");
}

#[test]
fn json_keeps_numbers_numbers_escapes_text_and_names_the_rule_that_decided() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.json");
    let fields = [
        ("code", "%RESPONSE_CODE%"),
        ("sent", "%BYTES_SENT%"),
        ("path", "%REQ(:PATH)%"),
        ("none", "%REQ(X-NONE)%"),
        ("mixed", "%REQ(X-NONE)%/%RESPONSE_CODE%"),
        ("rule", "%METADATA(ROUTE:ieum.dev:resource)%"),
        ("file", "%METADATA(ROUTE:ieum.dev:file)%"),
        ("line", "%METADATA(ROUTE:ieum.dev:line)%"),
        ("listener", "%METADATA(LISTENER:ieum.dev:resource)%"),
        ("workload", "%METADATA(UPSTREAM_HOST:istio:workload):10%"),
        ("grpc", "%GRPC_STATUS%"),
        ("chain", "%FILTER_CHAIN_NAME%"),
        ("flags", "%RESPONSE_FLAGS%"),
    ];
    let fields = fields.map(|(k, v)| (k.to_owned(), Template::parse(v).unwrap()));
    let log = AccessLog::new(path.to_str().unwrap(), LogFormat::Json(fields.to_vec()));
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let recorder = Recorder::http(&telemetry, &manager(vec![log]), &listener(Direction::Outbound));
    outbound_exchange(&recorder).finish();
    telemetry.flush_logs();
    let line = std::fs::read_to_string(&path).unwrap();
    let expected = concat!(
        r#"{"code":200,"sent":295,"path":"/reviews/0?x=\"y\"","none":null,"mixed":"-/200","#,
        r#""rule":"VirtualService default/reviews","file":"reviews.yaml","line":12,"#,
        r#""listener":"Gateway default/g","workload":"reviews-v3","grpc":null,"chain":"mtls","flags":"-"}"#,
        "\n"
    );
    assert_eq!(line, expected);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["path"], "/reviews/0?x=\"y\"");
}

#[test]
fn lines_come_by_themselves_also_for_what_was_given_up_and_go_on_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let log = text_log(&path, "%STREAM_ID% %TRAILER(X-T)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS%\n");
    let recorder = Recorder::http(&telemetry, &manager(vec![log]), &listener(Direction::Outbound));
    let grpc = headers(&[("content-type", "application/grpc")]);
    let mut exchange = recorder.begin(&connection(None), &request(&grpc));
    exchange.answered(200, &headers(&[]));
    exchange.trailers(&headers(&[("grpc-status", "14"), ("x-t", "end")]));
    drop(exchange);
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(&path).unwrap_or_default().is_empty() {
        assert!(std::time::Instant::now() < until, "no line came");
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "id-1 end 14 Unavailable\n");
    std::fs::rename(&path, &moved).unwrap();
    telemetry.reopen_logs();
    drop(recorder.begin(&connection(None), &request(&headers(&[]))));
    telemetry.flush_logs();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "id-1 - - -\n");
}

#[test]
fn a_log_that_cannot_be_written_loses_lines_counted() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let log = text_log(&folder.path().join("missing/a.log"), "x\n");
    let recorder = Recorder::http(&telemetry, &manager(vec![log]), &listener(Direction::Outbound));
    outbound_exchange(&recorder).finish();
    telemetry.flush_logs();
    assert!(telemetry.prometheus().contains("\nieum_access_log_dropped_total 1\n"));
}

#[test]
fn both_sides_count_a_request_with_each_others_labels() {
    let (client, server) = (Telemetry::new(node("productpage", "v1")), Telemetry::new(node("reviews", "v3")));
    let outbound = Recorder::http(&client, &manager(vec![]), &listener(Direction::Outbound));
    let inbound = Recorder::http(&server, &manager(vec![]), &listener(Direction::Inbound));
    let mut wire = headers(&[("user-agent", "x"), ("x-envoy-peer-metadata", "forged")]);

    let mut at_client = outbound.begin(&connection(None), &request(&wire));
    at_client.cluster = Some(cluster("outbound|9080|v3|reviews.default.svc.cluster.local"));
    at_client.edit_request(&mut wire, 3);
    assert!(wire.contains_key(PEER_METADATA_ID) && wire[&PEER_METADATA] != "forged");
    let mut at_server = inbound.begin(&connection(Some(CALLER)), &request(&wire));
    at_server.cluster = Some(cluster("inbound|9080||"));
    let trace = wire["traceparent"].clone();
    at_server.edit_request(&mut wire, 4);
    assert!(
        !wire.contains_key(PEER_METADATA) && !wire.contains_key(PEER_METADATA_ID),
        "the application sees none"
    );
    assert_eq!(trace.as_bytes()[..36], wire["traceparent"].as_bytes()[..36], "one trace");

    let mut answer = headers(&[]);
    at_server.edit_response(&mut answer);
    at_server.answered(200, &answer);
    at_server.finish();
    at_client.upstream = Some(upstream(Some(SERVER)));
    at_client.edit_response(&mut answer);
    assert!(answer.is_empty(), "the client sees none: {answer:?}");
    at_client.answered(200, &answer);
    at_client.finish();

    let common = concat!(
        r#"source_workload="productpage-v1",source_canonical_service="productpage",source_canonical_revision="v1","#,
        r#"source_workload_namespace="default","#,
        r#"source_principal="spiffe://cluster.local/ns/default/sa/bookinfo-productpage","#,
        r#"source_app="productpage",source_version="v1",source_cluster="Kubernetes","#,
        r#"destination_workload="reviews-v3",destination_workload_namespace="default","#,
        r#"destination_principal="spiffe://cluster.local/ns/default/sa/bookinfo-reviews","#,
        r#"destination_app="reviews",destination_version="v3","#,
        r#"destination_service="reviews.default.svc.cluster.local",destination_canonical_service="reviews","#,
        r#"destination_canonical_revision="v3",destination_service_name="reviews","#,
        r#"destination_service_namespace="default",destination_cluster="Kubernetes",request_protocol="http","#,
        r#"response_code="200",grpc_response_status="",response_flags="-","#,
    );
    for (telemetry, reporter, security) in
        [(&client, "source", "unknown"), (&server, "destination", "mutual_tls")]
    {
        let line = format!(
            "istio_requests_total{{reporter=\"{reporter}\",{common}connection_security_policy=\"{security}\"}} 1\n"
        );
        let text = telemetry.prometheus();
        assert!(text.contains(&line), "{line}\nnot in\n{text}");
        check_exposition(&text);
    }
}

#[test]
fn what_a_caller_says_of_itself_counts_only_when_it_proved_its_name() {
    let telemetry = Telemetry::new(node("reviews", "v3"));
    let inbound = Recorder::http(&telemetry, &manager(vec![]), &listener(Direction::Inbound));
    let (said, _) = node("productpage", "v1").headers.unwrap();
    let mut wire = headers(&[("x-envoy-peer-metadata", said.to_str().unwrap())]);
    let mut exchange = inbound.begin(&connection(None), &request(&wire));
    exchange.edit_request(&mut wire, 3);
    assert!(!wire.contains_key(PEER_METADATA));
    let mut answer = headers(&[("x-envoy-peer-metadata", "from the application")]);
    exchange.edit_response(&mut answer);
    assert!(answer.is_empty());
    exchange.answered(503, &answer);
    exchange.finish();
    let text = telemetry.prometheus();
    assert!(text.contains("source_workload=\"unknown\"") && !text.contains("productpage"), "{text}");
    assert!(text.contains("connection_security_policy=\"none\""));
}

#[test]
fn nothing_of_ours_goes_to_those_outside_the_mesh() {
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let outbound = Recorder::http(&telemetry, &manager(vec![]), &listener(Direction::Outbound));
    let mut wire = headers(&[]);
    let mut exchange = outbound.begin(&connection(None), &request(&wire));
    let mut external = Arc::unwrap_or_clone(cluster("outbound|80||example.com"));
    external.transport = Transport::Plain;
    exchange.cluster = Some(Arc::new(external));
    exchange.edit_request(&mut wire, 1);
    assert!(!wire.contains_key(PEER_METADATA) && !wire.contains_key(PEER_METADATA_ID));
}

#[test]
fn durations_and_sizes_fall_into_istios_buckets_over_all_threads() {
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let recorder = Recorder::http(&telemetry, &manager(vec![]), &listener(Direction::Outbound));
    let work = |_: u8| {
        let recorder = Arc::clone(&recorder);
        std::thread::spawn(move || {
            for _ in 0..10 {
                outbound_exchange(&recorder).finish();
            }
        })
    };
    let threads: Vec<_> = (0..3).map(work).collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let text = telemetry.prometheus();
    check_exposition(&text);
    let value = |start: &str, end: &str| -> String {
        let line = text.lines().find(|l| l.starts_with(start) && l.contains(end)).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(value("istio_requests_total", ""), "30");
    assert_eq!(value("istio_response_bytes_bucket", "le=\"250\""), "0");
    assert_eq!(value("istio_response_bytes_bucket", "le=\"500\""), "30");
    assert_eq!(value("istio_response_bytes_sum", ""), "8850");
    assert_eq!(value("istio_request_bytes_bucket", "le=\"0.5\""), "30");
    assert_eq!(value("istio_request_duration_milliseconds_count", ""), "30");
}

#[test]
fn labels_without_end_end_up_as_other() {
    let telemetry = Telemetry::new(node("reviews", "v3"));
    let recorder = Recorder::http(&telemetry, &manager(vec![]), &listener(Direction::Inbound));
    for n in 0..2_100 {
        let caller = connection(Some(&format!("spiffe://cluster.local/ns/n{n}/sa/x")));
        recorder.begin(&caller, &request(&headers(&[]))).finish();
    }
    assert_eq!(telemetry.http.len(), 2_001);
    let text = telemetry.prometheus();
    let other = text.lines().find(|l| l.contains("source_workload=\"other\"")).unwrap();
    assert!(other.contains("reporter=\"destination\"") && other.ends_with(" 100"), "{other}");
    assert!(text.contains("ieum_metric_series_refused_total{kind=\"http\"} 100\n"));
}

#[test]
fn a_tcp_connection_counts_as_it_goes() {
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let proxy = TcpProxy::default();
    let recorder = Recorder::tcp(&telemetry, &proxy, &listener(Direction::Outbound));
    let mut exchange = recorder.begin_tcp(&connection(None));
    exchange.cluster = Some(cluster("outbound|3306||db.default.svc.cluster.local"));
    exchange.upstream = Some(upstream(None));
    exchange.established();
    exchange.bytes_received = 10;
    exchange.report();
    let value = |name: &str| {
        let text = telemetry.prometheus();
        check_exposition(&text);
        text.lines().find(|l| l.starts_with(name)).unwrap().rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(value("istio_tcp_connections_opened_total"), "1");
    assert_eq!(value("istio_tcp_connections_closed_total"), "0");
    assert_eq!(value("istio_tcp_received_bytes_total"), "10");
    (exchange.bytes_received, exchange.bytes_sent) = (15, 7);
    exchange.finish();
    assert_eq!(value("istio_tcp_connections_opened_total"), "1");
    assert_eq!(value("istio_tcp_connections_closed_total"), "1");
    assert_eq!(value("istio_tcp_received_bytes_total"), "15");
    assert_eq!(value("istio_tcp_sent_bytes_total"), "7");
    assert!(telemetry.prometheus().contains("request_protocol=\"tcp\""));
}

#[test]
fn header_edits_see_the_messages_as_they_are() {
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let recorder = Recorder::http(&telemetry, &manager(vec![]), &listener(Direction::Outbound));
    let mut sent = headers(&[("x-a", "1")]);
    let mut exchange = recorder.begin(&connection(None), &request(&sent));
    exchange.edit_request(&mut sent, 5);
    let trace = sent["traceparent"].to_str().unwrap()[3..35].to_owned();
    let head = RequestHead {
        method: &http::Method::GET,
        scheme: "http",
        authority: "a",
        path: "/p",
        query: Some("q"),
        headers: &sent,
    };
    let answer = headers(&[("x-b", "2"), ("x-b", "3")]);
    let show = |format: &str, answer: Option<&HeaderMap>| {
        let mut out = Vec::new();
        Template::parse(format).unwrap().write(&exchange.facts(&head, answer), "", &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(show("%REQ(X-A)% %REQ(:PATH)% %RESP(X-B)% %TRACE_ID%", None), format!("1 /p?q  {trace}"));
    assert_eq!(show("%RESP(X-B)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Some(&answer)), "2,3 10.0.0.1");
}

#[test]
fn connections_are_counted_while_they_last() {
    let telemetry = Telemetry::new(node("productpage", "v1"));
    let counters = telemetry.listener("a \"b\"");
    let (one, two) = (counters.opened(), counters.opened());
    drop(one);
    telemetry.cluster("c").failed();
    telemetry.panicked();
    let text = telemetry.prometheus();
    check_exposition(&text);
    assert!(text.contains("ieum_connections_total{listener=\"a \\\"b\\\"\"} 2\n"), "{text}");
    assert!(text.contains("ieum_connections_active{listener=\"a \\\"b\\\"\"} 1\n"));
    assert!(text.contains("ieum_upstream_connect_failures_total{cluster=\"c\"} 1\n"));
    assert!(text.contains("ieum_panics_total 1\n"));
    drop(two);
}
