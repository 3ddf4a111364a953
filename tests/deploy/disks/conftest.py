"""The stage: sidecars whose audit file stands on a disk of the test's, all taken down with the test, failed or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import disks
import pytest
from reviews import Audited

import environments

BINARY = environments.REPOSITORY / "target/debug/dstack-admission"
RUNNING: pytest.StashKey[list[Audited]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--binary", default=os.environ.get("DSTACK_ADMISSION", str(BINARY)), help="the dstack-admission executable"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []
    if os.geteuid() != 0:
        pytest.exit("file systems are mounted here: run this as root", returncode=2)
    for name in disks.PACKAGES:
        disks.program(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for sidecar in item.config.stash[RUNNING]:
            report.sections.append((sidecar.name, sidecar.tail()))
    return report


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    found = Path(pytestconfig.getoption("binary")).resolve()
    if not found.is_file():
        pytest.exit(f"{found} is missing: run `cargo build`, or name the executable with --binary", returncode=2)
    return found


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    """What is undone when the test is over, the latest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tmpfs(tmp_path: Path, undo: ExitStack) -> disks.Tmpfs:
    """A disk of 64 KiB."""
    disk = disks.Tmpfs(tmp_path / "disk", "64k")
    undo.callback(disk.close)
    return disk


@pytest.fixture
def ext4(tmp_path: Path, undo: ExitStack) -> disks.Ext4:
    disk = disks.Ext4(tmp_path / "disk", tmp_path / "disk.img")
    undo.callback(disk.close)
    return disk


@pytest.fixture
def audited(
    binary: Path, tmp_path: Path, undo: ExitStack, pytestconfig: pytest.Config
) -> Iterator[Callable[..., Audited]]:
    """Makes sidecars that write to an audit file. They end before the disks go."""
    running = pytestconfig.stash[RUNNING]
    running.clear()

    def make(audit_file: Path, **sink: object) -> Audited:
        sidecar = Audited(binary, tmp_path / "sidecar", audit_file, sink)
        running.append(sidecar)
        undo.callback(sidecar.end)
        return sidecar

    yield make
