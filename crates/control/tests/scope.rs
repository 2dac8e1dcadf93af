//! How much a proxy is sent whose Sidecar lets it see a part of the mesh, measured on the wire.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::fmt::Write;

const NAMESPACES: usize = 20;
const SERVICES: usize = 10;

fn mesh(sidecar: &str) -> String {
    let mut text = sidecar.to_owned();
    for namespace in 0..NAMESPACES {
        for service in 0..SERVICES {
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: n{namespace}}}\n\
                 spec: {{selector: {{app: s{service}}}, ports: [{{name: http, port: 80}}]}}\n---\n\
                 apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: s{service}, namespace: n{namespace}}}\n\
                 spec: {{address: 10.{namespace}.0.{service}, labels: {{app: s{service}}}}}\n"
            )
            .unwrap();
        }
    }
    text
}

/// Resources and bytes of each type that a sidecar in `n0` is sent.
async fn sent(text: &str) -> Vec<(usize, usize)> {
    let running = plane(&[("mesh.yaml", text)]).await;
    let id = "sidecar~127.1.0.5~a.n0~n0.svc.cluster.local";
    let mut client = running.delta(node(id, &[("OUTBOUND", "127.1.0.5:15001")])).await;
    let mut all = Vec::new();
    for kind in [CDS, EDS, RDS] {
        client.ask(kind, &["*"]).await;
        let response = client.accept().await;
        let bytes = response.resources.iter().map(|r| r.resource.as_ref().unwrap().value.len()).sum();
        all.push((response.resources.len(), bytes));
    }
    all
}

#[tokio::test]
async fn a_sidecar_is_sent_only_what_it_lets_see_in_resources_and_in_bytes() {
    let everything = sent(&mesh("")).await;
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: istio-system}\n\
                   spec: {egress: [{hosts: [\"./*\"]}]}\n";
    let scoped = sent(&mesh(sidecar)).await;
    let all = NAMESPACES * SERVICES;
    assert_eq!(everything.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [all, all, 1]);
    assert_eq!(scoped.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [SERVICES, SERVICES, 1]);
    for ((_, whole), (_, part)) in everything.iter().zip(&scoped) {
        // A twentieth of the mesh; names differ a little in length.
        let share = *part as f64 / *whole as f64 * NAMESPACES as f64;
        assert!((0.9..1.2).contains(&share), "{part} of {whole} bytes");
    }
}
