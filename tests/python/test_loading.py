"""What a worker says first: that the plugin is there, or what an operator has to mend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import environments
from corpus import task
from worker import HOST, SECONDS, Worker

NewWorker = Callable[..., Worker]
EVERY_NAME = {
    "counting",
    "documented",
    "exits-at-import",
    "forks-at-import",
    "misbehaving",
    "no-class",
    "no-module",
    "no-plugin",
    "noisy-at-import",
    "raises-at-import",
    "raises-when-made",
    "timed",
}

REFUSALS = {
    "my_plugin": ("not-found", "{python} has no entry point `my_plugin` in the group dstack.plugins"),
    "no-module": (
        "import",
        "`module_that_is_nowhere:Plugin` cannot be loaded: "
        "ModuleNotFoundError: No module named 'module_that_is_nowhere'",
    ),
    "no-class": ("no-plugin", "`broken_plugin` has no class `Absent`"),
    "no-plugin": ("no-plugin", "`broken_plugin:NoPlugin` is no subclass of dstack.plugins.Plugin"),
    "raises-at-import": ("import", "`broken_plugin.raising:Anything` cannot be loaded: KeyError: 'LICENSE'"),
    "exits-at-import": (
        "import",
        "`broken_plugin.exiting:Anything` cannot be loaded: SystemExit: this machine has no licence",
    ),
    "raises-when-made": ("import", "`broken_plugin:RaisingPlugin` cannot be loaded: RuntimeError: no database"),
}


def test_a_worker_says_which_plugin_it_runs_and_with_what(
    version: str, python: Path, new_worker: NewWorker
) -> None:
    worker = new_worker("documented")
    ready = worker.first()["ready"]
    assert ready.pop("python") == subprocess.check_output([python, "-V"], text=True).split()[1]
    assert set(ready.pop("found")) == EVERY_NAME - {"documented"}
    assert ready == {
        "protocol": 1,
        "dstack": version,
        "plugin": {"name": "documented", "version": "1.2", "value": "documented_plugin:DocumentedPlugin"},
        "kinds": ["run", "fleet", "volume", "gateway"],
    }
    assert worker.close() == 0
    assert (worker.logs, worker.printed) == ([], "")


@pytest.mark.newest
@pytest.mark.parametrize("plugin", REFUSALS)
def test_a_plugin_that_cannot_be_loaded_is_refused_with_a_reason(
    plugin: str, python: Path, new_worker: NewWorker
) -> None:
    worker = new_worker(plugin)
    failed = worker.first()["failed"]
    reason, message = REFUSALS[plugin]
    assert (failed["reason"], failed["message"]) == (reason, message.format(python=python))
    assert set(failed["found"]) == EVERY_NAME - {plugin}
    assert (failed["detail"] is None) == (reason != "import")
    assert worker.receive() is None
    assert worker.ended() == 1
    assert worker.messages() == (["about to fail"] if plugin == "raises-at-import" else [])


@pytest.mark.newest
def test_an_interpreter_without_dstack_is_refused(tmp_path: Path) -> None:
    subprocess.run([environments.program("tests", "python"), "-m", "venv", "--without-pip", tmp_path], check=True)
    worker = Worker(tmp_path / "bin" / "python", "documented")
    failed = worker.first()["failed"]
    assert failed["reason"] == "dstack"
    assert failed["message"] == (
        f"{tmp_path}/bin/python cannot import dstack.plugins: ModuleNotFoundError: No module named 'dstack'"
    )
    assert worker.ended() == 1


@pytest.mark.newest
def test_what_is_printed_and_logged_at_import_does_not_touch_the_channel(new_worker: NewWorker) -> None:
    worker = new_worker("noisy-at-import")
    assert "ready" in worker.first()
    assert worker.messages()[0].endswith("UserWarning: this plugin is old\n  warnings.warn(\"this plugin is old\")\n")
    assert worker.messages()[1:] == ["imported", "made in _UnixSelectorEventLoop"]
    assert worker.close() == 0
    assert set(worker.printed.splitlines()) == {
        "printed at import",
        "printed by a child at import",
        "written to descriptor 1 at import",
    }


@pytest.mark.newest
def test_a_child_forked_at_import_is_no_second_worker(new_worker: NewWorker) -> None:
    worker = new_worker("forks-at-import")
    assert "ready" in worker.first()
    assert worker.call("run", task()) == {"result": "unchanged"}
    assert worker.close() == 0
    assert worker.receive() is None


@pytest.mark.newest
def test_dstack_is_imported_where_there_is_no_git(new_worker: NewWorker) -> None:
    assert "ready" in new_worker("documented", environment={"PATH": "/nowhere"}).first()


@pytest.mark.newest
@pytest.mark.parametrize(("as_text", "flags"), ((False, ("-s", "-B")), (False, ("-I",)), (True, ("-E", "-s"))))
def test_it_runs_as_a_file_and_as_text_and_imports_nothing_from_beside_it(
    as_text: bool, flags: tuple[str, ...], python: Path, new_worker: NewWorker, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    host = tmp_path / "host.py"
    host.write_text(HOST.read_text())
    program = ("-c", HOST.read_text()) if as_text else (host,)
    worker = new_worker("documented", command=[python, *flags, *program, "documented"], cwd=tmp_path)
    assert "ready" in worker.first()
    assert worker.close() == 0


@pytest.mark.newest
def test_a_worker_that_nobody_listens_to_ends(new_worker: NewWorker) -> None:
    worker = new_worker("documented")
    assert worker.process.stdout is not None
    worker.process.stdout.close()
    assert worker.process.wait(SECONDS) == 0
