"""`dstack-admission serve` as a process: its configuration file, the lines it announces, its records."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml

from harness.processes import LOOPBACK, Process, free_port, minimal_environment

ANNOUNCED = ("DSTACK_PLUGIN_SERVICE_URI", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
READY_WITHIN = 60


class Sidecar(Process):
    """The sidecar under test. Its port and its state directory stay the same over restarts, because a
    dstack server reads where its plugin service is, and whom to trust, once."""

    def __init__(self, binary: Path, directory: Path):
        super().__init__("dstack-admission", directory)
        self.binary = binary
        self.port = free_port()
        self.admin = free_port()
        self.configuration_file = directory / "config" / "admission.yaml"
        self.state = directory / "state"
        self.audit_file = directory / "audit" / "audit.jsonl"

    def configuration(self, plugins: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """A whole configuration around a chain; `more` adds or replaces top-level keys."""
        return {
            "apiVersion": "dstack-admission/v1",
            "kind": "AdmissionConfiguration",
            "listen": f"{LOOPBACK}:{self.port}",
            "admin": f"{LOOPBACK}:{self.admin}",
            "stateDir": str(self.state),
            "audit": {"level": "Patch", "sinks": [self.sink()]},
            "plugins": list(plugins),
            **more,
        }

    def sink(self) -> dict[str, Any]:
        """The audit file, written before an answer leaves, so that a test may read it after one."""
        return {"file": {"path": str(self.audit_file), "mode": "blocking"}}

    def write(self, plugins: Sequence[Mapping[str, Any]], **more: Any) -> None:
        """Writes the configuration file without telling the process."""
        self.configuration_file.parent.mkdir(parents=True, exist_ok=True)
        self.configuration_file.write_text(yaml.safe_dump(self.configuration(plugins, **more), sort_keys=False))

    def serve(self, plugins: Sequence[Mapping[str, Any]], **more: Any) -> None:
        """Serves a chain with a new audit file, in place of whatever it served before."""
        self.stop()
        self.audit_file.unlink(missing_ok=True)
        self.audit_file.parent.mkdir(parents=True, exist_ok=True)
        self.write(plugins, **more)
        self.start(
            [self.binary, "serve", "--config", self.configuration_file],
            minimal_environment(HOME=str(self.directory)),
            self.is_ready,
            READY_WITHIN,
        )

    def hang_up(self) -> None:
        """Asks for a reload, as an operator does."""
        self.signal(signal.SIGHUP)

    def is_ready(self) -> bool:
        try:
            return requests.get(f"http://{LOOPBACK}:{self.admin}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def announced(self) -> dict[str, str]:
        """The lines that a person has to set on the dstack server, from the sidecar's own stdout."""
        pairs = (line.split("=", 1) for line in self.printed().splitlines() if "=" in line)
        found = {name.strip(): value.strip() for name, value in pairs if name.strip() in ANNOUNCED}
        missing = [name for name in ANNOUNCED if name not in found]
        if missing:
            raise AssertionError(f"start-up did not print {', '.join(missing)}:\n{self.tail()}")
        return found

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Returns once the condition holds; fails with the end of the log when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come true within {seconds} s:\n{self.tail()}")
            time.sleep(0.05)

    def metrics(self) -> str:
        answer = requests.get(f"http://{LOOPBACK}:{self.admin}/metrics", timeout=5)
        answer.raise_for_status()
        return answer.text

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 where there is none."""
        total = 0.0
        for line in self.metrics().splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{label}="{text}"' in head for label, text in labels.items()):
                total += float(value)
        return total

    def audit(self) -> list[dict[str, Any]]:
        """Every audit line since this chain is served."""
        if not self.audit_file.exists():
            return []
        return [json.loads(line) for line in self.audit_file.read_text().splitlines() if line.strip()]
