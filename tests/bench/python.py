#!/usr/bin/env python3
"""Measures what a Python plugin costs behind the sidecar: latency over calling it in process, reviews a second by
workers, time to start, and the sidecar's own memory while the plugin leaks.

    python3 tests/bench/python.py [--quick] [--binary PATH]

The plugins and their environments are those of `tests/python`, on dstack 0.22.5. Everything stays on loopback, over plain
HTTP, as TLS costs the same whatever the plugin is. README.md says what each figure means.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "python")]

import plugin_environments  # noqa: E402

VERSION = "0.22.5"
BODY = (HERE / "body.json").read_bytes()
PATH = "/apply_policies/on_run_apply"
# A rule that says nothing, for what a review costs without Python.
NOTHING = {"name": "nothing", "cel": {"validations": [{"expression": "true", "message": "never"}]}}
IN_PROCESS = """
import json, sys, time
from statistics import median
from dstack.plugins import RunSpec
from documented_plugin import DocumentedPlugin

body = json.load(open(sys.argv[1]))
took = []
for _ in range(int(sys.argv[2])):
    spec = RunSpec.model_validate(json.loads(json.dumps(body["spec"])))
    began = time.perf_counter()
    for policy in DocumentedPlugin().get_apply_policies():
        spec = policy.on_apply(user=body["user"], project=body["project"], spec=spec)
    took.append(time.perf_counter() - began)
