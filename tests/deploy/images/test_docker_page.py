"""docs/docker.md, followed to the letter by somebody with a checkout, Docker and the `dstack` command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import tools
from conftest import DSTACK
from engine import Docker
from stage import announced, checkout, denial, is_patched
from walk import Walk, path_with

import environments
from harness.dstack import DstackServer
from harness.processes import free_port

PAGE = tools.REPOSITORY / "docs/docker.md"
PORTS = {"DSTACK_PORT": "3000", "GRAFANA_PORT": "3001", "PROMETHEUS_PORT": "9090", "ALERTMANAGER_PORT": "9093"}


@pytest.fixture
def walk(
    request: pytest.FixtureRequest, engine: Docker, server: str, monitoring: None, small: str, tmp_path: Path
) -> Iterator[Walk]:
    """At the top of a checkout, with ports that are free here in place of the page's."""
    environments.ensure(f"dstack-{DSTACK}")
    ports = {name: str(free_port()) for name in PORTS}
    words = {f"localhost:{PORTS[name]}": f"localhost:{port}" for name, port in ports.items()}
    programs = path_with(engine.root / "bin", environments.directory(f"dstack-{DSTACK}") / "bin")
    environment = engine.environment | ports | {"HOME": str(tmp_path / "home")}
    walk = Walk(PAGE, checkout(tmp_path / "checkout"), section=request.param, words=words, **environment)
    walk.environment["PATH"] = programs
    yield walk
    walk.stop()
    for container in engine.attempt("ps", "--all", "--quiet").stdout.split():
        engine.attempt("rm", "--force", "--volumes", container)
    engine.attempt("volume", "prune", "--force", "--all")


@pytest.mark.parametrize("walk", ["The whole set-up with Docker Compose"], indirect=True)
def test_the_whole_set_up(walk: Walk, engine: Docker, python: str) -> None:
    walk.run("cd deploy")
    walk.run("docker compose up --build --detach --wait", within=900)
    for place in ("3000/healthcheck", "3001", "9090/-/ready"):
        assert requests.get(walk.worded(f"http://localhost:{place}"), timeout=5).status_code == 200, place
    walk.words["TOKEN"] = walk.run("docker compose logs dstack | grep token").rpartition("token is ")[2].split('"')[0]
    walk.run("dstack project add", keys="y\n")
    walk.run("cat > privileged.dstack.yml")
    walk.run("dstack apply -f privileged.dstack.yml", code=1)
    walk.shown("Apply request rejected")
    walk.run("cat > train.dstack.yml")
    walk.run("dstack apply -f train.dstack.yml", keys="n\n", code=None)
    walk.shown("Max price")
    walk.run("sed -i")
    walk.run("docker compose logs admission | grep reloaded", again=30)
    assert "$2" in apply(walk, "train")

    walk.run("docker compose down")
    walk.run("docker compose --profile python up --build --detach --wait", within=300)
    assert "house-rules: house rules: no privileged containers" in apply(walk, "privileged")
    assert "$4" in apply(walk, "train")

    walk.words["my_plugin"] = "house_rules"
    walk.write("FROM dstack-admission:python", "own/Dockerfile")
    uv = environments.program("images", "uv")
    walk.aside(f"{uv} build --wheel --out-dir own compose/python/plugin")
    walk.aside("docker build --tag own own")
    configuration = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nplugins:\n"
    (walk.folder / "own/admission.yaml").write_text(configuration + "  - {name: own, python: {plugin: house_rules}}\n")
    checked = walk.aside('docker run --rm --volume "$PWD/own:/etc/dstack-admission:ro" own check')
    assert "house_rules 1.0" in checked, checked
    walk.end()


def apply(walk: Walk, name: str) -> str:
    """What is said when the reader applies a file of the page once more."""
    return walk.aside(f"dstack apply -f {name}.dstack.yml", keys="n\n")


@pytest.mark.parametrize("walk", ["The image alone"], indirect=True)
def test_the_image_alone(walk: Walk, tmp_path: Path, beside: DstackServer) -> None:
    state, listen, admin = tmp_path / "state", free_port(), free_port()
    walk.run("docker build", within=900)
    walk.run("mkdir config")
    walk.run("grep -v '^stateDir'")
    with (walk.folder / "config/admission.yaml").open("a") as configuration:
        configuration.write(f"listen: 127.0.0.1:{listen}\nadmin: 127.0.0.1:{admin}\n")
    walk.words["65532 /var/lib/dstack-admission"] = f"65532 {state}"
    walk.run("install -d")
    walk.words["/var/lib/dstack-admission:"] = f"{state}:"
    walk.run("docker run --detach")
    walk.run("docker logs", until="serving", again=10)
    walk.words["8443"] = str(listen)
    walk.shown("DSTACK_PLUGIN_SERVICE_URI")
    walk.end()
    beside.serve(announced(walk.said.replace("=/var/lib/dstack-admission", f"={state}")))
    assert is_patched(beside, max_price=4.0)
    assert "no-privileged: privileged containers" in denial(beside)


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[DstackServer]:
    """A dstack server on this machine, in no container."""
    server = DstackServer(DSTACK, tmp_path / "server")
    yield server
    server.stop()
