"""The real dstack server and the sidecar in one pod: they share loopback, and reviews flow over it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import DEPLOY, DSTACK, HERE
from engine import Container, Docker, Podman, wait_until

from harness.dstack import Answer, spec
from harness.processes import LOOPBACK, free_port

ADMISSION = """\
apiVersion: dstack-admission/v1
kind: AdmissionConfiguration
plugins:
  - {name: cost, use: max-price, with: {limit: 4.0}}
  - {name: no-privileged, use: forbid-privileged}
"""


@dataclass
class Pod:
    """A running pod."""

    admission: Container
    dstack: Container
    url: str
    token: str

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthcheck", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def call(self, path: str, body: dict[str, Any]) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.post(f"{self.url}/api/project/main/{path}", json=body, headers=headers, timeout=60)
        return Answer(answer.status_code, answer.text)


@pytest.fixture(scope="module")
def pod(
    engine: Docker, podman: Podman, small: str, server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pod]:
    for image in (small, server):
        podman.take(engine, image)
    folder = tmp_path_factory.mktemp("pod")
    folder.chmod(0o755)
    for name in ("configuration", "state"):
        (folder / name).mkdir()
    (folder / "configuration/admission.yaml").write_text(ADMISSION)
    # As `fsGroup` does it in Kubernetes.
    os.chown(folder / "state", 65532, 65532)
    shutil.copy(DEPLOY / "compose/dstack/config.yml", folder)
    name, port, token = f"test-{uuid.uuid4().hex[:8]}", free_port(), uuid.uuid4().hex
    text = (HERE / "pod.yaml").read_text()
    for key, value in {"NAME": name, "FOLDER": folder, "DSTACK": DSTACK, "TOKEN": token, "PORT": port}.items():
        text = text.replace(f"@{key}@", str(value))
    manifest = folder / "pod.yaml"
    manifest.write_text(text)
    try:
        podman.command("play", "kube", manifest)
        containers = (Container(podman, f"{name}-{one}") for one in ("admission", "dstack"))
        running = Pod(*containers, url=f"http://{LOOPBACK}:{port}", token=token)
        wait_until(running.is_up, "the dstack server answers", 120, running.dstack.logs)
        yield running
    finally:
        podman.attempt("pod", "rm", "--force", "--time", "5", name)


def test_a_spec_is_patched_over_loopback(pod: Pod) -> None:
    fleet = {"type": "fleet", "name": "pool", "nodes": 1, "backends": ["aws"]}
    assert pod.call("fleets/get_plan", {"spec": spec(fleet)}).configuration["max_price"] == 4.0


def test_a_spec_is_denied_over_loopback(pod: Pod) -> None:
    task = {"type": "task", "name": "job", "image": "debian", "commands": ["id"], "privileged": True}
    answer = pod.call("runs/get_plan", {"run_spec": spec(task)})
    assert answer.status == 400
    assert "no-privileged: privileged containers" in answer.message


def test_the_kernel_holds_both_containers_to_their_hardening(pod: Pod) -> None:
    for container, user in ((pod.admission, "65532"), (pod.dstack, "0")):
        status = container.status()
        assert status["Uid"].split()[0] == user
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = [line.split() for line in Path(f"/proc/{pod.admission.pid}/mounts").read_text().splitlines()]
    assert [options.split(",")[0] for _, point, _, options, *_ in mounts if point == "/"] == ["ro"]


def test_both_containers_are_on_one_loopback(pod: Pod) -> None:
    # What a probe of Kubernetes runs; the image's own health check is Docker's.
    assert pod.admission.execute("/usr/bin/dstack-admission", "healthcheck").returncode == 0
    spaces = {os.readlink(f"/proc/{container.pid}/ns/net") for container in (pod.admission, pod.dstack)}
    assert len(spaces) == 1
    assert spaces != {os.readlink("/proc/self/ns/net")}
