//! Documents at random: a place in a small mesh, and what stands there now.

/// A small xorshift generator: the same numbers on every run.
pub(super) struct Dice(pub(super) u64);

/// Heads of documents of one name and namespace.
struct Place {
    name: String,
    namespace: &'static str,
}

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.roll(all.len() as u64) as usize]
    }

    /// A place and what stands there now.
    pub(super) fn document(&mut self) -> (String, String) {
        let place = Place { name: format!("s{}", self.roll(3)), namespace: self.one_of(&["x", "y"]) };
        match self.roll(32) {
            0 | 1 => place.service(self),
            2 | 3 => place.destination_rule(self),
            4..=6 => place.virtual_service(self),
            7 => place.delegate(self),
            8 => place.service_entry(self),
            9 | 10 => place.sidecar(self),
            11 => place.gateway(self),
            12 => place.peer_authentication(self),
            13 => place.deployment(self),
            14 => place.workload_group(self),
            15 => place.proxy_config(self),
            16 => self.settings(),
            // Most changes are of endpoints.
            _ => place.workload(self),
        }
    }

    fn settings(&mut self) -> (String, String) {
        let (timeout, sampling) = (self.roll(3), self.roll(2) * 50);
        let text = format!(
            "apiVersion: ieum.dev/v1alpha1\nkind: LocalMesh\nmetadata: {{name: mesh}}\n\
             spec: {{meshConfig: {{defaultTimeout: {timeout}s, defaultConfig: {{tracing: {{sampling: {sampling}}}}}}}}}\n"
        );
        ("mesh".to_owned(), text)
    }

    fn export(&mut self) -> &'static str {
        self.one_of(&["", "", "exportTo: [\".\"], ", "exportTo: [x], "])
    }
}

