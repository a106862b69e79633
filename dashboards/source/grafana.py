"""Boards as Grafana reads them: classic JSON, made of rows of panels.

In an expression `@process`, `@stack` and `@layer` stand for matchers of the variables: a process, a store in it, a
layer of that. Each query names its process, so that a board shows what its variables say and nothing else.
"""

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
MATCHERS = {
    "@process": 'job=~"$job", instance=~"$instance"',
    "@stack": 'job=~"$job", instance=~"$instance", stack=~"$stack"',
    "@layer": 'job=~"$job", instance=~"$instance", stack=~"$stack", layer=~"$layer"',
}
# Distinguishable by people who see red and green alike, and in print.
GOOD, NOTICE, BAD, PLAIN = "#0072B2", "#E69F00", "#D55E00", "text"


def expand(expression):
    for name, matchers in MATCHERS.items():
        expression = expression.replace(name, matchers)
    return expression


def query(expression, legend="__auto", **more):
    return {"datasource": PROMETHEUS, "expr": expand(expression), "legendFormat": legend, "range": True, **more}


def panel(kind, title, description, queries, defaults, options, width, height):
    targets = [{"refId": chr(ord("A") + at), **target} for at, target in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": height},
    }


def steps(*thresholds):
    """Colours from values on: `steps((None, GOOD), (0.01, BAD))`."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in thresholds]}


def graph(title, description, unit, *queries, stacked=False, log=False, width=12, height=8):
    """Lines over time. Stacked are only the parts of a whole."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
    }
    # On a logarithmic axis there is no 0.
    if not log:
        custom["axisSoftMin"] = 0
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, description, queries, {"unit": unit, "custom": custom}, options, width, height)


def stat(title, description, unit, *queries, thresholds=None, mappings=None, width=4, height=4):
    """One number, coloured where a threshold has a meaning."""
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": thresholds or steps((None, PLAIN))}
    if mappings:
        results = {value: {"text": text, "index": at} for at, (value, text) in enumerate(mappings.items())}
        defaults["mappings"] = [{"type": "value", "options": results}]
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel("stat", title, description, queries, defaults, options, width, height)


def heatmap(title, description, bucket, width=12, height=8):
    """How durations spread over time: each cell is how many a second had that duration."""
    target = query(f"sum by (le) (rate({bucket}[$__rate_interval]))", "{{le}}", format="heatmap")
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Cividis", "steps": 64, "exponent": 0.5, "scale": "exponential", "fill": "dark-orange"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"show": True, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "cellValues": {"unit": "ops"},
    }
    return panel("heatmap", title, description, [target], {"unit": "s"}, options, width, height)


def table(title, description, unit, *queries, width=12, height=8):
    """The labels of each series and its value, at the end of the time range."""
    queries = [{**target, "format": "table", "instant": True, "range": False} for target in queries]
    options = {"showHeader": True, "cellHeight": "sm"}
    made = panel("table", title, description, queries, {"unit": unit}, options, width, height)
    hidden = {"Time": True, "__name__": True}
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": {}}},
    ]
    return made


def row(title, *panels, repeat=None):
    """Panels side by side, with a heading; `repeat` makes it again for each value of that variable."""
    return {"title": title, "panels": list(panels), "repeat": repeat}


def variable(name, expression):
    """A variable with the values of a label: all of them until some are chosen."""
    return {
        "type": "query",
        "name": name,
        "label": name,
        "datasource": PROMETHEUS,
        "query": {"query": f"label_values({expand(expression)}, {name})", "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


DATASOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "current": {},
}
JOB = variable("job", "tierstack_info")
INSTANCE = variable("instance", 'tierstack_info{job=~"$job"}')
STACK = variable("stack", "tierstack_layer_depth{@process}")
PROCESS_VARIABLES = [JOB, INSTANCE]
STACK_VARIABLES = [JOB, INSTANCE, STACK]


def annotation(name, expression, title, color):
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expand(expression),
        "titleFormat": title,
        "step": "60s",
    }


ANNOTATIONS = [
    annotation(
        "starts",
        "changes(process_start_time_seconds{@process}[2m]) > 0 and on (job, instance) tierstack_info{@process}",
        "{{instance}} started",
        GOOD,
    ),
    annotation(
        "alerts",
        'ALERTS{alertname=~"Tierstack.+", alertstate="firing", severity=~"critical|warning", @process}',
        "{{alertname}} {{stack}}",
        BAD,
    ),
]


def placed(rows):
    """The rows as one list, each panel with its number and its place on a grid of 24 columns."""
    found, top = [], 0
    for heading in rows:
        title = {"type": "row", "title": heading["title"], "collapsed": False, "panels": []}
        if heading["repeat"]:
            title["repeat"] = heading["repeat"]
        title["gridPos"] = {"x": 0, "y": top, "w": 24, "h": 1}
        found.append(title)
        top += 1
        left, tallest = 0, 0
        for each in heading["panels"]:
            size = each["gridPos"]
            if left + size["w"] > 24:
                left, top, tallest = 0, top + tallest, 0
            found.append({**each, "gridPos": {"x": left, "y": top, **size}})
            left += size["w"]
            tallest = max(tallest, size["h"])
        top += tallest
    return [{"id": at, **each} for at, each in enumerate(found, start=1)]


def board(uid, title, description, variables, *rows):
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["tierstack"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [DATASOURCE, *variables]},
        "annotations": {"list": ANNOTATIONS},
        "links": [
            {
                "type": "dashboards",
                "title": "tierstack",
                "tags": ["tierstack"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": placed(rows),
    }
