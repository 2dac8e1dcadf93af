"""Rows about the cost of a request: HTTP/1.1, HTTP/2, the mesh profile, a mutual TLS hop, many routes."""

import time

from . import envoy_config as envoy
from . import peers
from .load import h2load, wrk
from .pairs import LOAD_CPU, PROXY_CPU, cost, edge, row
from .process import Pair, free_port
from .rounds import measure
from .tracing import beside

# Length of the extra round.
EXTRA_S = 1


def rounds_of(this, path, control):
    """Timed rounds of small HTTP/1.1 requests on 64 connections, and the extra round."""
    bench = this.bench

    def load(peer, seconds):
        return wrk(f"http://127.0.0.1:{this.started[peer][1]}{path}", seconds, 64, LOAD_CPU, bench.folder)

    def once(peer):
        return cost(this.started[peer][0], lambda: load(peer, bench.seconds))
    measured = measure(list(this.started), bench.rounds, once, control=control)
    return beside(measured, this.started, lambda peer: load(peer, EXTRA_S), bench.folder, bench.trace)


def b1_http1(bench):
    """HTTP/1.1, small answers, 64 connections, lean."""
    with row(bench) as this:
        app = this.backend()
        this.both(edge(app))
        this.add("nginx", peers.start_nginx, app)
        this.add("haproxy", peers.start_haproxy, app)
        return rounds_of(this, "/", control="nginx")


def mesh_manager(log, routes=1000):
    """The mesh profile: an authorization rule, metrics with the standard labels, a JSON access log, 1,000 routes."""
    table = [{"name": f"r{n}", **envoy.route(f"/service/{n}/", "app")} for n in range(routes)]
    return envoy.manager(table, filters=[envoy.rbac(), envoy.standard_metrics()], logs=[envoy.json_log(log)])


def b2_mesh(bench):
    """HTTP/1.1 in the mesh profile, the same bootstrap for both."""
    with row(bench) as this:
        app = this.backend()
        logs = {name: bench.folder / f"{name}.access.log" for name in ("envoy", "ieum")}
        this.both(lambda name, port, admin: envoy.bootstrap(
            [envoy.listener("in", port, mesh_manager(logs[name]))], [envoy.cluster("app", app)], admin))

        def load(peer, seconds):
            url = f"http://127.0.0.1:{this.started[peer][1]}/service/500/items"
            return wrk(url, seconds, 64, LOAD_CPU, bench.folder)

        def once(peer):
            sample = cost(this.started[peer][0], lambda: load(peer, bench.seconds))
            check_log(peer, logs[peer], sample["requests"])
            return sample
        measured = measure(list(this.started), bench.rounds, once, control="envoy")
        return beside(measured, this.started, lambda peer: load(peer, EXTRA_S), bench.folder, bench.trace)


def check_log(peer, log, requests):
    """A log that was not written costs nothing; then the figure would mean nothing. Empties it."""
    if log.stat().st_size < 100 * requests:
        time.sleep(1)
    size = log.stat().st_size
    log.open("w").close()
    if size < 100 * requests:
        raise RuntimeError(f"{peer} wrote {size} bytes of log for {requests} requests")


def b3_http2(bench):
    """HTTP/2 both ways, 8 connections of 16 streams."""
    with row(bench) as this:
        this.both(edge(this.backend_http2(), http2=True))
        log = bench.folder / "h2load.log"

        def load(peer, seconds, log=None):
            return h2load(f"http://127.0.0.1:{this.started[peer][1]}/index.html", seconds, 8, 16, LOAD_CPU, log)

        def once(peer):
            return cost(this.started[peer][0], lambda: load(peer, bench.seconds))
        measured = measure(list(this.started), bench.rounds, once, control="envoy")
        return beside(measured, this.started, lambda peer: load(peer, EXTRA_S, log), bench.folder, bench.trace)


def start_hop(this, app):
    """Peers of two proxies each: HTTP/1.1 in, mutual TLS with HTTP/2 between them, HTTP/1.1 to the application."""
    bench = this.bench
    leaf, key, ca = peers.make_certificates(bench.folder)
    for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
        inner, outer = (free_port(), free_port()), (free_port(), free_port())
        tls = envoy.server_tls(leaf, key, ca)
        server = envoy.bootstrap(
            [envoy.listener("in", inner[0], envoy.manager([envoy.route("/", "app")], edge=False), tls)],
            [envoy.cluster("app", app)], inner[1])
        peer = envoy.cluster("peer", inner[0], http2=True, transport=envoy.client_tls(leaf, key, ca, "bench.local"))
        client = envoy.bootstrap(
            [envoy.listener("out", outer[0], envoy.manager([envoy.route("/", "peer")]))], [peer], outer[1])
        inside = this.keep(start(server, inner[0], inner[1], PROXY_CPU, bench.folder, f"{name}-inbound"))
        outside = this.keep(start(client, outer[0], outer[1], PROXY_CPU, bench.folder, f"{name}-outbound"))
        this.started[name] = (Pair(inside, outside), outer[0])


def b4_mtls_hop(bench):
    """HTTP/1.1 client, a proxy, mutual TLS, a proxy, HTTP/1.1 application: the cost of both proxies together."""
    with row(bench) as this:
        start_hop(this, this.backend())
        return rounds_of(this, "/", control="envoy")


def b9_routes(bench):
    """The last of 10,000 exact routes: CPU per request over that of a table with one."""
    with row(bench) as this:
        app = this.backend()
        many = [{"match": {"path": f"/service/{n}/items"}, "route": {"cluster": "app", "timeout": "0s"}} for n in range(10_000)]
        this.both(edge(app), " 1")
        this.both(edge(app, routes=many), " 10000")

        def once(peer):
            process, port = this.started[peer]
            url = f"http://127.0.0.1:{port}/service/9999/items"
            return cost(process, lambda: wrk(url, bench.seconds, 64, LOAD_CPU, bench.folder))
        return measure(list(this.started), bench.rounds, once, control="envoy 1")
