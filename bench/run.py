#!/usr/bin/env python3
"""Measures Ieum beside the programs people would use instead, in one run on one machine.

  bench/run.py              every row, 7 rounds
  bench/run.py --smoke      the main rows, 2 short rounds, about 90 s
  bench/run.py --only b1,b3

Writes a table, bench/out/result.json, bench/out/chart.svg and (without --smoke or --only) bench/REPORT.md."""

import argparse
import datetime
import json
import platform
import sys
import tempfile
from pathlib import Path

from rig import mesh, peers, scale, scenarios
from rig.report import chart, report, table
from rig.rounds import Unreadable

HERE = Path(__file__).resolve().parent

# key: (what, function, figure, [(peer, base, budget, goal)])
ROWS = {
    "b1": ("HTTP/1.1 small, 64 connections, lean", scenarios.b1_http1, "cpu_us",
           [("ieum", "envoy", 0.48, 0.36), ("ieum", "nginx", 1.10, 0.90)]),
    "b2": ("the same, mesh profile", scenarios.b2_mesh, "cpu_us", [("ieum", "envoy", 0.45, 0.30)]),
    "b3": ("HTTP/2, 8 connections x 16 streams", scenarios.b3_http2, "cpu_us", [("ieum", "envoy", 0.40, 0.25)]),
    "b4": ("HTTP/1.1, mutual TLS hop, HTTP/1.1", scenarios.b4_mtls_hop, "cpu_us", [("ieum", "envoy", 0.45, 0.30)]),
    "b5": ("full mutual TLS 1.3 handshake, P-256", scenarios.b5_handshakes, "cpu_us", [("ieum", "envoy", 0.75, 0.60)]),
    "b6": ("idle keep-alive connection", scenarios.b6_idle, "bytes", [("ieum", "envoy", 0.75, 0.125)]),
    "b7": ("idle mutual TLS connection", scenarios.b7_idle_mtls, "bytes", [("ieum", "envoy", 0.75, 0.30)]),
    "b8": ("process floor, one route", scenarios.b8_floor, "bytes", [("ieum", None, 12_000_000, 8_000_000)]),
    "b9": ("last of 10,000 routes, microseconds more", scenarios.b9_routes, "cpu_us", [("ieum 10000", "-ieum 1", 1.0, 0.5)]),
    "b9m": ("memory of one of 10,000 routes and of 5,000 clusters, by xDS", scale.b9_memory, "bytes",
            [("ieum route", "envoy route", 0.4, 0.18), ("ieum cluster", "envoy cluster", 0.1, 0.04)]),
    "b11": ("failed requests while a route is edited 20 times a second", mesh.b11_edits_under_load, "lost",
            [("ieum", None, 0, 0)]),
    "b12": ("saved file to first request that obeys it, p99", mesh.b12_file_to_request, "ms",
            [("few routes", None, 150, 20), ("3000 routes", None, 150, 20)]),
    "b13": ("control plane: 1,000 sidecars, 1,000 services of 5 endpoints", scale.b13_control_plane, "value",
            [("last ack ms", None, 100, 50), ("cpu ms a change", None, 40, 20), ("sync cpu ms a sidecar", None, 10, 3),
             ("rss MB", None, 250, 120)]),
    "b10": ("1 MB bodies", scenarios.b10_bulk, "cpu_us", [("ieum", "envoy", 1.0, 0.8)]),
}
SMOKE = ["b1", "b2", "b3", "b4", "b8"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="main rows only, short")
    parser.add_argument("--only", help="rows, comma-separated: " + ",".join(ROWS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="length of one measurement")
    arguments = parser.parse_args()
    missing = peers.missing()
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; run `make bench-peers` and `make release`")
    chosen = arguments.only.split(",") if arguments.only else SMOKE if arguments.smoke else list(ROWS)
    rounds = arguments.rounds or (2 if arguments.smoke else 7)
    seconds = arguments.seconds or (2 if arguments.smoke else 4)
    result = {
        "date": datetime.date.today().isoformat(), "machine": platform.platform(), "cpu": cpu_name(),
        "versions": peers.versions(), "rounds": rounds, "seconds": seconds, "rows": {},
    }
    for key in chosen:
        what, measure, figure, budgets = ROWS[key]
        print(f"{key} {what}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"ieum-bench-{key}-") as folder:
            bench = scenarios.Bench(Path(folder), rounds, seconds)
            try:
                result["rows"][key] = {"what": what, "figure": figure, "budgets": budgets, "samples": measure(bench)}
            except Unreadable as e:
                result["rows"][key] = {"what": what, "figure": figure, "budgets": budgets, "unreadable": str(e)}
        # After each row: what was measured is not lost when a later row fails.
        write(result, is_report=not arguments.smoke and not arguments.only)
    print(table(result))


def write(result, is_report):
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    (out / "chart.svg").write_text(chart(result))
    if is_report:
        (HERE / "REPORT.md").write_text(report(result))
        (HERE / "chart.svg").write_text(chart(result))


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
