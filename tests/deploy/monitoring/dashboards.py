"""Writes the Grafana dashboards, `charts/dstack-admission/dashboards/*.json`, from what `boards` says.

    python3 tests/deploy/monitoring/dashboards.py          # write them
    python3 tests/deploy/monitoring/dashboards.py --check  # fail if they are out of date
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from boards.overview import overview
from boards.plugin import plugin
from boards.project import project

DIRECTORY = Path(__file__).resolve().parents[3] / "charts/dstack-admission/dashboards"
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
