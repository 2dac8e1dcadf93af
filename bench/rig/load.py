"""Load generators: wrk for HTTP/1.1, h2load for HTTP/2. Each call is bounded in time and reports what was completed."""

import math
import re
import subprocess

LUA = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
"""


class Load:
    """What a load generator saw. Latencies are None where it does not tell them."""

    def __init__(self, requests, seconds, failed, p50_us=None, p99_us=None):
        self.requests, self.seconds, self.failed = requests, seconds, failed
        self.p50_us, self.p99_us = p50_us, p99_us

    @property
    def per_second(self):
        return self.requests / self.seconds if self.seconds else 0.0


def wrk(url, seconds, connections, cpu, folder, headers=()):
    """HTTP/1.1 keep-alive requests, as many as go through. Whole seconds: wrk knows no others."""
    seconds = max(1, math.ceil(seconds))
    script = folder / "report.lua"
    script.write_text(LUA)
    command = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 60)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if not found:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    requests, micros, failed, p50, p99 = map(int, found.groups())
    if not requests:
        raise RuntimeError(f"wrk: no request was answered: {done.stdout}")
    return Load(requests, micros / 1e6, failed, p50, p99)


def h2load(url, seconds, connections, streams, cpu, log=None):
    """HTTP/2 requests with `streams` at a time on each connection. With `log`, a file that every request's time is written
    to, it knows percentiles; that costs the generator time."""
    command = ["taskset", "-c", str(cpu), "h2load", "-t1", f"-c{connections}", f"-m{streams}"]
    command += ["-D", f"{int(seconds * 1000)}ms", "--warm-up-time", "0"]
    if log:
        log.unlink(missing_ok=True)
        command += [f"--log-file={log}"]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 120)
    counts = re.search(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored",
                       done.stdout)
    took = re.search(r"finished in ([\d.]+)(m?s)", done.stdout)
    if not counts or not took:
        raise RuntimeError(f"h2load: {done.stdout}{done.stderr}")
    seconds_taken = float(took.group(1)) * (0.001 if took.group(2) == "ms" else 1)
    p50, p99 = percentiles(log) if log else (None, None)
    return Load(int(counts.group(3)), seconds_taken, int(counts.group(4)) + int(counts.group(5)), p50, p99)


def percentiles(log):
    """Median and 99th percentile of a log of h2load: start, status and duration in microseconds, a line each."""
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    if not times:
        return None, None
    return times[len(times) // 2], times[int(len(times) * 0.99)]
