"""What the tests of images share: one engine, every image built once, containers removed after each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tools
from engine import Container, Engine

import environments

HERE = Path(__file__).resolve().parent
DEPLOY = tools.REPOSITORY / "deploy"
PYTHON_BASE = "docker.io/library/python:3.13-slim-trixie"
SMALL = "docker.io/library/dstack-admission:latest"
PYTHON = "docker.io/library/dstack-admission:python"
DSTACK = environments.DSTACK_VERSIONS[0]
SERVER = f"docker.io/dstackai/dstack:{DSTACK}"
PROMETHEUS = "docker.io/prom/prometheus:v3.5.0"
ALERTMANAGER = "docker.io/prom/alertmanager:v0.28.1"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Podman, with the base image that the others are made from; nothing runs in it afterwards."""
    try:
        tools.require()
    except tools.Missing as missing:
        pytest.exit(str(missing), returncode=2)
    engine = Engine(tools.ROOT / "storage")
    engine.load(tools.python_base(), PYTHON_BASE)
    yield engine
    engine.attempt("rm", "--all", "--force", "--volumes", "--time", "0")
    engine.attempt("volume", "prune", "--force")
    engine.attempt("network", "prune", "--force")


@pytest.fixture(scope="session")
def prebuilt() -> Path:
    """What replaces the Dockerfile's compile stage; `tools.py` has made it."""
    if not (tools.BUILD / "out/root/usr/bin/dstack-admission").exists():
        pytest.exit("the executable is not built: python3 tests/deploy/images/tools.py", returncode=2)
    return tools.BUILD


@pytest.fixture(scope="session")
def small(engine: Engine, prebuilt: Path) -> str:
    """The small image, from the Dockerfile."""
    engine.build(
        DEPLOY / "Dockerfile", tools.REPOSITORY, SMALL, target="dstack-admission", contexts={"build": prebuilt}
    )
    return SMALL


@pytest.fixture(scope="session")
def python(engine: Engine, prebuilt: Path) -> str:
    """The image for plugins in Python, from the Dockerfile."""
    engine.build(DEPLOY / "Dockerfile", tools.REPOSITORY, PYTHON, target="python", contexts={"build": prebuilt})
    return PYTHON


@pytest.fixture(scope="session")
def server(engine: Engine) -> str:
    """The real dstack server under the name of its official image."""
    arguments = {"DSTACK_VERSION": DSTACK, "BOUNDS": " ".join(environments.SERVER_BOUNDS)}
    engine.build(HERE / "stand-ins/Dockerfile", HERE / "stand-ins", SERVER, target="dstack", arguments=arguments)
    return SERVER


@pytest.fixture(scope="session")
def prometheus(engine: Engine) -> str:
    """Debian's Prometheus and Alertmanager under the names of the official images."""
    for name, target in ((PROMETHEUS, "prometheus"), (ALERTMANAGER, "alertmanager")):
        engine.build(HERE / "stand-ins/Dockerfile", HERE / "stand-ins", name, target=target)
    return PROMETHEUS


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., Container]]:
    """Starts containers that end with the test."""
    started: list[Container] = []

    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        name = f"test-{uuid.uuid4().hex[:8]}"
        started.append(Container(engine, name))
        return engine.run(name, image, *command, options=options)

    yield run
    for container in started:
        container.remove()
