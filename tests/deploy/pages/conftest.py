"""A reader's machine: the executable on the path, a dstack server, a directory with nothing in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import environments
from harness.dstack import DstackServer
from walk import REPOSITORY, Walk, path_with

VERSION = environments.DSTACK_VERSIONS[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    default = os.environ.get("DSTACK_ADMISSION", str(REPOSITORY / "target/debug/dstack-admission"))
    parser.getgroup("dstack-admission").addoption("--binary", default=default, help="the dstack-admission executable")


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    path = Path(pytestconfig.getoption("binary")).resolve()
    if not path.is_file():
        pytest.exit(f"{path} is missing: run `cargo build`, or name the executable with --binary", returncode=2)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DstackServer]:
    """A dstack server that was not started yet."""
    environments.ensure(f"dstack-{VERSION}")
    server = DstackServer(VERSION, tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture
def follow(binary: Path, tmp_path: Path) -> Iterator[Callable[..., Walk]]:
    """Begins a walk in an empty directory, or in the one that is given."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / binary.name).symlink_to(binary)
    path = path_with(programs, environments.directory(f"dstack-{VERSION}") / "bin")
    walks: list[Walk] = []

    def begin(page: str, folder: Path = tmp_path / "empty", **options: object) -> Walk:
        options = {"HOME": str(tmp_path / "home"), "PATH": path, **options}
        walk = Walk(REPOSITORY / page, folder, **options)  # type: ignore[arg-type]
        walks.append(walk)
        return walk

    yield begin
    for walk in walks:
        walk.stop()
