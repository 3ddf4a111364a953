"""Requests and answers of a worker that has a well-behaved plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus import bodies, task
from worker import SECONDS, Worker

Workers = Callable[[str], Worker]
NewWorker = Callable[..., Worker]


def test_the_documented_example_does_what_its_page_says(workers: Workers) -> None:
    answer = workers("documented").call("run", task(tags={"owner": "me"}, max_price=9.5))
    assert answer["result"] == "changed"
    before, after = answer["before"]["configuration"], answer["after"]["configuration"]
    changed = {key: (before.get(key), after[key]) for key in after if before.get(key) != after[key]}
    assert changed == {
        "max_price": (9.5, 2.0),
        "max_duration": (None, 86400),
        "tags": ({"owner": "me"}, {"owner": "me", "team": "my_team"}),
    }
    assert isinstance(after["max_price"], float)
    assert {key for key in answer["after"] if answer["before"].get(key) != answer["after"][key]} == {"configuration"}


def test_the_documented_example_tells_services_from_tasks(workers: Workers) -> None:
    service = {"type": "service", "commands": ["serve"], "port": 8000, "https": False}
    answer = workers("documented").call("run", {"configuration": service})
    assert answer["before"]["configuration"]["https"] is False
    assert answer["after"]["configuration"]["https"] is True


def test_setting_a_field_that_nobody_gave_to_its_default_is_a_change(workers: Workers) -> None:
    """The server's default may be another."""
    service = {"type": "service", "commands": ["serve"], "port": 8000}
    answer = workers("documented").call("run", {"configuration": service})
    assert "https" not in answer["before"]["configuration"]
    assert answer["after"]["configuration"]["https"] is True


def test_the_documented_example_denies_privileged_runs_and_its_logger_is_heard(workers: Workers) -> None:
    worker = workers("documented")
    answer = worker.call("run", task(privileged=True), user="bob")
    assert answer == {"result": "denied", "message": "Running privileged containers is forbidden"}
    assert worker.logs == [
        {
            "level": "warning",
            "logger": "dstack.plugins.documented_plugin",
            "message": "User bob tries to run privileged containers",
            "detail": None,
        }
    ]


def test_a_spec_that_has_what_the_policy_sets_is_unchanged(workers: Workers) -> None:
    spec = task(tags={"team": "my_team"}, max_price=2.0, max_duration=86400)
    assert workers("documented").call("run", spec) == {"result": "unchanged"}


def test_a_kind_that_the_plugin_has_no_rule_for_is_unchanged(version: str, workers: Workers) -> None:
    worker = workers("documented")
    seen = set()
    for name, kind, body in bodies(version):
        if kind != "run":
            seen.add(kind)
            assert worker.call(kind, body["spec"]) == {"result": "unchanged"}, name
    assert seen == {"fleet", "volume", "gateway"}


def test_each_kind_comes_to_its_own_rule(version: str, new_worker: NewWorker, tmp_path: Path) -> None:
    worker = new_worker("counting", environment={"COUNTING_FILE": str(tmp_path / "counts"), "COUNTING_LIMIT": "1"})
    assert "ready" in worker.first()
    kinds = {name: body["spec"] for name, _, body in bodies(version)}
    fleet = worker.call("fleet", kinds["plain-fleet-cloud"])
    assert fleet["after"]["configuration"]["idle_duration"] == 600
    assert worker.call("volume", kinds["volume-large"])["result"] == "denied"
    gateway = worker.call("gateway", kinds["plain-gateway"])
    assert gateway["after"]["configuration"]["public_ip"] is False
    assert worker.call("run", task())["after"]["configuration"]["tags"] == {"number": "1"}
    assert worker.call("run", task()) == {
        "result": "denied",
        "message": "main has had its 1 runs\nask alice's team lead",
    }
    assert worker.messages() == ["run 1 of main", "run 2 of main"]


def test_a_field_that_this_dstack_does_not_know_is_named(version: str, workers: Workers) -> None:
    spec = task(nonsense=1, resources={"gpu": {"colour": "red"}}, secret_colour="tüx")
    answer = workers("documented").call("run", {**spec, "more": True})
    assert (answer["result"], answer["reason"]) == ("failed", "unreadable")
    prefix = f"the plugin's dstack {version} does not know "
    named = answer["message"].removeprefix(prefix)
    assert set(named.split(" and ")[0].split(", ")) <= {
        "configuration.nonsense",
        "configuration.resources.gpu.colour",
        "configuration.secret_colour",
        "more",
    }
    assert answer["message"].startswith(prefix) and "red" not in answer["message"] and "tüx" not in answer["message"]


def test_an_unknown_field_that_is_null_says_nothing(workers: Workers) -> None:
    spec = task(nonsense=None, max_price=2.0, max_duration=86400, tags={"team": "my_team"})
    spec["profile"] = {"name": "default", "invention": None}
    assert workers("documented").call("run", spec) == {"result": "unchanged"}


