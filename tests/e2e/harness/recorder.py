"""A plugin service that keeps every review it is asked for, as it came, and refuses all of them.

A refusal keeps the server from doing anything after its review, so that the same configuration can be
submitted again under the same name, and nothing outside the machine is ever asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.processes import LOOPBACK

REFUSAL = "recorded"


class Recorder(ThreadingHTTPServer):
    """Speaks dstack's REST plugin protocol on plain HTTP, in threads of this process."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.uri = f"http://{LOOPBACK}:{self.server_address[1]}"
        self._bodies: list[Any] = []

    def plugin(self, name: str = "recorder") -> dict[str, Any]:
        """A chain item that lets a sidecar ask this recorder."""
        return {"name": name, "rest": {"url": self.uri}}

    def take(self) -> list[Any]:
        """The bodies that came since the last call, oldest first."""
        taken, self._bodies = self._bodies, []
        return taken

    def keep(self, body: Any) -> None:
        self._bodies.append(body)


@contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder that answers until the block ends."""
    recorder = Recorder()
    thread = threading.Thread(target=recorder.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.shutdown()
        recorder.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"
    # The status line and the body leave together, so no answer waits for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keep(body)
        answer = json.dumps({"spec": body["spec"], "error": REFUSAL}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:
        """One line a request is noise here: `take` tells what came."""
