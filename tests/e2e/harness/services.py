"""The plugins over the wire that a sidecar calls: an AdmissionReview webhook and a REST plugin server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import requests
import trustme

import environments
from harness.processes import LOOPBACK, Process, free_port, listens, minimal_environment

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
READY_WITHIN = 60


class Webhook(Process):
    """`plugins/webhook_server.py` over TLS."""

    def __init__(self, directory: Path, authority: trustme.CA):
        super().__init__("webhook", directory)
        self.port = free_port()
        self.authority = authority
        self.ca_file = directory / "ca.pem"

    def serve(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.authority.cert_pem.write_to_path(self.ca_file)
        certificate = self.authority.issue_cert("localhost", LOOPBACK)
        cert, key = self.directory / "cert.pem", self.directory / "key.pem"
        certificate.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        self.start(
            [sys.executable, PLUGINS / "webhook_server.py", "--port", str(self.port), "--cert", cert, "--key", key],
            minimal_environment(HOME=str(self.directory)),
            lambda: listens(self.port),
            READY_WITHIN,
        )

    def plugin(self, name: str, path: str, **common: Any) -> dict[str, Any]:
        """A chain item that calls this webhook at `path`."""
        return {
            "name": name,
            "webhook": {"url": f"https://localhost:{self.port}{path}", "caFile": str(self.ca_file)},
            **common,
        }

    def reviews(self) -> list[dict[str, Any]]:
        """Every AdmissionReview that came, oldest first."""
        return requests.get(f"https://localhost:{self.port}/reviews", verify=str(self.ca_file), timeout=5).json()


class RestPlugin(Process):
    """`plugins/rest_server.py` in the environment of one dstack version, on plain HTTP."""

    def __init__(self, directory: Path, version: str):
        super().__init__(f"rest-plugin-{version}", directory)
        self.version = version
        self.port = free_port()

    def serve(self) -> None:
        environments.ensure(f"dstack-{self.version}")
        self.start(
            [
                environments.program(f"dstack-{self.version}", "python"),
                PLUGINS / "rest_server.py",
                "--port",
                str(self.port),
            ],
            minimal_environment(HOME=str(self.directory), PYTHONDONTWRITEBYTECODE="1"),
            lambda: listens(self.port),
            READY_WITHIN,
        )

    def plugin(self, name: str, policy: str, **common: Any) -> dict[str, Any]:
        """A chain item that calls this server under one of its policies."""
        return {"name": name, "rest": {"url": f"http://{LOOPBACK}:{self.port}/{policy}"}, **common}
