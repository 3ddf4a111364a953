"""Draws the dashboards with data of a real Prometheus: `docs/images/{overview,plugin,project}.png`.

    make pictures

A sidecar serves the chain of the tests under traffic that comes and goes; every query of every panel is asked of the
Prometheus that scrapes it; Grafana's component library draws the answers in Chromium. Grafana itself takes no part.
npm's packages are installed under `target/pictures/`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trustme
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "e2e"), str(HERE.parents[1] / "python")]

import environments  # noqa: E402
import panels  # noqa: E402
import plugin_environments  # noqa: E402
import scene  # noqa: E402
from harness.processes import Process  # noqa: E402
from harness.services import Webhook  # noqa: E402
from harness.sidecar import Sidecar  # noqa: E402
from programs import Prometheus, program  # noqa: E402

SOURCES = HERE / "pictures"
WORK = panels.REPOSITORY / "target/pictures"
IMAGES = panels.REPOSITORY / "docs/images"
JOB = "dstack-admission"
# What is chosen on the dashboards that ask for it.
CHOSEN = {"plugin": "legacy", "project": "vision"}
# Seconds, and reviews a second in them.
PHASES = ((25, 12.0), (30, 40.0), (20, 8.0), (30, 25.0), (15, 50.0))
WINDOW = 10
WIDTH = 1500
ROW = 38
NPM = "install Node.js 20 or newer, with npm"


def main() -> int:
    renderer = bundle()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stage:
        prometheus, since, until = perform(Path(directory), stage)
        for name in panels.NAMES:
            results = answers(prometheus, name, since, until)
            draw(renderer, name, {"dashboard": panels.dashboard(name), "results": results, "from": since, "to": until})
    return 0


def bundle() -> Path:
    """The script that draws, with Grafana's components in it."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is missing: {NPM}")
    WORK.mkdir(parents=True, exist_ok=True)
    lock = SOURCES / "package-lock.json"
    installed = WORK / "installed"
    if not (installed.is_file() and installed.read_text() == lock.read_text()):
        for file in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / file, WORK / file)
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=WORK, check=True)
        installed.write_text(lock.read_text())
    shutil.copy(SOURCES / "draw.jsx", WORK / "draw.jsx")
    options = (
        *("--bundle", "--outdir=bundle", "--jsx=automatic", "--log-level=error"),
        *("--define:process.env.NODE_ENV='production'", "--define:global=window"),
        *("--loader:.woff=dataurl", "--loader:.woff2=dataurl", "--loader:.svg=dataurl", "--loader:.ttf=dataurl"),
    )
    subprocess.run([WORK / "node_modules/.bin/esbuild", "draw.jsx", *options], cwd=WORK, check=True)
    return WORK / "bundle"


def perform(directory: Path, stage: ExitStack) -> tuple[Prometheus, float, float]:
    """Traffic through all phases; answers when it began and ended."""

    def running(process: Process) -> None:
        stage.callback(process.stop)

    webhook = Webhook(directory / "webhook", trustme.CA())
    sidecar = Sidecar(panels.REPOSITORY / "target/debug/dstack-admission", directory / "sidecar")
    prometheus = Prometheus(directory / "prometheus")
    for process in (webhook, sidecar, prometheus):
        running(process)
    webhook.serve()
    interpreter = plugin_environments.interpreter(environments.DSTACK_VERSIONS[0])
    sidecar.serve(scene.chain(webhook, interpreter), **scene.keys())
    prometheus.serve({JOB: sidecar.admin})
    time.sleep(WINDOW + 2)
    since = time.time()
    for seconds, rate in PHASES:
        traffic = scene.Traffic(sidecar, rate)
        time.sleep(seconds)
        traffic.stop()
    return prometheus, since, time.time() - 1


def answers(prometheus: Prometheus, name: str, since: float, until: float) -> dict[int, list[dict[str, Any]]]:
    """What each panel of a dashboard has to draw, by the panel's number."""
    found = {}
    for panel in panels.panels(name):
        series = []
        for query in (query for query in panels.queries() if (query.dashboard, query.panel) == (name, panel["title"])):
            expression = query.of(JOB, CHOSEN["plugin"], CHOSEN["project"], f"{WINDOW}s", f"{int(until - since)}s")
            for one in answer(prometheus, query, expression, since, until):
                series.append({"name": label(query.legend, one["metric"]) or panel["title"], "values": one["values"]})
        found[panel["id"]] = series
    return found


def label(legend: str, metric: Mapping[str, str]) -> str:
    """The legend of a series. The stage's own directory becomes one that an installation would have."""
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: metric.get(match[1], ""), legend).strip()
    return re.sub(r"/\S+/audit/", "/var/log/", filled)


def answer(
    prometheus: Prometheus, query: panels.Query, expression: str, since: float, until: float
) -> list[dict[str, Any]]:
    if query.instant:
        return [{**one, "values": [one["value"]]} for one in prometheus.query(expression, at=until)]
    return prometheus.query_range(expression, since, until, 2)


def draw(renderer: Path, name: str, data: dict[str, Any]) -> None:
    page = renderer / f"{name}.html"
    below = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in data["dashboard"]["panels"])
    page.write_text(
        '<!doctype html><html><head><meta charset="utf-8"><link rel="stylesheet" href="draw.css"></head><body>'
        f'<div id="dashboard"></div><script>window.scene = {json.dumps(data)}</script><script src="draw.js"></script>'
        "</body></html>"
    )
    IMAGES.mkdir(parents=True, exist_ok=True)
    picture = IMAGES / f"{name}.png"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"),
                *("--allow-file-access-from-files", "--virtual-time-budget=8000"),
                *(f"--window-size={WIDTH},{below * ROW + 8}", f"--screenshot={picture}", page.as_uri()),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
    # A palette makes a picture of flat colours a third as large.
    with Image.open(picture) as drawn:
        drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"{picture.relative_to(panels.REPOSITORY)}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
