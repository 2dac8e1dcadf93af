#!/usr/bin/env python3
"""Measures Ieum beside the programs people would use instead, in one run on one machine.

  bench/run.py                          every row, 7 rounds of 4 s
  bench/run.py --smoke                  the main rows, 2 rounds of 2 s, about 90 s
  bench/run.py --rows B1,B3             these rows; B10 is all rows whose names begin with B10
  bench/run.py --rounds 3 --seconds 1   quicker, and less to be believed

Writes bench/out/result.json and bench/out/chart.svg after each row, and when every row is measured (neither --smoke nor
--rows) bench/REPORT.md and bench/chart.svg. How to read them is in bench/README.md. The binary is target/release/ieum
unless the variable IEUM names another. Exit code: 0 measured, 1 something is missing or a row failed, 2 usage; a missed
budget is a result, not a failure."""

import argparse
import datetime
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from rig import peers
from rig.chart import chart
from rig.pairs import Bench
from rig.report import as_json, report, tables
from rig.rounds import Measured
from rig.rows import ROWS, SMOKE, chosen

HERE = Path(__file__).resolve().parent


def positive(kind):
    """A number above zero, for argparse."""
    def read(text):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be more than 0")
        return value
    return read


def arguments():
    names = ", ".join(key.upper() for key in ROWS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="main rows only, short")
    parser.add_argument("--rows", "--only", metavar="NAMES", help=f"rows, comma-separated: {names}")
    parser.add_argument("--rounds", type=positive(int), metavar="N", help="rounds of each row (7; with --smoke 2)")
    parser.add_argument("--seconds", type=positive(float), metavar="S",
                        help="length of one measurement (4; with --smoke 2); wrk rounds up to whole seconds")
    parser.add_argument("--no-syscalls", action="store_true", help="leave the extra rounds that count system calls out")
    given = parser.parse_args()
    try:
        given.keys = chosen(given.rows) if given.rows else SMOKE if given.smoke else list(ROWS)
    except ValueError as error:
        parser.error(str(error))
    return given


def main():
    given = arguments()
    missing = peers.missing()
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; run `make bench-peers` and `make release`")
    result = {
        "date": datetime.date.today().isoformat(), "machine": platform.platform(), "cpu": cpu_name(),
        "versions": peers.versions(), "rounds": given.rounds or (2 if given.smoke else 7),
        "seconds": given.seconds or (2 if given.smoke else 4), "rows": {},
    }
    for key in given.keys:
        result["rows"][key] = measured(key, result["rounds"], result["seconds"], not given.no_syscalls)
        # After each row: what was measured is not lost when a later row fails.
        write(result, is_report=not given.smoke and not given.rows)
    print(tables(result))
    failed = [key.upper() for key, row in result["rows"].items() if "error" in row]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measured(key, rounds, seconds, trace):
    """A row as the result keeps it. One that fails is told, and the others go on."""
    row = ROWS[key]
    print(f"{key.upper()} {row.what}", file=sys.stderr, flush=True)
    begin, kept = time.monotonic(), {"what": row.what, "figure": row.figure, "budgets": [b._asdict() for b in row.budgets]}
    with tempfile.TemporaryDirectory(prefix=f"ieum-bench-{key}-") as folder:
        try:
            found = row.measure(Bench(Path(folder), rounds, seconds, trace))
            kept |= as_json(found if isinstance(found, Measured) else Measured(found))
        except Exception as error:  # noqa: BLE001: whatever it was, the other rows are worth having
            kept["error"] = f"{type(error).__name__}: {error}"
            print(f"    failed: {kept['error']}", file=sys.stderr, flush=True)
    kept["took_s"] = round(time.monotonic() - begin, 1)
    return kept


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