print(median(took))
"""


def plugin(name: str = "documented", **keys: Any) -> dict[str, Any]:
    """A chain item with a plugin of the tests."""
    python = {"plugin": name, "interpreter": str(plugin_environments.interpreter(VERSION)), **keys}
    return {"name": "house", "timeout": "10s", "python": python}


class Sidecar:
    """A running sidecar."""

    def __init__(self, binary: Path, directory: Path, plugins: list[dict[str, Any]]):
        self.port, self.admin = free_port(), free_port()
        self.configuration = directory / "admission.yaml"
        configuration = {
            "apiVersion": "dstack-admission/v1",
            "kind": "AdmissionConfiguration",
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{self.admin}",
            "stateDir": str(directory / "state"),
            "tls": "off",
            "audit": {"sinks": [{"file": {"path": str(directory / "audit.jsonl")}}]},
            "plugins": plugins,
        }
        self.configuration.write_text(json.dumps(configuration))
        self._log = (directory / "log").open("w")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "serve", "--config", self.configuration], stdout=self._log, stderr=self._log
        )
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > began + 60:
                sys.exit(f"the sidecar did not start:\n{(directory / 'log').read_text()}")
            time.sleep(0.005)
        self.started_after = time.monotonic() - began

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def resident(self) -> float:
        """Resident memory of the sidecar itself, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6

    def of_workers(self) -> float:
        """What its metrics say of the workers' resident memory, in MB."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        name = "dstack_admission_python_worker_resident_memory_bytes{"
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)) / 1e6

    def reviews(self, count: int, body: bytes = BODY) -> list[float]:
        """Sends reviews one after the other over one connection; the seconds that each took."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        took = []
        for _ in range(count):
            began = time.perf_counter()
            connection.request("POST", PATH, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            took.append(time.perf_counter() - began)
            if answer.status != 200 or json.loads(text)["error"] is not None:
                sys.exit(f"a review was not answered: {answer.status} {text.decode()}")
        connection.close()
        return took

    def per_second(self, count: int, connections: int = 4) -> float:
        """Reviews answered in a second when so many clients ask at once."""
        threads = [threading.Thread(target=self.reviews, args=(count // connections,)) for _ in range(connections)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count / (time.perf_counter() - began)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@contextmanager
def serving(binary: Path, plugins: list[dict[str, Any]]) -> Iterator[Sidecar]:
    with tempfile.TemporaryDirectory() as directory:
        sidecar = Sidecar(binary, Path(directory), plugins)
        try:
            yield sidecar
        finally:
            sidecar.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def show(name: str, value: float, unit: str, bound: float | None = None) -> None:
    verdict = "" if bound is None else f"   <= {bound:g} {unit}  {'ok' if value <= bound else 'OVER'}"
    print(f"{name:<64} {value:8.2f} {unit}{verdict}", flush=True)


def latency(binary: Path, count: int, rounds: int) -> None:
    """What the plugin adds to a review, less what it takes where it is called directly. Round by round, so that
    what else runs on the machine hits both alike."""
    python = plugin_environments.interpreter(VERSION)
    called, without, with_plugin = [], [], []
    with serving(binary, [NOTHING]) as bare, serving(binary, [plugin()]) as ours:
        for sidecar in (bare, ours):
            sidecar.reviews(50)
        for _ in range(rounds):
            asked = subprocess.run(
                [python, "-c", IN_PROCESS, HERE / "body.json", str(count)], capture_output=True, text=True, check=True
            )
            called.append(float(asked.stdout))
            without.append(median(bare.reviews(count)))
            with_plugin.append(median(ours.reviews(count)))
    added = [ours - bare - own for ours, bare, own in zip(with_plugin, without, called)]
    show("the policy, called in process", median(called) * 1e3, "ms")
    show("a review without the plugin", median(without) * 1e3, "ms")
    show("a review with the plugin", median(with_plugin) * 1e3, "ms")
    show("added by running it in a worker", median(added) * 1e3, "ms", bound=1)


def throughput(binary: Path, count: int, rounds: int) -> None:
    """In turn, so that what else runs on the machine hits both alike."""
    with serving(binary, [plugin(workers=1)]) as one, serving(binary, [plugin(workers=2)]) as two:
        for sidecar in (one, two):
            sidecar.per_second(200)
        found = [(one.per_second(count), two.per_second(count)) for _ in range(rounds)]
    show("reviews a second, 1 worker, 4 clients", median(first for first, _ in found), "/s")
    show("reviews a second, 2 workers, 4 clients", median(second for _, second in found), "/s")
    show("2 workers / 1 worker", median(second / first for first, second in found), "")


def start(binary: Path, rounds: int) -> None:
    for workers in (0, 1, 2, 4):
        took = []
        for _ in range(rounds):
            with serving(binary, [plugin(workers=workers) if workers else NOTHING]) as sidecar:
                took.append(sidecar.started_after)
        show(f"from start to ready, {workers} worker(s)", median(took), "s")


def memory(binary: Path, count: int) -> None:
    """The plugin keeps 8 MiB of each review."""
    review = json.loads(BODY)
    review["spec"]["configuration"]["tags"] = {"misbehave": "leaks"}
    body = json.dumps(review).encode()
    with serving(binary, [plugin("misbehaving", memoryLimit="1GiB")]) as sidecar:
        sidecar.reviews(20)
        before = sidecar.resident()
        sidecar.reviews(count, body)
        time.sleep(1.2)  # The sidecar looks at its workers' memory every second.
        show(f"the plugin's worker after {count} reviews that leak", sidecar.of_workers(), "MB")
        show("the sidecar before", before, "MB")
        show("the sidecar after", sidecar.resident(), "MB")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure Python plugins.")
    parser.add_argument("--quick", action="store_true", help="less of everything, to see that each figure comes out")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "dstack-admission")
    arguments = parser.parse_args()
    if not arguments.binary.is_file():
        print(f"{arguments.binary} is missing: run `cargo build --release`", file=sys.stderr)
        return 1
    quick, binary = arguments.quick, arguments.binary.resolve()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; dstack {VERSION}")
    latency(binary, *((100, 2) if quick else (1000, 7)))
    throughput(binary, *((200, 2) if quick else (1000, 7)))
    start(binary, 1 if quick else 3)
    memory(binary, 10 if quick else 60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
