"""A result as a table, a report and a chart."""

from .rounds import median, ratio


def verdicts(row):
    """For each budget of a row: (peer, base, value, low, high, budget, goal, met)."""
    for peer, base, budget, goal in row["budgets"]:
        samples, figure = row["samples"], row["figure"]
        if base is None:
            value = median(samples, peer, figure)
            yield peer, base, value, value, value, budget, goal, value <= budget
        elif base.startswith("-"):
            more = sorted(a[figure] - b[figure] for a, b in zip(samples[peer], samples[base[1:]]))
            value = more[len(more) // 2]
            yield peer, base, value, more[0], more[-1], budget, goal, value <= budget
        else:
            r = ratio(samples, peer, base, figure)
            yield peer, base, r["median"], r["low"], r["high"], budget, goal, r["median"] <= budget


def figure_text(row, value):
    shapes = {"bytes": lambda v: f"{v / 1000:.1f} KB", "cpu_us": lambda v: f"{v:.1f} us", "ms": lambda v: f"{v:.1f} ms"}
    return shapes.get(row["figure"], lambda v: f"{v:g}")(value)


def lines(result):
    for key, row in result["rows"].items():
        if "unreadable" in row:
            yield [key.upper(), row["what"], "", f"unreadable: {row['unreadable']}", "", "", ""]
            continue
        figures = ", ".join(f"{p} {figure_text(row, median(row['samples'], p, row['figure']))}" for p in row["samples"])
        for peer, base, value, low, high, budget, goal, met in verdicts(row):
            if base is None:
                shown, limit = figure_text(row, value), figure_text(row, budget)
            elif base.startswith("-"):
                shown, limit = f"{value:+.2f} us ({low:+.2f} to {high:+.2f})", f"+{budget} us"
            else:
                shown, limit = f"{value:.2f}x {base} ({low:.2f} to {high:.2f})", f"{budget}x"
            yield [key.upper(), row["what"], figures, shown, limit, "met" if met else "MISSED", str(goal)]


HEADER = ["row", "what", "medians", "result", "budget", "verdict", "goal"]


def table(result):
    rows = [HEADER, *lines(result)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEADER))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows)


def report(result):
    versions = ", ".join(f"{k}: {v}" for k, v in result["versions"].items())
    text = [
        "# Benchmark report", "",
        f"Made by `make bench` on {result['date']}. {result['cpu']}; {result['machine']}.", "",
        f"{versions}.", "",
        f"{result['rounds']} rounds of {result['seconds']} s, order rotated. Proxy on CPU 0 with one worker, load and backend on "
        "CPU 1. `us` is CPU time of the proxy process per completed request (schedstat); ratios are taken within a round "
        "and shown as median (smallest to largest). Envoy and Ieum run from the same bootstrap (`rig/scenarios.py`).", "",
        "![CPU per request](chart.svg)", "",
        "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER),
    ]
    text += ["| " + " | ".join(row) + " |" for row in lines(result)]
    return "\n".join(text) + "\n"


COLOURS = {"ieum": "#2f6f4f", "envoy": "#b5651d", "nginx": "#4a6fa5", "haproxy": "#8a8a8a"}


def chart(result):
    """Bars of the medians of every row measured in microseconds."""
    bars = []
    for key, row in result["rows"].items():
        if row.get("figure") == "cpu_us" and "samples" in row:
            bars += [(key.upper(), peer, median(row["samples"], peer, "cpu_us")) for peer in row["samples"]]
    if not bars:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
    out, y = [], 10
    largest, last = {}, None
    for key, _, value in bars:
        largest[key] = max(largest.get(key, 0), value)
    for key, peer, value in bars:
        y += 14 if key != last else 0
        last = key
        width = 420 * value / largest[key]
        colour = COLOURS.get(peer.split()[0], "#888")
        out.append(f'<text x="8" y="{y + 12}">{key} {peer}</text>'
                   f'<rect x="150" y="{y}" width="{width:.0f}" height="15" fill="{colour}"/>'
                   f'<text x="{156 + width:.0f}" y="{y + 12}">{value:.1f} us</text>')
        y += 19
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{y + 10}" font-family="sans-serif" font-size="12">'
            + "".join(out) + "</svg>")
