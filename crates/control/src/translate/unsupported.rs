//! Fields that are read and do nothing yet: each is told once, where it is written, and the rest of its resource works.

use super::upstream_tls::is_delivered;
use crate::world::World;
use api::mesh_config::OutboundTrafficMode;
use api::networking::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, HttpRoute, LoadBalancerSettings,
    OutlierDetection, PortTrafficPolicy, SimpleLb, TrafficPolicy, VirtualService,
};
use api::{Diagnostic, Object};

/// Collects what is told of one resource.
struct Teller<'t> {
    object: &'t Object,
    found: &'t mut Vec<Diagnostic>,
}

impl Teller<'_> {
    /// Tells of the field at `path` if it is written.
    fn tell(&mut self, written: bool, path: &str, help: &str) {
        if written {
            let name = path.rsplit('.').next().unwrap_or(path);
            let message =
                format!("`{name}` is not supported yet and does nothing; the rest of the rule works");
            self.found.push(self.object.warning(path, message).help(help));
        }
    }
}

/// What the mesh's settings ask for in vain.
pub(super) fn settings(world: &World, found: &mut Vec<Diagnostic>) {
    for (object, _) in world.local_meshes().skip(1) {
        let message = "another LocalMesh comes before this one, which is not used";
        found.push(object.warning("metadata.name", message).help("keep one LocalMesh"));
    }
    let Some(object) = world.local_mesh_object() else { return };
    let policy = world.settings().outbound_traffic_policy.as_ref();
    if policy.is_some_and(|policy| policy.mode != OutboundTrafficMode::RegistryOnly) {
        let message =
            "requests for hosts that no resource declares are answered with 404 for now, whatever this says";
        let help = "declare such hosts in a ServiceEntry";
        found.push(object.warning("spec.meshConfig.outboundTrafficPolicy.mode", message).help(help));
    }
}

/// What a VirtualService asks for in vain.
pub(super) fn virtual_service(object: &Object, spec: &VirtualService, found: &mut Vec<Diagnostic>) {
    let mut teller = Teller { object, found };
    for (index, rule) in spec.http.iter().enumerate() {
        http_rule(&mut teller, rule, &format!("spec.http[{index}]"));
    }
    for (index, rule) in spec.tls.iter().enumerate() {
        for (at, m) in rule.r#match.iter().enumerate() {
            let path = format!("spec.tls[{index}].match[{at}].destinationSubnets");
            teller.tell(
                !m.destination_subnets.is_empty(),
                &path,
                "the rule takes connections to any address",
            );
        }
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        for (at, m) in rule.r#match.iter().enumerate() {
            let path = format!("spec.tcp[{index}].match[{at}]");
            let any = "the rule takes connections to and from any address";
            teller.tell(!m.destination_subnets.is_empty(), &format!("{path}.destinationSubnets"), any);
            teller.tell(!m.source_subnet.is_empty(), &format!("{path}.sourceSubnet"), any);
        }
    }
}

fn http_rule(teller: &mut Teller<'_>, rule: &HttpRoute, path: &str) {
    let at = |field: &str| format!("{path}.{field}");
    if let Some(retries) = &rule.retries {
        let remote = retries.retry_remote_localities.is_some();
        teller.tell(remote, &at("retries.retryRemoteLocalities"), "every endpoint may be tried");
    }
}

/// What a DestinationRule asks for in vain.
pub(super) fn destination_rule(object: &Object, spec: &DestinationRule, found: &mut Vec<Diagnostic>) {
    let mut teller = Teller { object, found };
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(&mut teller, policy, "spec.trafficPolicy");
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(&mut teller, policy, &format!("spec.subsets[{index}].trafficPolicy"));
        }
    }
}

