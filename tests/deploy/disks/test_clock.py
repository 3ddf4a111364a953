"""A wall clock that is set forward and back while the sidecar runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests
from disks import program
from reviews import Audited, Load, events, ids, same

DAY = 24 * 60
# More than any review takes, and less than any jump.
A_MINUTE = timedelta(minutes=1)
# How far it is from the right time, in minutes, one after the other.
JUMPS = (0, 400 * DAY, 0, -400 * DAY, 5, -5, 20, 0, -(56 * 365 * DAY), 0)


class Clock:
    """The wall clock of one process. The clock that only runs forward is the machine's, as where a clock is set."""

    def __init__(self, directory: Path):
        self.file = directory / "clock"
        self.set(0)

    def set(self, minutes: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{minutes * 60:+d}\n")
        new.rename(self.file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def library() -> str:
    """The library that Debian's `faketime` loads, for programs with threads."""
    told = subprocess.run(
        [program("faketime"), "-m", "-f", "+0d", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_records_stay_whole_and_plausible(clock: Clock, tmp_path: Path, audited: Callable[..., Audited]) -> None:
    sidecar = audited(tmp_path / "audit.jsonl", mode="blocking-strict")
    sidecar.environment = clock.environment()
    sidecar.verified = False
    sidecar.begin()
    with sidecar.load() as load:
        for minutes in JUMPS:
            clock.set(minutes)
            load.more(30)
    # The same spec of the same user, ten minutes apart by a clock that stood still, and by one that jumped.
    for minutes in (0, 5, 0, 20, -20):
        clock.set(minutes)
        load.answers += [sidecar.review(), sidecar.review()]
    assert not load.denied()
    recorded = events(sidecar.audit_file)
    same([event["auditID"] for event in recorded], load.allowed())
    received = {event["auditID"]: moment(event["requestReceivedTimestamp"]) for event in recorded}
    years = {at.year for at in received.values()}
    assert len(years) >= 4, years
    for event in recorded:
        took = timedelta(seconds=event["durationSeconds"])
        assert timedelta() <= took < A_MINUTE
        for plugin in event["plugins"]:
            assert 0 <= plugin["durationSeconds"] < A_MINUTE.total_seconds()
        assert timedelta() <= moment(event["stageTimestamp"]) - received[event["auditID"]] < A_MINUTE
        if "repeatOf" in event:
            apart = received[event["auditID"]] - received[event["repeatOf"]]
            assert timedelta() <= apart <= timedelta(minutes=10)
    repeats = [event.get("repeatOf") for event in recorded[-10:]]
    assert all(repeats[1::2]), "the second of a pair repeats the first, whatever the time"
    for name in ("request_duration_seconds_sum", "audit_write_duration_seconds_sum"):
        assert 0 <= sidecar.counted(f"dstack_admission_{name}") < 120

    # By the time that is recorded.
    clock.set(0)
    future = [id for id, at in received.items() if at.year > datetime.now().year]
    past = [id for id, at in received.items() if at.year < 2000]
    assert future and past
    first, last = (min(received[id] for id in future), max(received[id] for id in future))
    assert sorted(sidecar.explained("--since", stamp(first), "--show", "60000")) == sorted(future)
    assert sorted(sidecar.explained("--until", "2000-01-01", "--show", "60000")) == sorted(past)
    assert sidecar.explained("--last") == [max(future, key=lambda id: received[id])]
    for id in (future[0], past[0], load.answers[-1].id):
        assert sidecar.explained(id) == [id]


def test_a_file_grows_old_at_the_same_pace_whatever_the_clock_says(
    clock: Clock, tmp_path: Path, audited: Callable[..., Audited]
) -> None:
    rotation = {"rotateEvery": "1s", "maxBackups": 0, "compress": False}
    sidecar = audited(tmp_path / "log" / "audit.jsonl", mode="blocking-strict", **rotation)
    sidecar.audit_file.parent.mkdir()
    sidecar.environment = clock.environment()
    sidecar.verified = False
    sidecar.begin()
    answered = []
    for minutes in (400 * DAY, 0, -400 * DAY):
        clock.set(minutes)
        there = files(sidecar)
        sidecar.wait_until(lambda: answered.append(sidecar.review().id) or files(sidecar) > there + 1)
    same(ids(*sidecar.audit_file.parent.iterdir()), answered)


def test_the_backups_that_were_written_last_are_kept(
    clock: Clock, tmp_path: Path, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(tmp_path / "log" / "audit.jsonl", mode="blocking-strict", maxSize="8KiB", maxBackups=3)
    sidecar.audit_file.parent.mkdir()
    sidecar.environment = clock.environment()
    sidecar.verified = False
    sidecar.begin()
    answered = []
    for minutes in (400 * DAY, 0, -400 * DAY):
        clock.set(minutes)
        answered += [sidecar.review().id for _ in range(20)]
    sidecar.wait_until(lambda: files(sidecar) <= 4 and settled(sidecar))
    kept = ids(*sidecar.audit_file.parent.iterdir())
    assert len(kept) >= 8
    same(kept, answered[-len(kept) :])


@pytest.mark.parametrize("minutes", [5000 * DAY, -400 * DAY, -5000 * DAY])
def test_certificates_that_a_wrong_clock_made_are_made_anew_when_it_is_set_right(
    minutes: int, clock: Clock, tmp_path: Path, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(tmp_path / "audit.jsonl", mode="blocking-strict")
    sidecar.environment = clock.environment()
    clock.set(minutes)
    sidecar.begin()
    with pytest.raises(requests.exceptions.SSLError):
        sidecar.review()
    clock.set(0)
    sidecar.wait_until(lambda: is_trusted(sidecar))
    assert sidecar.review().allowed
    sidecar.wait_until(lambda: "the clock was set" in sidecar.log())


def is_trusted(sidecar: Audited) -> bool:
    try:
        return sidecar.review().allowed
    except requests.exceptions.SSLError:
        return False


def files(sidecar: Audited) -> int:
    return len([*sidecar.audit_file.parent.iterdir()])


def settled(sidecar: Audited) -> bool:
    """Whether every old file is compressed."""
    others = [file for file in sidecar.audit_file.parent.iterdir() if file != sidecar.audit_file]
    return all(file.suffix == ".gz" for file in others)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