def test_a_value_that_this_dstack_does_not_accept_is_named_and_not_told(version: str, workers: Workers) -> None:
    spec = task(max_price="gratis", env={"TOKEN": "s3cret"}, commands="ls")
    answer = workers("documented").call("run", spec)
    assert (answer["result"], answer["reason"]) == ("failed", "unreadable")
    named = answer["message"].removeprefix(f"the plugin's dstack {version} does not accept ")
    assert set(named.split(", ")) == {"configuration.max_price", "configuration.commands"}
    assert not any(value in json.dumps(answer) for value in ("s3cret", "gratis"))


@pytest.mark.parametrize("spec", (None, [], "text", 7, {}, {"configuration": None}, {"configuration": {"type": "x"}}))
def test_what_is_no_spec_is_unreadable(spec: Any, workers: Workers) -> None:
    answer = workers("documented").call("run", spec)
    assert (answer["result"], answer["reason"]) == ("failed", "unreadable")


def test_a_kind_that_nobody_knows_is_unreadable(version: str, workers: Workers) -> None:
    answer = workers("documented").call("cluster", task())
    assert (answer["reason"], answer["message"]) == (
        "unreadable",
        f"the plugin's dstack {version} has no specs of this kind",
    )


def test_checking_accepts_what_servers_send(version: str, workers: Workers) -> None:
    worker = workers("documented")
    for name, kind, body in bodies(version):
        assert worker.call(kind, body["spec"], call="check") == {"result": "valid"}, name


def test_checking_names_each_error_where_it_is(workers: Workers) -> None:
    spec = task(max_price=-1, nonsense=None, volumes=["a:/b", {"name": 3}], resources={"cpu": "many"})
    answer = workers("documented").call("run", spec, call="check")
    assert answer["result"] == "invalid"
    paths = [error["path"] for error in answer["errors"]]
    assert {"configuration.max_price", "configuration.nonsense"} <= set(paths), paths
    assert any(path.startswith("configuration.volumes[1]") for path in paths), paths
    assert any(path.startswith("configuration.resources") for path in paths), paths
    assert all(error["message"] for error in answer["errors"])


@pytest.mark.newest
def test_checking_asks_no_plugin(new_worker: NewWorker, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    worker = new_worker("counting", environment={"COUNTING_FILE": str(counts), "COUNTING_LIMIT": "1"})
    assert "ready" in worker.first()
    assert worker.call("run", task(), call="check") == {"result": "valid"}
    assert not counts.exists()


def test_digits_come_back_as_they_were(workers: Workers) -> None:
    spec = task(max_price=0.30000000000000004, env={"LONG": "1" * 100}, priority=7)
    answer = workers("timed").call("run", spec)
    for side in ("before", "after"):
        assert repr(answer[side]["configuration"]["max_price"]) == "0.30000000000000004"
        assert answer[side]["configuration"]["env"] == {"LONG": "1" * 100}
        assert answer[side]["configuration"]["priority"] == 7


def test_requests_that_come_at_once_are_answered_in_order(workers: Workers) -> None:
    worker = workers("documented")
    for number in range(50):
        spec = task(max_price=number + 1.0)
        worker.send({"id": f"r{number}", "call": "apply", "kind": "run", "user": "", "project": "", "spec": spec})
    answers = [worker.receive() for _ in range(50)]
    assert [answer["id"] for answer in answers] == [f"r{number}" for number in range(50)]
    assert [answer["before"]["configuration"]["max_price"] for answer in answers if "before" in answer] == [
        number + 1.0 for number in range(50)
    ]


def test_a_large_spec_comes_through(workers: Workers) -> None:
    commands = ["echo " + "ü" * 1000] * 4000
    answer = workers("documented").call("run", {"configuration": {"type": "task", "commands": commands}})
    assert answer["after"]["configuration"]["commands"] == commands


@pytest.mark.newest
def test_a_frame_that_is_too_long_ends_the_worker(new_worker: NewWorker) -> None:
    worker = new_worker("documented")
    assert "ready" in worker.first()
    assert worker.process.stdin is not None
    worker.process.stdin.write(((64 << 20) + 1).to_bytes(4, "big"))
    worker.process.stdin.flush()
    assert worker.process.wait(SECONDS) == 1


@pytest.mark.newest
@pytest.mark.parametrize("body", (b"{", b"\xff", b"[]", b"{}"))
def test_a_frame_that_is_no_request_ends_the_worker(body: bytes, new_worker: NewWorker) -> None:
    worker = new_worker("documented")
    assert "ready" in worker.first()
    worker.send_bytes(body)
    assert worker.receive() is None
    assert worker.ended() == 1
    assert "Traceback" in worker.printed


@pytest.mark.newest
@pytest.mark.parametrize(
    ("level", "heard"),
    (("error", []), ("info", ["run 1 of main"]), ("nonsense", ["run 1 of main"])),
)
def test_logs_come_from_the_level_that_was_asked_for(
    level: str, heard: list[str], new_worker: NewWorker, tmp_path: Path
) -> None:
    environment = {
        "COUNTING_FILE": str(tmp_path / "counts"),
        "COUNTING_LIMIT": "1",
        "DSTACK_ADMISSION_LOG_LEVEL": level,
    }
    worker = new_worker("counting", environment=environment)
    assert "ready" in worker.first()
    worker.call("run", task())
    assert worker.messages() == heard
