"""What a person at a terminal reads: the real `dstack` command against the real server."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.chains import denial, deny, label
from harness.dstack import CONFIGURATIONS, DstackServer
from harness.sidecar import Sidecar

FINISHED_WITHIN = 90


def dstack(server: DstackServer, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the server version's own `dstack` in a directory that holds the configurations."""
    shutil.copytree(CONFIGURATIONS, directory, dirs_exist_ok=True)
    return subprocess.run(
        [server.executable("dstack"), *arguments],
        env=server.command_line(),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FINISHED_WITHIN,
    )


@pytest.mark.versions("0.22.5")
def test_dstack_apply_shows_the_denial_line_by_line(sidecar: Sidecar, server: DstackServer, tmp_path: Path) -> None:
    sidecar.serve([deny("first", "one thing is wrong"), deny("second", "another thing is wrong")])
    finished = dstack(server, tmp_path, "apply", "-f", "service.yml", "-y", "-d")

    assert finished.returncode != 0
    expected = denial("run", "first: one thing is wrong", "second: another thing is wrong")
    assert expected.search(finished.stdout + finished.stderr), finished


@pytest.mark.versions("0.22.5")
def test_dstack_apply_shows_what_a_patch_set(sidecar: Sidecar, server: DstackServer, tmp_path: Path) -> None:
    cheap = {"name": "cheap", "cel": {"mutations": [{"set": {"path": "/configuration/max_price", "value": 1.25}}]}}
    sidecar.serve([cheap, label()])
    finished = dstack(server, tmp_path, "apply", "-f", "service.yml", "-y", "-d")

    assert finished.returncode == 0, finished
    assert "Max price" in finished.stdout and "$1.25" in finished.stdout, finished.stdout
    assert "Run chat submitted" in finished.stdout, finished.stdout


def test_dstack_offer_passes_a_chain(sidecar: Sidecar, server: DstackServer, tmp_path: Path) -> None:
    sidecar.serve([label()])
    finished = dstack(server, tmp_path, "offer")

    assert finished.returncode == 0, finished
    assert "runpod" in finished.stdout, finished.stdout
    assert [record["decision"] for record in sidecar.audit()] == ["patched"], sidecar.audit()
