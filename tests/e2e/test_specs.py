"""What real servers send, against what `tests/specs` says they do; `make specs` writes that anew."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import specs
from harness.dstack import DstackServer
from harness.recorder import Recorder, recording
from harness.sidecar import Sidecar

SHOWN_DIFFERENCES = 5
FINISHED_WITHIN = 90
AGAIN = "run `make specs`, and look at what changed"


@pytest.fixture
def recorder(sidecar: Sidecar) -> Iterator[Recorder]:
    """A recorder behind the sidecar, which has to hand on what the server sent as it came."""
    with recording() as running:
        sidecar.serve([running.plugin()])
        yield running


def difference(name: str, said: str, sent: str) -> str:
    lines = difflib.unified_diff(said.splitlines(), sent.splitlines(), "committed", "sent", n=2, lineterm="")
    return "\n".join((name, *lines))


def test_each_server_still_sends_what_is_committed(recorder: Recorder, server: DstackServer) -> None:
    captured = specs.capture(server, recorder)

    assert not captured.problems, "\n".join(captured.problems)
    committed = specs.committed(server.version)
    assert committed.keys() == captured.texts.keys(), AGAIN
    differing = [name for name in committed if committed[name] != captured.texts[name]]
    shown = [difference(name, committed[name], captured.texts[name]) for name in differing[:SHOWN_DIFFERENCES]]
    assert not differing, f"{len(differing)} specs of {server.version} differ, {AGAIN}:\n" + "\n".join(shown)


def test_dstack_offer_plans_the_task_that_is_committed(
    recorder: Recorder, server: DstackServer, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [server.executable("dstack"), "offer"],
        env=server.command_line(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FINISHED_WITHIN,
    )
    bodies = recorder.take()

    assert len(bodies) == 1, finished
    name = "offer-of-old-client" if server.version.startswith("0.19.") else "offer"
    assert bodies[0]["spec"] == json.loads(specs.committed(server.version)[name])["spec"]


def test_the_table_lists_every_configuration() -> None:
    readme = specs.README.read_text()
    assert readme == specs.with_table(readme), AGAIN


def test_every_configuration_is_captured_by_the_versions_it_names() -> None:
    for version in sorted({version for case in specs.cases() for version in case.versions}):
        named = {case.name for case in specs.cases() if version in case.versions}
        assert specs.committed(version).keys() == named, f"{version}: {AGAIN}"
