"""The chart that the tests render, and the values they render it with."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from rendering import CHART, REPOSITORY, Chart

# What stands for files of the chart that are made elsewhere, where a golden render must not change with them.
ALERT = {
    "alert": "DstackAdmissionDown",
    "expr": 'up{job="dstack-admission"} == 0',
    "annotations": {"summary": "{{ $labels.instance }} is down", "runbook_url": "docs/runbooks.md#dstackadmissiondown"},
}
RULES = {"groups": [{"name": "dstack-admission", "rules": [ALERT]}]}
DASHBOARD = '{"title": "dstack-admission", "panels": [{"legendFormat": "{{plugin}}"}]}\n'

# Every set of values that is rendered as a whole.
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
VALUES["defaults"] = CHART / "values.yaml"
VALUES["ha"] = CHART / "values-ha.yaml"


def values_of(name: str) -> dict[str, Any]:
    return yaml.safe_load(VALUES[name].read_text())


def documented_values(page: Path) -> list[dict[str, Any]]:
    """The values that a page shows, in its order: its blocks of YAML, apart from the generated pod."""
    text = re.sub(r"<!-- pod: .*<!-- end of pod -->", "", page.read_text(), flags=re.DOTALL)
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(textwrap.dedent(block)) for block in blocks]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dstack-admission")
    group.addoption(
        "--binary",
        default=os.environ.get("DSTACK_ADMISSION", str(REPOSITORY / "target/debug/dstack-admission")),
        help="the dstack-admission executable",
    )
    group.addoption("--update", action="store_true", help="write the golden renders anew")


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    path = Path(pytestconfig.getoption("binary")).resolve()
    if not path.is_file():
        pytest.exit(f"{path} is missing: run `cargo build`, or name the executable with --binary", returncode=2)
    return path


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The chart as it is; rules and dashboards that it does not have yet are the tests' own."""
    path = _copied(tmp_path_factory)
    if not (path / "rules/alerts.yaml").is_file():
        _put_rules(path)
    if not any(path.glob("dashboards/*.json")):
        _put_dashboard(path)
    return Chart(path)


@pytest.fixture(scope="session")
def steady_chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The chart with one rule and one dashboard of the tests' own, so that its renders do not change with them."""
    path = _copied(tmp_path_factory, "rules", "dashboards")
    _put_rules(path)
    _put_dashboard(path)
    return Chart(path)


@pytest.fixture(scope="session")
def bare_chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The chart of somebody who lost the rules and dashboards."""
    return Chart(_copied(tmp_path_factory, "rules", "dashboards"))


def _copied(tmp_path_factory: pytest.TempPathFactory, *without: str) -> Path:
    path = tmp_path_factory.mktemp("chart") / CHART.name
    return shutil.copytree(CHART, path, ignore=shutil.ignore_patterns(*without))


def _put_rules(path: Path) -> None:
    (path / "rules").mkdir(exist_ok=True)
    (path / "rules/alerts.yaml").write_text(yaml.safe_dump(RULES))


def _put_dashboard(path: Path) -> None:
    (path / "dashboards").mkdir(exist_ok=True)
    (path / "dashboards/overview.json").write_text(DASHBOARD)
