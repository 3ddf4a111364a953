"""The stage: a sidecar that sends traces, in front of it a real dstack server that sends its own to the same
receiver, behind it a webhook."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import environments
from harness.dstack import DstackServer
from harness.processes import Process
from harness.sidecar import Sidecar
from listeners import Collector, Webhook

RUNNING: pytest.StashKey[list[Process]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--binary",
        default=os.environ.get("DSTACK_ADMISSION", str(environments.REPOSITORY / "target/debug/dstack-admission")),
        help="the dstack-admission executable, built with the feature `otlp`",
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


@pytest.fixture
def running(pytestconfig: pytest.Config) -> Iterator[list[Process]]:
    """Every process of a test, shown with a failure and ended with the test, the youngest first."""
    processes = pytestconfig.stash[RUNNING]
    yield processes
    while processes:
        processes.pop().stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running receiver of OTLP."""
    with Collector() as listening:
        yield listening


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A running webhook that allows everything."""
    with Webhook() as listening:
        yield listening


@pytest.fixture
def sidecar(
    pytestconfig: pytest.Config, tmp_path: Path, running: list[Process], collector: Collector, webhook: Webhook
) -> Sidecar:
    """A sidecar that asks the webhook and a rule, and sends its traces."""
    binary = Path(pytestconfig.getoption("binary")).resolve()
    if not binary.is_file():
        pytest.exit(f"{binary} is missing: run `cargo build --features otlp`", returncode=2)
    started = Sidecar(binary, tmp_path / "sidecar")
    running.append(started)
    plugins = [
        {"name": "quota", "webhook": {"url": f"{webhook.url}/validate"}},
        {"name": "house-rules", "cel": {"validations": [{"expression": "true"}]}},
    ]
    otlp = {"endpoint": f"{collector.url}/v1/traces", "batchMaxWait": "100ms"}
    started.serve(plugins, tracing={"otlp": otlp})
    return started


@pytest.fixture
def server(tmp_path: Path, running: list[Process], collector: Collector, sidecar: Sidecar) -> DstackServer:
    """A dstack server with its extra `otel`, whose own traces go to the same receiver."""
    environments.ensure("dstack-otel")
    python = environments.program("dstack-otel", "python")
    started = DstackServer(environments.DSTACK_VERSIONS[0], tmp_path / "dstack", python=python)
    running.append(started)
    tracing = {
        "DSTACK_OTEL_TRACES_ENABLED": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    started.serve(sidecar.announced() | tracing)
    return started
