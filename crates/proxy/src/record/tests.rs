//! Recorders as the rest of the proxy uses them, from a request's head to log lines and metrics.
#![allow(clippy::unwrap_used)]

use super::peer::{PEER_METADATA, PEER_METADATA_ID};
use super::*;
use http::{HeaderMap, HeaderName, Method, Version};
use model::cluster::{Cluster, Discovery, Transport, UpstreamHttp};
use model::endpoint::{Endpoint, EndpointAddress, Health};
use model::format::Template;
use model::header::RequestHead;
use model::listener::*;
use model::metadata::{Metadata, Value};
use model::provenance::Provenance;
use model::route::*;
use model::routing::RouteTable;
use model::tls::{SecretSource, UpstreamTls};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn node(workload: &str, version: &str) -> NodeLabels {
    let object = |fields: &[(&str, &str)]| {
        Value::Struct(fields.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect())
    };
    let mut metadata = BTreeMap::from([
        ("LABELS".to_owned(), object(&[("app", workload), ("version", version)])),
        ("WORKLOAD_NAME".to_owned(), format!("{workload}-{version}").into()),
        ("SERVICE_ACCOUNT".to_owned(), format!("bookinfo-{workload}").into()),
    ]);
    metadata.insert("CLUSTER_ID".to_owned(), "Kubernetes".into());
    let id = format!("sidecar~127.1.0.5~{workload}-{version}-0.default~default.svc.cluster.local");
    NodeLabels::from_metadata(&id, &Value::Struct(metadata))
}

fn listener(direction: Direction) -> Listener {
    Listener {
        name: "l".into(),
        address: None,
        inspect: Inspection::default(),
        chains: vec![],
        default_chain: None,
        direction,
        metadata: Metadata::default(),
        provenance: Some(Provenance { resource: "Gateway default/g".into(), file: String::new(), line: 0 }),
    }
}

fn manager(logs: Vec<AccessLog>) -> HttpConnectionManager {
    let mut manager = HttpConnectionManager::new(RouteSource::Rds("r".into()));
    manager.stats = true;
    manager.tracing = Some(Tracing { random_sampling_percent: 100.0 });
    manager.access_logs = logs;
    manager
}

fn connection(peer_uri: Option<&str>) -> Arc<ConnectionRecord> {
    Arc::new(ConnectionRecord {
        id: 7,
        remote: "127.1.0.9:50000".parse().unwrap(),
        local: "127.1.0.5:9080".parse().unwrap(),
        server_name: Some("outbound_.9080_._.reviews".into()),
        tls_version: peer_uri.map(|_| "TLSv1.3"),
        peer_uri: peer_uri.map(Into::into),
        own_uri: peer_uri.map(|_| "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".into()),
        chain: "mtls".into(),
    })
}

fn cluster(name: &str) -> Arc<Cluster> {
    let tls = UpstreamTls {
        certificate: Some(SecretSource::Sds("default".into())),
        validation: None,
        sni: None,
        alpn: vec![],
        versions: Default::default(),
    };
    let mut cluster = Cluster {
        name: name.into(),
        discovery: Discovery::OriginalDestination,
        load_balancing: Default::default(),
        connect_timeout: Duration::from_secs(10),
        http: UpstreamHttp::Http1,
        idle_timeout: None,
        transport_matches: vec![],
        transport: Transport::Tls(Box::new(tls)),
        metadata: Metadata::default(),
        provenance: None,
    };
    let service =
        [("host", "reviews.default.svc.cluster.local"), ("name", "reviews"), ("namespace", "default")];
    let service = service.map(|(k, v)| (k.to_owned(), Value::from(v)));
    cluster.metadata.set("istio", "services", "");
    let istio = cluster.metadata.0.get_mut("istio").unwrap();
    istio.insert("services".into(), Value::List(vec![Value::Struct(BTreeMap::from(service))]));
    Arc::new(cluster)
}

fn upstream(peer_uri: Option<&str>) -> UpstreamRecord {
    let mut metadata = Metadata::default();
    metadata.set("istio", "workload", "reviews-v3;default;reviews;v3;Kubernetes");
    UpstreamRecord {
        address: "127.1.0.5:9080".parse().unwrap(),
        endpoint: Arc::new(Endpoint {
            address: EndpointAddress::Socket("127.1.0.5:9080".parse().unwrap()),
            hostname: String::new(),
            weight: 1,
            health: Health::Healthy,
            metadata,
        }),
        local: Some("127.0.0.1:40000".parse().unwrap()),
        peer_uri: peer_uri.map(Into::into),
    }
}

fn route() -> RouteTaken {
    let route = Route {
        name: "reviews-route".into(),
        condition: RouteMatch::any(),
        action: Action::Forward(Box::new(Forward::to("c"))),
        request_headers: Default::default(),
        response_headers: Default::default(),
        metadata: Metadata::default(),
        provenance: Some(Provenance {
            resource: "VirtualService default/reviews".into(),
            file: "reviews.yaml".into(),
            line: 12,
        }),
    };
    let host = VirtualHost { domains: vec!["*".into()], routes: vec![route], ..Default::default() };
    let config = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    RouteTaken { table: Arc::new(RouteTable::compile(config).unwrap()), host: 0, route: 0 }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn request<'a>(headers: &'a HeaderMap) -> RequestRecord<'a> {
    RequestRecord {
        method: &Method::GET,
        target: "/reviews/0?x=\"y\"",
        authority: "reviews:9080",
        scheme: "http",
        version: Version::HTTP_2,
        headers,
        id: "id-1",
        client: "10.0.0.1:1234".parse().unwrap(),
    }
}

const CALLER: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";

fn text_log(path: &std::path::Path, format: &str) -> AccessLog {
    AccessLog {
        path: path.to_str().unwrap().into(),
        format: LogFormat::Text(Template::parse(format).unwrap()),
    }
}

/// One finished request on an outbound listener.
fn outbound_exchange(recorder: &Arc<Recorder>) -> Exchange {
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
    let log = AccessLog { path: path.to_str().unwrap().into(), format: LogFormat::Json(fields.to_vec()) };
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
    let proxy =
        TcpProxy { stat_prefix: String::new(), clusters: vec![], idle_timeout: None, access_logs: vec![] };
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
        method: &Method::GET,
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

/// Checks text against Prometheus' exposition format: heads before their series, each series once, well-formed labels,
/// histograms whose buckets grow and end at their count.
fn check_exposition(text: &str) {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut last_bucket: Option<(String, f64)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name, kind).is_none(), "twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(seen.insert(series), "twice: {series}");
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        };
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let kind = family.and_then(|f| kinds.get(f)).filter(|k| **k == "histogram").or(kinds.get(name));
        assert!(kind.is_some(), "no head before {line}");
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &after[end.unwrap() + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        if name.ends_with("_bucket") {
            let (labels, _) = labels.split_once(",le=").unwrap();
            let id = format!("{name}{labels}");
            let before = last_bucket.take().filter(|(last, _)| *last == id).map_or(0.0, |(_, v)| v);
            assert!(value >= before, "{line}");
            last_bucket = Some((id, value));
        } else if name.ends_with("_count") {
            assert_eq!(last_bucket.take().unwrap().1, value, "{line}");
        }
    }
}
