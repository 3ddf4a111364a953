"""A disk that is slow, and one that stands still."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from disks import Ext4, frozen, throttled
from reviews import Audited, ids, same

# An answer waits two seconds for its record, and the dstack server eight for an answer.
PATIENCE = 2.0
AT_MOST = 8.0
CALLERS = 16
WRITES = 10


def test_many_share_the_writes_of_a_slow_disk(ext4: Ext4, audited: Callable[..., Audited]) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode="blocking-strict")
    sidecar.begin()
    with throttled(ext4.device, sidecar.pid, WRITES), sidecar.load(CALLERS) as load:
        load.more(2 * CALLERS)
        began, before = time.monotonic(), len(load.answers)
        load.more(150)
        answers, seconds = len(load.answers) - before, time.monotonic() - began
    same(ids(sidecar.audit_file), load.allowed())
    slow = sum(answer.took > 1 / WRITES for answer in load.answers)
    assert slow > len(load.answers) / 2, "the disk is not slow"
    assert answers / seconds > 2 * WRITES, "each answer had a write of its own"


def test_a_strict_sink_denies_while_the_disk_stands_still(ext4: Ext4, audited: Callable[..., Audited]) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode="blocking-strict")
    sidecar.begin()
    with sidecar.load() as load:
        load.more(50)
        with frozen(ext4.at):
            load.wait_for(lambda: len(load.denied()) >= 8)
            assert sidecar.is_ready()
        load.more(50)
    for answer in load.denied():
        assert PATIENCE <= answer.took < AT_MOST
        assert "its audit record could not be written: the disk is too slow" in answer.error
    # Of a record that came late the last line tells what the user was told.
    decisions = {event["auditID"]: event["decision"] for event in sidecar.audit()}
    assert len(decisions) == len(load.answers)
    for answer in load.answers:
        assert (decisions[answer.id] == "denied") == (not answer.allowed)
    for answer in (load.denied()[0], load.denied()[-1]):
        told = sidecar.command("explain", answer.id, "--config", sidecar.configuration_file)
        assert told.stdout.startswith(f"decision {answer.id}: denied")


@pytest.mark.parametrize("mode", ["batch", "blocking"])
def test_other_sinks_allow_while_the_disk_stands_still(
    mode: str, ext4: Ext4, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode=mode)
    # As many threads as on one processor: whoever waited on one would hold everybody up.
    sidecar.environment = {"TOKIO_WORKER_THREADS": "1"}
    sidecar.begin()
    with sidecar.load() as load:
        load.more(50)
        with frozen(ext4.at):
            load.more(16)
            assert sidecar.is_ready()
        load.more(50)
    assert not load.denied()
    assert max(answer.took for answer in load.answers) < AT_MOST
    if mode == "blocking":
        # What is told of the delay, though it is written in the end.
        assert sidecar.counted("dstack_admission_audit_error_total", sink=str(sidecar.audit_file)) >= 8
    sidecar.wait_until(lambda: sorted(ids(sidecar.audit_file)) == sorted(load.allowed()))
    assert sidecar.lost() == 0
