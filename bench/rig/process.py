"""Processes of a run: started on a given CPU, measured through /proc, ended by their own pid."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


def free_port():
    """A port nobody listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=20.0):
    """Waits until `condition()` is true; raises with `what` otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {seconds} s")


def is_open(port, host="127.0.0.1"):
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=0.2).close()
        return True
    except OSError:
        return False


def fetch(url, timeout=2.0):
    """Status and body of a GET, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except OSError:
        return None


class Process:
    """A program pinned to one CPU, with its output in a file."""

    def __init__(self, name, command, cpu, folder, env=None):
        self.name, self.command = name, [str(c) for c in command]
        self.log = Path(folder) / f"{name}.log"
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                ["taskset", "-c", str(cpu), *self.command],
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )

    @property
    def pid(self):
        return self.child.pid

    def listens(self, port, seconds=20.0):
        """Waits until it accepts connections on `port`."""
        def ready():
            if self.child.poll() is not None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{tail}")
            return is_open(port)
        wait_for(ready, f"{self.name} does not listen on {port}", seconds)
        return self

    def stop(self):
        """Ends it and everything it started."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()

    def pids(self):
        """It and its children: nginx works in one."""
        found = [self.pid]
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            found += [int(p) for p in task.read_text().split()]
        return found

    def usage(self):
        """CPU time so far."""
        return Usage.of(self.pids())

    def memory(self):
        """Private dirty and resident memory in bytes, children included."""
        dirty = resident = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private_Dirty:"):
                    dirty += int(line.split()[1]) * 1024
                elif line.startswith("Rss:"):
                    resident += int(line.split()[1]) * 1024
        return {"private_dirty": dirty, "rss": resident}


class Pair:
    """Two processes charged together."""

    def __init__(self, *processes):
        self.processes = processes

    def pids(self):
        """Of both."""
        return [pid for process in self.processes for pid in process.pids()]

    def usage(self):
        """Of both."""
        return Usage.of(self.pids())

    def memory(self):
        """Of both."""
        both = [process.memory() for process in self.processes]
        return {kind: sum(one[kind] for one in both) for kind in both[0]}


class Usage:
    """CPU time of some processes: nanoseconds on a CPU (schedstat), and clock ticks split into user and kernel."""

    def __init__(self, run_ns, user_us, system_us):
        self.run_ns, self.user_us, self.system_us = run_ns, user_us, system_us

    @classmethod
    def of(cls, pids):
        run = user = system = 0
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    run += int((task / "schedstat").read_text().split()[0])
                    fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                user += int(fields[11]) * TICK_US
                system += int(fields[12]) * TICK_US
        return cls(run, user, system)

    def since(self, before):
        """The difference."""
        return Usage(self.run_ns - before.run_ns, self.user_us - before.user_us, self.system_us - before.system_us)
