"""Draws a board from what a Prometheus has, as SVG: for a README, where no Grafana runs.

    python3 dashboards/picture.py URL BOARD.json OUT.svg [MINUTES [PANELS]]

Draws the first PANELS panels over the last MINUTES.
"""

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from html import escape

COLUMN, UNIT, GAP = 50, 30, 6
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B"]
INK, FAINT, EDGE = "#24292F", "#6E7781", "#D0D7DE"


def ask(url, path, **parameters):
    # Without a proxy: Prometheus is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
        return json.load(answer)["data"]["result"]


def filled(expression):
    for variable in ("$job", "$instance", "$stack", "$layer", "$listener"):
        expression = expression.replace(variable, ".*")
    return expression.replace("$__rate_interval", "1m").replace("$__range", "15m")


def number(value, unit):
    """A value as Grafana would write it, with three digits."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "dateTimeFromNow":
        return f"{number(time.time() - value / 1000, 's')} ago"
    if unit == "s" and value == 0:
        return "0 s"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1e9:.3g} ns"
    step, names = (1024, ["", "Ki", "Mi", "Gi"]) if unit in ("bytes", "binBps") else (1000, ["", "k", "M", "G"])
    suffix = {"bytes": "B", "binBps": "B/s", "ops": "/s", "reqps": "/s"}.get(unit, "")
    while value >= step and len(names) > 1:
        value, names = value / step, names[1:]
    return f"{value:.3g} {names[0]}{suffix}".strip()


def legend(template, labels):
    if template == "__auto":
        return ", ".join(labels.values())
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    # A label that the series does not have is nothing.
    while "{{" in template:
        template = template[: template.index("{{")] + template[template.index("}}") + 2 :]
    return template.strip()


def words(x, y, text, size=11, fill=INK, anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def colour(panel, value):
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return INK if reached[-1] == "text" else reached[-1]


def draw_stat(panel, url, box):
    x, y, width, height = box
    results = ask(url, "query", query=filled(panel["targets"][0]["expr"]))
    defaults = panel["fieldConfig"]["defaults"]
    if not results:
        return [words(x + width / 2, y + height / 2 + 18, "no data", 18, FAINT, "middle")]
    value = float(results[0]["value"][1])
    text = number(value, defaults["unit"])
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(results[0]["value"][1], {}).get("text", text)
    return [words(x + width / 2, y + height / 2 + 20, text, 26, colour(panel, value), "middle", "bold")]


def draw_table(panel, url, box):
    x, y, width, height = box
    drawn = []
    for at, result in enumerate(ask(url, "query", query=filled(panel["targets"][0]["expr"]))[: int(height / 16) - 2]):
        labels = ", ".join(f"{name} {value}" for name, value in result["metric"].items() if name != "__name__")
        value = number(float(result["value"][1]), panel["fieldConfig"]["defaults"]["unit"])
        room = int((width - 90) / 5.6)
        labels = labels if len(labels) <= room else labels[: room - 1] + "…"
        drawn.append(words(x + 10, y + 42 + 16 * at, labels, 10))
        drawn.append(words(x + width - 10, y + 42 + 16 * at, value, 10, anchor="end"))
    return drawn


def ticks(low, high, log, unit):
    """Round values between the two: powers of ten, or a few steps of 1, 2 or 5 in the unit that is written."""
    if log:
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return [10.0**decade for decade in decades]
    written = 1
    while unit in ("bytes", "binBps") and high / written >= 1024:
        written *= 1024
    size = (high - low) / 4 / written
    power = 10 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size) * written
    return [step * at for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def moments(left, right, bottom, minutes):
    """The words below an axis of time, as many as there is room for."""
    parts = 4 if right - left > 200 else 2
    ago = [minutes * (parts - part) / parts for part in range(parts + 1)]
    texts = [f"-{minutes:.3g} min" if minutes else "now" for minutes in ago]
    return [words(left + (right - left) * at / parts, bottom + 15, text, 9, FAINT, "middle") for at, text in enumerate(texts)]


def draw_graph(panel, url, box, minutes):
    x, y, width, height = box
    custom = panel["fieldConfig"]["defaults"]["custom"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    log, stacked = custom["scaleDistribution"]["type"] == "log", custom["stacking"]["mode"] == "normal"
    end = time.time()
    begin = end - 60 * minutes
    series = []
    for target in panel["targets"]:
        results = ask(url, "query_range", query=filled(target["expr"]), start=begin, end=end, step=max(5, minutes * 60 / 240))
        for result in results:
            points = [(float(at), float(value)) for at, value in result["values"]]
            points = [(at, value) for at, value in points if math.isfinite(value) and (value > 0 or not log)]
            if points:
                series.append((legend(target["legendFormat"], result["metric"]), points))
    if not series:
        return [words(x + width / 2, y + height / 2, "no data", 14, FAINT, "middle")]
    # The largest at the top of the legend, which has room for so many.
    series.sort(key=lambda line: -line[1][-1][1])
    last = [points[-1][1] for _, points in series]
    if stacked:
        below = {}
        for _, points in series:
            for at, (moment, value) in enumerate(points):
                below[moment] = points[at] = (moment, below.get(moment, 0) + value)
                below[moment] = points[at][1]
    values = [value for _, points in series for _, value in points]
    low, high = (min(values), max(values)) if log else (0, max(values))
    if log:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high * 1.01))
    else:
        high = high * 1.05 or 1
    scale = math.log10 if log else float
    left, top, right, bottom = x + 62, y + 34, x + width - 190, y + height - 26
    across = lambda at: left + (at - begin) / (end - begin) * (right - left)
    up = lambda value: bottom - (scale(value) - scale(low)) / (scale(high) - scale(low)) * (bottom - top)
    drawn = []
    for tick in ticks(low, high, log, unit):
        drawn.append(f'<line x1="{left}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="#EAEEF2"/>')
        drawn.append(words(left - 6, up(tick) + 3, number(tick, unit), 9, FAINT, "end"))
    drawn += moments(left, right, bottom, minutes)
    for at, (name, points) in enumerate(series):
        line = " ".join(f"{across(moment):.1f},{up(value):.1f}" for moment, value in points)
        tint = COLOURS[at % len(COLOURS)]
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{tint}" stroke-width="1.4"/>')
        if 14 * at < bottom - top:
            drawn.append(f'<rect x="{right + 10}" y="{top - 4 + 14 * at}" width="10" height="3" fill="{tint}"/>')
            room = name if len(name) <= 21 else name[:20] + "…"
            drawn.append(words(right + 25, top + 14 * at, room, 9))
            drawn.append(words(x + width - 8, top + 14 * at, number(last[at], unit), 9, FAINT, "end"))
    return drawn


def draw_heatmap(panel, url, box, minutes):
    """A cell for each bucket and moment, darker the more there are."""
    x, y, width, height = box
    end = time.time()
    begin, step = end - 60 * minutes, max(5, minutes)
    expression = filled(panel["targets"][0]["expr"])
    results = ask(url, "query_range", query=expression, start=begin, end=end, step=step)
    # Buckets count what is below them, too.
    bounds = sorted((float(result["metric"]["le"]), {float(at): float(value) for at, value in result["values"]}) for result in results)
    cells, below = [], {}
    for bound, values in bounds:
        cells += [(bound, at, value - below.get(at, 0)) for at, value in values.items() if value - below.get(at, 0) > 1e-9]
        below = values
    if not cells:
        return [words(x + width / 2, y + height / 2, "no data", 14, FAINT, "middle")]
    used = [bound for bound, _ in bounds if bound >= min(cells)[0] and bound <= max(cells)[0]]
    most = max(cell[2] for cell in cells)
    left, top, right, bottom = x + 62, y + 34, x + width - 20, y + height - 26
    tall, wide = (bottom - top) / len(used), (right - left) * step / (end - begin)
    drawn = []
    for bound, at, value in cells:
        row, across = used.index(bound), left + (at - begin) / (end - begin) * (right - left)
        place = f'x="{across - wide:.1f}" y="{bottom - (row + 1) * tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
        drawn.append(f'<rect {place} fill="{COLOURS[0]}" fill-opacity="{max(0.06, (value / most) ** 0.5):.2f}"/>')
    for row, bound in enumerate(used):
        if row % math.ceil(len(used) * 14 / (bottom - top)) == 0:
            text = "more" if math.isinf(bound) else number(bound, "s")
            drawn.append(words(left - 6, bottom - (row + 1) * tall + 4, text, 9, FAINT, "end"))
    return drawn + moments(left, right, bottom, minutes)


def main():
    url, board, out = sys.argv[1:4]
    minutes = float(sys.argv[4]) if len(sys.argv) > 4 else 15
    panels = [panel for panel in json.load(open(board))["panels"] if panel["type"] != "row"]
    panels = panels[: int(sys.argv[5]) if len(sys.argv) > 5 else len(panels)]
    drawn, tallest = [], 0
    shift = {}
    for panel in panels:
        place = panel["gridPos"]
        # Without the headings of rows.
        top = shift.setdefault(place["y"], tallest)
        box = (place["x"] * COLUMN + GAP, top + GAP, place["w"] * COLUMN - 2 * GAP, place["h"] * UNIT - 2 * GAP)
        x, y, width, height = box
        drawn.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="white" stroke="{EDGE}"/>')
        drawn.append(words(x + 10, y + 20, panel["title"], 12, INK, weight="bold"))
        if panel["type"] in ("timeseries", "heatmap"):
            draw = draw_graph if panel["type"] == "timeseries" else draw_heatmap
            drawn += draw(panel, url, box, minutes)
        else:
            drawn += draw_stat(panel, url, box) if panel["type"] == "stat" else draw_table(panel, url, box)
        tallest = max(tallest, top + place["h"] * UNIT)
    width = 24 * COLUMN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{tallest}" viewBox="0 0 {width} {tallest}" font-family="sans-serif">'
    back = f'<rect width="{width}" height="{tallest}" fill="#F6F8FA"/>'
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join([head, back, *drawn, "</svg>"]) + "\n")


main()
