"""The control plane and the proxy with much configuration: many sidecars, many services, many routes and clusters."""

import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from . import mesh, peers
from .process import Process, fetch, free_port, wait_for

SWARM = Path(os.environ.get("SWARM", peers.ROOT / "target" / "quick" / "examples" / "swarm"))
SERVICES, WORKLOADS, NAMESPACES = 1000, 5, 20

SERVICE = """apiVersion: v1
kind: Service
metadata: {{name: service-{n}, namespace: ns-{ns}}}
spec: {{selector: {{app: service-{n}}}, ports: [{{name: http, port: 8080}}]}}
---
"""

ENTRY = """apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: service-{n}-{replica}
  namespace: ns-{ns}
  annotations: {{ieum.dev/workload: service-{n}, ieum.dev/application-ports: "8080=40000"}}
spec: {{address: {address}, labels: {{app: service-{n}, version: v1}}, serviceAccount: service-{n}, weight: {weight}}}
---
"""


def entry(n, replica, weight=1):
    """A workload of service `n`."""
    address = f"127.{10 + replica}.{n // 250}.{n % 250 + 1}"
    return ENTRY.format(n=n, replica=replica, ns=n % NAMESPACES, address=address, weight=weight)


def write_mesh(folder):
    """Services and their workloads, fifty services a file; the workload that will change has a file of its own."""
    folder.mkdir()
    for first in range(0, SERVICES, 50):
        parts = []
        for n in range(first, first + 50):
            parts.append(SERVICE.format(n=n, ns=n % NAMESPACES))
            parts += [entry(n, replica) for replica in range(WORKLOADS) if (n, replica) != (500, 0)]
        (folder / f"services-{first:04}.yaml").write_text("".join(parts))
    (folder / "moving.yaml").write_text(entry(500, 0))


def start_control(folder, config, cpu, name="control"):
    """`ieum control` over a folder, and the port of its plaintext xDS."""
    ports = {what: free_port() for what in ("xds", "tls", "admin")}
    process = Process(name, [
        peers.IEUM, "control", "--config", config, "--xds", f"127.0.0.1:{ports['xds']}",
        "--xds-tls", f"127.0.0.1:{ports['tls']}", "--admin", f"127.0.0.1:{ports['admin']}",
        "--state-dir", folder / f"{name}-state"], cpu, folder)
    return process.listens(ports["xds"], 60), ports["xds"]


class Swarm:
    """Simulated sidecars, all in step with their control plane."""

    def __init__(self, server, sidecars):
        command = ["taskset", "-c", "1", SWARM, "--server", server, "--sidecars", sidecars, "--services", SERVICES,
                   "--namespaces", NAMESPACES, "--workloads", WORKLOADS]
        self.child = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self):
        """The next thing it says."""
        text = self.child.stdout.readline()
        if not text:
            raise RuntimeError("the swarm ended")
        return json.loads(text)

    def change(self, old, new):
        """Moves a file into place; what it came to."""
        self.child.stdin.write(f"change {old} {new}\n")
        self.child.stdin.flush()
        return self.line()

    def stop(self):
        self.child.kill()
        self.child.wait()


def settled(process, quiet=0.3):
    """CPU time once it has nothing more to do."""
    last = process.usage()
    while True:
        time.sleep(quiet)
        now = process.usage()
        if now.since(last).run_ns < 2_000_000:
            return now
        last = now


def b13_control_plane(bench, sidecars=1000, changes=15):
    """1,000 sidecars with 1,000 services of 5 endpoints: from a changed endpoint to the last acknowledgement."""
    with ExitStack() as stack:
        config = bench.folder / "config"
        write_mesh(config)
        control, xds = start_control(bench.folder, config, 0)
        stack.callback(control.stop)
        before = settled(control)
        swarm = Swarm(f"http://127.0.0.1:{xds}", sidecars)
        stack.callback(swarm.stop)
        synced = swarm.line()
        sync_cpu = settled(control).since(before).run_ns / 1e6 / sidecars
        samples = []
        for number in range(changes):
            fresh = bench.folder / "moving.next"
            fresh.write_text(entry(500, 0, weight=2 + number))
            start = control.usage()
            took = swarm.change(fresh, config / "moving.yaml")
            cpu = settled(control).since(start).run_ns / 1e6
            samples.append({"ms": took["last_ack_ms"], "first_ms": took["first_ack_ms"], "cpu": cpu,
                            "sent_bytes": float(took["bytes"])})
        memory = control.memory()["rss"]

        def row(value, **more):
            return [{"value": value, **more}]

        ordered = sorted(s["ms"] for s in samples)
        cpus = sorted(s["cpu"] for s in samples)
        return {
            "last ack ms": row(ordered[len(ordered) // 2], worst=ordered[-1]),
            "cpu ms a change": row(cpus[len(cpus) // 2], worst=cpus[-1]),
            "sync cpu ms a sidecar": row(sync_cpu, synced_ms=synced["synced_ms"], bytes=synced["bytes"]),
            "rss MB": row(memory / 1e6),
        }


ROUTES, CLUSTERS = 10_000, 5_000

CLUSTER = """---
apiVersion: v1
kind: Service
metadata: {name: other-%d}
spec: {selector: {app: app}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""


# Seconds that a proxy rests before its memory is looked at.
REST_S = 5


def gateway_memory(bench, which, name, routes, clusters):
    """Private dirty memory of a gateway that has so many routes and clusters from `ieum control`."""
    folder = bench.folder / f"{which}-{name}"
    config = folder / "config"
    config.mkdir(parents=True)
    others = "".join(mesh.OTHER % n for n in range(routes))
    (config / "service.yaml").write_text(mesh.SERVICE % 8080 + "".join(CLUSTER % n for n in range(clusters)))
    (config / "rule.yaml").write_text(mesh.RULE % (others, 1))
    with ExitStack() as stack:
        control, xds = start_control(folder, config, 1)
        stack.callback(control.stop)
        ports = {"xds": xds, "gateway": free_port(), "proxy_admin": free_port()}
        bootstrap = folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(mesh.Mesh.bootstrap(ports)))
        if which == "envoy":
            command = [peers.ENVOY, "-c", bootstrap, "--concurrency", "1", "--base-id", ports["gateway"], "-l", "error"]
        else:
            command = [peers.IEUM, "proxy", "--bootstrap", bootstrap, "--concurrency", "1", "--state-dir", folder / "state"]
        proxy = Process(f"{which}-{name}", command, 0, folder)
        stack.callback(proxy.stop)
        proxy.listens(ports["gateway"], 120)
        wait_for(lambda: (fetch(f"http://127.0.0.1:{ports['proxy_admin']}/ready") or (0,))[0] == 200, f"{which} is not ready", 120)
        settled(proxy, 1.0)
        # Both give back what the start took for a moment, but not at once.
        time.sleep(REST_S)
        return proxy.memory()["private_dirty"]


def b9_memory(bench):
    """What a route and a cluster take in memory, both proxies fed by the same control plane."""
    samples = {}
    for which in ("ieum", "envoy"):
        base = gateway_memory(bench, which, "base", 0, 0)
        route = (gateway_memory(bench, which, "routes", ROUTES, 0) - base) / ROUTES
        cluster = (gateway_memory(bench, which, "clusters", 0, CLUSTERS) - base) / CLUSTERS
        samples[f"{which} route"] = [{"bytes": route, "base_bytes": base}]
        samples[f"{which} cluster"] = [{"bytes": cluster}]
    return samples
