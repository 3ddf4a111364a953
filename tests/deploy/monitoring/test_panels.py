"""Every query of every panel, by a real Prometheus that scrapes real sidecars: before anything happened, under load,
and when all is quiet again."""

from __future__ import annotations

import math
import subprocess
import time

import pytest
import requests

import panels
import scene
from conftest import IDLE, LOADED
from harness.dstack import DstackServer, load
from harness.sidecar import Sidecar
from programs import Prometheus, eventually, program

WINDOW = 5
# Panels in which all is 0 even under this load.
CALM = {
    ("plugin", "Worker restarts"): "no worker ends",
    ("overview", "Audit losses"): "the disk takes all",
    ("overview", "Audit backlog"): "one event is written before the next",
    ("overview", "Audit spool"): "no sink needs one",
    ("overview", "Audit write time"): "of sinks that write in groups",
    ("overview", "Traces"): "the feature otlp is off",
}


def shown(prometheus: Prometheus, query: panels.Query, expression: str) -> list[float]:
    """Every value that a panel would draw of the last seconds."""
    now = time.time()
    if query.instant:
        return [float(series["value"][1]) for series in prometheus.query(expression)]
    found = prometheus.query_range(expression, now - 2, now, 1)
    return [float(value) for series in found for _, value in series["values"]]


def choices(query: panels.Query) -> list[tuple[str, str]]:
    """What a person may choose on the dashboard of this query."""
    plugins = scene.PLUGINS if "$plugin" in query.expression else ("",)
    projects = scene.PROJECTS if "$project" in query.expression else ("",)
    return [(plugin, project) for plugin in plugins for project in projects]


def faults(prometheus: Prometheus, job: str) -> list[str]:
    """The queries that give nothing or no number, for each plugin and project that a person may choose."""
    found = []
    for query in panels.queries():
        for plugin, project in choices(query):
            expression = query.of(job, plugin, project, f"{WINDOW}s")
            values = shown(prometheus, query, expression)
            if not values or any(math.isnan(value) or math.isinf(value) for value in values):
                found.append(f"{query} ({plugin} {project}): {values[:3]}\n    {expression}")
    return found


def test_no_panel_is_empty_before_the_first_review(prometheus: Prometheus) -> None:
    nothing = [
        fault
        for fault in faults(prometheus, IDLE)
        # Nobody has named a project yet, so that there are none to list.
        if not fault.startswith(("project / Projects that", "project / Denied share of each"))
    ]
    assert not nothing, "\n".join(nothing)


def test_every_panel_has_data_under_load(prometheus: Prometheus, traffic: scene.Traffic) -> None:
    nothing = faults(prometheus, LOADED)
    assert not nothing, "\n".join(nothing)
    # A breaker opens and closes, so that one moment need not show it.
    flat = {(query.dashboard, query.panel) for query in panels.queries()} - set(CALM)

    def all_moved() -> bool:
        for query in panels.queries():
            for plugin, project in choices(query):
                values = shown(prometheus, query, query.of(LOADED, plugin, project, f"{WINDOW}s"))
                if max(values, default=0) > 0:
                    flat.discard((query.dashboard, query.panel))
        return not flat

    eventually("every panel shows what happens", all_moved, naming=lambda: sorted(flat))
    assert traffic.sent > 0


def test_panels_say_what_happened(prometheus: Prometheus, traffic: scene.Traffic) -> None:
    """The numbers, against the sidecar's own count and what the chain is made to do."""

    def value(dashboard: str, panel: str, legend: str, **chosen: str) -> float:
        (query,) = (q for q in panels.queries() if (q.dashboard, q.panel) == (dashboard, panel) and q.legend == legend)
        return prometheus.value(query.of(LOADED, window="10s", **chosen))

    assert value("overview", "Instances up", "__auto") == 1
    assert value("overview", "Configurations in force", "__auto") == 1
    assert 80 < value("overview", "Certificate days left", "__auto") <= 90
    assert value("project", "Denied share", "__auto", project=scene.DENIED_PROJECT) == pytest.approx(1)
    assert value("project", "Denied share", "__auto", project="research") < 0.5
    assert 0.15 < value("overview", "Denied and patched share", "denied") < 0.8
    assert value("plugin", "Failed open", "__auto", plugin="tagger") > 0
    assert value("plugin", "Exempted", "__auto", plugin="no-privileged") > 0
    assert 0 < value("overview", "Time of a review", "p50") <= value("overview", "Time of a review", "p99") < 8
    # Once five calls in a row have failed it is open for two seconds, over and over.
    open_at_times = f'max_over_time(dstack_admission_plugin_breaker_open{{job="{LOADED}", plugin="tagger"}}[15s])'
    assert prometheus.value(open_at_times) == 1


