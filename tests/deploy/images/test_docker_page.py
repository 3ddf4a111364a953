"""docs/docker.md, followed to the letter by somebody with a checkout, Docker and the `dstack` command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import tools
from conftest import DSTACK
from engine import Docker
from walk import Walk, awaited, path_with

import environments
from harness.processes import free_port

PAGE = tools.REPOSITORY / "docs/docker.md"
LEFT_OUT = (".git", "target", "node_modules", "__pycache__")
PORTS = {"DSTACK_PORT": "3000", "GRAFANA_PORT": "3001", "PROMETHEUS_PORT": "9090", "ALERTMANAGER_PORT": "9093"}


@pytest.fixture
def walk(
    request: pytest.FixtureRequest, engine: Docker, server: str, monitoring: None, small: str, tmp_path: Path
) -> Iterator[Walk]:
    """At the top of a checkout, with ports that are free here in place of the page's."""
    environments.ensure(f"dstack-{DSTACK}")
    checkout = tmp_path / "checkout"
    shutil.copytree(tools.REPOSITORY, checkout, ignore=shutil.ignore_patterns(*LEFT_OUT))
    ports = {name: str(free_port()) for name in PORTS}
    walk = Walk(
        PAGE,
        checkout,
        section=request.param,
        words={f"localhost:{PORTS[name]}": f"localhost:{port}" for name, port in ports.items()},
        **{**engine.environment, "HOME": str(engine.environment["HOME"])},
        **ports,
    )
    walk.environment["PATH"] = path_with(engine.root / "bin", environments.directory(f"dstack-{DSTACK}") / "bin")
    yield walk
    walk.stop()
    engine.attempt("compose", "--file", checkout / "deploy/compose.yaml", "--profile=*", "down", "--volumes")


@pytest.mark.parametrize("walk", ["The whole set-up with Docker Compose"], indirect=True)
def test_the_whole_set_up(walk: Walk, python: str) -> None:
    walk.run("docker compose -f deploy/compose.yaml up --build --detach --wait", within=900)
    for port in ("3000/healthcheck", "3001", "9090/-/ready"):
        assert requests.get(walk.worded(f"http://localhost:{port}"), timeout=5).status_code == 200, port

    token = walk.run("docker compose -f deploy/compose.yaml logs dstack | grep token")
    walk.words["TOKEN"] = token.split("token")[-1]
    print(token)
