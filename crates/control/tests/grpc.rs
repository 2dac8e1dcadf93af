//! A gRPC library that speaks xDS itself, with no proxy between: `grpcio` finds a service by `xds:///` through our control
//! plane and calls it. Passed over where `make peers` has not been run.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Serves `/test.Echo/Say`, prints its port, and then calls whatever target each line on standard input names, with the
/// metadata that follow it there.
const PROGRAM: &str = "
import sys, grpc
from concurrent import futures

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == '/test.Echo/Say':
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b'echo ' + request)

server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Echo(),))
print(server.add_insecure_port('127.0.0.1:0'), flush=True)
server.start()
for line in sys.stdin:
    target, *pairs = line.split()
    metadata = [tuple(pair.split('=')) for pair in pairs]
    with grpc.insecure_channel(target) as channel:
        try:
            say = channel.unary_unary('/test.Echo/Say')
            print(say(b'hello', timeout=10, wait_for_ready=True, metadata=metadata).decode(), flush=True)
        except grpc.RpcError as error:
            print(error.code(), error.details(), flush=True)
";

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_line(reader: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[tokio::test]
async fn grpcio_calls_a_service_by_name_and_obeys_its_rules() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.peers/venv/bin/python");
    if !python.exists() {
        eprintln!("passed over: `make peers` has not been run");
        return;
    }
    let service = SERVICE.replace("name: http, port: 9080", "name: grpc, port: 7070, targetPort: grpc");
    let running = plane(&[("service.yaml", &service)]).await;
    let node = json!({"id": "python", "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"}});
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": running.plane.addresses().xds.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": node,
    });
    let mut command = Command::new(python);
    command.args(["-c", PROGRAM]).env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
    let mut process = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(process.0.stdout.take().unwrap());
    let mut asked = process.0.stdin.take().unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        let port = read_line(&mut said);
        (port, said)
    });
    let (port, mut said) = within(answered).await.unwrap();
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: r\n  labels: {{sidecar.istio.io/inject: \
         'false'}}\n  annotations: {{sidecar.istio.io/inject: 'false'}}\nspec:\n  address: 127.0.0.1\n  labels: {{app: \
         reviews}}\n  ports: {{grpc: {port}}}\n"
    );
    running.save("entry.yaml", &entry);
    within(running.plane.revision_after(1)).await;
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  hosts: [reviews]\n  http:\n  \
                 - match: [{headers: {x-fail: {exact: 'yes'}}}]\n    \
                   fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}\n    \
                   route: [{destination: {host: reviews}}]\n  \
                 - match: [{headers: {x-lost: {}}}]\n    route: [{destination: {host: reviews, subset: nobody}}]\n  \
                 - retries: {attempts: 2, retryOn: 'unavailable,5xx'}\n    \
                   route: [{destination: {host: reviews, subset: nobody}, weight: 0}, {destination: {host: reviews}, weight: 1}]\n";
    running.save("rules.yaml", rules);
    within(running.plane.revision_after(2)).await;
    // Names of all lengths find it; headers choose the rule; faults are made by the library; a share of nothing is nothing.
    for (call, expected) in [
        ("reviews.default.svc.cluster.local:7070", "echo hello"),
        ("reviews:7070", "echo hello"),
        ("reviews:7070 x-fail=no", "echo hello"),
        ("reviews:7070 x-fail=yes", "StatusCode.RESOURCE_EXHAUSTED"),
        ("reviews:7070 x-lost=yes", "StatusCode.UNAVAILABLE"),
    ] {
        writeln!(asked, "xds:///{call}").unwrap();
        asked.flush().unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let line = read_line(&mut said);
            (line, said)
        });
        let (line, rest) = within(answer).await.unwrap();
        said = rest;
        assert!(line.starts_with(expected), "{call}: {line}; {:#}", running.plane.status());
    }
    let status = running.plane.status();
    assert_eq!(
        status["proxies"].as_array().unwrap().iter().filter(|p| p["rejections"] != json!([])).count(),
        0
    );
}
