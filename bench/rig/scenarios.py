"""What is measured: one function per row of the table. Each starts its programs, measures and ends them."""

import socket
import ssl
import time
from contextlib import ExitStack

from . import envoy_config as envoy
from . import peers
from .load import h2load, wrk
from .process import free_port
from .rounds import measure

PROXY_CPU, LOAD_CPU = 0, 1
# A connection counts as idle after this; Ieum lets a resting connection's buffers go within 10 s.
REST_S = 12.0


class Bench:
    """Where a run keeps its files, and how long it measures."""

    def __init__(self, folder, rounds, seconds):
        self.folder, self.rounds, self.seconds = folder, rounds, seconds


def cost(process, run):
    """Runs a load and charges the CPU time that `process` used meanwhile to the requests completed."""
    before = process.usage()
    load = run()
    used = process.usage().since(before)
    per = max(load.requests, 1)
    ticks = max(used.user_us + used.system_us, 1)
    return {
        "cpu_us": used.run_ns / 1000 / per, "rps": load.per_second, "p50_us": load.p50_us, "p99_us": load.p99_us,
        "kernel": used.system_us / ticks, "requests": load.requests, "failed": load.failed,
    }


def edge_pair(bench, stack, backend, http2=False, routes=None, tag="", **options):
    """Envoy and Ieum from the same bootstrap: name -> (process, port)."""
    started = {}
    for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
        port, admin = free_port(), free_port()
        table = routes or [envoy.route("/", "app")]
        config = envoy.bootstrap(
            [envoy.listener("in", port, envoy.manager(table, **options))],
            [envoy.cluster("app", backend, http2=http2)], admin)
        process = start(config, port, admin, PROXY_CPU, bench.folder, f"{name}{tag}")
        stack.callback(process.stop)
        started[name] = (process, port)
    return started


def b1_http1(bench):
    """HTTP/1.1, small answers, 64 connections, lean."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = edge_pair(bench, stack, app)
        for name, start in (("nginx", peers.start_nginx), ("haproxy", peers.start_haproxy)):
            port = free_port()
            process = start(port, app, PROXY_CPU, bench.folder)
            stack.callback(process.stop)
            started[name] = (process, port)

        def once(peer):
            process, port = started[peer]
            return cost(process, lambda: wrk(f"http://127.0.0.1:{port}/", bench.seconds, 64, LOAD_CPU, bench.folder))
        return measure(list(started), bench.rounds, once, control="nginx")


def b2_mesh(bench):
    """HTTP/1.1 in the mesh profile: an authorization rule, metrics with the standard labels, a JSON access log to a file,
    1,000 routes. The same bootstrap for both."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        routes = [{"name": f"r{n}", **envoy.route(f"/service/{n}/", "app")} for n in range(1000)]
        started = {}
        for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
            port, admin = free_port(), free_port()
            log = bench.folder / f"{name}.access.log"
            manager = envoy.manager(routes, filters=[envoy.rbac(), envoy.standard_metrics()], logs=[envoy.json_log(log)])
            config = envoy.bootstrap([envoy.listener("in", port, manager)], [envoy.cluster("app", app)], admin)
            process = start(config, port, admin, PROXY_CPU, bench.folder, f"{name}-mesh")
            stack.callback(process.stop)
            started[name] = (process, port, log)

        def once(peer):
            process, port, log = started[peer]
            url = f"http://127.0.0.1:{port}/service/500/items"
            sample = cost(process, lambda: wrk(url, bench.seconds, 64, LOAD_CPU, bench.folder))
            if log.stat().st_size < 100 * sample["requests"]:
                time.sleep(1)
            lines = log.stat().st_size
            log.open("w").close()
            if lines < 100 * sample["requests"]:
                raise RuntimeError(f"{peer} wrote {lines} bytes of log for {sample['requests']} requests")
            return sample
        return measure(list(started), bench.rounds, once, control="envoy")