impl Place {
    fn istio(&self, kind: &str, more: &str, spec: &str) -> (String, String) {
        let Self { name, namespace } = self;
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\n\
             spec: {{{spec}}}\n"
        );
        (format!("{kind}/{namespace}/{name}"), text)
    }

    fn service(&self, dice: &mut Dice) -> (String, String) {
        let Self { name, namespace } = self;
        let (port, protocol) = (80 * (dice.roll(2) + 1), dice.one_of(&["http", "grpc", "tcp", "any"]));
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: {protocol}, port: {port}}}]}}\n"
        );
        (format!("Service/{namespace}/{name}"), text)
    }

    fn deployment(&self, dice: &mut Dice) -> (String, String) {
        let Self { name, namespace } = self;
        let account = dice.roll(2);
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, \
             spec: {{serviceAccountName: a{account}, containers: [{{name: c, image: i}}]}}}}}}\n"
        );
        (format!("Deployment/{namespace}/{name}"), text)
    }

    fn destination_rule(&self, dice: &mut Dice) -> (String, String) {
        let (name, export, number) = (&self.name, dice.export(), dice.roll(2) + 1);
        let more = dice.one_of(&[
            "",
            ", outlierDetection: {consecutive5xxErrors: 3}",
            ", loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
        ]);
        let spec = format!(
            "{export}host: {name}, trafficPolicy: {{connectionPool: {{tcp: {{connectTimeout: {number}s}}}}{more}}}, \
             subsets: [{{name: v{number}, labels: {{version: v{number}}}}}]"
        );
        self.istio("DestinationRule", "", &spec)
    }

    fn virtual_service(&self, dice: &mut Dice) -> (String, String) {
        let (name, export, number) = (&self.name, dice.export(), dice.roll(3) + 1);
        let gateways = dice.one_of(&["", "gateways: [mesh, s0], ", "gateways: [x/s0], "]);
        let rule = match dice.roll(4) {
            0 => format!("match: [{{uri: {{prefix: /{number}}}}}], delegate: {{name: d{}}}", dice.roll(2)),
            1 => format!("route: [{{destination: {{host: {name}, subset: v1}}}}]"),
            2 => format!(
                "match: [{{sourceLabels: {{app: s0}}}}], timeout: {number}s, route: [{{destination: {{host: s1.x.svc}}}}]"
            ),
            _ => format!("timeout: {number}s, route: [{{destination: {{host: {name}}}}}]"),
        };
        self.istio("VirtualService", "", &format!("{export}{gateways}hosts: [{name}], http: [{{{rule}}}]"))
    }

    fn delegate(&self, dice: &mut Dice) -> (String, String) {
        let place = Self { name: format!("d{}", dice.roll(2)), namespace: self.namespace };
        let number = dice.roll(3) + 1;
        let spec = format!(
            "http: [{{match: [{{uri: {{prefix: /{number}}}}}], route: [{{destination: {{host: {}}}}}]}}]",
            self.name
        );
        place.istio("VirtualService", "", &spec)
    }

    fn service_entry(&self, dice: &mut Dice) -> (String, String) {
        let (name, export) = (&self.name, dice.export());
        let from = match dice.roll(4) {
            0 => "resolution: DNS".to_owned(),
            1 => format!("resolution: STATIC, endpoints: [{{address: 10.0.0.{}}}]", dice.roll(3) + 1),
            _ => format!("resolution: STATIC, workloadSelector: {{labels: {{app: {name}}}}}"),
        };
        let spec = format!(
            "{export}hosts: [{name}.example.com], {from}, ports: [{{number: 80, name: http, protocol: HTTP}}]"
        );
        self.istio("ServiceEntry", "", &spec)
    }

    fn sidecar(&self, dice: &mut Dice) -> (String, String) {
        let namespace = if dice.roll(3) == 0 { "istio-system" } else { self.namespace };
        let place = Self { name: format!("c{}", dice.roll(2)), namespace };
        let selector = match dice.roll(2) {
            0 if namespace != "istio-system" => {
                format!("workloadSelector: {{labels: {{app: {}}}}}, ", self.name)
            }
            _ => String::new(),
        };
        let egress = dice.one_of(&[
            "egress: [{hosts: [\"./*\"]}]",
            "egress: [{hosts: [\"x/*\", \"*/s1.y.svc.cluster.local\"]}]",
            "egress: [{hosts: [\"*/*\"]}]",
            "egress: [{port: {number: 80, protocol: HTTP, name: a}, hosts: [\"./*\"]}, {hosts: [\"*/*.example.com\"]}]",
            "egress: [{port: {number: 9000, protocol: HTTP_PROXY, name: a}, bind: 127.0.0.1, hosts: [\"*/*\"]}]",
            "egress: [{hosts: [\"~/*\"]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
            "ingress: [{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: 127.0.0.1:8080}]",
        ]);
        place.istio("Sidecar", "", &format!("{selector}{egress}"))
    }

    fn gateway(&self, dice: &mut Dice) -> (String, String) {
        let hosts = dice.one_of(&["*", "./*", "s0.x.svc.cluster.local"]);
        let port = 80 + dice.roll(2);
        let spec = format!(
            "selector: {{istio: edge}}, servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: [\"{hosts}\"]}}]"
        );
        self.istio("Gateway", "", &spec)
    }

    fn peer_authentication(&self, dice: &mut Dice) -> (String, String) {
        let Self { name, namespace } = self;
        let mode = dice.one_of(&["STRICT", "PERMISSIVE", "DISABLE"]);
        let selector = match dice.roll(2) {
            0 => format!("selector: {{matchLabels: {{app: {name}}}}}, "),
            _ => String::new(),
        };
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{{selector}mtls: {{mode: {mode}}}}}\n"
        );
        (format!("PeerAuthentication/{namespace}/{name}"), text)
    }

    fn workload_group(&self, dice: &mut Dice) -> (String, String) {
        let (name, account) = (&self.name, dice.roll(2));
        let spec = format!(
            "metadata: {{labels: {{app: {name}, version: v1}}}}, template: {{serviceAccount: a{account}, weight: {}}}",
            dice.roll(3)
        );
        self.istio("WorkloadGroup", "", &spec)
    }

    fn proxy_config(&self, dice: &mut Dice) -> (String, String) {
        let spec = format!("concurrency: {}", dice.roll(3));
        let (place, text) = self.istio("ProxyConfig", "", &spec);
        (place, text.replace("/v1\n", "/v1beta1\n"))
    }

    fn workload(&self, dice: &mut Dice) -> (String, String) {
        let replica = dice.roll(3);
        let place = Self { name: format!("{}-{replica}", self.name), namespace: self.namespace };
        let more = match dice.roll(4) {
            0 => format!(", annotations: {{istio.io/autoRegistrationGroup: {}}}", self.name),
            1 => ", annotations: {ieum.dev/application-ports: \"80=4080\"}".to_owned(),
            _ => String::new(),
        };
        let spec = format!(
            "address: 127.1.0.{}, weight: {}, labels: {{app: {}, version: v{}}}, serviceAccount: a{}",
            replica + 1,
            dice.roll(3) + 1,
            self.name,
            dice.roll(2) + 1,
            dice.roll(2)
        );
        let (place, mut text) = place.istio("WorkloadEntry", &more, &spec);
        if dice.roll(6) == 0 {
            text += "status: {conditions: [{type: Healthy, status: \"False\"}]}\n";
        }
        (place, text)
    }
}
