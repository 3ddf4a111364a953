"""The dashboards as files: their panels, queries and the metrics in them, and each query as a person would run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
CHART = REPOSITORY / "charts/dstack-admission"
DASHBOARDS = CHART / "dashboards"
RULES = CHART / "rules/alerts.yaml"
NAMES = tuple(sorted(path.stem for path in DASHBOARDS.glob("*.json")))

_METRIC = re.compile(r"\b(?:dstack_admission|process)_\w+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    dashboard: str
    panel: str
    kind: str
    expression: str
    legend: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.legend}"

    def of(self, job: str, plugin: str = "", project: str = "", window: str = "5s", whole: str = "30s") -> str:
        """The query with values in place of the dashboard's variables."""
        chosen = {
            "$__rate_interval": window,
            "$__range": whole,
            "$job": job,
            "$plugin": plugin,
            "$project": project,
        }
        text = self.expression
        for name, value in chosen.items():
            text = text.replace(name, value)
        assert "$" not in text, f"{self}: an unknown variable: {text}"
        return text


def dashboard(name: str) -> dict[str, Any]:
    return json.loads((DASHBOARDS / f"{name}.json").read_text())


def panels(name: str) -> list[dict[str, Any]]:
    """The panels of a dashboard without its rows."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for name in NAMES:
        for panel in panels(name):
            for target in panel["targets"]:
                yield Query(
                    name, panel["title"], panel["type"], target["expr"], target["legendFormat"], target["instant"]
                )


def metrics(expression: str) -> set[str]:
    """The metrics in an expression, those of histograms by the histogram's name."""
    return {_SUFFIX.sub("", name) for name in _METRIC.findall(expression)}


def described() -> dict[str, str]:
    """Every metric of the registry and its type, from the page that is made of it."""
    page = (REPOSITORY / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert len(rows) > 20, "docs/metrics.md has no table of metrics"
    return dict(rows)
