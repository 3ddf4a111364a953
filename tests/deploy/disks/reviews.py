"""A sidecar that is asked for reviews, and what is found of them in its audit files."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

import environments
from harness import chains
from harness.processes import minimal_environment
from harness.sidecar import Sidecar

BODY = json.loads((environments.REPOSITORY / "tests/specs/0.22.5/commands-setup-in-task.json").read_text())
CALLERS = 8


@dataclass(frozen=True)
class Answer:
    """What the caller of a review got."""

    id: str
    error: str | None
    # Seconds.
    took: float

    @property
    def allowed(self) -> bool:
        return self.error is None


class Audited(Sidecar):
    """A sidecar whose audit goes to one file. Other sinks can be given in its place."""

    def __init__(self, binary: Path, directory: Path, audit_file: Path, sink: Mapping[str, object]):
        super().__init__(binary, directory)
        self.audit_file = audit_file
        self.sinks: list[dict[str, Any]] = [{"file": {"path": str(audit_file), **sink}}]
        self.environment: dict[str, str] = {}
        # Whether the clients of `review` and `load` look at its certificate.
        self.verified = True

    def begin(self) -> None:
        """Serves, with the audit files that are there."""
        self.configure()
        command = [self.binary, "serve", "--config", self.configuration_file]
        self.start(command, minimal_environment(HOME=str(self.directory)), self.is_ready, 20)

    def configure(self) -> None:
        """Writes the configuration."""
        self.directory.mkdir(parents=True, exist_ok=True)
        plugins = [chains.label(match={"users": ["user-1*"]}), chains.allow("known") | {"match": {"users": ["admin"]}}]
        self.write(plugins, audit={"level": "Spec", "sinks": self.sinks})

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str], ready: Callable[[], bool], seconds: float
    ) -> None:
        super().start(command, {**environment, **self.environment}, ready, seconds)

    def end(self) -> None:
        """Ends it, also when a disk holds it."""
        self.stop(5)

    def kill(self) -> None:
        """Ends it at once, as the kernel does that needs memory."""
        self.signal(signal.SIGKILL)
        self.stop()

    def log(self) -> str:
        """All that it has logged since its last start."""
        return self.stderr.read_text(errors="replace")

    def session(self) -> requests.Session:
        """A client, which trusts it and public authorities."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self.announced()["AWS_CA_BUNDLE"] if self.verified else False
        return session

    def review(self, session: requests.Session | None = None, user: str = "alice") -> Answer:
        """Asks for one review."""
        url = f"https://localhost:{self.port}/apply_policies/on_run_apply"
        began = time.monotonic()
        got = (session or self.session()).post(url, json=BODY | {"user": user}, timeout=20)
        assert got.status_code == 200, got.text
        answer = got.json()
        return Answer(answer["decision"], answer["error"], time.monotonic() - began)

    @contextmanager
    def load(self, callers: int = CALLERS) -> Iterator[Load]:
        """Asks for reviews, several at once, until the block ends."""
        load = Load(self, callers)
        try:
            yield load
        finally:
            load.stop()

    def lost(self) -> float:
        """The audit events that its file did not take, as it counts them."""
        return self.lost_to(str(self.audit_file))

    def lost_to(self, sink: str) -> float:
        return self.counted("dstack_admission_audit_dropped_total", sink=sink, reason="write")

    def rejected(self) -> float:
        return self.counted("dstack_admission_audit_requests_rejected_total")

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs another command of the program."""
        words = [str(self.binary), *map(str, arguments)]
        environment = minimal_environment(HOME=str(self.directory), **self.environment)
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)

    def explained(self, *arguments: str) -> list[str]:
        """The ids that `explain` finds with its own configuration."""
        found = self.command("explain", "--config", self.configuration_file, "-o", "json", *arguments)
        assert found.returncode == 0, found.stderr
        return [decision["auditID"] for decision in json.loads(found.stdout)["decisions"]]


class Load:
    """Callers that ask again as soon as they are answered."""

    def __init__(self, sidecar: Audited, callers: int):
        self.sidecar = sidecar
        self.answers: list[Answer] = []
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._running = [self._pool.submit(self._ask, number) for number in range(callers)]

    def wait_for(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Returns once something came of it; fails at once where a caller did."""
        deadline = time.monotonic() + seconds
        while not what():
            for running in self._running:
                if running.done():
                    running.result()
                    assert not running.done(), "a caller has ended"
            assert time.monotonic() < deadline, f"it did not come true within {seconds} s"
            time.sleep(0.01)

    def more(self, count: int, seconds: float = 60) -> None:
        """Returns after so many further answers."""
        until = len(self.answers) + count
        self.wait_for(lambda: len(self.answers) >= until, seconds)

    def allowed(self) -> list[str]:
        return [answer.id for answer in list(self.answers) if answer.allowed]

    def denied(self) -> list[Answer]:
        return [answer for answer in list(self.answers) if not answer.allowed]

    def stop(self) -> None:
        self._stopping.set()
        for running in self._running:
            running.result(timeout=30)
        self._pool.shutdown()

    def _ask(self, number: int) -> None:
        session = self.sidecar.session()
        asked = 0
        while not self._stopping.is_set():
            asked += 1
            try:
                self.answers.append(self.sidecar.review(session, f"user-{number}-{asked}"))
            except requests.ConnectionError:
                # Whoever got no answer knows of no decision; a sidecar that was killed comes back.
                if self._stopping.wait(0.02):
                    return


def events(*files: Path) -> list[dict[str, Any]]:
    """The events of files, plain or compressed. Every line has to be whole."""
    found = []
    for file in files:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert text.endswith(b"\n") or not text, f"{file} ends within a line: {text[-80:]!r}"
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise AssertionError(f"{file}:{number} is torn: {line[:200]!r}") from error
    return found


def ids(*files: Path) -> list[str]:
    """The ids of the decisions in files."""
    return [event["auditID"] for event in events(*files)]


def same(recorded: Iterable[str], answered: Iterable[str]) -> None:
    """Fails unless each answered id is recorded once, and nothing else is."""
    recorded, answered = Counter(recorded), Counter(answered)
    missing, more = [*(answered - recorded)], [*(recorded - answered)]
    assert not missing and not more, f"{len(missing)} not recorded: {missing[:3]}; {len(more)} too many: {more[:3]}"
