"""What every row starts: a backend, Envoy and Ieum from the same bootstrap, the others beside them."""

from contextlib import ExitStack, contextmanager

from . import envoy_config as envoy
from . import peers
from .process import free_port

PROXY_CPU, LOAD_CPU = 0, 1


class Bench:
    """Where a run keeps its files, how long it measures, and whether it looks at system calls, too."""

    def __init__(self, folder, rounds, seconds, trace=True):
        self.folder, self.rounds, self.seconds, self.trace = folder, rounds, seconds, trace


class Row:
    """The processes of one row, all ended with it."""

    def __init__(self, bench, stack):
        self.bench, self.stack, self.started = bench, stack, {}

    def keep(self, process):
        """Ends `process` with the row."""
        self.stack.callback(process.stop)
        return process

    def backend(self):
        """The application, HTTP/1.1."""
        process, port = peers.start_backend(LOAD_CPU, self.bench.folder)
        self.keep(process)
        return port

    def backend_http2(self):
        """The application, HTTP/2."""
        process, port = peers.start_backend_http2(LOAD_CPU, self.bench.folder)
        self.keep(process)
        return port

    def both(self, config, suffix=""):
        """Envoy and Ieum, each from `config(name, port, admin)`; each is a peer called `name + suffix`."""
        for name, start in (("envoy", peers.start_envoy), ("ieum", peers.start_ieum)):
            port, admin = free_port(), free_port()
            file = f"{name}{suffix}".replace(" ", "-")
            process = start(config(name, port, admin), port, admin, PROXY_CPU, self.bench.folder, file)
            self.started[name + suffix] = (self.keep(process), port)

    def add(self, name, start, backend, **options):
        """nginx or HAProxy."""
        port = free_port()
        process = start(port, backend, PROXY_CPU, self.bench.folder, **options)
        self.started[name] = (self.keep(process), port)


@contextmanager
def row(bench):
    """A row's processes."""
    with ExitStack() as stack:
        yield Row(bench, stack)


def edge(app, http2=False, routes=None, transport=None):
    """A bootstrap as [`Row.both`] wants it: one listener at the edge, one cluster."""
    table = routes or [envoy.route("/", "app")]
    return lambda _, port, admin: envoy.bootstrap(
        [envoy.listener("in", port, envoy.manager(table), transport)], [envoy.cluster("app", app, http2=http2)], admin)


def cost(process, run):
    """Runs a load and charges the CPU time that `process` used meanwhile to the requests completed. User and kernel time
    are split as the clock's ticks were."""
    before = process.usage()
    load = run()
    used = process.usage().since(before)
    per = used.run_ns / 1000 / max(load.requests, 1)
    kernel = used.system_us / max(used.user_us + used.system_us, 1)
    return {
        "cpu_us": per, "user_us": per * (1 - kernel), "kernel_us": per * kernel, "rps": load.per_second,
        "p50_us": load.p50_us, "p99_us": load.p99_us, "requests": load.requests, "failed": load.failed,
    }
