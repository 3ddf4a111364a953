"""A process that a test starts, waits for and ends.

A process is ended by its own id, never by a name, and everything it printed stays in files until the
run is over, so that a failing test can show it.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
_KEEPERS: list[socket.socket] = []


class DidNotStart(Exception):
    """A process ended, or was not ready in time; the text carries the end of what it printed."""


class Process:
    """One running process with its two output files."""

    def __init__(self, name: str, directory: Path):
        self.name = name
        self.directory = directory
        self.stdout = directory / f"{name}.stdout.log"
        self.stderr = directory / f"{name}.stderr.log"
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._running is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._running.pid

    def is_running(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str], ready: Callable[[], bool], seconds: float
    ) -> None:
        """Starts `command` with exactly `environment` and returns once `ready()` holds."""
        if self.is_running():
            raise RuntimeError(f"{self.name} is running already")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self._running = subprocess.Popen(
                [str(part) for part in command],
                env=dict(environment),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        deadline = time.monotonic() + seconds
        while not ready():
            code = self._running.poll()
            if code is not None:
                raise DidNotStart(f"{self.name} ended with {code} before it was ready:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise DidNotStart(f"{self.name} was not ready after {seconds} s:\n{self.tail()}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, seconds: float = 15) -> int | None:
        """Asks the process to end, then makes it; answers its exit code."""
        if self._running is None:
            return None
        self._running.terminate()
        try:
            self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        code = self._running.returncode
        self._running = None
        return code

    def printed(self) -> str:
        """All that the process printed to stdout since its last start."""
        return self.stdout.read_text(errors="replace") if self.stdout.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """The last lines of both outputs, for a person who reads a failure."""
        parts = []
        for file in (self.stdout, self.stderr):
            if file.exists() and (text := file.read_text(errors="replace").strip()):
                parts.append(f"--- {file.name}\n" + "\n".join(text.splitlines()[-lines:]))
        return "\n".join(parts) or f"{self.name} printed nothing"


def minimal_environment(**more: str) -> dict[str, str]:
    """What every process gets: no proxy, no credential and no setting of the caller's shell."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        **more,
    }


def free_port() -> int:
    """A port of loopback that stays free for the one process it is for until the run ends, over restarts too.

    A bound socket that never listens keeps it: the system then gives the port to no outgoing call, the next
    `free_port` passes it by, and a server that sets `SO_REUSEADDR`, as all of these do, listens beside it.
    """
    while True:
        keeper = socket.socket()
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                keeper.close()
                continue
        keeper.bind((LOOPBACK, port))
        _KEEPERS.append(keeper)
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
