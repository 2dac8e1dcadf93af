"""A result as tables for people and as a report."""

import json

from . import envoy_config as envoy
from .requests import mesh_manager
from .rounds import best, median, ratio


def as_json(measured):
    """What a row's measurement adds to the result."""
    kept = {"samples": dict(measured)}
    if measured.control:
        kept["control"] = {"peer": measured.control, "spread": measured.spread, "drift": measured.drift}
    if measured.unreadable:
        kept["unreadable"] = measured.unreadable
    if measured.extra:
        kept["extra"] = measured.extra
    return kept


class Verdict:
    """One budget of one row, compared with what was measured."""

    def __init__(self, row, budget):
        self.row, self.budget = row, budget
        peer, base = budget["peer"], budget["base"]
        samples, figure = row["samples"], row["figure"]
        self.note = ""
        if base is None:
            self.value = self.low = self.high = median(samples, peer, figure)
        elif base.startswith("-"):
            more = sorted(a[figure] - b[figure] for a, b in zip(samples[peer], samples[base[1:]]))
            self.value, self.low, self.high = more[len(more) // 2], more[0], more[-1]
        else:
            found = ratio(samples, peer, base, figure)
            self.value, self.low, self.high = found["median"], found["low"], found["high"]
        self.goal_value = self.value
        if budget["goal_base"] == "best":
            rival = best(samples, figure, [p for p in samples if p != peer])
            self.goal_value = ratio(samples, peer, rival, figure)["median"]
            self.note = f" of the best; {rival}: {self.goal_value:.2f}x"

    def word(self):
        """`met`, `MISSED` or `unreadable`, which is not met either."""
        if "unreadable" in self.row:
            return "unreadable"
        return "met" if self.value <= self.budget["budget"] else "MISSED"

    def goal(self):
        """The goal, and whether it is reached."""
        is_reached = self.goal_value <= self.budget["goal"] and "unreadable" not in self.row
        return self.limit(self.budget["goal"]) + self.note + (", reached" if is_reached else "")

    def limit(self, value):
        """A budget or goal in the row's terms."""
        base = self.budget["base"]
        if base is None:
            return figure_text(self.row, value)
        return f"+{value:g} us" if base.startswith("-") else f"{value:g}x"

    def shown(self):
        """What was measured, in the same terms."""
        base = self.budget["base"]
        if base is None:
            named = f"{self.budget['peer']}: " if len(self.row["budgets"]) > 1 else ""
            return named + figure_text(self.row, self.value)
        if base.startswith("-"):
            return f"{self.value:+.2f} us ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.value:.2f}x {base} ({self.low:.2f} to {self.high:.2f})"


def figure_text(row, value):
    """A figure with its unit."""
    if row["figure"] == "bytes":
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1000:.2f} KB"
    shapes = {"cpu_us": lambda v: f"{v:.1f} us", "ms": lambda v: f"{v:.1f} ms", "value": lambda v: f"{v:.3g}"}
    return shapes.get(row["figure"], lambda v: f"{v:g}")(value)


VERDICTS = ["row", "what", "result", "budget", "verdict", "goal"]


def verdict_lines(result):
    """One line for each budget."""
    for key, row in result["rows"].items():
        head = [key.upper(), row["what"]]
        if "error" in row:
            yield [*head, " ".join(row["error"].split())[:160], "", "FAILED", ""]
            continue
        for budget in row["budgets"]:
            verdict = Verdict(row, budget)
            yield [*head, verdict.shown(), verdict.limit(budget["budget"]), verdict.word(), verdict.goal()]
            head = ["", ""]


DETAILS = ["row", "peer", "figure", "user", "kernel", "per second", "p50", "p99", "syscalls", "private", "RSS"]


def detail_lines(result):
    """One line for each peer of each row: medians."""
    def shaped(value, shape):
        return "" if value is None else shape.format(value)

    def latency(value):
        return "" if value is None else f"{value / 1000:.2f} ms"

    for key, row in result["rows"].items():
        head = key.upper()
        for peer in row.get("samples", {}):
            def middle(figure):
                return median(row["samples"], peer, figure)
            extra = row.get("extra", {}).get(peer, {})
            private, rss = extra.get("private_dirty"), extra.get("rss")
            p50, p99 = middle("p50_us"), middle("p99_us")
            yield [
                head, peer, figure_text(row, middle(row["figure"])),
                shaped(middle("user_us"), "{:.1f} us"), shaped(middle("kernel_us"), "{:.1f} us"),
                shaped(middle("rps"), "{:,.0f}"),
                latency(extra.get("p50_us") if p50 is None else p50),
                latency(extra.get("p99_us") if p99 is None else p99),
                shaped(extra.get("syscalls"), "{:.2f}"),
                shaped(private and private / 1e6, "{:.1f} MB"), shaped(rss and rss / 1e6, "{:.1f} MB"),
            ]
            head = ""


