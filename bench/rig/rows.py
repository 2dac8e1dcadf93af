"""The rows of the table: what is measured, and the budgets and goals it is held to."""

from collections import namedtuple

from . import bulk, connections, mesh, requests, scale

# `base` is the peer that `peer` is compared with, as a ratio within each round; `-NAME` for a difference; None for the
# figure itself. `goal_base` is what the goal compares with where that is another: `best` is the best of the others.
Budget = namedtuple("Budget", "peer base budget goal goal_base", defaults=[None])
Row = namedtuple("Row", "what measure figure budgets")


def bulk_rows():
    """B10: each way, each size."""
    ways = {"plain": ("plain HTTP/1.1", bulk.plain), "tls": ("TLS at the edge", bulk.edge_tls),
            "hop": ("mutual TLS hop", bulk.hop), "tcp": ("TCP passthrough", bulk.tcp)}
    sizes = {"1m": "1 MB", "64k": "64 KB"}
    return {f"b10-{way}-{size}": Row(f"{name} bodies, {text}", of(size), "cpu_us",
                                     [Budget("ieum", "envoy", 1.0, 0.8, "best")])
            for way, (text, of) in ways.items() for size, name in sizes.items()}


ROWS = {
    "b1": Row("HTTP/1.1 small, 64 connections, lean", requests.b1_http1, "cpu_us",
              [Budget("ieum", "envoy", 0.48, 0.36), Budget("ieum", "nginx", 1.10, 0.90)]),
    "b2": Row("the same, mesh profile", requests.b2_mesh, "cpu_us", [Budget("ieum", "envoy", 0.45, 0.30)]),
    "b3": Row("HTTP/2, 8 connections x 16 streams", requests.b3_http2, "cpu_us", [Budget("ieum", "envoy", 0.40, 0.25)]),
    "b4": Row("HTTP/1.1, mutual TLS hop, HTTP/1.1", requests.b4_mtls_hop, "cpu_us", [Budget("ieum", "envoy", 0.45, 0.30)]),
    "b5": Row("full mutual TLS 1.3 handshake, P-256", connections.b5_handshakes, "cpu_us",
              [Budget("ieum", "envoy", 0.75, 0.60)]),
    "b6": Row("private memory of an idle keep-alive connection, 5,000 open", connections.b6_idle, "bytes",
              [Budget("ieum", "envoy", 0.75, 0.125)]),
    "b7": Row("private memory of an idle mutual TLS connection, 2,000 open", connections.b7_idle_mtls, "bytes",
              [Budget("ieum", "envoy", 0.75, 0.30)]),
    "b8": Row("process floor: RSS at rest, one route", connections.b8_floor, "bytes", [Budget("ieum", None, 12_000_000, 8_000_000)]),
    "b9": Row("last of 10,000 routes, microseconds more", requests.b9_routes, "cpu_us",
              [Budget("ieum 10000", "-ieum 1", 1.0, 0.5)]),
    "b9m": Row("private memory of one of 10,000 routes and of 5,000 clusters, by xDS", scale.b9_memory, "bytes",
               [Budget("ieum route", "envoy route", 0.4, 0.18), Budget("ieum cluster", "envoy cluster", 0.1, 0.04)]),
    **bulk_rows(),
    "b11": Row("failed requests while a route is edited 20 times a second", mesh.b11_edits_under_load, "lost",
               [Budget("ieum", None, 0, 0)]),
    "b12": Row("saved file to first request that obeys it, p99", mesh.b12_file_to_request, "ms",
               [Budget("few routes", None, 150, 20), Budget("3000 routes", None, 150, 20)]),
    "b13": Row("control plane: 1,000 sidecars, 1,000 services of 5 endpoints", scale.b13_control_plane, "value",
               [Budget("last ack ms", None, 100, 50), Budget("cpu ms a change", None, 40, 20),
                Budget("sync cpu ms a sidecar", None, 10, 3), Budget("rss MB", None, 250, 120)]),
}
SMOKE = ["b1", "b2", "b3", "b4", "b8"]


def chosen(text):
    """Rows by name, `B1,B3`; `B10` is all that begin with it and a dash, `B10-TCP` likewise. Raises with what is unknown."""
    keys = []
    for name in text.lower().split(","):
        name = name.strip()
        found = [key for key in ROWS if key == name or key.startswith(name + "-")]
        if not found:
            raise ValueError(f"no row {name.upper()}; there are {', '.join(key.upper() for key in ROWS)}")
        keys += [key for key in found if key not in keys]
    return keys
