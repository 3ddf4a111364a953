"""What plugins do wrong, and that the worker answers nevertheless, or ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from corpus import task
from worker import SECONDS, Worker

Workers = Callable[[str], Worker]
NewWorker = Callable[..., Worker]

CAME_THROUGH = {"came": "through"}


def misbehave(worker: Worker, mode: str, **configuration: Any) -> dict[str, Any]:
    return worker.call("run", task(tags={"misbehave": mode}, **configuration))


def is_well(worker: Worker) -> bool:
    return misbehave(worker, "nothing") == {"result": "unchanged"}


@pytest.mark.newest
@pytest.mark.parametrize(
    ("mode", "printed"),
    (
        ("prints", ("printed\n", "hello", "from a child\n", "from C\n", "no line end")),
        ("reads-stdin", ()),
        ("closes-descriptors", ()),
        ("closes-and-reopens", ()),
        ("forks-and-returns", ()),
        ("forks-and-lingers", ()),
        ("forks-and-logs", ()),
        ("runs-children", ("from a child input\n",)),
        ("spawns", ()),
        ("starts-threads", ()),
        ("changes-the-process", ()),
        ("replaces-json", ()),
        ("replaces-logging", ()),
        ("logs-what-cannot-be-logged", ()),
    ),
)
def test_nothing_that_a_policy_does_to_its_process_touches_the_channel(
    mode: str, printed: tuple[str, ...], new_worker: NewWorker
) -> None:
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    answer = misbehave(worker, mode)
    assert answer["result"] == "changed", answer
    assert answer["after"]["configuration"]["tags"] == CAME_THROUGH
    assert is_well(worker)
    assert "does not accept" in worker.call("run", task(max_price="x"))["message"]
    # The end of the channel ends it, whatever threads and children are left.
    began = time.monotonic()
    assert worker.close() == 0
    assert worker.receive() is None
    assert time.monotonic() - began < 5
    for text in printed:
        assert text in worker.printed
    if mode == "forks-and-logs":
        assert worker.messages() == ["from the parent " + "x" * 5000] * 10
    if mode == "starts-threads":
        assert worker.messages().count("3 " + "y" * 3000) <= 20
        assert all(set(message.split()[1]) == {"y"} for message in worker.messages())


@pytest.mark.newest
def test_log_records_of_every_kind_arrive(new_worker: NewWorker) -> None:
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    misbehave(worker, "logs-what-cannot-be-logged")
    assert [(log["level"], log["message"][:20]) for log in worker.logs] == [
        ("info", "half ?"),
        ("error", "beyond critical"),
        ("error", "with a traceback"),
        ("warning", "z" * 20),
        ("warning", worker.logs[-1]["message"][:20]),
    ]
    assert worker.logs[2]["detail"].splitlines()[-1].startswith("json.decoder.JSONDecodeError: ")
    assert len(worker.logs[3]["message"]) == 8 * 1024 + 1
    assert worker.logs[4]["logger"] == "py.warnings" and "UserWarning: a warning" in worker.logs[4]["message"]


RAISED = {
    "asks": "EOFError",
    "exits": "SystemExit",
    "interrupts": "KeyboardInterrupt",
    "raises-a-base-exception": "GeneratorExit",
    "raises-the-unprintable": "Unprintable",
    "raises-with-a-value": "KeyError",
    "recurses": "RecursionError",
    "stops-an-iteration": "StopIteration",
    "wants-a-loop": "RuntimeError",
}


@pytest.mark.parametrize("mode", RAISED)
def test_an_exception_is_a_failure_and_its_text_is_for_the_log(mode: str, workers: Workers) -> None:
    worker = workers("misbehaving")
    answer = misbehave(worker, mode, env={"TOKEN": "s3cret"})
    assert (answer["result"], answer["reason"]) == ("failed", "exception")
    assert answer["message"] == f"MisbehavingPolicy raised {RAISED[mode]}"
    assert RAISED[mode] in answer["detail"]
    assert is_well(worker)


DENIED = {
    "denies": "nein: „größer“ als 8\n- erstens\n- zweitens 🙂",
    "denies-without-a-word": "",
    "denies-with-none": "",
    "denies-with-a-number": "0",
    "denies-with-two": "first",
    "denies-with-half-a-character": "a ? b",
    "denies-by-accident": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    "denies-as-subclass": "too expensive",
    "sets-signals": "signal only works in main thread of the main interpreter",
}


@pytest.mark.parametrize("mode", DENIED)
def test_a_value_error_denies_with_its_first_argument(mode: str, workers: Workers) -> None:
    assert misbehave(workers("misbehaving"), mode) == {"result": "denied", "message": DENIED[mode]}


def test_a_denial_that_cannot_be_printed_is_a_failure(workers: Workers) -> None:
    answer = misbehave(workers("misbehaving"), "denies-with-the-unprintable")
    assert (answer["reason"], answer["message"]) == ("exception", "the worker raised RuntimeError")


@pytest.mark.parametrize(
    ("mode", "message"),
    (
        ("returns-none", "it returned no run spec but NoneType"),
        ("returns-a-mapping", "it returned no run spec but dict"),
        ("returns-text", "it returned no run spec but str"),
        ("returns-another-kind", "it returned no run spec but VolumeSpec"),
        ("returns-a-coroutine", "it returned no run spec but coroutine"),
        ("assigns-what-is-invalid", "does not accept configuration.max_price"),
        ("assigns-what-is-no-data", "does not accept configuration.max_price"),
        ("assigns-half-a-character", "the plugin's dstack "),
        ("assigns-too-much", "the answer is too large"),
    ),
)
def test_a_result_that_is_no_spec_is_a_failure(mode: str, message: str, workers: Workers) -> None:
    worker = workers("misbehaving")
    answer = misbehave(worker, mode)
    assert (answer["result"], answer["reason"]) == ("failed", "invalid-result"), answer
    assert message in answer["message"]
    assert "cheap" not in answer["message"]
    assert is_well(worker)


def test_an_assignment_of_what_was_there_is_no_change(workers: Workers) -> None:
    worker = workers("misbehaving")
    assert misbehave(worker, "assigns-the-same-in-words", max_duration=7200) == {"result": "unchanged"}
    assert misbehave(worker, "assigns-the-same-in-words", max_duration="2h") == {"result": "unchanged"}


def test_the_infinite_is_null_as_the_server_stores_it(workers: Workers) -> None:
    answer = misbehave(workers("misbehaving"), "assigns-the-infinite", max_price=2)
    assert answer["after"]["configuration"]["max_price"] is None


def test_what_pydantic_says_about_a_plugins_own_dump_is_heard_and_about_ours_is_not(
    version: str, workers: Workers, new_worker: NewWorker
) -> None:
    # A new one, as a warning comes once.
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    assert misbehave(worker, "dumps-itself")["result"] == "changed"
    warned = [log for log in worker.logs if "PydanticSerializationUnexpectedValue" in log["message"]]
    assert len(warned) == (0 if version < "0.21" else 1)
    quiet = workers("documented")
    assert quiet.call("run", task())["result"] == "changed"
    assert quiet.logs == []


@pytest.mark.newest
@pytest.mark.parametrize(
    ("mode", "answer"),
    (
        ("raise", "get_apply_policies raised ValueError"),
        ("none", "get_apply_policies raised TypeError"),
        ("loop", None),
        ("signals", None),
    ),
)
def test_policies_are_asked_for_in_the_event_loop_each_time(
    mode: str, answer: str | None, new_worker: NewWorker
) -> None:
    worker = new_worker("misbehaving", environment={"MISBEHAVE_POLICIES": mode})
    assert "ready" in worker.first()
    for _ in range(20):
        found = misbehave(worker, "nothing")
        assert found == {"result": "unchanged"} if answer is None else found["message"] == answer
    if mode == "signals":
        # Records from a signal handler come whole, and its handlers do not keep the worker alive.
        assert all(message.startswith("an alarm while") for message in worker.messages())
        assert worker.close() == 0


@pytest.mark.newest
@pytest.mark.parametrize(("mode", "code"), (("dies", 7), ("crashes", -signal.SIGSEGV)))
def test_a_process_that_dies_closes_the_channel(mode: str, code: int, new_worker: NewWorker) -> None:
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    spec = task(tags={"misbehave": mode})
    worker.send({"id": 1, "call": "apply", "kind": "run", "user": "", "project": "", "spec": spec})
    assert worker.receive() is None
    assert worker.ended() == code


@pytest.mark.newest
def test_a_lingering_child_does_not_hide_the_death_of_its_parent(new_worker: NewWorker) -> None:
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    assert misbehave(worker, "forks-and-lingers")["result"] == "changed"
    os.kill(worker.process.pid, signal.SIGKILL)
    assert worker.receive() is None


@pytest.mark.newest
def test_the_end_of_the_channel_ends_a_worker_whose_policy_hangs(new_worker: NewWorker) -> None:
    worker = new_worker("misbehaving")
    assert "ready" in worker.first()
    spec = task(tags={"misbehave": "sleeps"})
    worker.send({"id": 1, "call": "apply", "kind": "run", "user": "", "project": "", "spec": spec})
    assert worker.close() == 0


@pytest.mark.newest
@pytest.mark.parametrize("mode", ("takes-memory", "takes-memory-in-small-pieces"))
def test_a_policy_that_takes_all_memory_fails_and_the_worker_ends(mode: str, new_worker: NewWorker) -> None:
    limit = 256 << 20
    worker = new_worker("misbehaving", environment={"DSTACK_ADMISSION_MEMORY_LIMIT": str(limit)})
    assert "ready" in worker.first()
    assert is_well(worker)
    answer = misbehave(worker, mode)
    assert (answer["reason"], answer["message"]) == ("exception", "MisbehavingPolicy raised MemoryError")
    assert answer["last"] is True
    assert worker.receive() is None
    assert worker.ended() == 1


@pytest.mark.newest
def test_a_limit_that_dstack_itself_does_not_fit_into_is_refused(new_worker: NewWorker) -> None:
    worker = new_worker("documented", environment={"DSTACK_ADMISSION_MEMORY_LIMIT": str(48 << 20)})
    failed = worker.first()["failed"]
    assert failed["reason"] == "dstack" and "cannot import dstack.plugins: " in failed["message"]
    assert worker.ended() == 1


def test_json_that_is_not_ascii_comes_back_whole(workers: Workers) -> None:
    answer = misbehave(workers("misbehaving"), "denies", env={"NAME": "Zoë\u2028\x00"})
    assert json.dumps(answer)
    assert answer["result"] == "denied"