fn traffic_policy(teller: &mut Teller<'_>, policy: &TrafficPolicy, path: &str) {
    let TrafficPolicy { load_balancer, connection_pool, outlier_detection, .. } = policy;
    client_tls(teller, policy.tls.as_ref(), path);
    blocks(teller, (load_balancer.as_ref(), connection_pool.as_ref(), outlier_detection.as_ref()), path);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let PortTrafficPolicy { load_balancer, connection_pool, outlier_detection, .. } = port;
        let path = format!("{path}.portLevelSettings[{index}]");
        client_tls(teller, port.tls.as_ref(), &path);
        blocks(teller, (load_balancer.as_ref(), connection_pool.as_ref(), outlier_detection.as_ref()), &path);
    }
    teller.tell(
        policy.tunnel.is_some(),
        &format!("{path}.tunnel"),
        "connections go straight to the destination",
    );
    teller.tell(policy.proxy_protocol.is_some(), &format!("{path}.proxyProtocol"), "no header is sent");
    teller.tell(
        policy.retry_budget.is_some(),
        &format!("{path}.retryBudget"),
        "the proxy's own budget stays",
    );
}

fn client_tls(teller: &mut Teller<'_>, tls: Option<&ClientTlsSettings>, path: &str) {
    if tls.is_some_and(|tls| !is_delivered(tls)) {
        let message = "TLS with certificates or authorities of its own is not supported yet; such requests are answered with 503";
        let help = "`ISTIO_MUTUAL` and `DISABLE` work, and `SIMPLE` with `insecureSkipVerify: true`, which checks nobody";
        teller.found.push(teller.object.warning(&format!("{path}.tls"), message).help(help));
    }
}

type Blocks<'b> =
    (Option<&'b LoadBalancerSettings>, Option<&'b ConnectionPoolSettings>, Option<&'b OutlierDetection>);

fn blocks(teller: &mut Teller<'_>, (balancer, pool, outliers): Blocks<'_>, path: &str) {
    if let Some(lb) = balancer {
        let at = |field: &str| format!("{path}.loadBalancer.{field}");
        teller.tell(
            lb.consistent_hash.is_some(),
            &at("consistentHash"),
            "the less loaded of two endpoints is picked",
        );
        let passthrough = lb.simple == Some(SimpleLb::Passthrough);
        teller.tell(
            passthrough,
            &at("simple"),
            "PASSTHROUGH needs captured traffic; the less loaded of two endpoints is picked",
        );
        teller.tell(lb.locality_lb_setting.is_some(), &at("localityLbSetting"), "all localities are alike");
        teller.tell(lb.zone_aware_lb_setting.is_some(), &at("zoneAwareLbSetting"), "all zones are alike");
        let warmup = "new endpoints get their full share at once";
        teller.tell(lb.warmup.is_some(), &at("warmup"), warmup);
        teller.tell(lb.warmup_duration_secs.is_some(), &at("warmupDurationSecs"), warmup);
    }
    if let Some(pool) = pool {
        connection_pool(teller, pool, &format!("{path}.connectionPool"));
    }
    teller.tell(
        outliers.is_some(),
        &format!("{path}.outlierDetection"),
        "failing endpoints are not set aside",
    );
}

fn connection_pool(teller: &mut Teller<'_>, pool: &ConnectionPoolSettings, path: &str) {
    if let Some(tcp) = &pool.tcp {
        let at = |field: &str| format!("{path}.tcp.{field}");
        teller.tell(tcp.max_connections != 0, &at("maxConnections"), "connections are not limited");
        teller.tell(tcp.tcp_keepalive.is_some(), &at("tcpKeepalive"), "the system's settings count");
        teller.tell(
            tcp.max_connection_duration.is_some(),
            &at("maxConnectionDuration"),
            "connections are used on",
        );
        teller.tell(
            tcp.idle_timeout.is_some(),
            &at("idleTimeout"),
            "silent connections are kept for an hour",
        );
    }
    if let Some(http) = &pool.http {
        let at = |field: &str| format!("{path}.http.{field}");
        let unlimited = "there is no limit";
        teller.tell(http.http1_max_pending_requests != 0, &at("http1MaxPendingRequests"), unlimited);
        teller.tell(http.http2_max_requests != 0, &at("http2MaxRequests"), unlimited);
        teller.tell(http.max_requests_per_connection != 0, &at("maxRequestsPerConnection"), unlimited);
        teller.tell(http.max_retries != 0, &at("maxRetries"), unlimited);
        teller.tell(http.max_concurrent_streams != 0, &at("maxConcurrentStreams"), unlimited);
        teller.tell(http.use_client_protocol, &at("useClientProtocol"), "the port's protocol counts");
        teller.tell(http.http2_keep_alive.is_some(), &at("http2KeepAlive"), "no pings are sent");
    }
}