def b3_http2(bench):
    """HTTP/2 both ways, 8 connections of 16 streams."""
    with ExitStack() as stack:
        backend, app = peers.start_backend_http2(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = edge_pair(bench, stack, app, http2=True, tag="-h2")

        def once(peer):
            process, port = started[peer]
            url = f"http://127.0.0.1:{port}/index.html"
            return cost(process, lambda: h2load(url, bench.seconds, 8, 16, LOAD_CPU))
        return measure(list(started), bench.rounds, once, control="envoy")


def b4_mtls_hop(bench):
    """HTTP/1.1 client, a proxy, mutual TLS, a proxy, HTTP/1.1 application: the cost of both proxies together."""
    leaf, key, ca = peers.make_certificates(bench.folder)
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = {}
        for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
            inner, outer = (free_port(), free_port()), (free_port(), free_port())
            tls = envoy.server_tls(leaf, key, ca)
            server = envoy.bootstrap([envoy.listener("in", inner[0], envoy.manager([envoy.route("/", "app")], edge=False), tls)],
                                     [envoy.cluster("app", app)], inner[1])
            client = envoy.bootstrap(
                [envoy.listener("out", outer[0], envoy.manager([envoy.route("/", "peer")]))],
                [envoy.cluster("peer", inner[0], http2=True, transport=envoy.client_tls(leaf, key, ca, "bench.local"))],
                outer[1])
            inside = start(server, inner[0], inner[1], PROXY_CPU, bench.folder, f"{name}-inbound")
            stack.callback(inside.stop)
            outside = start(client, outer[0], outer[1], PROXY_CPU, bench.folder, f"{name}-outbound")
            stack.callback(outside.stop)
            started[name] = (Pair(inside, outside), outer[0])

        def once(peer):
            pair, port = started[peer]
            return cost(pair, lambda: wrk(f"http://127.0.0.1:{port}/", bench.seconds, 64, LOAD_CPU, bench.folder))
        return measure(list(started), bench.rounds, once, control="envoy")


class Pair:
    """Two processes charged together."""

    def __init__(self, *processes):
        self.processes = processes

    def usage(self):
        from .process import Usage
        return Usage.of([pid for p in self.processes for pid in p.pids()])


def tls_pair(bench, stack, app, tag):
    """Envoy and Ieum behind mutual TLS."""
    leaf, key, ca = peers.make_certificates(bench.folder)
    started = {}
    for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
        port, admin = free_port(), free_port()
        config = envoy.bootstrap(
            [envoy.listener("in", port, envoy.manager([envoy.route("/", "app")]), envoy.server_tls(leaf, key, ca))],
            [envoy.cluster("app", app)], admin)
        process = start(config, port, admin, PROXY_CPU, bench.folder, f"{name}{tag}")
        stack.callback(process.stop)
        started[name] = (process, port)
    return started


def client_context(bench):
    leaf, key, ca = peers.make_certificates(bench.folder)
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(leaf, key)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("prime256v1")
    return context


def connect(port):
    """A connection whose small writes go out at once."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request_on(sock):
    """One request on an open connection; raises unless it is answered with 200."""
    sock.sendall(b"GET / HTTP/1.1\r\nhost: bench.local\r\n\r\n")
    got = b""
    while not got.endswith(b"x" * 100):
        part = sock.recv(65536)
        if not part:
            raise RuntimeError(f"connection ended: {got[:200]!r}")
        got += part
    if not got.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(got[:200])


class Handshakes:
    """The same shape as a load."""

    def __init__(self, requests, seconds):
        self.requests, self.per_second, self.failed = requests, requests / seconds, 0
        self.p50_us = self.p99_us = 0


def b5_handshakes(bench):
    """Full mutual TLS 1.3 handshakes, P-256, no resumption, each with one request."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = tls_pair(bench, stack, app, "-handshakes")
        count = 200 * bench.seconds

        def handshakes(port):
            begin = time.monotonic()
            for _ in range(count):
                context = client_context(bench)  # a fresh one resumes nothing
                with connect(port) as raw, \
                        context.wrap_socket(raw, server_hostname="bench.local") as tls:
                    request_on(tls)
            return Handshakes(count, time.monotonic() - begin)

        def once(peer):
            process, port = started[peer]
            return cost(process, lambda: handshakes(port))
        return measure(list(started), bench.rounds, once, control="envoy")


def idle_cost(bench, started, count, open_one):
    """Private memory per connection that did one request and stays open."""
    def once(peer):
        process, port = started[peer]
        held = [open_one(port) for _ in range(50)]  # what a first connection costs is not a connection's cost
        before = process.memory()
        held += [open_one(port) for _ in range(count)]
        time.sleep(REST_S)
        after = process.memory()
        for sock in held:
            sock.close()
        return {"bytes": (after["private_dirty"] - before["private_dirty"]) / count, "failed": 0}
    # A process that grew once keeps its memory: one round each.
    return measure(list(started), 1, once, control=next(iter(started)), figure="bytes")


def b6_idle(bench, count=5000):
    """Idle keep-alive connections after one request."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = edge_pair(bench, stack, app, tag="-idle")
        port = free_port()
        nginx = peers.start_nginx(port, app, PROXY_CPU, bench.folder, "nginx-idle")
        stack.callback(nginx.stop)
        started["nginx"] = (nginx, port)

        def open_one(port):
            sock = connect(port)
            request_on(sock)
            return sock
        return idle_cost(bench, started, count, open_one)


def b7_idle_mtls(bench, count=2000):
    """Idle mutual TLS connections after one request."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = tls_pair(bench, stack, app, "-idle-mtls")
        context = client_context(bench)

        def open_one(port):
            raw = connect(port)
            sock = context.wrap_socket(raw, server_hostname="bench.local")
            request_on(sock)
            return sock
        return idle_cost(bench, started, count, open_one)


def b8_floor(bench):
    """Memory of a process with one route, after a few requests."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = edge_pair(bench, stack, app, tag="-floor")

        def once(peer):
            process, port = started[peer]
            wrk(f"http://127.0.0.1:{port}/", 1, 4, LOAD_CPU, bench.folder)
            time.sleep(REST_S)
            return {"bytes": float(process.memory()["rss"]), "failed": 0}
        return measure(list(started), 1, once, control="envoy", figure="bytes")


def b10_bulk(bench):
    """1 MB bodies over plain HTTP/1.1: CPU per megabyte."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        started = edge_pair(bench, stack, app, tag="-bulk")
        port = free_port()
        haproxy = peers.start_haproxy(port, app, PROXY_CPU, bench.folder, "haproxy-bulk")
        stack.callback(haproxy.stop)
        started["haproxy"] = (haproxy, port)

        def once(peer):
            process, port = started[peer]
            return cost(process, lambda: wrk(f"http://127.0.0.1:{port}/1m", bench.seconds, 8, LOAD_CPU, bench.folder))
        return measure(list(started), bench.rounds, once, control="envoy")


def b9_routes(bench):
    """The last of 10,000 exact routes: CPU per request over that of a table with one."""
    with ExitStack() as stack:
        backend, app = peers.start_backend(LOAD_CPU, bench.folder)
        stack.callback(backend.stop)
        many = [{"match": {"path": f"/service/{n}/items"}, "route": {"cluster": "app", "timeout": "0s"}} for n in range(10_000)]
        one = edge_pair(bench, stack, app, tag="-one")
        all_ = edge_pair(bench, stack, app, routes=many, tag="-many")
        started = {f"{n} 1": one[n] for n in one} | {f"{n} 10000": all_[n] for n in all_}

        def once(peer):
            process, port = started[peer]
            path = "/service/9999/items"
            return cost(process, lambda: wrk(f"http://127.0.0.1:{port}{path}", bench.seconds, 64, LOAD_CPU, bench.folder))
        return measure(list(started), bench.rounds, once, control="envoy 1")
