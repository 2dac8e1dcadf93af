//! Plans from YAML.
#![allow(clippy::unwrap_used)]
use super::*;

const MESH: &str = "
apiVersion: ieum.dev/v1alpha1
kind: LocalMesh
metadata: {name: local}
spec:
  images:
  - {image: '*reviews-v2*', command: [ieum, sample, reviews, --version, v2]}
  - {image: '*reviews*', command: [ieum, sample, reviews]}
  proxies:
  - {match: 'reviews-*', command: [envoy, -c, $(BOOTSTRAP)]}
  gateways:
  - {name: ingress, labels: {istio: ingressgateway}, ports: {'80': 8080, '443': 8443}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}
";

fn deployment(name: &str, image: &str, pod: &str) -> String {
    format!(
        "
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: a}}}}
  template:
    metadata: {{labels: {{app: a}}{pod}}}
    spec:
      serviceAccountName: who
      containers:
      - {{name: main, image: '{image}', env: [{{name: A, value: '1'}}], ports: [{{containerPort: 9080, name: http}}]}}
"
    )
}

fn planned(text: &str) -> (Plan, Vec<Diagnostic>) {
    let parsed = api::parse("mesh.yaml", text);
    assert!(parsed.rejected.is_empty(), "{:?}", parsed.diagnostics);
    let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
    plan(&objects, &[])
}

fn workload<'a>(plan: &'a Plan, name: &str) -> &'a Workload {
    &plan.workloads[&("default".to_owned(), name.to_owned())]
}

#[test]
fn the_first_image_that_matches_says_what_runs() {
    let text = MESH.to_owned()
        + &deployment("reviews-v2", "docker.io/istio/examples-bookinfo-reviews-v2:1.20.3", "")
        + &deployment("other", "x/reviews:1", "");
    let (plan, diagnostics) = planned(&text);
    assert_eq!(diagnostics, []);
    let template = &workload(&plan, "reviews-v2").template;
    assert_eq!(template.programs[0].command, ["ieum", "sample", "reviews", "--version", "v2"]);
    assert_eq!((workload(&plan, "reviews-v2").replicas, template.service_account.as_str()), (2, "who"));
    assert!(matches!(&template.sidecar, Proxy::Other(command) if command[0] == "envoy"));
    let other = &workload(&plan, "other").template;
    assert_eq!(other.programs[0].command, ["ieum", "sample", "reviews"]);
    assert_eq!(other.sidecar, Proxy::Own);
}

#[test]
fn an_image_without_a_stand_in_is_told_with_its_line_and_the_rest_runs() {
    let text = MESH.to_owned() + &deployment("a", "unknown:1", "") + &deployment("b", "x/reviews:1", "");
    let (plan, diagnostics) = planned(&text);
    assert_eq!(plan.workloads.len(), 1);
    let told = diagnostics[0].to_string();
    let expected = "warning: Deployment default/a: spec.template.spec.containers[0].image: \
                    no process stands in for the image `unknown:1`";
    assert!(told.starts_with("mesh.yaml:") && told.contains(expected), "{told}");
}

#[test]
fn ports_that_only_a_service_tells_count_as_the_first_containers() {
    let service = "
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  selector: {app: a}
  ports: [{port: 9080, name: http}, {port: 80, targetPort: 7070, name: tcp}, {port: 53, name: dns, protocol: UDP}]
";
    let (plan, _) = planned(&(MESH.to_owned() + &deployment("a", "x/reviews:1", "") + service));
    let ports = &workload(&plan, "a").template.programs[0].ports;
    let ports: Vec<_> = ports.iter().map(|p| (p.number, p.name.as_str(), p.is_declared)).collect();
    assert_eq!(ports, [(9080, "http", true), (7070, "", false)]);
}

#[test]
fn a_pod_can_stay_outside_of_the_mesh() {
    let text = MESH.to_owned()
        + &deployment("a", "x/reviews:1", ", annotations: {sidecar.istio.io/inject: 'false'}");
    let (plan, _) = planned(&text);
    assert_eq!(workload(&plan, "a").template.sidecar, Proxy::Absent);
}

#[test]
fn gateways_have_istios_defaults_and_the_schemes_of_their_servers() {
    let (plan, _) = planned(MESH);
    let gateway = &plan.gateways[&("istio-system".to_owned(), "ingress".to_owned())];
    assert_eq!(gateway.service_account, "ingress-service-account");
    assert_eq!(gateway.ports, BTreeMap::from([(80, 8080), (443, 8443)]));
    assert_eq!(gateway.path, None);
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ['*']
  gateways: [shop]
  http:
  - {match: [{uri: {exact: /}}], redirect: {uri: /page}}
  - {match: [{uri: {prefix: /static}}, {uri: {exact: /page}}], route: [{destination: {host: a}}]}
";
    let (with_rules, _) = planned(&(MESH.to_owned() + rules));
    let ruled = &with_rules.gateways[&("istio-system".to_owned(), "ingress".to_owned())];
    assert_eq!(ruled.path.as_deref(), Some("/page"));
    assert!(ruled.is_same_process(gateway));
    assert_eq!(gateway.schemes, BTreeMap::from([(80, "http"), (443, "tcp")]));
}
