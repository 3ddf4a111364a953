"""The dashboards as files: what Grafana's own models make of them, and what a person expects of each panel."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import dashboards
import panels

# What is exported and on no dashboard, and why.
NOT_SHOWN = {"process_virtual_memory_bytes": "reserved addresses, which say nothing of memory that is used"}

ROWS = {
    "overview": ["Is it safe?", "Decisions", "Who and what", "Latency", "Sidecar"],
    "plugin": ["What it is", "What it decides", "How it fails", "How long it takes", "Python workers"],
    "project": ["This project", "Beside the others"],
}


@pytest.mark.parametrize("name", panels.NAMES)
def test_the_file_is_what_the_script_writes(name: str) -> None:
    assert (panels.DASHBOARDS / f"{name}.json").read_text() == dashboards.text(name), "run `make dashboards`"


@pytest.mark.parametrize("name", panels.NAMES)
def test_grafanas_models_know_every_key(name: str) -> None:
    """A key that is misspelt is lost on the way through them."""
    register_default_plugins()
    written = panels.dashboard(name)
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.loads(json.dumps(written)))))
    lost = sorted(difference(written, again, ""))
    assert not lost, "\n".join(lost)


def difference(written: Any, again: Any, path: str) -> set[str]:
    """The places of what is written and did not come back."""
    if isinstance(written, dict) and isinstance(again, dict):
        return set().union(
            *(
                difference(value, again[key], f"{path}/{key}") if key in again else {f"{path}/{key}: {value!r}"}
                for key, value in written.items()
                if value is not None
            )
        )
    if isinstance(written, list) and isinstance(again, list) and len(written) == len(again):
        pairs = enumerate(zip(written, again, strict=True))
        return set().union(*(difference(value, other, f"{path}/{index}") for index, (value, other) in pairs))
    return set() if written == again else {f"{path}: {written!r} became {again!r}"}


def test_a_misspelt_key_is_found() -> None:
    register_default_plugins()
    written = panels.dashboard("overview")
    written["panels"][1]["options"]["colourMode"] = "value"
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(written)))))
    assert any("colourMode" in place for place in difference(written, again, ""))


@pytest.mark.parametrize("name", panels.NAMES)
def test_rows_are_in_their_order_and_nothing_overlaps(name: str) -> None:
    dashboard = panels.dashboard(name)
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ROWS[name]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        across, down = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        cells = {(x, y) for x in across for y in down}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", panels.NAMES)
def test_each_panel_says_what_it_shows(name: str) -> None:
    dashboard = panels.dashboard(name)
    titles = []
    for panel in panels.panels(name):
        titles.append(panel["title"])
        assert panel["title"] and len(panel["description"]) > 15, panel["title"]
        assert panel["description"].endswith("."), panel["description"]
        unit = panel["fieldConfig"]["defaults"].get("unit") or panel["options"].get("yAxis", {}).get("unit")
        assert unit, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    assert len(titles) == len(set(titles))
    assert dashboard["description"] and "dstack-admission" in dashboard["tags"]
    variables = dashboard["templating"]["list"]
    assert [variable["name"] for variable in variables][:2] == ["datasource", "job"]
    assert all(variable["label"] and variable["description"] for variable in variables)


def test_rates_follow_the_scrape_interval() -> None:
    for query in panels.queries():
        for function, window in re.findall(r"(rate|increase)\([^\[]*\[([^\]]+)\]", query.expression):
            whole = query.instant and function == "increase" and window == "$__range"
            assert window == "$__rate_interval" or whole, f"{query}: {window}"
        assert 'job=~"$job"' in query.expression, str(query)


def test_metrics_that_are_used_exist_and_those_that_exist_are_shown() -> None:
    exported = set(panels.described())
    shown = set().union(*(panels.metrics(query.expression) for query in panels.queries()))
    rules = yaml.safe_load(panels.RULES.read_text())["groups"]
    alerting = set().union(*(panels.metrics(rule["expr"]) for group in rules for rule in group["rules"]))
    assert not (shown | alerting) - exported, "used, and not exported"
    assert exported - shown == set(NOT_SHOWN), "exported, and not shown"
