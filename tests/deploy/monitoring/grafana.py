"""Panels and dashboards as Grafana's JSON, and the queries that several of them ask.

A panel is one call; the JSON around it is the same for all. `or on() vector(0)` and `or SERIES * 0` stand
wherever an idle or new sidecar would else show nothing, and `>= 0` drops the NaN of a quantile over no event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 41
# What the dstack server waits for.
PATIENCE = 8
WIDTH = 24

Json = dict[str, Any]

COLOURS = {"allowed": "green", "patched": "blue", "denied": "red", "would deny": "orange", "would patch": "purple"}
# How high an axis is at least, by unit, so that a flat line at 0 has one that says something.
SOFT = {"reqps": 0.01, "cps": 0.01, "s": 0.01, "bytes": 2**20}
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def target(expr: str, legend: str = "", instant: bool = False, heatmap: bool = False) -> Json:
    """One query; its letter is given when the panel is made."""
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": " ".join(expr.split()),
        "format": "heatmap" if heatmap else "time_series",
        "instant": instant,
        "legendFormat": legend or "__auto",
        "range": not instant,
    }


def steps(*pairs: tuple[float | None, str]) -> Json:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in pairs]}


def colours(names: Iterable[str]) -> list[Json]:
    """Fixed colours of the series that are the same on every dashboard."""
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": COLOURS[name]}}],
        }
        for name in names
    ]


def values(mapping: Mapping[str, tuple[str, str]]) -> list[Json]:
    """Words in place of numbers, with their colours."""
    options = {
        value: {"color": colour, "index": index, "text": text}
        for index, (value, (text, colour)) in enumerate(mapping.items())
    }
    return [{"type": "value", "options": options}]


def panel(
    kind: str, title: str, description: str, targets: Sequence[Json], size: tuple[int, int], **parts: Any
) -> Json:
    lettered = [{**each, "refId": chr(ord("A") + index)} for index, each in enumerate(targets)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "targets": lettered,
        **parts,
    }


def stat(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "none",
    thresholds: Json | None = None,
    mappings: Sequence[Json] = (),
    legend: str = "",
    name: bool = False,
    decimals: int | None = None,
    nothing: str | None = None,
    width: int = 4,
) -> Json:
    """A number now. `name` shows the series' name instead, `nothing` what stands where there is no series."""
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "mappings": list(mappings),
        "thresholds": thresholds or steps((None, "text")),
        "unit": unit,
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if nothing is not None:
        defaults["noValue"] = nothing
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "name" if name else "value",
        "wideLayout": True,
    }
    return panel(
        "stat",
        title,
        description,
        [target(expr, legend, instant=True)],
        (width, 4),
        fieldConfig={"defaults": defaults, "overrides": []},
        options=options,
    )


def lines(
    title: str,
    description: str,
    *targets: Json,
    unit: str,
    stacked: bool = False,
    overrides: Sequence[Json] = (),
    most: float | None = None,
    width: int = 8,
    height: int = 8,
) -> Json:
    """Values over time."""
    custom = {
        "axisBorderShow": False,
        "axisLabel": "",
        "axisPlacement": "auto",
        "axisSoftMax": SOFT.get(unit, 1),
        "drawStyle": "line",
        "fillOpacity": 30 if stacked else 10,
        "gradientMode": "none",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "off"},
    }
    defaults: Json = {
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "mappings": [],
        "min": 0,
        "thresholds": steps((None, "green")),
        "unit": unit,
    }
    if most is not None:
        defaults["max"] = most
    options = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"},
    }
    return panel(
        "timeseries",
        title,
        description,
        targets,
        (width, height),
        fieldConfig={"defaults": defaults, "overrides": list(overrides)},
        options=options,
    )


