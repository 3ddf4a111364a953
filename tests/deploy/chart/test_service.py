"""The pod beside no server at work, without a kubelet: dstack-admission with its given certificate, and the pod of
`helm test`, which calls it as a dstack server elsewhere would."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from conftest import values_of
from harness.processes import LOOPBACK, minimal_environment
from harness.sidecar import Sidecar
from rendering import Chart
from test_configuration import below
from test_rendering import configuration_of, containers_of, environment_of, pod_of, the

HOST = "dstack-dstack-admission.dstack.svc:8443"
ADMIN = f"{LOOPBACK}:9443"


class Service:
    """One pod of the release, and the Secrets of its values below `root`."""

    def __init__(self, chart: Chart, binary: Path, root: Path, authority: trustme.CA) -> None:
        self.root = root
        self.documents = chart.render(values_of("standalone"))
        self.sidecar = Sidecar(binary, root / "sidecar")
        leaf = authority.issue_cert("localhost")
        self.put("/etc/dstack-admission/tls/tls.crt", b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.put("/etc/dstack-admission/tls/tls.key", leaf.private_key_pem.bytes())
        self.put("/etc/dstack-admission/tls/ca.crt", authority.cert_pem.bytes())
        self.put("/etc/dstack-admission/auth/password", b"secret")
        self.put("/run/dstack/netrc", b"machine localhost login dstack password secret\n")
        self.path("/var/lib/dstack-admission").mkdir(parents=True)

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    def put(self, inside: str, content: bytes) -> None:
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        self.path(inside).write_bytes(content)
        self.path(inside).chmod(0o600)

    def moved(self, text: str) -> str:
        text = str(self.path(text)) if text.startswith("/") else text
        text = text.replace(ADMIN, f"{LOOPBACK}:{self.sidecar.admin}")
        return text.replace(HOST, f"localhost:{self.sidecar.port}")

    def start(self) -> None:
        configuration = below(configuration_of(self.documents), self.root)
        configuration |= {"listen": f"{LOOPBACK}:{self.sidecar.port}", "admin": f"{LOOPBACK}:{self.sidecar.admin}"}
        (arguments,) = (one["args"] for one in containers_of(pod_of(self.documents)).values())
        self.put(arguments[-1], yaml.safe_dump(configuration).encode())
        command = [self.sidecar.binary, *(self.moved(argument) for argument in arguments)]
        self.sidecar.start(command, minimal_environment(HOME=str(self.root)), self.sidecar.is_ready, 60)

    def probe(self, name: str) -> int:
        """The exit code of what the kubelet would run in the container."""
        (container,) = containers_of(pod_of(self.documents)).values()
        _, *arguments = container[name]["exec"]["command"]
        return self.run(arguments).returncode

    def helm_test(self) -> subprocess.CompletedProcess[str]:
        spec = the(self.documents, "Pod")["spec"]
        for container in spec["initContainers"]:
            assert self.run(container["args"]).returncode == 0
        (doctor,) = spec["containers"]
        return self.run(doctor["args"], **{name: self.moved(value) for name, value in environment_of(doctor).items()})

    def run(self, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        command = [self.sidecar.binary, *(self.moved(argument) for argument in arguments)]
        environment = minimal_environment(HOME=str(self.root), **environment)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def service(chart: Chart, binary: Path, tmp_path: Path, authority: trustme.CA) -> Iterator[Service]:
    service = Service(chart, binary, tmp_path, authority)
    service.start()
    yield service
    service.sidecar.stop()


def test_the_doctor_of_helm_test_is_content(service: Service) -> None:
    done = service.helm_test()
    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_test_fails_with_a_wrong_password(service: Service) -> None:
    service.put("/run/dstack/netrc", b"machine localhost login dstack password wrong\n")
    assert service.helm_test().returncode == 1


def test_helm_test_fails_with_another_ca(service: Service) -> None:
    service.put("/etc/dstack-admission/tls/ca.crt", trustme.CA().cert_pem.bytes())
    assert service.helm_test().returncode == 1


def test_probes_that_run_the_binary_tell_the_truth(service: Service) -> None:
    assert service.probe("livenessProbe") == service.probe("readinessProbe") == 0
    service.sidecar.stop()
    assert service.probe("livenessProbe") != 0
    assert service.probe("readinessProbe") != 0
