//! The admin interface answered in process: no socket.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::discovery::{Discovery, Scope, add_static};
use crate::record::{NodeLabels, Telemetry};
use crate::snapshot::Live;
use http_body_util::BodyExt;
use serde_json::Value;

const BOOTSTRAP: &str = r#"
node: {id: "sidecar~127.0.0.1~a.b~b.svc.cluster.local", cluster: a.b, metadata: {NAMESPACE: b}}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: backend
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: backend
      endpoints:
      - locality: {region: r1}
        lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 10001}}}
          load_balancing_weight: 3
"#;

/// An admin interface, what its workers say, and the switches that were sent.
struct World {
    admin: Admin,
    listening: Rc<Cell<bool>>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl World {
    fn new(bootstrap: &str) -> Self {
        let bootstrap = xds::bootstrap::parse(bootstrap, "boot.yaml").unwrap();
        let mut discovery =
            Discovery::new(Scope { listeners: bootstrap.lds, ads: bootstrap.lds, ..Scope::default() });
        add_static(&mut discovery, &bootstrap, Instant::now()).unwrap();
        let telemetry = Telemetry::new(NodeLabels::from_metadata("", &model::metadata::Value::Null));
        let hub = Hub::new(discovery, Live::new(telemetry));
        hub.feed(|discovery, now| discovery.advance(now));
        let (sender, commands) = mpsc::unbounded_channel();
        let listening = Rc::new(Cell::new(true));
        let heard = listening.clone();
        let listeners = move || {
            let bound = if heard.get() { Ok(()) } else { Err("in use".to_owned()) };
            vec![ListenerStatus { name: "web".into(), address: "127.0.0.1:10000".parse().unwrap(), bound }]
        };
        let admin = Admin {
            hub,
            stream: None,
            listeners: Box::new(listeners),
            node: bootstrap.node,
            settings: Settings::default(),
            started: Instant::now(),
            draining: Cell::new(false),
            unhealthy: Cell::new(false),
            commands: sender,
        };
        Self { admin, listening, commands }
    }

    fn ask_as(&self, method: Method, target: &str, host: &str) -> (u16, String) {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
        let answer = self.admin.answer(&method, target, &headers, true);
        let status = answer.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn get(&self, target: &str) -> (u16, String) {
        self.ask_as(Method::GET, target, "127.0.0.1:15000")
    }

    fn json(&self, target: &str) -> Value {
        serde_json::from_str(&self.get(target).1).unwrap()
    }
}

#[test]
fn it_is_ready_when_its_listeners_listen_and_not_while_it_drains() {
    let world = World::new(BOOTSTRAP);
    assert_eq!(world.get("/ready"), (200, "LIVE\n".into()));
    world.listening.set(false);
    assert_eq!(world.get("/ready"), (503, "INITIALIZING\n".into()));
    world.listening.set(true);
    assert_eq!(world.ask_as(Method::POST, "/healthcheck/fail", "localhost").0, 200);
    assert_eq!(world.get("/ready"), (503, "DRAINING\n".into()));
    assert_eq!(world.ask_as(Method::POST, "/healthcheck/ok", "localhost").0, 200);
    assert_eq!(world.get("/ready").0, 200);
}

#[test]
fn it_is_not_ready_before_the_control_plane_has_answered() {
    let dynamic = format!(
        "{BOOTSTRAP}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: backend}}}}]}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
"
    );
    assert_eq!(World::new(&dynamic).get("/ready"), (503, "INITIALIZING\n".into()));
}

#[test]
fn switches_take_post_only_and_arrive() {
    let mut world = World::new(BOOTSTRAP);
    assert_eq!(world.get("/quitquitquit").0, 405);
    assert_eq!(world.ask_as(Method::POST, "/ready", "localhost").0, 405);
    assert!(world.commands.try_recv().is_err());
    world.ask_as(Method::POST, "/drain_listeners?graceful", "localhost");
    world.ask_as(Method::POST, "/quitquitquit", "localhost");
    assert_eq!(world.commands.try_recv(), Ok(Command::Drain { graceful: true }));
    assert_eq!(world.commands.try_recv(), Ok(Command::Quit));
}

#[test]
fn only_names_of_this_machine_are_answered_on_loopback() {
    let world = World::new(BOOTSTRAP);
    for host in ["localhost", "LOCALHOST:15000", "127.0.0.1", "127.8.0.1:1", "[::1]:15000", "[::1]"] {
        assert_eq!(world.ask_as(Method::GET, "/ready", host).0, 200, "{host}");
    }
    for host in ["evil.test", "evil.test:15000", "localhost.evil.test", "10.0.0.1", "127.0.0.1.evil.test", ""]
    {
        assert_eq!(world.ask_as(Method::GET, "/ready", host).0, 403, "{host}");
    }
}

#[test]
fn clusters_are_told_as_envoy_tells_them() {
    let world = World::new(BOOTSTRAP);
    let (_, text) = world.get("/clusters");
    for line in ["backend::127.0.0.1:10001::health_flags::healthy", "backend::127.0.0.1:10001::weight::3"] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let json = world.json("/clusters?format=json");
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 10001);
    assert_eq!((&host["weight"], &host["locality"]["region"]), (&Value::from(3), &Value::from("r1")));
}

#[test]
fn the_dump_holds_every_resource_as_it_was_given() {
    let dump = World::new(BOOTSTRAP).json("/config_dump");
    let of = |kind: &str| {
        let configs = dump["configs"].as_array().unwrap();
        configs.iter().find(|c| c["@type"].as_str().unwrap().ends_with(kind)).unwrap()
    };
    assert_eq!(of("ClustersConfigDump")["static_clusters"][0]["cluster"]["name"], "backend");
    let listener = &of("ListenersConfigDump")["static_listeners"][0]["listener"];
    let filter = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(filter["cluster"], "backend");
    assert_eq!(of("BootstrapConfigDump")["bootstrap"]["node"]["metadata"]["NAMESPACE"], "b");
}

#[test]
fn the_rest_is_there() {
    let world = World::new(BOOTSTRAP);
    assert_eq!(world.get("/listeners").1, "web::127.0.0.1:10000\n");
    assert_eq!(world.json("/server_info")["state"], "LIVE");
    assert!(world.get("/stats/prometheus").1.contains("ieum_listeners 1\n"));
    assert!(world.get("/stats").1.contains("ieum_listeners: 1\n"));
    assert_eq!(world.get("/nothing").0, 404);
    assert!(world.json("/certs")["certificates"].as_array().unwrap().is_empty());
}
