"""The same package gives the same in the server's process and in a worker: the effective spec and the denial's text,
over every spec that real servers sent, in each generation and between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import environments
from corpus import bodies, patched, same, task
from in_process import InProcess
from worker import Worker

# What a plugin counts starts anew on each side.
COUNTING = {"COUNTING_LIMIT": "40"}

DENIALS = (
    "denies",
    "denies-without-a-word",
    "denies-with-none",
    "denies-with-a-number",
    "denies-with-two",
    "denies-by-accident",
    "denies-as-subclass",
    "validates-within",
    "sets-signals",
)
PASSES = ("nothing", "reads-stdin", "runs-a-loop", "assigns-the-infinite", "dumps-itself")
FAILS = ("wants-a-loop", "raises-with-a-value", "recurses", "returns-none", "returns-a-mapping", "asks")


def through(worker: Worker, server: InProcess, kind: str, body: dict[str, Any]) -> Any:
    """What the server ends up with when a worker was asked."""
    answer = worker.call(kind, body["spec"], user=body["user"], project=body["project"])
    if answer["result"] == "denied":
        return {"denied": answer["message"]}
    if answer["result"] == "failed":
        return {"failed": answer["reason"], "message": answer["message"]}
    if answer["result"] == "unchanged":
        return server.read(kind, body["spec"])
    return server.read(kind, patched(body["spec"], answer["before"], answer["after"]))


def test_a_plugin_with_state_does_the_same_on_all_kinds(
    version: str, in_process: InProcess, new_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = new_worker("counting", environment={**COUNTING, "COUNTING_FILE": str(tmp_path / "worker")})
    assert "ready" in worker.first()
    inside = {**COUNTING, "COUNTING_FILE": str(tmp_path / "server")}
    denied = 0
    for name, kind, body in bodies(version):
        expected = in_process.apply("counting", kind, body, inside)
        found = through(worker, in_process, kind, body)
        assert same(found, expected), f"{name}: {found} instead of {expected}"
        denied += "denied" in expected
    assert denied > 50


def test_a_plugin_that_looks_at_the_clock_does_the_same_but_for_the_time(
    version: str, in_process: InProcess, workers: Callable[[str], Worker]
) -> None:
    name, kind, body = next(one for one in bodies(version) if one[0] == "plain-service-full")
    began = time.time_ns()
    results = [
        in_process.apply("timed", kind, body)["spec"],
        through(workers("timed"), in_process, kind, body)["spec"],
        through(workers("timed"), in_process, kind, body)["spec"],
    ]
    moments = [int(result["configuration"]["tags"].pop("reviewed-at")) for result in results]
    assert began < moments[0] < moments[1] < moments[2] < time.time_ns()
    durations = [result["configuration"].pop("max_duration") for result in results]
    assert all(isinstance(duration, int) and 0 < duration <= 86400 for duration in durations)
    assert same(results[0], results[1]) and same(results[1], results[2])


@pytest.mark.parametrize("mode", (*DENIALS, *PASSES, *FAILS))
def test_a_plugin_that_behaves_badly_does_the_same(
    mode: str, in_process: InProcess, workers: Callable[[str], Worker]
) -> None:
    body = {"user": "alice", "project": "main", "spec": task(tags={"misbehave": mode}, max_duration=7200)}
    expected = in_process.apply("misbehaving", "run", body)
    found = through(workers("misbehaving"), in_process, "run", body)
    assert next(iter(expected)) == ("denied" if mode in DENIALS else "raised" if mode in FAILS else "spec"), expected
    if mode in FAILS:
        assert "failed" in found
    else:
        assert same(found, expected)


@pytest.mark.newest
def test_policies_in_turn_hand_on_whatever_came(in_process: InProcess, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker("misbehaving", environment={"MISBEHAVE_POLICIES": "two"})
    assert "ready" in worker.first()
    body = {"user": "alice", "project": "main", "spec": task(tags={"misbehave": "returns-none"})}
    expected = in_process.apply("misbehaving", "run", body, {"MISBEHAVE_POLICIES": "two"})
    in_process.apply("misbehaving", "run", body, {"MISBEHAVE_POLICIES": ""})
    assert expected == {"denied": "Unknown spec type <class 'NoneType'>"}
    assert through(worker, in_process, "run", body) == expected


@pytest.mark.parametrize(
    "configuration",
    (
        {"max_price": 1},
        {"max_price": -1},
        {"nonsense": None},
        {"resources": {"nonsense": 1}},
        {"resources": {"gpu": "H100:8"}},
        {"commands": []},
        {"commands": "ls"},
        {"env": {"A B": "c"}},
        {"env": ["A"]},
        {"tags": {"number": 1}},
        {"tags": {"null": None}},
        {"tags": {"a b": "c"}},
        {"max_duration": "1d"},
        {"max_duration": "tomorrow"},
        {"type": "nonsense"},
        {"volumes": ["/a"]},
        {"volumes": ["name:/a"]},
        {"nodes": 0},
    ),
)
@pytest.mark.parametrize("extra", ({}, {"nonsense": None}, {"run_name": 3}))
def test_checking_accepts_what_the_server_would_take_as_an_answer(
    configuration: dict[str, Any], extra: dict[str, Any], in_process: InProcess, workers: Callable[[str], Worker]
) -> None:
    spec = {**task(**configuration), **extra}
    taken = in_process.read("run", spec)
    answer = workers("documented").call("run", spec, call="check")
    assert answer["result"] == ("valid" if "spec" in taken else "invalid"), (taken, answer)


@pytest.mark.parametrize("other", environments.DSTACK_VERSIONS)
def test_a_worker_of_another_version_does_the_same_or_says_what_it_does_not_know(
    version: str, other: str, in_process: InProcess, workers_of: Callable[[str, str], Worker]
) -> None:
    """`version` is the server's, `other` the worker's."""
    worker = workers_of(other, "documented")
    read = total = 0
    for name, kind, body in bodies(version):
        total += 1
        found = through(worker, in_process, kind, body)
        if found.get("failed") == "unreadable":
            assert found["message"].startswith(f"the plugin's dstack {other} does not "), found
            assert any(part in found["message"] for part in ("configuration", "profile")), found
            continue
        expected = in_process.apply("documented", kind, body)
        assert same(found, expected), f"{name} on {other}: {found} instead of {expected}"
        read += 1
    # 0.19 knows no `dstack: false`, which every run of a newer server says.
    expected_share = 1 if version <= other else 0.15 if other.startswith("0.19") and version > "0.21" else 0.75
    assert read >= total * expected_share, f"{other} read {read} of {total}"
