"""Rows about connections and processes: handshakes, connections at rest, a process with one route."""

import socket
import ssl
import time

from . import envoy_config as envoy
from . import peers
from .load import wrk
from .pairs import LOAD_CPU, cost, edge, row
from .rounds import Measured, measure

# A connection counts as idle after this; Ieum lets a resting connection's buffers go within 10 s.
REST_S = 12.0


def start_tls_pair(this):
    """Envoy and Ieum behind mutual TLS."""
    leaf, key, ca = peers.make_certificates(this.bench.folder)
    this.both(edge(this.backend(), transport=envoy.server_tls(leaf, key, ca)))


def client_context(bench):
    """A client with the run's certificate, that speaks TLS 1.3 with P-256 only."""
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
        self.p50_us = self.p99_us = None


def b5_handshakes(bench):
    """Full mutual TLS 1.3 handshakes, P-256, no resumption, each with one request."""
    with row(bench) as this:
        start_tls_pair(this)
        count = max(50, int(200 * bench.seconds))

        def handshakes(port):
            begin = time.monotonic()
            for _ in range(count):
                context = client_context(bench)  # a fresh one resumes nothing
                with connect(port) as raw, context.wrap_socket(raw, server_hostname="bench.local") as tls:
                    request_on(tls)
            return Handshakes(count, time.monotonic() - begin)

        def once(peer):
            process, port = this.started[peer]
            return cost(process, lambda: handshakes(port))
        return measure(list(this.started), bench.rounds, once, control="envoy")


def idle_cost(this, count, open_one):
    """Private memory per connection that did one request and stays open. A process that grew once keeps its memory, so that
    there is one round."""
    samples = {}
    for peer, (process, port) in this.started.items():
        held = [open_one(port) for _ in range(50)]  # what a first connection costs is not a connection's cost
        time.sleep(REST_S)
        before = process.memory()
        held += [open_one(port) for _ in range(count)]
        time.sleep(REST_S)
        after = process.memory()
        for sock in held:
            sock.close()
        per = (after["private_dirty"] - before["private_dirty"]) / count
        samples[peer] = [{"bytes": per, "before": before["private_dirty"], "after": after["private_dirty"]}]
    return Measured(samples)


def b6_idle(bench, count=5000):
    """Idle keep-alive connections after one request."""
    with row(bench) as this:
        app = this.backend()
        this.both(edge(app))
        this.add("nginx", peers.start_nginx, app)

        def open_one(port):
            sock = connect(port)
            request_on(sock)
            return sock
        return idle_cost(this, count, open_one)


def b7_idle_mtls(bench, count=2000):
    """Idle mutual TLS connections after one request."""
    with row(bench) as this:
        start_tls_pair(this)
        context = client_context(bench)

        def open_one(port):
            sock = context.wrap_socket(connect(port), server_hostname="bench.local")
            request_on(sock)
            return sock
        return idle_cost(this, count, open_one)


def b8_floor(bench):
    """Memory of a process with one route, at rest after a second of requests; and while those requests go on."""
    with row(bench) as this:
        this.both(edge(this.backend()))
        busy = {}
        for peer, (process, port) in this.started.items():
            wrk(f"http://127.0.0.1:{port}/", 1, 4, LOAD_CPU, bench.folder)
            busy[peer] = process.memory()
        time.sleep(REST_S)
        found = Measured({})
        for peer, (process, _) in this.started.items():
            rest = process.memory()
            found[peer] = [{"bytes": float(rest["rss"]), "busy_rss": busy[peer]["rss"],
                            "busy_private_dirty": busy[peer]["private_dirty"]}]
            found.extra[peer] = rest
        return found
