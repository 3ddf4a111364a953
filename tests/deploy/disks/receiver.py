"""Who receives the records of an HTTP sink as lines of JSON, in threads of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.processes import LOOPBACK


class Receiver(ThreadingHTTPServer):
    """Takes every record, unless it is told to take none for a while."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.received: list[str] = []
        self.takes = True

    def sink(self, **more: Any) -> dict[str, Any]:
        """An audit sink that sends here."""
        url = f"http://{LOOPBACK}:{self.server_address[1]}/"
        return {"http": {"name": "there", "url": url, "batchMaxSize": 20, "batchMaxWait": "20ms", **more}}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that answers until the block ends."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.takes:
            self.server.received += [json.loads(line)["auditID"] for line in body.splitlines()]
        self.send_response(204 if self.server.takes else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """What came is in `received`."""
