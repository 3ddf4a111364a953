"""The stage of the tests: one sidecar address for the whole run, a real dstack server for each version.

A dstack server reads the address of its plugin service once, at its start. So the sidecar keeps one port
and one state directory, each test serves a chain of its own there, and the slow servers are started once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import environments
from harness.dstack import CONFIGURATIONS_OF, DstackServer, load
from harness.processes import Process
from harness.sidecar import Sidecar
from harness.services import RestPlugin, Webhook

ALL = "all"
RUNNING: pytest.StashKey[list[Process]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dstack-admission")
    group.addoption(
        "--versions",
        default=ALL,
        help=f"dstack versions, comma-separated, or `{ALL}` ({', '.join(environments.DSTACK_VERSIONS)})",
    )
    group.addoption(
        "--binary",
        default=os.environ.get("DSTACK_ADMISSION", str(environments.REPOSITORY / "target/debug/dstack-admission")),
        help="the dstack-admission executable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []
    unknown = set(_versions(config)) - set(environments.DSTACK_VERSIONS)
    if unknown:
        raise pytest.UsageError(
            f"--versions: unknown {', '.join(sorted(unknown))}; known: {environments.DSTACK_VERSIONS}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("versions")
    wanted = marker.args if marker else environments.DSTACK_VERSIONS
    versions = [version for version in _versions(metafunc.config) if version in wanted]
    if "row" in metafunc.fixturenames:
        rows = [(version, row) for version in versions for row in metafunc.module.ROWS if version in row.versions]
        ids = [f"{version}-{row}" for version, row in rows]
        metafunc.parametrize(("server", "row"), rows, indirect=["server"], ids=ids, scope="session")
        return
    if "configuration" not in metafunc.fixturenames:
        metafunc.parametrize("server", versions, indirect=True, scope="session")
        return
    pairs = [(version, name) for version in versions for name, known in CONFIGURATIONS_OF.items() if version in known]
    metafunc.parametrize(("server", "configuration"), pairs, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests of one dstack version together, so that each server starts once; leaves out those that
    are for other versions than the run asks for."""

    def position(item: pytest.Item) -> int | None:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "server" not in callspec.params:
            return -1
        chosen = callspec.params["server"]
        return environments.DSTACK_VERSIONS.index(chosen) if chosen in environments.DSTACK_VERSIONS else None

    placed = [(position(item), item) for item in items]
    config.hook.pytest_deselected(items=[item for place, item in placed if place is None])
    kept = sorted(((place, item) for place, item in placed if place is not None), key=lambda pair: pair[0])
    items[:] = [item for _, item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in item.config.stash[RUNNING]:
            report.sections.append(
                (f"{process.name} (pid {process.pid})" if process.is_running() else process.name, process.tail())
            )
    return report


def _versions(config: pytest.Config) -> list[str]:
    asked = config.getoption("versions")
    return list(environments.DSTACK_VERSIONS) if asked == ALL else [part.strip() for part in asked.split(",")]


@pytest.fixture(scope="session")
def running(pytestconfig: pytest.Config) -> Iterator[list[Process]]:
    """Every process of the run, shown with a failure and ended with the run, the youngest first."""
    processes = pytestconfig.stash[RUNNING]
    yield processes
    for process in reversed(processes):
        process.stop()


@pytest.fixture(scope="session")
def address(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, running: list[Process]) -> Sidecar:
    """The one sidecar, already started once, so that its certificates exist and its announcement is known."""
    binary = Path(pytestconfig.getoption("binary")).resolve()
    if not binary.is_file():
        pytest.exit(f"{binary} is missing: run `cargo build`, or name the executable with --binary", returncode=2)
    sidecar = Sidecar(binary, tmp_path_factory.mktemp("sidecar"))
    running.append(sidecar)
    sidecar.serve([])
    return sidecar


@pytest.fixture(scope="session")
def announced(address: Sidecar) -> dict[str, str]:
    """What the sidecar told a person to set on the dstack server."""
    return address.announced()


@pytest.fixture
def sidecar(address: Sidecar) -> Iterator[Sidecar]:
    """The sidecar for one test, which says what it serves; nothing is served after the test."""
    yield address
    address.stop()


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest,
    announced: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    running: list[Process],
) -> Iterator[DstackServer]:
    """A real dstack server of the version under test."""
    started = DstackServer(request.param, tmp_path_factory.mktemp(f"dstack-{request.param}"))
    running.append(started)
    started.serve(announced)
    yield started
    started.stop()
    running.remove(started)


@pytest.fixture
def configuration(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of the configurations that the server's version knows."""
    return load(request.param)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority for the plugins over the wire; nothing trusts it by default."""
    return trustme.CA()


@pytest.fixture
def start(tmp_path: Path, running: list[Process]) -> Iterator[Callable[[Process], Process]]:
    """Keeps a started plugin's output for a failure's report and ends it with the test."""
    started: list[Process] = []

    def remember(process: Process) -> Process:
        started.append(process)
        running.append(process)
        return process

    yield remember
    for process in reversed(started):
        process.stop()
        running.remove(process)


@pytest.fixture
def webhook(tmp_path: Path, authority: trustme.CA, start: Callable[[Process], Process]) -> Webhook:
    """A running AdmissionReview webhook with a TLS certificate of the authority."""
    hook = Webhook(tmp_path / "webhook", authority)
    start(hook)
    hook.serve()
    return hook


@pytest.fixture
def rest_plugin(tmp_path: Path, server: DstackServer, start: Callable[[Process], Process]) -> RestPlugin:
    """A running REST plugin server built on the models of the server's own dstack version."""
    plugin = RestPlugin(tmp_path / "rest-plugin", server.version)
    start(plugin)
    plugin.serve()
    return plugin
