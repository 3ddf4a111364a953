"""A chain in which something of everything happens, and the traffic that makes it happen."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from harness.processes import LOOPBACK, free_port
from harness.services import Webhook
from harness.sidecar import Sidecar

REPOSITORY = Path(__file__).resolve().parents[3]
SPECS = REPOSITORY / "tests/specs/0.22.5"
PROJECTS = ("research", "vision", "speech", "demo", "sandbox")
# Applies only what is forbidden.
DENIED_PROJECT = "sandbox"
# The plugins of the chain, in its order.
PLUGINS = (
    *("max-price", "tags", "team-a", "team-b", "quota", "tagger", "ledger", "no-privileged", "closed"),
    *("gpu-cap", "cost-centre", "legacy"),
)
KINDS = ("run", "fleet", "volume", "gateway")
WORKERS = 6


def chain(webhook: Webhook, interpreter: Path) -> list[dict[str, Any]]:
    """Plugins that allow, patch, deny, monitor, fail open, fail and contradict each other."""
    nobody = f"http://{LOOPBACK}:{free_port()}/"
    tag = {"cel": {"mutations": [{"mergeMap": {"path": "/configuration/tags", "value": {"managed-by": "platform"}}}]}}
    return [
        {"name": "max-price", "use": "max-price", "with": {"limit": 2.0}, "match": {"projects": ["research"]}},
        {"name": "tags", **tag, "match": {"projects": ["vision"], "kinds": ["run"]}},
        {
            "fanOut": [
                {"name": "team-a", **merged("team", "a"), "match": {"projects": ["demo"], "kinds": ["volume"]}},
                {"name": "team-b", **merged("team", "b"), "match": {"projects": ["demo"], "kinds": ["volume"]}},
            ]
        },
        webhook.plugin("quota", "/allow", match={"kinds": ["run"]}),
        {
            "name": "tagger",
            "failurePolicy": "Ignore",
            "rest": {"url": nobody, "breaker": {"failures": 5, "openFor": "2s"}},
            "match": {"projects": ["speech"]},
        },
        {
            "name": "ledger",
            "webhook": {"url": nobody, "breaker": {"failures": 1000000}},
            "match": {"projects": ["demo"], "kinds": ["fleet"]},
        },
        {"name": "no-privileged", "use": "forbid-privileged"},
        {"name": "closed", **denying("project != 'sandbox'", "the sandbox is closed")},
        {"name": "gpu-cap", "mode": "monitor", **denying("effective.gpus.max <= 0", "no GPUs")},
        {"name": "cost-centre", "mode": "monitor", **merged("cost-centre", "none"), "match": {"kinds": ["run"]}},
        {
            "name": "legacy",
            "python": {"plugin": "documented", "interpreter": str(interpreter), "workers": 2},
            "match": {"kinds": ["run"], "projects": ["demo"]},
        },
    ]


def keys() -> dict[str, Any]:
    """The configuration around the chain."""
    match = {"projects": ["research"]}
    exempt = {"plugins": ["no-privileged"], "match": match, "reason": "trial", "expires": "2099-12-31"}
    return {"metrics": {"projects": len(PROJECTS)}, "exemptions": [exempt]}


def merged(key: str, value: str) -> dict[str, Any]:
    return {"cel": {"mutations": [{"mergeMap": {"path": "/configuration/tags", "value": {key: value}}}]}}


def denying(expression: str, message: str) -> dict[str, Any]:
    return {"cel": {"validations": [{"expression": expression, "message": message}]}}


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Request bodies that a real server sent, of every kind, with the kind of each."""
    found = []
    for path in sorted(SPECS.glob("*.json")):
        body = json.loads(path.read_text())
        configuration = body["spec"]["configuration"]
        kind = configuration["type"] if configuration["type"] in KINDS else "run"
        found.append((kind, body))
    assert {kind for kind, _ in found} == set(KINDS)
    return found


class Traffic:
    """Reviews one after the other, each from another user and with another name, until it is stopped."""

    def __init__(self, sidecar: Sidecar, rate: float = 60):
        self.sidecar = sidecar
        self.sent = 0
        self._pause = WORKERS / rate
        self._stopping = threading.Event()
        self._numbers = itertools.count()
        self._bodies = bodies()
        self._pool = ThreadPoolExecutor(WORKERS)
        self._running = [self._pool.submit(self._send) for _ in range(WORKERS)]

    def stop(self) -> None:
        self._stopping.set()
        for running in self._running:
            running.result(timeout=30)
        self._pool.shutdown()

    def _send(self) -> None:
        session = requests.Session()
        session.trust_env = False
        session.verify = self.sidecar.announced()["AWS_CA_BUNDLE"]
        while not self._stopping.is_set():
            number = next(self._numbers)
            # Fleets and volumes are few among the files, so every third review is of another kind.
            wanted = KINDS[number // 3 % 4] if number % 3 == 0 else "run"
            of_kind = [body for kind, body in self._bodies if kind == wanted]
            body = dict(of_kind[number % len(of_kind)])
            body |= {"user": f"user-{number}", "project": PROJECTS[number % len(PROJECTS)]}
            path = f"/apply_policies/on_{wanted}_apply"
            answer = session.post(f"https://localhost:{self.sidecar.port}{path}", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            self.sent += 1
            if number % 20 == 0:
                _disturb(self.sidecar, session)
            time.sleep(self._pause)


def _disturb(sidecar: Sidecar, session: requests.Session) -> None:
    """What is no review, and what is no TLS."""
    session.get(f"https://localhost:{sidecar.port}/nothing", timeout=10)
    with socket.create_connection((LOOPBACK, sidecar.port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while plain.recv(4096):
            pass
