"""What is rendered, to be read: a change of a template shows here as a change of manifests.

`pytest tests/deploy/chart/test_golden.py --update` writes them anew. Rules and dashboards are the tests' own in them.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from conftest import VALUES, values_of
from rendering import OPERATORS, Chart

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", VALUES)
def test_renders_are_as_they_were_read(steady_chart: Chart, name: str, pytestconfig: pytest.Config) -> None:
    files = steady_chart.texts(values_of(name), apis=OPERATORS)
    text = "".join(f"# {path}\n{body.strip()}\n\n" for path, body in sorted(files.items()) if body.strip())
    path = GOLDEN / f"{name}.txt"
    if pytestconfig.getoption("update"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    held = path.read_text() if path.is_file() else ""
    difference = "\n".join(
        difflib.unified_diff(held.splitlines(), text.splitlines(), "as read", "as rendered", lineterm="")
    )
    assert not difference, f"{difference}\nIf it is meant: --update"


def test_every_golden_render_has_its_values() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(VALUES)
