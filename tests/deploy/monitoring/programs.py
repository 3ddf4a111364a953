"""Prometheus and Alertmanager as Debian packages them, and who receives their alerts, on loopback."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from harness.processes import LOOPBACK, Process, free_port, minimal_environment

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "chromium": "chromium",
}
READY_WITHIN = 60


def program(name: str) -> str:
    """The path of an executable. A missing one ends the run and says how it is installed."""
    found = shutil.which(name)
    if found is None:
        line = f"apt-get install -y --no-install-recommends {PACKAGES[name]}"
        pytest.exit(f"{name} is missing: {line}", returncode=2)
    return found


class Prometheus(Process):
    """A Prometheus that scrapes every second."""

    def __init__(self, directory: Path):
        super().__init__("prometheus", directory)
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"

    def serve(self, jobs: Mapping[str, int], rules: Sequence[Path] = (), alertmanager: int | None = None) -> None:
        """Scrapes the ports under the names of their jobs."""
        configuration: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}]} for job, port in jobs.items()
            ],
        }
        if alertmanager is not None:
            targets = {"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager}"]}]}
            configuration["alerting"] = {"alertmanagers": [targets]}
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration))
        self.start(
            [
                program("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
                "--log.level=warn",
            ],
            minimal_environment(HOME=str(self.directory)),
            lambda: _answers(f"{self.url}/-/ready"),
            READY_WITHIN,
        )

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The instant vector of an expression; an error of Prometheus fails the test with its words."""
        return self._asked("query", {"query": expression, **({"time": at} if at else {})})

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The matrix of an expression."""
        return self._asked("query_range", {"query": expression, "start": start, "end": end, "step": step})

    def value(self, expression: str) -> float:
        """The one value of an expression; NaN where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else math.nan

    def _asked(self, how: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/{how}", params=dict(parameters), timeout=10).json()
        assert answer["status"] == "success", f"{parameters['query']}\n{answer.get('error')}"
        return answer["data"]["result"]


class Alertmanager(Process):
    """An Alertmanager that passes every alert on to one webhook at once."""

    def __init__(self, directory: Path):
        super().__init__("alertmanager", directory)
        self.port = free_port()

    def serve(self, receiver: str) -> None:
        at_once = {"group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
        webhook = {"url": receiver, "send_resolved": True}
        configuration = {
            "route": {"receiver": "test", **at_once},
            "receivers": [{"name": "test", "webhook_configs": [webhook]}],
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "alertmanager.yml"
        file.write_text(yaml.safe_dump(configuration))
        self.start(
            [
                program("prometheus-alertmanager"),
                f"--config.file={file}",
                f"--storage.path={self.directory / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            minimal_environment(HOME=str(self.directory)),
            lambda: _answers(f"http://{LOOPBACK}:{self.port}/-/ready"),
            READY_WITHIN,
        )


class Receiver:
    """Takes what Alertmanager sends: the alerts, oldest first."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.alerts.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nobody reads this log."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def got(self, name: str, status: str) -> dict[str, Any] | None:
        """An alert of this name that is `firing` or `resolved`, if one came."""
        alerts = (alert for alert in self.alerts if alert["labels"]["alertname"] == name)
        return next((alert for alert in alerts if alert["status"] == status), None)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def eventually(
    what: str, reached: Callable[[], bool], seconds: float = 60, naming: Callable[[], object] = lambda: None
) -> None:
    """Returns once a state is reached; fails saying which was not, and with what `naming` then gives."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}; {naming()}"
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
