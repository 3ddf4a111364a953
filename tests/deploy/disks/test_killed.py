"""An HTTP sink whose sidecar is killed, or whose spool stands on a full disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from disks import Tmpfs
from receiver import Receiver, receiving
from reviews import Audited, ids

KILLS = 8
STRICT = {"mode": "blocking-strict"}
BATCH = 20


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_each_answer_is_in_the_spool_or_received_after_a_kill(
    receiver: Receiver, tmp_path: Path, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(tmp_path / "none")
    sidecar.sinks = [receiver.sink(**STRICT)]
    sidecar.begin()
    with sidecar.load() as load:
        for kill in range(KILLS):
            # Every other time it is killed while records wait for the receiver.
            receiver.takes = kill % 2 == 0
            load.more(60)
            sidecar.kill()
            answered = set(load.allowed())
            there = set(receiver.received) | set(whole_ids(sidecar.state / "spool/there"))
            assert not answered - there, f"kill {kill}: {len(answered - there)} lost"
            sidecar.begin()
        receiver.takes = True
        load.more(60)
    sidecar.wait_until(lambda: sidecar.counted("dstack_admission_audit_spool_events") == 0)
    assert not load.denied()
    assert set(load.allowed()) <= set(receiver.received)
    again = len(receiver.received) - len(set(receiver.received))
    # What was under way at a kill is sent again.
    assert again <= KILLS * BATCH


def test_a_spool_on_a_full_disk_denies_and_takes_records_again_when_they_are_shipped(
    receiver: Receiver, tmp_path: Path, audited: Callable[..., Audited], undo: ExitStack
) -> None:
    sidecar = audited(tmp_path / "none")
    disk = Tmpfs(sidecar.state / "spool", "64k")
    undo.callback(disk.close)
    sidecar.sinks = [receiver.sink(**STRICT)]
    receiver.takes = False
    sidecar.begin()
    with sidecar.load() as load:
        load.wait_for(lambda: len(load.denied()) >= 40)
        for answer in load.denied():
            assert "its audit record could not be written: No space left on device" in answer.error
        receiver.takes = True
        # Far more than the disk has room for.
        load.wait_for(lambda: len(load.allowed()) >= 300)
    sidecar.wait_until(lambda: sidecar.counted("dstack_admission_audit_spool_events") == 0)
    assert sorted(receiver.received) == sorted(load.allowed())
    assert sidecar.lost_to("there") == len(load.denied()) == sidecar.rejected()


def whole_ids(spool: Path) -> list[str]:
    """The decisions whose lines a process that was killed had written whole."""
    found = []
    for segment in spool.glob("*.ndjson"):
        whole, _, _ = segment.read_bytes().rpartition(b"\n")
        copy = spool.parent / "whole.ndjson"
        copy.write_bytes(whole + b"\n" if whole else b"")
        found += ids(copy)
    return found
