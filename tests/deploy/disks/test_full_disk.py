"""A disk of 64 KiB that fills up under load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from disks import Tmpfs
from reviews import Audited, ids, same

AGAIN = "audit events are written again"


def test_a_strict_sink_answers_only_what_is_recorded_and_recovers(
    tmpfs: Tmpfs, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(tmpfs.at / "audit.jsonl", mode="blocking-strict")
    sidecar.begin()
    with sidecar.load() as load:
        load.wait_for(lambda: len(load.denied()) >= 40)
    assert len(load.allowed()) >= 10
    same(ids(sidecar.audit_file), load.allowed())
    for answer in load.denied():
        assert "its audit record could not be written: No space left on device" in answer.error
    assert sidecar.rejected() == sidecar.lost() == len(load.denied())

    tmpfs.grow("1m")
    last = sidecar.review()
    assert last.allowed
    same(ids(sidecar.audit_file), [*load.allowed(), last.id])
    sidecar.wait_until(lambda: AGAIN in sidecar.log())


@pytest.mark.parametrize("mode", ["batch", "blocking"])
def test_other_sinks_allow_and_count_what_is_lost(mode: str, tmpfs: Tmpfs, audited: Callable[..., Audited]) -> None:
    sidecar = audited(tmpfs.at / "audit.jsonl", mode=mode)
    sidecar.begin()
    with sidecar.load() as load:
        load.wait_for(lambda: sidecar.lost() >= 40)
    assert not load.denied()
    sidecar.wait_until(lambda: len(ids(sidecar.audit_file)) + sidecar.lost() == len(load.answers))
    written = ids(sidecar.audit_file)
    assert len(written) >= 10 and set(written) <= set(load.allowed())
    assert sidecar.rejected() == 0

    tmpfs.grow("1m")
    before, last = sidecar.lost(), sidecar.review()
    sidecar.wait_until(lambda: last.id in ids(sidecar.audit_file))
    assert sidecar.lost() == before
    sidecar.wait_until(lambda: AGAIN in sidecar.log())


def test_rotation_keeps_a_small_disk_from_filling_up(tmpfs: Tmpfs, audited: Callable[..., Audited]) -> None:
    sidecar = audited(tmpfs.at / "audit.jsonl", mode="blocking-strict", maxSize="12KiB", maxBackups=2)
    sidecar.begin()
    with sidecar.load(2) as load:
        load.more(200)
    assert not load.denied()
    sidecar.wait_until(lambda: [file.suffix for file in backups(sidecar)] == [".gz", ".gz"])
    old = backups(sidecar)
    assert all(map(ids, old))
    kept = ids(*old, sidecar.audit_file)
    assert len(set(kept)) == len(kept) and set(kept) <= set(load.allowed())


def test_a_disk_without_room_for_compressing_keeps_every_record(tmpfs: Tmpfs, audited: Callable[..., Audited]) -> None:
    sidecar = audited(tmpfs.at / "audit.jsonl", mode="blocking-strict", maxSize="20KiB", maxBackups=0)
    sidecar.begin()
    with sidecar.load() as load:
        load.wait_for(lambda: len(load.denied()) >= 40)
    same(ids(*backups(sidecar), sidecar.audit_file), load.allowed())


def backups(sidecar: Audited) -> list[Path]:
    """The old files beside the one that is written. One that is being compressed is there twice."""
    own = sidecar.audit_file
    sidecar.wait_until(lambda: not [*own.parent.glob("*.part")])
    return [file for file in own.parent.glob("audit-*") if not file.with_name(file.name + ".gz").exists()]