def test_the_exposition_is_clean(sidecars: dict[str, Sidecar], traffic: scene.Traffic) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=sidecars[LOADED].metrics(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_number_of_series_does_not_grow_with_traffic(sidecars: dict[str, Sidecar], traffic: scene.Traffic) -> None:
    """Every user and every run has another name, and there are more projects than are counted."""
    run = next(body for kind, body in scene.bodies() if kind == "run")
    before, sent = series(sidecars[LOADED]), traffic.sent
    for number in range(50):
        body = {**run, "user": f"stranger-{number}", "project": f"stranger-{number}"}
        requests.post(
            f"https://localhost:{sidecars[LOADED].port}/apply_policies/on_run_apply",
            json=body,
            verify=sidecars[LOADED].announced()["AWS_CA_BUNDLE"],
            timeout=10,
        ).raise_for_status()
    eventually("there was more traffic", lambda: traffic.sent > sent + 100)
    grown = series(sidecars[LOADED]) - before
    # The first project beyond the limit brings `(other)`; plugins meet a kind for the first time.
    lazy = {line for line in grown if "(other)" in line or "plugin_duration_seconds" in line or "error_type" in line}
    assert not grown - lazy, sorted(grown - lazy)
    assert not any("stranger" in line for line in series(sidecars[LOADED]))


def series(sidecar: Sidecar) -> set[str]:
    """The names and labels of all series."""
    lines = sidecar.metrics().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}


def test_no_panel_is_empty_when_all_is_quiet_again(prometheus: Prometheus, traffic: scene.Traffic) -> None:
    traffic.stop()
    still = f'sum(rate(dstack_admission_request_total{{job="{LOADED}"}}[{WINDOW}s]))'
    eventually("nothing is reviewed any more", lambda: prometheus.value(still) == 0)
    whole = f"max_over_time(({still})[3s:1s])"
    eventually("and it was so for what a panel looks at", lambda: prometheus.value(whole) == 0)
    nothing = faults(prometheus, LOADED)
    assert not nothing, "\n".join(nothing)


def test_what_a_real_server_applies_is_seen(
    prometheus: Prometheus, traffic: scene.Traffic, server: DstackServer, sidecars: dict[str, Sidecar]
) -> None:
    traffic.stop()
    counted = f'sum(dstack_admission_request_total{{job="{LOADED}"}})'
    by_kind = f'sum(dstack_admission_request_total{{job="{LOADED}", kind="%s"}})'
    others = f'sum(dstack_admission_project_request_total{{job="{LOADED}", project="(other)"}})'
    time.monotonic()
    eventually("the last of the traffic is scraped", lambda: prometheus.value(counted) == total(sidecars[LOADED]))
    before = {kind: prometheus.value(by_kind % kind) for kind in ("run", "fleet")}
    before_others = prometheus.value(f"{others} or vector(0)")

    server.plan(load("task"))
    server.plan(load("fleet-cloud"))
    seen = total(sidecars[LOADED])
    eventually("it is scraped", lambda: prometheus.value(counted) == seen)
    for kind in ("run", "fleet"):
        assert prometheus.value(by_kind % kind) == before[kind] + 1, kind
    assert prometheus.value(others) == before_others + 2


def total(sidecar: Sidecar) -> float:
    return sidecar.counted("dstack_admission_request_total")
