"""A control plane and a gateway from a folder of files, for what happens when those files change."""

import json
import re
import time
from contextlib import ExitStack

from . import peers
from .load import h2load
from .process import Process, fetch, free_port, wait_for

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  selector: {app: app}
  ports: [{name: http, port: 80, targetPort: %d}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: app}
spec: {address: 127.0.0.1, labels: {app: app}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
%s  - headers: {response: {set: {x-version: "%d"}}}
    route: [{destination: {host: app}}]
"""

OTHER = """  - match: [{uri: {exact: /other/%d}}]
    route: [{destination: {host: app}}]
"""


class Mesh:
    """`ieum control` over a folder, `ieum proxy` as its gateway."""

    def __init__(self, bench, stack, backend, other_routes=0):
        self.folder = bench.folder / f"config-{other_routes}"
        self.folder.mkdir()
        self.others = "".join(OTHER % n for n in range(other_routes))
        (self.folder / "service.yaml").write_text(SERVICE % backend)
        self.write(0)
        ports = {name: free_port() for name in ("xds", "tls", "admin", "gateway", "proxy_admin")}
        self.gateway = ports["gateway"]
        control = Process(f"control-{other_routes}", [
            peers.IEUM, "control", "--config", self.folder, "--xds", f"127.0.0.1:{ports['xds']}",
            "--xds-tls", f"127.0.0.1:{ports['tls']}", "--admin", f"127.0.0.1:{ports['admin']}",
            "--state-dir", bench.folder / f"control-state-{other_routes}"], 1, bench.folder)
        stack.callback(control.stop)
        control.listens(ports["xds"])
        bootstrap = bench.folder / f"gateway-{other_routes}.json"
        bootstrap.write_text(json.dumps(self.bootstrap(ports)))
        proxy = Process(f"gateway-{other_routes}", [
            peers.IEUM, "proxy", "--bootstrap", bootstrap, "--concurrency", "1",
            "--state-dir", bench.folder / f"gateway-state-{other_routes}"], 0, bench.folder)
        stack.callback(proxy.stop)
        self.proxy, self.control = proxy, control
        wait_for(lambda: self.version() == 0, "the gateway does not serve")

    @staticmethod
    def bootstrap(ports):
        return {
            "node": {"id": "router~127.0.0.1~ingress.istio-system~istio-system.svc.cluster.local", "cluster": "ingress",
                     "metadata": {"NAME": "ingress", "NAMESPACE": "istio-system", "LABELS": {"istio": "ingressgateway"},
                                  "PORTS": {"80": ports["gateway"]}, "BIND": "127.0.0.1"}},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ports["proxy_admin"]}}},
            "dynamic_resources": {
                "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                               "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"}},
            "static_resources": {"clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "2s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                    "socket_address": {"address": "127.0.0.1", "port_value": ports["xds"]}}}}]}]}}]},
        }

    def write(self, version):
        """Saves the rule as an editor does: a new file over the old one."""
        partial = self.folder / ".rule.tmp"
        partial.write_text(RULE % (self.others, version))
        partial.rename(self.folder / "rule.yaml")

    def version(self):
        """The version that a request sees, or None."""
        import http.client
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.gateway, timeout=2)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            return int(answer.headers["x-version"]) if answer.headers["x-version"] else None
        except (OSError, http.client.HTTPException):
            return None


def b11_edits_under_load(bench):
    """A route edited 20 times a second under load: failed requests."""
    import subprocess
    with ExitStack() as stack:
        backend, app = peers.start_backend(1, bench.folder)
        stack.callback(backend.stop)
        mesh = Mesh(bench, stack, app)
        seconds = max(5, bench.seconds)
        load = subprocess.Popen(
            ["taskset", "-c", "1", "h2load", "--h1", "-t1", "-c50", "--rps=100", "-D", str(seconds), f"http://127.0.0.1:{mesh.gateway}/"],
            stdout=subprocess.PIPE, text=True)
        end, edits = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            edits += 1
            mesh.write(edits)
            time.sleep(0.05)
        out, _ = load.communicate(timeout=60)
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
        status = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
        failed = int(counts.group(2)) + int(counts.group(3)) + sum(int(status.group(n)) for n in (2, 3, 4))
        wait_for(lambda: mesh.version() == edits, "the last edit was not obeyed")
        return {"ieum": [{"lost": float(failed), "requests": int(counts.group(1)), "edits": edits}]}


def b12_file_to_request(bench, edits=60):
    """From a saved file to the first request that obeys it, with few routes and with 3,000."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(1, bench.folder)
        stack.callback(backend.stop)
        out = {}
        for name, others in (("few routes", 0), ("3000 routes", 3000)):
            mesh = Mesh(bench, stack, app, others)
            took = []
            for version in range(1, edits + 1):
                begin = time.monotonic()
                mesh.write(version)
                while mesh.version() != version:
                    if time.monotonic() - begin > 10:
                        raise RuntimeError("an edit was not obeyed within 10 s")
                took.append((time.monotonic() - begin) * 1000)
            took.sort()
            out[name] = [{"ms": took[int(len(took) * 0.99)], "p50_ms": took[len(took) // 2]}]
        return out
