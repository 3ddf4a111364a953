"""Debian's logrotate beside the sidecar, in the forms that people write."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from disks import program
from reviews import CALLERS, Audited, ids, same

import environments

ROTATIONS = 3
# Debian's /etc/logrotate.conf, which holds for every file of /etc/logrotate.d.
GLOBAL = "weekly\nrotate 40\ncreate\n"

PAGE = environments.REPOSITORY / "docs/audit-sinks.md"

FORMS = {
    "as the page says": re.search(r"^/var/log/.*? {\n(.*?)\n}$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1],
    "compress at once": "compress\nnocreate",
    "create": "compress\ndelaycompress\ncreate 0600 root root",
    "dateext": "dateext\ncompress\ndelaycompress\nnocreate",
    "dateext in seconds": "dateext\ndateformat -%Y%m%d-%s\ncompress\nnocreate",
    "date in words": "dateext\ndateformat .%Y-%m-%d-%H:%M\nnocreate",
    "extension": "extension .jsonl\ncompress\nnocreate",
    "postrotate": "nocreate\nsharedscripts\npostrotate\nkill -HUP {pid}\nendscript",
}


class Logrotate:
    """One configuration of logrotate for one audit file. Each turn is a day later than the one before."""

    def __init__(self, directory: Path, log: Path, form: str):
        self.state = directory / "logrotate.state"
        self.file = directory / "logrotate.conf"
        self.file.write_text(f"{GLOBAL}{log} {{\n{form}\n}}\n")
        self.file.chmod(0o644)
        self.days = 0

    def turn(self) -> None:
        self.days += 1
        later = [program("faketime"), "-f", f"+{self.days}d"]
        words = [*later, program("logrotate"), "--force", "--state", str(self.state), str(self.file)]
        finished = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        assert finished.returncode == 0 or "already exists, renaming" in finished.stdout, finished.stdout


@pytest.mark.parametrize("form", FORMS)
def test_each_decision_is_in_one_file_and_explained(form: str, tmp_path: Path, audited: Callable[..., Audited]) -> None:
    log = tmp_path / "log" / "audit.jsonl"
    log.parent.mkdir(mode=0o755)
    sidecar = audited(log, mode="blocking-strict", maxSize="0")
    sidecar.begin()
    logrotate = Logrotate(tmp_path, log, FORMS[form].format(pid=sidecar.pid))
    with sidecar.load() as load:
        for _ in range(ROTATIONS):
            load.more(40)
            logrotate.turn()
        load.more(40)
    assert not load.denied()
    files = [*log.parent.iterdir()]
    assert len(files) > ROTATIONS
    found = ids(*files)
    if "compress" in FORMS[form].split() and "delaycompress" not in FORMS[form].split():
        # A record that is on its way while its file is compressed and deleted is written again.
        assert len(found) - len(set(found)) <= ROTATIONS * CALLERS
        found = [*set(found)]
    same(found, load.allowed())
    assert sorted(sidecar.explained("--show", "60000")) == sorted(load.allowed())
    for file in files:
        assert sidecar.explained(ids(file)[-1]) == [ids(file)[-1]]


def test_copytruncate_tears_no_line(tmp_path: Path, audited: Callable[..., Audited]) -> None:
    log = tmp_path / "log" / "audit.jsonl"
    log.parent.mkdir(mode=0o755)
    sidecar = audited(log, mode="blocking-strict", maxSize="0")
    sidecar.begin()
    logrotate = Logrotate(tmp_path, log, "copytruncate\ncompress")
    answered = []
    for _ in range(ROTATIONS):
        answered += [sidecar.review().id for _ in range(5)]
        logrotate.turn()
    answered.append(sidecar.review().id)
    # Between two records it loses none.
    same(ids(*log.parent.iterdir()), answered)
    with sidecar.load() as load:
        for _ in range(ROTATIONS):
            load.more(40)
            logrotate.turn()
        load.more(40)
    found = ids(*log.parent.iterdir())
    answered += load.allowed()
    assert len(set(found)) == len(found) and set(found) <= set(answered)
    assert sorted(sidecar.explained("--show", "60000")) == sorted(found)