def bars(
    title: str,
    description: str,
    *targets: Json,
    unit: str = "short",
    thresholds: Json,
    most: float | None = None,
    width: int,
) -> Json:
    """One bar for each series."""
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "decimals": 0,
        "mappings": [],
        "min": 0,
        "noValue": "none",
        "thresholds": thresholds,
        "unit": unit,
    }
    if most is not None:
        defaults["max"] = most
    return panel(
        "bargauge",
        title,
        description,
        targets,
        (width, 8),
        fieldConfig={"defaults": defaults, "overrides": []},
        options={
            "displayMode": "basic",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
            "maxVizHeight": 40,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )


def heatmap(title: str, description: str, buckets: str, *, width: int) -> Json:
    """How many events took how long. Without any yet, all is 0 in the buckets of whole reviews."""
    none = f"sum by (le) ({A}request_duration_seconds_bucket{{{MINE}}}) * 0"
    counted = f"sum by (le) (increase({buckets}[$__rate_interval])) or on() {none}"
    return panel(
        "heatmap",
        title,
        description,
        [target(counted, "{{le}}", heatmap=True)],
        (width, 8),
        fieldConfig={
            "defaults": {"custom": {"scaleDistribution": {"type": "linear"}}},
            "overrides": [],
        },
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Oranges",
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-09},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
        },
    )


def variable(name: str, label: str, description: str, query: str, many: bool = False) -> Json:
    """A choice among the values of a label."""
    chosen = {"text": ["All"], "value": ["$__all"]} if many else {"text": "", "value": ""}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
        "options": [],
        "current": chosen,
    }


SOURCE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "description": "The Prometheus that scrapes dstack-admission.",
    "query": "prometheus",
    "regex": "",
    "multi": False,
    "includeAll": False,
    "hide": 0,
    "refresh": 1,
    "skipUrlSync": False,
    "options": [],
    "current": {},
}
JOB = variable("job", "Job", "Which installations.", "label_values(dstack_admission_build_info, job)", many=True)


def dashboard(
    uid: str, title: str, description: str, variables: Sequence[Json], rows: Mapping[str, Sequence[Json]]
) -> Json:
    """Lays the panels of each row out from left to right and from top to bottom."""
    panels: list[Json] = []
    y = 0
    for row, members in rows.items():
        grid = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append({"type": "row", "title": row, "collapsed": False, "gridPos": grid, "panels": []})
        x, height = 0, 0
        y += 1
        for member in members:
            size = member["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append({**member, "gridPos": {"h": size["h"], "w": size["w"], "x": x, "y": y}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    for number, member in enumerate(panels, start=1):
        member["id"] = number
    links = [
        {
            "title": "dstack-admission",
            "type": "dashboards",
            "tags": ["dstack-admission"],
            "asDropdown": True,
            "icon": "external link",
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "tooltip": "",
            "url": "",
        }
    ]
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["dstack-admission"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "links": links,
        "annotations": {"list": []},
        "templating": {"list": [SOURCE, JOB, *variables]},
        "panels": panels,
    }


def per_plugin(expr: str, labels: str = 'job=~"$job"') -> str:
    """0 for each plugin of which there is nothing to tell."""
    return f"{expr} or sum by (plugin) (dstack_admission_plugin_info{{{labels}}}) * 0"


def rate(metric: str, by: str, labels: str = 'job=~"$job"') -> str:
    return (
        f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"
        if by
        else (f"sum(rate({metric}{{{labels}}}[$__rate_interval]))")
    )


def or_zero(expr: str, label: str = "") -> str:
    """0 while there is nothing; with a label, that says `none`."""
    zero = f'label_replace(vector(0), "{label}", "none", "", "")' if label else "vector(0)"
    return f"({expr}) or on() {zero}"


def quantile(of: float, metric: str, labels: str = 'job=~"$job"') -> str:
    buckets = rate(f"{metric}_bucket", "le", labels)
    return or_zero(f"histogram_quantile({of}, {buckets}) >= 0")


def quantiles(metric: str, labels: str = 'job=~"$job"') -> list[Json]:
    return [target(quantile(of, metric, labels), name) for name, of in QUANTILES.items()]


def share(decision: str, metric: str, labels: str) -> str:
    part = rate(metric, "", f'{labels}, decision="{decision}"')
    return or_zero(f"{part} / ({rate(metric, '', labels)} > 0)")


A = "dstack_admission_"
MINE = 'job=~"$job"'
