"""The stage of the tests of Python plugins: an environment with plugins for each dstack version, and workers in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import environments
import plugin_environments
from corpus import SPECS
from in_process import InProcess
from worker import Worker

NewWorker = Callable[..., Worker]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--versions", default=",".join(environments.DSTACK_VERSIONS), help="dstack versions, by comma")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "newest: about the process, which is the same for every dstack version")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "version" in metafunc.fixturenames:
        versions = metafunc.config.getoption("--versions").split(",")
        if metafunc.definition.get_closest_marker("newest"):
            versions = versions[:1]
        metafunc.parametrize("version", versions, scope="session")


@pytest.fixture(scope="session")
def python(version: str) -> Path:
    """The interpreter with this dstack version and every plugin package."""
    return plugin_environments.interpreter(version)


@pytest.fixture
def new_worker(python: Path) -> Iterator[NewWorker]:
    """Starts workers that end with the test."""
    started: list[Worker] = []

    def start(plugin: str, **options: object) -> Worker:
        started.append(Worker(python, plugin, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture(scope="session")
def workers_of() -> Iterator[Callable[[str, str], Worker]]:
    """Workers by dstack version and plugin that all tests share; one that ended is started again."""
    started: dict[tuple[str, str], Worker] = {}

    def ready(version: str, plugin: str) -> Worker:
        worker = started.get((version, plugin))
        if worker is None or worker.process.poll() is not None:
            started[version, plugin] = worker = Worker(plugin_environments.interpreter(version), plugin)
            assert "ready" in worker.first()
        worker.logs.clear()
        return worker

    yield ready
    for worker in started.values():
        worker.kill()


@pytest.fixture
def workers(version: str, workers_of: Callable[[str, str], Worker]) -> Callable[[str], Worker]:
    """Those of one version."""
    return functools.partial(workers_of, version)


@pytest.fixture(scope="session")
def in_process(python: Path) -> Iterator[InProcess]:
    """The plugins as the server of this version calls them, in its own process."""
    server = InProcess(python)
    yield server
    server.close()


@pytest.fixture(scope="session", autouse=True)
def specs() -> None:
    assert any(SPECS.glob("*/*.json")), f"{SPECS} holds no captured specs"
