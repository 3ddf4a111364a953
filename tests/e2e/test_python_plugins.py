"""The same plugin package in the process of a real dstack server and behind the sidecar: the same specs, the same
words. The packages are those of `tests/python`, as wheels beside each server's dstack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import plugin_environments
from harness.chains import denial
from harness.dstack import CONFIGURATIONS_OF, Answer, DstackServer, load
from harness.processes import Process
from harness.sidecar import Sidecar
from test_verdicts import comparable

NEWEST = pytest.mark.versions("0.22.5")
FORBIDDEN = "Running privileged containers is forbidden"
TASK = {"type": "task", "name": "train", "commands": ["true"]}


@pytest.fixture(scope="session")
def in_process(
    server: DstackServer, tmp_path_factory: pytest.TempPathFactory, running: list[Process]
) -> Iterator[DstackServer]:
    """A second server of the version, which runs the documented plugin itself."""
    python = plugin_environments.interpreter(server.version)
    directory = tmp_path_factory.mktemp(f"dstack-{server.version}-in-process")
    started = DstackServer(server.version, directory, plugins=("documented",), python=python)
    running.append(started)
    started.serve({})
    yield started
    started.stop()
    running.remove(started)


def documented(version: str, **keys: Any) -> dict[str, Any]:
    """A chain item with the documented plugin on this version of dstack."""
    python = {"plugin": "documented", "interpreter": str(plugin_environments.interpreter(version)), **keys}
    return {"name": "house", "timeout": "5s", "python": python}


def configurations(version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All that this version knows, by name."""
    for name, versions in CONFIGURATIONS_OF.items():
        if version in versions:
            yield name, load(name)


def effective(plan: Answer) -> Any:
    """The planned spec without what a server says of itself: a gateway is the default where it is the first one."""
    spec = comparable(plan.spec)
    if spec["configuration"]["type"] == "gateway":
        spec["configuration"].pop("default", None)
    return spec


def assert_same_in_both(server: DstackServer, in_process: DstackServer) -> None:
    for name, configuration in configurations(server.version):
        inside, outside = in_process.plan(configuration), server.plan(configuration)
        assert inside.status == 200, f"{name}: {inside.text}"
        assert outside.status == 200, f"{name}: {outside.text}"
        assert effective(outside) == effective(inside), name
        if configuration["type"] in ("task", "service", "dev-environment"):
            assert inside.configuration["tags"]["team"] == "my_team", "the plugin was asked"
            assert inside.configuration["max_duration"] == 86400

    privileged = {**TASK, "privileged": True}
    inside, outside = in_process.plan(privileged), server.plan(privileged)
    assert (inside.status, inside.message) == (400, FORBIDDEN)
    assert outside.status == 400
    assert denial("run", f"house: {FORBIDDEN}").fullmatch(outside.message), outside.message


def test_a_plugin_does_the_same_behind_the_sidecar(
    sidecar: Sidecar, server: DstackServer, in_process: DstackServer
) -> None:
    sidecar.serve([documented(server.version, specCheck="dstack")])
    assert_same_in_both(server, in_process)


@NEWEST
def test_a_plugin_on_pydantic_1_does_the_same_behind_a_server_on_pydantic_2(
    sidecar: Sidecar, server: DstackServer, in_process: DstackServer
) -> None:
    """That dstack does not know groups: what it cannot read, it says."""
    older = "0.20.29"
    sidecar.serve([documented(older)])
    unreadable = []
    for name, configuration in configurations(server.version):
        inside, outside = in_process.plan(configuration), server.plan(configuration)
        if outside.status == 400 and f"the plugin's dstack {older} does not know" in outside.message:
            unreadable.append(name)
            continue
        assert outside.status == 200, f"{name}: {outside.text}"
        assert effective(outside) == effective(inside), name
    assert unreadable == ["service-replicas", "service-groups", "task-groups"]


@NEWEST
def test_who_makes_a_spec_that_dstack_refuses_is_named(sidecar: Sidecar, server: DstackServer) -> None:
    """The schemas let the duration through, since a user may write one in words."""
    wrong = {
        "name": "wrong",
        "cel": {"mutations": [{"set": {"path": "/configuration/max_duration", "value": "tomorrow"}}]},
    }
    sidecar.serve([wrong])
    assert "Plugin service returned an invalid response" in server.plan(TASK).text

    sidecar.serve([wrong, documented(server.version, specCheck="dstack")])
    answer = server.plan(TASK)
    assert answer.status == 400
    assert "- wrong: after its patch dstack would refuse the spec: configuration.max_duration: " in answer.message
    assert "house" not in answer.message
