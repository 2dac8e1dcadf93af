"""A result as a picture: CPU time per request, a group of bars for each row, the budget as a mark."""

from .rounds import median

COLOURS = {"ieum": "#2f6f4f", "envoy": "#b5651d", "nginx": "#4a6fa5", "haproxy": "#8a8a8a"}
LEFT, WIDTH, BAR, STEP = 110, 440, 14, 18


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def group(key, row, y):
    """The bars of one row; what is drawn, and where the next row begins."""
    medians = {peer: median(row["samples"], peer, "cpu_us") for peer in row["samples"]}
    scale = WIDTH / max(medians.values())
    mark = " (unreadable)" if "unreadable" in row else ""
    out = [f'<text x="8" y="{y + 12}" font-weight="bold">{escape(key.upper())}  {escape(row["what"])}{mark}</text>']
    y += STEP + 2
    for peer, value in medians.items():
        colour = COLOURS.get(peer.split()[0], "#888")
        user = median(row["samples"], peer, "user_us")
        width, dark = scale * value, scale * (value if user is None else user)
        marks = [scale * b["budget"] * medians[b["base"]] for b in row["budgets"] if b["peer"] == peer and b["base"] in medians]
        out.append(f'<text x="{LEFT - 6}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>'
                   f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR}" fill="{colour}" fill-opacity="0.5"/>'
                   f'<rect x="{LEFT}" y="{y}" width="{dark:.0f}" height="{BAR}" fill="{colour}"/>'
                   f'<text x="{LEFT + 6 + max([width, *marks]):.0f}" y="{y + 11}">{value:.1f} us</text>')
        out += [f'<path d="M{LEFT + x:.0f} {y - 2}v{BAR + 4}" stroke="#c00" stroke-width="2" stroke-dasharray="3 2"/>' for x in marks]
        y += STEP
    return out, y + 8


def chart(result):
    """Bars of the medians of every row measured in microseconds."""
    out, y = [], 34
    for key, row in result["rows"].items():
        if row.get("figure") == "cpu_us" and row.get("samples"):
            drawn, y = group(key, row, y)
            out += drawn
    legend = ('<text x="8" y="18">CPU time of the proxy per request; darker: user, lighter: kernel; '
              '<tspan fill="#c00">red: Ieum\'s budget</tspan></text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{y + 4}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="#fff"/>{legend}' + "".join(out) + "</svg>\n")
