//! The rules of Istio by which resources are merged, ordered and looked up, each with a test named after it. What is asked
//! is always what a proxy would do with what it is sent: which route takes a request, and how a cluster is reached.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../cases/mod.rs"]
mod cases;

mod destination_rules;
mod gateways;
mod others;
mod virtual_services;

use cases::{node, world};
use http::{HeaderMap, Method};
use ieum_control::node::ProxyNode;
use ieum_control::translate::{ProxyResources, translate};
use model::cluster::Cluster;
use model::header::RequestHead;
use model::route::{Action, Target};
use model::routing::RouteTable;

/// Services `a` and `b` at port 80 in the namespaces `x` and `y`.
fn services() -> String {
    let mut text = String::new();
    for (name, namespace) in [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")] {
        text += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n---\n"
        );
    }
    text
}

/// A resource of Istio's in a namespace.
fn resource(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn virtual_service(name: &str, namespace: &str, spec: &str) -> String {
    resource("VirtualService", name, namespace, spec)
}

/// A rule that sends everything that matches to a host.
fn to(host: &str) -> String {
    format!("route: [{{destination: {{host: {host}}}}}]")
}

fn sidecar(namespace: &str, labels: &str) -> ProxyNode {
    node(&format!("sidecar~127.1.0.5~p.{namespace}~{namespace}.svc.cluster.local {labels}"))
}

fn gateway() -> ProxyNode {
    node("router~127.0.0.1~edge.x~x.svc.cluster.local istio=edge")
}

/// What a proxy is sent, and what was told of the resources.
struct Seen {
    resources: ProxyResources,
    told: Vec<String>,
}

/// What `node` is sent of `text`.
fn seen(node: &ProxyNode, text: &str) -> Seen {
    let (world, mut told) = world(text);
    let (mesh, found) = translate(&world);
    told.extend(found);
    told.extend(ieum_control::references::check(world.objects()));
    Seen { resources: mesh.resources_for(node), told: told.iter().map(ToString::to_string).collect() }
}

impl Seen {
    /// What becomes of a request, by the table of that name.
    fn by(&self, table: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let table = self.resources.routes.iter().find(|one| one.name == table);
        let Some(table) = table else { return "no table".to_owned() };
        let table = RouteTable::compile(table.as_ref().clone()).unwrap();
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let head =
            RequestHead { method: &Method::GET, scheme: "http", authority, path, query, headers: &all };
        let Ok(found) = table.find(&head, 0) else { return "404".to_owned() };
        match &found.route.action {
            Action::Forward(forward) => match &forward.target {
                Target::Weighted(all) => {
                    let parts: Vec<_> =
                        all.iter().map(|one| format!("{}*{}", one.weight, short(&one.cluster))).collect();
                    parts.join(" ")
                }
                target => target.clusters().map(short).collect::<Vec<_>>().join(" "),
            },
            Action::Redirect(redirect) => {
                format!("{} to {}", redirect.status, redirect.scheme.as_deref().unwrap_or("the same"))
            }
            Action::Respond(response) => response.status.to_string(),
        }
    }

    /// What becomes of a request of the application beside a sidecar.
    fn get(&self, authority: &str, path: &str) -> String {
        self.by("http_proxy", authority, path, &[])
    }

    fn cluster(&self, name: &str) -> Option<&Cluster> {
        self.resources.clusters.iter().find(|cluster| cluster.name == name).map(|cluster| &**cluster)
    }

    fn tells(&self, text: &str) -> bool {
        self.told.iter().any(|line| line.contains(text))
    }
}

/// `outbound|80|v1|a.x.svc.cluster.local` as `v1.a.x`, and ports that are not 80 after it.
fn short(cluster: &str) -> String {
    let parts: Vec<&str> = cluster.split('|').collect();
    let [_, port, subset, host] = parts.as_slice() else { return cluster.to_owned() };
    let host = host.trim_end_matches(".svc.cluster.local");
    let subset = if subset.is_empty() { String::new() } else { format!("{subset}.") };
    let port = if *port == "80" { String::new() } else { format!(":{port}") };
    format!("{subset}{host}{port}")
}
