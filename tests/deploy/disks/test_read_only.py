"""An ext4 that turns read-only, as it does when the kernel finds an error on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from disks import Ext4
from reviews import CALLERS, Audited, ids, same

WHY = "its audit record could not be written: Read-only file system"


def test_a_strict_sink_denies_from_the_moment_of_the_error_and_finds_the_repaired_disk(
    ext4: Ext4, audited: Callable[..., Audited]
) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode="blocking-strict")
    sidecar.begin()
    with sidecar.load() as load:
        load.more(100)
        ext4.fail()
        load.wait_for(lambda: len(load.denied()) >= 40)
    for answer in load.denied():
        assert "its audit record could not be written: " in answer.error
    # The first ones may be those whose write the error came into.
    assert WHY in load.denied()[-1].error
    assert sidecar.rejected() == sidecar.lost() == len(load.denied())

    # Somebody takes the disk away. What stands at the path meanwhile is another directory.
    ext4.leave()
    below = sidecar.review()
    assert below.allowed
    same(ids(sidecar.audit_file), [below.id])
    sidecar.wait_until(ext4.is_released)
    ext4.repair()
    ext4.mount()
    after = sidecar.review()
    assert after.allowed
    recorded = ids(sidecar.audit_file)
    assert after.id in recorded and len(set(recorded)) == len(recorded)
    assert set(recorded) <= {answer.id for answer in [*load.answers, after]}
    # While it aborts its journal, for some milliseconds, ext4 says of an fdatasync that it was done and loses
    # what was written, as a loop of write and fdatasync shows without us. That is one group, the last.
    missing = set(load.allowed()) - set(recorded)
    assert missing <= set(load.allowed()[-CALLERS:])


@pytest.mark.parametrize("mode", ["batch", "blocking"])
def test_other_sinks_allow_and_count_what_is_lost(mode: str, ext4: Ext4, audited: Callable[..., Audited]) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode=mode)
    sidecar.begin()
    with sidecar.load() as load:
        load.more(100)
        ext4.fail()
        load.wait_for(lambda: sidecar.lost() >= 40)
    assert not load.denied()
    sidecar.wait_until(lambda: len(ids(sidecar.audit_file)) + sidecar.lost() == len(load.answers))
    sidecar.wait_until(lambda: "Read-only file system" in sidecar.log())


def test_check_start_and_reload_name_a_disk_that_is_read_only(ext4: Ext4, audited: Callable[..., Audited]) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode="blocking-strict")
    sidecar.begin()
    before = sidecar.review()
    sidecar.stop()
    ext4.remount("ro")
    for command in ("check", "serve"):
        refused = sidecar.command(command, "--config", sidecar.configuration_file)
        assert refused.returncode == 2
        where = f"audit.sinks[0].file.path: {sidecar.audit_file}"
        assert f"{where}: cannot be written: Read-only file system" in refused.stderr
    assert sidecar.explained() == [before.id]

    sidecar.sinks = [{"stdout": {}}]
    sidecar.begin()
    sidecar.sinks = [{"file": {"path": str(sidecar.audit_file), "mode": "blocking-strict"}}]
    sidecar.configure()
    sidecar.hang_up()
    sidecar.wait_until(lambda: "cannot be written: Read-only file system" in sidecar.log())
    assert sidecar.review().allowed
    assert sidecar.counted("dstack_admission_config_reload_total", result="failure") > 0
    ext4.remount("rw")
    sidecar.hang_up()
    sidecar.wait_until(lambda: sidecar.review().id in ids(sidecar.audit_file))


def test_a_disk_with_an_error_keeps_a_start_from_succeeding(ext4: Ext4, audited: Callable[..., Audited]) -> None:
    sidecar = audited(ext4.at / "audit.jsonl", mode="blocking")
    sidecar.configure()
    ext4.fail()
    refused = sidecar.command("serve", "--config", sidecar.configuration_file)
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr and str(sidecar.audit_file) in refused.stderr
