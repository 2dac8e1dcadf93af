"""What the timed rounds must not be disturbed for: system calls per request, latencies of HTTP/2, memory under load. One
short round per peer of its own."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

# Time for a tracer to attach.
ATTACH_S = 0.4


def stop(tracer):
    """Ends a tracer, which then writes what it counted."""
    tracer.send_signal(signal.SIGINT)
    try:
        return tracer.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        tracer.kill()
        return tracer.communicate()


def by_perf(pids, load):
    """System calls of `pids` during `load()`, counted by the kernel's trace points, which hardly slow a program down."""
    if not shutil.which("perf"):
        return None
    command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(ATTACH_S)
    if tracer.poll() is not None:
        return None
    done = load()
    out, err = stop(tracer)
    found = re.search(r"^(\d+),,raw_syscalls:sys_enter", err + out, re.MULTILINE)
    return (int(found.group(1)), done) if found else None


def by_strace(pids, load, folder):
    """The same, by name, and far slower: a request may come with fewer calls than undisturbed, because more of them wait
    at a time."""
    if not shutil.which("strace"):
        return None
    path = Path(folder) / "strace.txt"
    path.unlink(missing_ok=True)
    command = ["strace", "-f", "-c", "-o", str(path)]
    for pid in pids:
        command += ["-p", str(pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(ATTACH_S)
    if tracer.poll() is not None:
        return None
    done = load()
    stop(tracer)
    calls = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        fields = line.split()
        # % time, seconds, usecs/call, calls, [errors,] name
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return (calls, done) if calls else None


def syscalls(process, load, folder):
    """System calls per request, which tool counted them, and the most frequent by name."""
    pids, facts = process.pids(), {}
    counted = by_perf(pids, load)
    if counted:
        facts = {"syscalls": counted[0] / max(counted[1].requests, 1), "counted_by": "perf"}
    named = by_strace(pids, load, folder)
    if named:
        calls, done = named
        per = {name: count / max(done.requests, 1) for name, count in sorted(calls.items(), key=lambda c: -c[1])}
        facts.setdefault("syscalls", sum(per.values()))
        facts.setdefault("counted_by", "strace")
        facts["calls"] = {name: round(value, 3) for name, value in per.items() if value >= 0.01}
    return facts or {"not_counted": "neither perf's trace points nor ptrace (strace) can be used on this machine"}


def beside(measured, started, load, folder, with_syscalls=True):
    """Adds what can be seen of each peer outside the timed rounds. `started[peer]` begins with its process, `load(peer)`
    is a short load; one that knows latencies the rounds do not know gives them."""
    for peer, (process, *_) in started.items():
        done = load(peer)
        facts = {**process.memory(), "p50_us": done.p50_us, "p99_us": done.p99_us}
        if with_syscalls:
            facts |= syscalls(process, lambda: load(peer), folder)
        measured.extra[peer] = facts
    return measured
