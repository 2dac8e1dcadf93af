"""Rows about bytes: bodies of 1 MB and 64 KB through plain HTTP/1.1, TLS at the edge, a mutual TLS hop, and plain TCP."""

from . import envoy_config as envoy
from . import peers
from .load import wrk
from .pairs import LOAD_CPU, cost, edge, row
from .requests import start_hop
from .rounds import measure

CONNECTIONS = 8


def rounds_of(this, size, scheme="http"):
    """Timed rounds of `/64k` or `/1m`; half as long as those of small requests, for there are many of these rows."""
    bench = this.bench

    def once(peer):
        process, port = this.started[peer]
        url = f"{scheme}://127.0.0.1:{port}/{size}"
        sample = cost(process, lambda: wrk(url, bench.seconds / 2, CONNECTIONS, LOAD_CPU, bench.folder))
        return sample | {"mb_per_s": sample["rps"] * BYTES[size] / 1e6}
    return measure(list(this.started), bench.rounds, once, control="envoy")


BYTES = {"64k": 64 * 1024, "1m": 1024 * 1024}


def plain(size):
    """Plain HTTP/1.1, beside nginx and HAProxy, too."""
    def run(bench):
        with row(bench) as this:
            app = this.backend()
            this.both(edge(app))
            this.add("nginx", peers.start_nginx, app, bulk=True)
            this.add("haproxy", peers.start_haproxy, app)
            return rounds_of(this, size)
    return run


def edge_tls(size):
    """TLS from the client to the proxy, plain to the application."""
    def run(bench):
        with row(bench) as this:
            leaf, key, _ = peers.make_certificates(bench.folder)
            this.both(edge(this.backend(), transport=envoy.server_tls(leaf, key)))
            return rounds_of(this, size, "https")
    return run


def hop(size):
    """Two proxies with mutual TLS between them, charged together."""
    def run(bench):
        with row(bench) as this:
            start_hop(this, this.backend())
            return rounds_of(this, size)
    return run


def tcp(size):
    """Bytes passed through without a look at them, beside nginx (where it has the module) and HAProxy, too."""
    def run(bench):
        with row(bench) as this:
            app = this.backend()
            this.both(lambda _, port, admin: envoy.bootstrap(
                [envoy.listener("in", port, envoy.tcp_proxy("app"))], [envoy.tcp_cluster("app", app)], admin))
            if peers.NGINX_STREAM.exists():
                this.add("nginx", peers.start_nginx_tcp, app)
            this.add("haproxy", peers.start_haproxy_tcp, app)
            return rounds_of(this, size)
    return run
