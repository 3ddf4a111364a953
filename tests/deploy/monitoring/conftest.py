"""The stage: a sidecar with traffic and one without, a Prometheus that scrapes both, started once for the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import trustme

import environments
import plugin_environments
import scene
from harness.dstack import DstackServer
from harness.processes import Process
from harness.services import Webhook
from harness.sidecar import Sidecar
from panels import RULES
from programs import Prometheus, eventually

VERSION = environments.DSTACK_VERSIONS[0]
RUNNING: pytest.StashKey[list[Process]] = pytest.StashKey()
LOADED = "dstack-admission"
IDLE = "idle"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--binary",
        default=os.environ.get("DSTACK_ADMISSION", str(environments.REPOSITORY / "target/debug/dstack-admission")),
        help="the dstack-admission executable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in item.config.stash[RUNNING]:
            report.sections.append((process.name, process.tail()))
    return report


@pytest.fixture(scope="session")
def running(pytestconfig: pytest.Config) -> Iterator[Callable[[Process], None]]:
    """Keeps a process's output for a failure's report, and ends it with the run, the youngest first."""
    processes = pytestconfig.stash[RUNNING]
    yield processes.append
    for process in reversed(processes):
        process.stop()


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    found = Path(pytestconfig.getoption("binary")).resolve()
    if not found.is_file():
        pytest.exit(f"{found} is missing: run `cargo build`, or name the executable with --binary", returncode=2)
    return found


@pytest.fixture(scope="session")
def webhook(tmp_path_factory: pytest.TempPathFactory, running: Callable[[Process], None]) -> Webhook:
    """An AdmissionReview webhook for the chains."""
    hook = Webhook(tmp_path_factory.mktemp("webhook"), trustme.CA())
    running(hook)
    hook.serve()
    return hook


@pytest.fixture(scope="session")
def sidecars(
    binary: Path,
    webhook: Webhook,
    tmp_path_factory: pytest.TempPathFactory,
    running: Callable[[Process], None],
) -> dict[str, Sidecar]:
    """By the job under which they are scraped. They serve the same chain."""
    interpreter = plugin_environments.interpreter(VERSION)
    started = {}
    for job in (LOADED, IDLE):
        sidecar = Sidecar(binary, tmp_path_factory.mktemp(job))
        running(sidecar)
        sidecar.serve(scene.chain(webhook, interpreter), **scene.keys())
        started[job] = sidecar
    return started


@pytest.fixture(scope="session")
def prometheus(
    sidecars: dict[str, Sidecar], tmp_path_factory: pytest.TempPathFactory, running: Callable[[Process], None]
) -> Prometheus:
    """Scrapes both sidecars, which nobody has asked anything yet."""
    started = Prometheus(tmp_path_factory.mktemp("prometheus"))
    running(started)
    started.serve({job: sidecar.admin for job, sidecar in sidecars.items()}, [RULES])
    eventually("each is scraped", lambda: started.value("min(count_over_time(up[1m]))") >= 6)
    return started


@pytest.fixture(scope="session")
def traffic(prometheus: Prometheus, sidecars: dict[str, Sidecar]) -> Iterator[scene.Traffic]:
    """Bulk traffic to the one sidecar, long enough that rates are those of the traffic."""
    sending = scene.Traffic(sidecars[LOADED])
    try:
        since = time.monotonic()
        eventually("there was traffic", lambda: sending.sent >= 300 and time.monotonic() - since > 15)
        yield sending
    finally:
        sending.stop()


@pytest.fixture(scope="session")
def server(
    sidecars: dict[str, Sidecar], tmp_path_factory: pytest.TempPathFactory, running: Callable[[Process], None]
) -> DstackServer:
    """A real dstack server behind which the sidecar with traffic stands."""
    started = DstackServer(VERSION, tmp_path_factory.mktemp("server"))
    running(started)
    started.serve(sidecars[LOADED].announced())
    return started
