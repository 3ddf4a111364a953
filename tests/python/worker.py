"""A worker process, driven over its pipes as the sidecar drives it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import environments

HOST = environments.REPOSITORY / "src" / "plugins" / "python" / "host.py"
SECONDS = 30.0


class Worker:
    """One process that runs `host.py`. What it logs and what it prints to stderr is kept."""

    def __init__(self, python: Path, plugin: str, environment: dict[str, str] | None = None, **options: Any):
        self.logs: list[dict[str, Any]] = []
        self.printed = ""
        self._received = b""
        self._ids = iter(range(1, 1 << 30))
        self.process = subprocess.Popen(
            options.pop("command", [python, "-I", "-B", HOST, plugin]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment or {},
            process_group=0,
            **options,
        )
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    def first(self) -> dict[str, Any]:
        """The first frame: ready, or failed."""
        frame = self.receive()
        assert frame is not None, f"the worker ended with {self.ended()}: {self.printed}"
        return frame

    def call(self, kind: str, spec: Any, call: str = "apply", user: str = "alice", project: str = "main") -> dict:
        """Sends one request and returns its answer."""
        number = next(self._ids)
        self.send({"id": number, "call": call, "kind": kind, "user": user, "project": project, "spec": spec})
        frame = self.receive()
        assert frame is not None, f"the worker ended with {self.ended()}: {self.printed}"
        assert frame.pop("id") == number
        return frame

    def send(self, request: dict[str, Any]) -> None:
        self.send_bytes(json.dumps(request).encode())

    def send_bytes(self, body: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(len(body).to_bytes(4, "big") + body)
        self.process.stdin.flush()

    def receive(self, seconds: float = SECONDS) -> dict[str, Any] | None:
        """The next frame that is no log record; nothing at the end of the channel."""
        deadline = time.monotonic() + seconds
        while True:
            head = self._exactly(4, deadline)
            if head is None:
                return None
            body = self._exactly(int.from_bytes(head, "big"), deadline)
            assert body is not None, "the channel ended within a frame"
            frame = json.loads(body.decode())
            if set(frame) != {"log"}:
                return frame
            self.logs.append(frame["log"])

    def messages(self) -> list[str]:
        return [log["message"] for log in self.logs]

    def close(self) -> int:
        """Ends the channel and waits for the process to end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(SECONDS)
        # A child that holds stderr keeps this thread waiting.
        self._reader.join(0.2)
        return code

    def kill(self) -> None:
        """Ends the process and every child that stayed in its group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(SECONDS)

    def _exactly(self, length: int, deadline: float) -> bytes | None:
        assert self.process.stdout is not None
        while len(self._received) < length:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            assert ready, f"no answer in time; stderr: {self.printed}"
            received = os.read(self.process.stdout.fileno(), 1 << 20)
            if not received:
                assert not self._received, f"the channel ended within a frame: {self._received[:80]!r}"
                return None
            self._received += received
        body, self._received = self._received[:length], self._received[length:]
        return body

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        while received := os.read(self.process.stderr.fileno(), 1 << 16):
            self.printed += received.decode(errors="replace")
