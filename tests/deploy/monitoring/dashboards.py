"""Writes the Grafana dashboards, `charts/dstack-admission/dashboards/*.json`, from what is said here.

    python3 tests/deploy/monitoring/dashboards.py          # write them
    python3 tests/deploy/monitoring/dashboards.py --check  # fail if they are out of date

A panel is one call; the JSON around it is the same for all. `or on() vector(0)` and `or SERIES * 0` stand
wherever an idle or new sidecar would else show nothing, and `>= 0` drops the NaN of a quantile over no event.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).resolve().parents[3] / "charts/dstack-admission/dashboards"
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


def overview() -> Json:
    safe = [
        stat(
            "Instances up",
            "How many instances Prometheus can scrape. While none is up, every apply is refused.",
            or_zero(f"sum(up{{{MINE}}})"),
            thresholds=steps((None, "red"), (1, "green")),
        ),
        stat(
            "Certificate days left",
            "Days until the first certificate expires. Made certificates are renewed 30 days before.",
            f"(min({A}certificate_expiration_timestamp_seconds{{{MINE}}}) - time()) / 86400",
            decimals=0,
            thresholds=steps((None, "red"), (2, "orange"), (14, "green")),
            nothing="TLS is off",
        ),
        stat(
            "Configurations in force",
            "Distinct configuration hashes. More than one, for longer than a rollout takes, is drift.",
            or_zero(f"count(count by (hash) ({A}config_info{{{MINE}}}))"),
            thresholds=steps((None, "red"), (1, "green"), (2, "red")),
        ),
        stat(
            "Last good load",
            "When a configuration was last loaded, by the instance where that is longest ago.",
            f"min({A}config_reload_last_success_timestamp_seconds{{{MINE}}}) * 1000",
            unit="dateTimeFromNow",
        ),
        stat(
            "Reload",
            "Whether the last reload succeeded everywhere. If not, the last good configuration stays in force.",
            f"min({A}config_reload_last_successful{{{MINE}}})",
            mappings=values({"0": ("failing", "red"), "1": ("good", "green")}),
        ),
        stat(
            "Version",
            "The versions that run.",
            f"count by (version) ({A}build_info{{{MINE}}})",
            legend="{{version}}",
            name=True,
        ),
    ]
    decisions = [
        lines(
            "Decisions",
            "Reviews answered, by decision.",
            target(rate(f"{A}request_total", "decision"), "{{decision}}"),
            unit="reqps",
            stacked=True,
            overrides=colours(["allowed", "patched", "denied"]),
        ),
        lines(
            "Denied and patched share",
            "Of all reviews, how many are denied and how many changed.",
            target(share("denied", f"{A}request_total", MINE), "denied"),
            target(share("patched", f"{A}request_total", MINE), "patched"),
            unit="percentunit",
            overrides=colours(["patched", "denied"]),
            most=1,
        ),
        lines(
            "Enforced and monitored",
            "Denials of enforced plugins, and what monitored plugins would have denied or changed.",
            target(or_zero(rate(f"{A}plugin_rejection_total", "")), "denied"),
            target(or_zero(rate(f"{A}would_deny_total", "")), "would deny"),
            target(or_zero(rate(f"{A}would_patch_total", "")), "would patch"),
            unit="reqps",
            overrides=colours(["denied", "would deny", "would patch"]),
        ),
    ]
    failed_open = per_plugin(f"sum by (plugin) (increase({A}plugin_fail_open_total{{{MINE}}}[$__range]))")
    who = [
        bars(
            "Plugins that deny most",
            "Denials and denying faults of each plugin in the range shown.",
            target(
                f"topk(10, sum by (plugin) (increase({A}plugin_rejection_total{{{MINE}}}[$__range])))",
                "{{plugin}}",
                instant=True,
            ),
            thresholds=steps((None, "red")),
            width=6,
        ),
        bars(
            "Failed open",
            "How often each plugin failed and was passed over, since its failurePolicy is Ignore, in the range shown.",
            target(f"topk(10, {failed_open})", "{{plugin}}", instant=True),
            thresholds=steps((None, "green"), (0.5, "orange")),
            width=6,
        ),
        lines(
            "Reviews by kind",
            "Reviews answered of runs, fleets, volumes and gateways.",
            target(rate(f"{A}request_total", "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
            width=6,
        ),
        lines(
            "Denied by kind",
            "Denied reviews of runs, fleets, volumes and gateways.",
            target(rate(f"{A}request_total", "kind", f'{MINE}, decision="denied"'), "{{kind}}"),
            unit="reqps",
            stacked=True,
            width=6,
        ),
    ]
    latency = [
        lines(
            "Time of a review",
            "From the whole request to its answer.",
            *quantiles(f"{A}request_duration_seconds"),
            unit="s",
            width=6,
        ),
        heatmap(
            "Reviews by time",
            "How many reviews took how long.",
            f"{A}request_duration_seconds_bucket{{{MINE}}}",
            width=6,
        ),
        bars(
            f"Share of the server's {PATIENCE} s",
            f"The slowest 1 % of reviews, and the chain's deadline, of the {PATIENCE} s that the dstack server waits.",
            target(
                or_zero(
                    f"histogram_quantile(0.99, {rate(f'{A}request_duration_seconds_bucket', 'le')}) / {PATIENCE} >= 0"
                ),
                "p99",
                instant=True,
            ),
            target(f"max({A}deadline_seconds{{{MINE}}}) / {PATIENCE}", "deadline", instant=True),
            unit="percentunit",
            thresholds=steps((None, "green"), (0.5, "orange"), (0.9, "red")),
            most=1,
            width=4,
        ),
        lines(
            "p99 of each plugin",
            "The slowest 1 % of each plugin's calls.",
            target(
                per_plugin(
                    f"(histogram_quantile(0.99, {rate(f'{A}plugin_duration_seconds_bucket', 'le, plugin')}) >= 0)"
                ),
                "{{plugin}}",
            ),
            unit="s",
            width=8,
        ),
    ]
    errors = f"sum by (reason) (increase({A}connection_error_total{{{MINE}}}[$__rate_interval])) > 0"
    refused = f"sum by (code) (increase({A}http_error_total{{{MINE}}}[$__rate_interval])) > 0"
    sidecar = [
        lines(
            "In flight",
            "Reviews in hand and open connections.",
            target(f"sum({A}in_flight_requests{{{MINE}}})", "reviews"),
            target(f"sum({A}connections{{{MINE}}})", "connections"),
            unit="short",
            width=6,
        ),
        lines(
            "Used of the limits",
            "Beyond the limit, reviews wait and are then denied; without free file descriptors, nobody can connect.",
            target(f"max({A}in_flight_requests{{{MINE}}} / {A}in_flight_requests_limit{{{MINE}}})", "reviews in hand"),
            target(f"max(process_open_fds{{{MINE}}} / process_max_fds{{{MINE}}})", "file descriptors"),
            unit="percentunit",
            most=1,
            width=6,
        ),
        lines(
            "Shed and refused",
            "Reviews denied because too many were in hand, and requests that were no review, by HTTP status.",
            target(f"sum(increase({A}shed_total{{{MINE}}}[$__rate_interval]))", "shed"),
            target(or_zero(refused, "code"), "status {{code}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Connection errors",
            "Connections that ended badly, by reason. handshake: the caller trusts another CA. closed: a probe.",
            target(or_zero(errors, "reason"), "{{reason}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Audit",
            "Audit events given to the sinks, those that a sink did not take, and those that an HTTP receiver took.",
            target(rate(f"{A}audit_event_total", ""), "events"),
            target(or_zero(rate(f"{A}audit_error_total", "sink"), "sink"), "not taken: {{sink}}"),
            target(or_zero(rate(f"{A}audit_shipped_total", "sink"), "sink"), "shipped: {{sink}}"),
            unit="cps",
            width=6,
        ),
        lines(
            "Audit losses",
            "Audit events that are lost, by sink and reason, and reviews denied because theirs could not be written.",
            target(
                or_zero(
                    f"sum by (sink, reason) (increase({A}audit_dropped_total{{{MINE}}}[$__rate_interval]))", "sink"
                ),
                "{{sink}} {{reason}}",
            ),
            target(
                or_zero(f"sum(increase({A}audit_requests_rejected_total{{{MINE}}}[$__rate_interval]))"),
                "reviews denied",
            ),
            unit="short",
            width=6,
        ),
        lines(
            "Audit backlog",
            "Audit events that wait in memory, and those that wait on disk for an HTTP receiver.",
            target(or_zero(f"sum by (sink) ({A}audit_backlog_events{{{MINE}}})", "sink"), "memory: {{sink}}"),
            target(or_zero(f"sum by (sink) ({A}audit_spool_events{{{MINE}}})", "sink"), "spool: {{sink}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Audit spool",
            "Bytes on disk of audit events that wait for an HTTP receiver.",
            target(or_zero(f"sum by (sink) ({A}audit_spool_bytes{{{MINE}}})", "sink"), "{{sink}}"),
            unit="bytes",
            width=6,
        ),
        lines(
            "Audit write time",
            "Time of one write of a group of audit events, until it was on disk where the mode asks for that.",
            *quantiles(f"{A}audit_write_duration_seconds"),
            unit="s",
            width=6,
        ),
        lines(
            "Memory",
            "Memory in RAM of each instance, and of its workers of Python plugins.",
            target(f"process_resident_memory_bytes{{{MINE}}}", "{{instance}}"),
            target(
                or_zero(f"sum by (instance) ({A}python_worker_resident_memory_bytes{{{MINE}}})", "instance"),
                "workers: {{instance}}",
            ),
            unit="bytes",
            width=6,
        ),
        lines(
            "CPU and threads",
            "CPU seconds a second, without the workers of Python plugins, and threads of the busiest instance.",
            target(f"max(rate(process_cpu_seconds_total{{{MINE}}}[$__rate_interval]))", "CPUs"),
            target(f"max(process_threads{{{MINE}}})", "threads"),
            unit="short",
            width=6,
        ),
        lines(
            "Uptime and reloads",
            "Minutes since the youngest instance started, at most an hour, and reloads by result.",
            target(f"clamp_max(min(time() - process_start_time_seconds{{{MINE}}}) / 60, 60)", "minutes up"),
            target(f"sum by (result) (increase({A}config_reload_total{{{MINE}}}[$__rate_interval]))", "{{result}}"),
            unit="short",
            width=6,
        ),
    ]
    return dashboard(
        "dstack-admission-overview",
        "dstack-admission / overview",
        "Is it safe, what is decided and by whom, how fast, and how the sidecar itself does.",
        [],
        {
            "Is it safe?": safe,
            "Decisions": decisions,
            "Who and what": who,
            "Latency": latency,
            "Sidecar": sidecar,
        },
    )


def plugin() -> Json:
    one = f'{MINE}, plugin="$plugin"'
    duration = f"{A}plugin_duration_seconds"

    def counted(metric: str) -> str:
        return or_zero(f"sum(increase({A}{metric}{{{one}}}[$__range]))")

    def total(title: str, description: str, metric: str, bad: str | None = None) -> Json:
        thresholds = steps((None, "green"), (0.5, bad)) if bad else None
        return stat(title, description, counted(metric), unit="short", decimals=0, thresholds=thresholds)

    info = f"{A}plugin_info{{{one}}}"
    what = [
        stat("Kind", "What the plugin is.", f"count by (type) ({info})", legend="{{type}}", name=True),
        stat(
            "Mode",
            "A plugin that monitors can neither deny nor change.",
            f"count by (mode) ({info})",
            legend="{{mode}}",
            name=True,
        ),
        stat(
            "Failure policy",
            "Fail: its fault denies the review. Ignore: its fault is passed over.",
            f"count by (failure_policy) ({info})",
            legend="{{failure_policy}}",
            name=True,
        ),
        stat(
            "Circuit breaker",
            "Open: a remote plugin is not asked for now, since its last calls failed; its failure policy decides.",
            or_zero(f"max({A}plugin_breaker_open{{{one}}})"),
            mappings=values({"0": ("closed", "green"), "1": ("open", "red")}),
        ),
        total("Failed open", "Faults that were passed over, in the range shown.", "plugin_fail_open_total", "red"),
        total(
            "Exempted", "Reviews that an exemption kept from the plugin, in the range shown.", "plugin_exempted_total"
        ),
    ]
    decides = [
        lines(
            "Calls by kind",
            "How often the plugin is asked.",
            target(or_zero(rate(f"{duration}_count", "kind", one), "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Denials by kind",
            "Reviews that the plugin denied, by its verdict and not by a fault.",
            target(
                or_zero(rate(f"{A}plugin_rejection_total", "kind", f'{one}, error_type="no_error"'), "kind"),
                "{{kind}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Would deny, would patch",
            "What the plugin would have done, if it only monitors.",
            target(or_zero(rate(f"{A}would_deny_total", "", one)), "would deny"),
            target(or_zero(rate(f"{A}would_patch_total", "", one)), "would patch"),
            unit="reqps",
            overrides=colours(["would deny", "would patch"]),
        ),
    ]
    faults = [
        lines(
            "Faults that deny",
            "What went wrong in calls that denied the review for that reason.",
            target(
                or_zero(
                    rate(f"{A}plugin_rejection_total", "error_type", f'{one}, error_type!="no_error"'), "error_type"
                ),
                "{{error_type}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Faults passed over",
            "What went wrong in calls whose fault was passed over (failurePolicy Ignore).",
            target(
                or_zero(rate(f"{A}plugin_fail_open_total", "error_type", one) + " > 0", "error_type"), "{{error_type}}"
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Patch conflicts",
            "Patches of a fanOut that disagreed with another plugin's.",
            target(or_zero(rate(f"{A}patch_conflict_total", "kind", one), "kind"), "{{kind}}"),
            unit="reqps",
            stacked=True,
        ),
    ]
    latency = [
        lines("Time of a call", "From asking the plugin to its answer.", *quantiles(duration, one), unit="s"),
        heatmap("Calls by time", "How many calls took how long.", f"{duration}_bucket{{{one}}}", width=8),
        lines(
            "p99 by phase",
            "The slowest 1 % of calls in the mutating and in the validating phase.",
            target(
                or_zero(f"histogram_quantile(0.99, {rate(f'{duration}_bucket', 'le, phase', one)}) >= 0", "phase"),
                "{{phase}}",
            ),
            unit="s",
        ),
    ]
    workers = [
        lines(
            "Workers and queue",
            "Workers of a Python plugin by state, and reviews that wait for one. 0 for other plugins.",
            target(or_zero(f"sum by (state) ({A}python_workers{{{one}}})", "state"), "{{state}}"),
            target(or_zero(f"sum({A}python_queue_length{{{one}}})"), "waiting reviews"),
            unit="short",
            width=6,
        ),
        lines(
            "Worker restarts",
            "Workers that ended or were replaced, by reason.",
            target(
                or_zero(
                    f"sum by (reason) (increase({A}python_worker_restarts_total{{{one}}}[$__rate_interval]))", "reason"
                ),
                "{{reason}}",
            ),
            unit="short",
            width=6,
        ),
        lines(
            "Memory of workers",
            "Memory in RAM of each worker.",
            target(
                or_zero(f"sum by (worker) ({A}python_worker_resident_memory_bytes{{{one}}})", "worker"), "{{worker}}"
            ),
            unit="bytes",
            width=6,
        ),
        lines(
            "Start of workers",
            "From a worker's start until it was ready, of all workers since the sidecar started.",
            *(
                target(
                    or_zero(
                        f"histogram_quantile({of}, sum by (le) ({A}python_worker_start_seconds_bucket{{{one}}})) >= 0"
                    ),
                    name,
                )
                for name, of in QUANTILES.items()
            ),
            unit="s",
            width=6,
        ),
    ]
    choice = variable("plugin", "Plugin", "A plugin of the chain.", f"label_values({A}plugin_info{{{MINE}}}, plugin)")
    return dashboard(
        "dstack-admission-plugin",
        "dstack-admission / plugin",
        "One plugin: what it decides, how it fails, how long it takes.",
        [choice],
        {
            "What it is": what,
            "What it decides": decides,
            "How it fails": faults,
            "How long it takes": latency,
            "Python workers": workers,
        },
    )


def project() -> Json:
    metric = f"{A}project_request_total"
    one = f'{MINE}, project="$project"'
    needs = "Needs `metrics: {projects: N}` in the configuration."

    def counted(title: str, decision: str, colour: str) -> Json:
        expr = or_zero(f'sum(increase({metric}{{{one}, decision="{decision}"}}[$__range]))')
        description = f"Reviews of this project that were {decision} in the range shown. {needs}"
        return stat(title, description, expr, unit="short", decimals=0, thresholds=steps((None, colour)), width=6)

    def all_of(decision: str) -> str:
        return f'sum by (project) (increase({metric}{{{MINE}, decision="{decision}"}}[$__range]))'

    zero = f"sum by (project) ({metric}{{{MINE}}}) * 0"
    this = [
        counted("Allowed", "allowed", "green"),
        counted("Patched", "patched", "blue"),
        counted("Denied", "denied", "red"),
        stat(
            "Denied share",
            f"Of all reviews of this project in the range shown, how many were denied. {needs}",
            or_zero(
                f'sum(increase({metric}{{{one}, decision="denied"}}[$__range]))'
                f" / (sum(increase({metric}{{{one}}}[$__range])) > 0)"
            ),
            unit="percentunit",
            decimals=0,
            thresholds=steps((None, "green"), (0.5, "orange"), (0.999, "red")),
            width=6,
        ),
        lines(
            "Decisions",
            f"Reviews of this project, by decision. {needs}",
            target(or_zero(rate(metric, "decision", one), "decision"), "{{decision}}"),
            unit="reqps",
            stacked=True,
            overrides=colours(["allowed", "patched", "denied"]),
            width=12,
        ),
        lines(
            "Denied and patched share",
            f"Of all reviews of this project, how many are denied and how many changed. {needs}",
            target(share("denied", metric, one), "denied"),
            target(share("patched", metric, one), "patched"),
            unit="percentunit",
            overrides=colours(["patched", "denied"]),
            most=1,
            width=12,
        ),
    ]
    beside = [
        bars(
            "Projects that are denied most",
            f"Denied reviews of each project in the range shown. (other) are those beyond the limit. {needs}",
            target(f"topk(10, {all_of('denied')})", "{{project}}", instant=True),
            thresholds=steps((None, "red")),
            width=8,
        ),
        bars(
            "Projects that apply most",
            f"All reviews of each project in the range shown. {needs}",
            target(f"topk(10, sum by (project) (increase({metric}{{{MINE}}}[$__range])))", "{{project}}", instant=True),
            thresholds=steps((None, "blue")),
            width=8,
        ),
        lines(
            "Denied share of each project",
            f"A project at 100 % can apply nothing at all. {needs}",
            target(
                f"{rate(metric, 'project', MINE + ', decision=' + chr(34) + 'denied' + chr(34))}"
                f" / ({rate(metric, 'project')} > 0) or {zero}",
                "{{project}}",
            ),
            unit="percentunit",
            most=1,
            width=8,
        ),
    ]
    choice = variable(
        "project", "Project", f"A project of the dstack server. {needs}", f"label_values({metric}{{{MINE}}}, project)"
    )
    return dashboard(
        "dstack-admission-project",
        "dstack-admission / project",
        f"One project: what becomes of what it applies, beside the others. {needs}",
        [choice],
        {"This project": this, "Beside the others": beside},
    )


DASHBOARDS = {"overview": overview, "plugin": plugin, "project": project}


def text(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(DASHBOARDS[name](), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    arguments = parser.parse_args()
    stale = [name for name in DASHBOARDS if not _is_current(name)]
    if arguments.check:
        for name in stale:
            print(f"{name}.json is out of date: run {Path(__file__).name}", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (DIRECTORY / f"{name}.json").write_text(text(name))
        print(DIRECTORY / f"{name}.json")
    return 0


def _is_current(name: str) -> bool:
    file = DIRECTORY / f"{name}.json"
    return file.is_file() and file.read_text() == text(name)


if __name__ == "__main__":
    sys.exit(main())