def remarks(result):
    """What a reader must know beside the tables."""
    rows = result["rows"].items()
    out = [f"{key.upper()} is unreadable: {row['unreadable']}." for key, row in rows if "unreadable" in row]
    reasons = {facts["not_counted"] for _, row in rows for facts in row.get("extra", {}).values() if "not_counted" in facts}
    out += [f"System calls are not counted: {reason}." for reason in sorted(reasons)]
    if any(facts.get("counted_by") == "strace" for _, row in rows for facts in row.get("extra", {}).values()):
        out.append("System calls are counted under strace, which slows a proxy down; more requests then wait at a time.")
    return out


def plain_table(header, lines):
    """Columns for a terminal."""
    rows = [header, *lines]
    widths = [max(len(r[i]) for r in rows) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


def markdown_table(header, lines):
    """Columns for a report."""
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(line) + " |" for line in lines)]


def tally(result):
    """How many budgets are met."""
    words = [line[4] for line in verdict_lines(result)]
    return f"{words.count('met')} of {len(words)} budgets met"


def tables(result):
    """Everything for a terminal."""
    parts = [plain_table(DETAILS, detail_lines(result)), plain_table(VERDICTS, verdict_lines(result))]
    return "\n\n".join(parts + ["\n".join([*remarks(result), tally(result)])])


READING = """{rounds} rounds of {seconds:g} s (B10 half of that), order rotated. Proxy on CPU 0 with one worker, load and backend on CPU 1.
`us` is CPU time of the proxy process per completed request (for a hop: of both proxies), from schedstat; user and kernel are its
parts by clock ticks. Ratios are taken within a round and shown as median (smallest to largest). System calls per request, memory,
and percentiles of HTTP/2 come from an extra second of load outside the timed rounds. A row is *unreadable*, and not met, when the
peer that serves as its control spread or drifted by more than 10 % in three runs. How to read all of it: [README.md](README.md)."""


def report(result):
    """bench/REPORT.md."""
    versions = [f"- {name}: {version}" for name, version in result["versions"].items()]
    text = [
        "# Benchmark report", "",
        f"Made by `make bench` on {result['date']}. {result['cpu']}; {result['machine']}. **{tally(result)}.**", "",
        READING.format(**result), "",
        "![CPU per request](chart.svg)", "", "## Budgets", "", *markdown_table(VERDICTS, verdict_lines(result)), "",
        *(f"{remark}  " for remark in remarks(result)),
        "", "## Medians", "", *markdown_table(DETAILS, detail_lines(result)), "",
        *calls_section(result), "## Versions", "", *versions, "", *profiles(),
    ]
    return "\n".join(text) + "\n"


def calls_section(result):
    """Which system calls a request makes, where strace could tell."""
    lines = []
    for key, row in result["rows"].items():
        for peer, facts in row.get("extra", {}).items():
            if facts.get("calls"):
                named = ", ".join(f"{name} {value:.2f}" for name, value in list(facts["calls"].items())[:6])
                lines.append([key.upper(), peer, named])
    if not lines:
        return []
    note = "By name, as strace sees them; it slows a proxy down, so that more requests wait at a time than in the timed rounds."
    return ["## System calls per request", "", note, "", *markdown_table(["row", "peer", "calls"], lines), ""]


def profiles():
    """The configuration that Envoy and Ieum get."""
    lean = envoy.bootstrap([envoy.listener("in", 10000, envoy.manager([envoy.route("/", "app")]))],
                           [envoy.cluster("app", 8080)], 9901)
    mesh = mesh_manager("access.log", routes=1)
    return [
        "## Profiles", "", "Envoy and Ieum start from the same file. *Lean*:", "", "```json", json.dumps(lean), "```", "",
        "*Mesh* has this instead of the filter, with 1,000 routes instead of one, of which the 500th is asked for:", "",
        "```json", json.dumps(mesh), "```", "",
        "nginx and HAProxy are set up to do what the lean profile does: [rig/peers.py](rig/peers.py).",
    ]
