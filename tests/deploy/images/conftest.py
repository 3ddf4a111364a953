"""What the tests of images share: one engine, every image built once, containers removed after each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tools
from engine import Container, Docker, Podman

import environments

HERE = Path(__file__).resolve().parent
DEPLOY = tools.REPOSITORY / "deploy"
STAND_INS = HERE / "stand-ins"
PYTHON_BASE = "docker.io/library/python:3.13-slim-trixie"
GCC_BASE = "docker.io/library/debian:bookworm-gcc"
RUST_BASE = "docker.io/library/rust:1.95-slim-bookworm"
SMALL = "docker.io/library/dstack-admission:latest"
PYTHON = "docker.io/library/dstack-admission:python"
DSTACK = environments.DSTACK_VERSIONS[0]
SERVER = f"docker.io/dstackai/dstack:{DSTACK}"
PROMETHEUS = "docker.io/prom/prometheus:v3.5.0"
ALERTMANAGER = "docker.io/prom/alertmanager:v0.28.1"
GRAFANA = "docker.io/grafana/grafana:12.1.0"


@pytest.fixture(scope="session")
def engine() -> Iterator[Docker]:
    """Docker's engine, with the base images that the others are made from; nothing runs in it afterwards."""
    try:
        tools.require()
        engine = Docker(tools.docker())
        engine.start()
    except tools.Missing as missing:
        pytest.exit(str(missing), returncode=2)
    engine.load(tools.python_base(), PYTHON_BASE, f"ENV SSL_CERT_FILE={tools.PYTHON_TRUST}")
    engine.load(tools.rust_base(), GCC_BASE)
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def rust(engine: Docker) -> str:
    """Rust's image, with the toolchain of this machine."""
    contexts = {"toolchain": tools.toolchain()}
    engine.build(STAND_INS / "Dockerfile", STAND_INS, RUST_BASE, target="rust", contexts=contexts)
    return RUST_BASE


@pytest.fixture(scope="session")
def small(engine: Docker, rust: str) -> str:
    """The small image, from the whole Dockerfile: it compiles the release, which takes minutes the first time."""
    engine.build(DEPLOY / "Dockerfile", tools.REPOSITORY, SMALL, target="dstack-admission")
    return SMALL


@pytest.fixture(scope="session")
def python(engine: Docker, small: str) -> str:
    """The image for plugins in Python, from the Dockerfile, with what was compiled for the small one."""
    engine.build(DEPLOY / "Dockerfile", tools.REPOSITORY, PYTHON, target="python")
    return PYTHON


@pytest.fixture(scope="session")
def server(engine: Docker) -> str:
    """The real dstack server under the name of its official image."""
    arguments = {"DSTACK_VERSION": DSTACK, "BOUNDS": " ".join(environments.SERVER_BOUNDS)}
    engine.build(STAND_INS / "Dockerfile", STAND_INS, SERVER, target="dstack", arguments=arguments)
    return SERVER


@pytest.fixture(scope="session")
def monitoring(engine: Docker) -> None:
    """Debian's Prometheus and Alertmanager under the names of the official images, and what stands where Grafana is."""
    for name, target in ((PROMETHEUS, "prometheus"), (ALERTMANAGER, "alertmanager"), (GRAFANA, "grafana")):
        engine.build(STAND_INS / "Dockerfile", STAND_INS, name, target=target)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Podman, which knows pods; nothing runs in it afterwards."""
    podman = Podman(tools.ROOT / "podman")
    yield podman
    podman.stop()


@pytest.fixture
def start(engine: Docker) -> Iterator[Callable[..., Container]]:
    """Starts containers that end with the test."""
    started: list[Container] = []

    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        name = f"test-{uuid.uuid4().hex[:8]}"
        started.append(Container(engine, name))
        return engine.run(name, image, *command, options=options)

    yield run
    for container in started:
        container.remove()
