"""The rendered pod at work, without a kubelet: its init container, the sidecar and a real dstack server, started in
their order as processes, with the commands, the variables and the files of the manifest below a directory of the
test's own.

What only a kubelet does (the order itself, the mounts, users and capabilities) is not tried here.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

import environments
from conftest import documented_values
from harness.dstack import OFFLINE, DstackServer
from harness.processes import LOOPBACK, minimal_environment
from harness.sidecar import Sidecar
from rendering import REPOSITORY, Chart
from test_rendering import configuration_of, containers_of, environment_of, pod_of, the

VERSION = environments.DSTACK_VERSIONS[0]
PAGE = REPOSITORY / "docs" / "kubernetes.md"
# What docs/kubernetes.md tells a new user to write, with credentials between the server and the sidecar besides.
SHOWN = documented_values(PAGE)[0]
VALUES: dict[str, Any] = {
    **SHOWN,
    "auth": {"existingSecret": "credentials", "username": "dstack"},
    "server": {**SHOWN["server"], "config": {"projects": [{"name": "main"}]}},
}
FILES = {
    "/etc/dstack-admission/auth/password": 'pass "word"',
    "/etc/dstack-server/config.yml": "projects: [{name: main}]\n",
}
TASK = {"type": "task", "name": "example", "image": "ubuntu", "commands": ["true"]}


class Pod:
    """The pod of one release; every path of the manifest is below `root`, every port another."""

    def __init__(self, chart: Chart, binary: Path, root: Path) -> None:
        self.chart, self.root = chart, root
        self.documents = chart.render(VALUES)
        self.containers = containers_of(pod_of(self.documents))
        self.sidecar, self.server = Sidecar(binary, root / "sidecar"), DstackServer(VERSION, root / "server")
        self.generation = 0
        for container in self.containers.values():
            for mount in container["volumeMounts"]:
                self.path(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        for path, content in FILES.items():
            self.path(path).write_text(content)

    def path(self, inside: str) -> Path:
        return self.root / "pod" / inside.lstrip("/")

    def moved(self, text: str) -> str:
        text = str(self.path(text)) if text.startswith("/") else text
        ports = {":8443": f":{self.sidecar.port}", ":9443": f":{self.sidecar.admin}", "0.0.0.0": LOOPBACK}
        for old, new in ports.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str, **more: str) -> dict[str, str]:
        rendered = environment_of(self.containers[name]) if "env" in self.containers[name] else {}
        plain = {key: self.moved(value) for key, value in rendered.items() if isinstance(value, str)}
        return minimal_environment(HOME=str(self.path("/root")), **{**plain, **more})

    def mount_configuration(self, documents: list[dict[str, Any]]) -> None:
        """As the kubelet mounts a ConfigMap: the whole directory changes with one symbolic link."""
        configuration = configuration_of(documents)
        moved = {key: self.moved(value) if isinstance(value, str) else value for key, value in configuration.items()}
        moved["auth"]["basic"]["passwordFile"] = self.moved(moved["auth"]["basic"]["passwordFile"])
        self.generation += 1
        mount = self.path("/etc/dstack-admission/config")
        data = mount / f"..{self.generation}"
        data.mkdir()
        (data / "configuration.yaml").write_text(yaml.safe_dump(moved))
        link = mount / "..data.new"
        link.symlink_to(data.name)
        os.replace(link, mount / "..data")
        file = mount / "configuration.yaml"
        if not file.is_symlink():
            file.symlink_to("..data/configuration.yaml")

    def start(self) -> None:
        prepare = self.containers["server-config"]
        path = f"{environments.directory(f'dstack-{VERSION}') / 'bin'}:{os.environ['PATH']}"
        subprocess.run(prepare["command"], env=self.environment("server-config", PATH=path), check=True, timeout=60)
        self.mount_configuration(self.documents)
        arguments = [self.moved(argument) for argument in self.containers["dstack-admission"]["args"]]
        self.sidecar.start(
            [self.sidecar.binary, *arguments], self.environment("dstack-admission"), self.sidecar.is_ready, 60
        )
        self.server.start(
            [self.server.executable("dstack"), "server", "--host", LOOPBACK, "--port", str(self.server.port)],
            self.environment(
                "dstack-server",
                DSTACK_SERVER_ADMIN_TOKEN=self.server.token,
                PYTHONPATH=str(OFFLINE),
                GPUHUNT_CATALOG_DIR=str(OFFLINE / "catalogue"),
            ),
            self.server.is_ready,
            180,
        )

    def upgrade(self, values: dict[str, Any]) -> None:
        """What `helm upgrade` changes in the pod that runs: nothing but the mounted configuration."""
        documents = self.chart.render({**VALUES, **values})
        assert the(documents, "Deployment") == the(self.documents, "Deployment")
        self.mount_configuration(documents)

    def stop(self) -> None:
        self.server.stop()
        self.sidecar.stop()


@pytest.fixture(scope="module")
def pod(chart: Chart, binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    environments.ensure(f"dstack-{VERSION}")
    pod = Pod(chart, binary, tmp_path_factory.mktemp("pod"))
    try:
        pod.start()
        yield pod
    finally:
        pod.stop()
        print(pod.sidecar.tail(), pod.server.tail(), sep="\n")


def test_the_server_finds_every_address_that_its_probes_ask(pod: Pod) -> None:
    probe = pod.containers["dstack-server"]["readinessProbe"]["httpGet"]
    assert requests.get(f"{pod.server.url}{probe['path']}", timeout=5).status_code == 200
    sidecar = pod.containers["dstack-admission"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = sidecar[name]["httpGet"]["path"]
        assert requests.get(f"http://{LOOPBACK}:{pod.sidecar.admin}{path}", timeout=5).status_code == 200


def test_a_spec_is_patched_on_its_way(pod: Pod) -> None:
    assert pod.server.plan(TASK).configuration["max_price"] == 4.0


def test_the_page_shows_the_denial_that_a_user_reads(pod: Pod) -> None:
    (shown,) = re.findall(r"printf '(type: task.*?)' > bad.dstack.yml", PAGE.read_text())
    answer = pod.server.plan({"image": "ubuntu", **yaml.safe_load(shown.replace("\\n", "\n"))})
    said = re.sub(r"decision \w+", "decision 01…", answer.message)
    assert said in "\n".join(line.strip() for line in PAGE.read_text().splitlines())


def test_the_canary_is_denied(pod: Pod) -> None:
    answer = pod.server.plan({**TASK, "name": "dstack-admission-canary"})
    assert answer.status == 400
    assert "Apply request rejected: 1 policy denies this run" in answer.message
    assert "- canary: " in answer.message


def test_policies_change_while_everything_runs(pod: Pod) -> None:
    pod.upgrade({"config": {"plugins": [{"name": "cost", "use": "max-price", "with": {"limit": 0.5}}]}})
    pod.sidecar.wait_until(lambda: pod.server.plan(TASK).configuration["max_price"] == 0.5)


def test_the_servers_other_credentials_stay_with_it(pod: Pod) -> None:
    """Whoever calls without the netrc file's password is not let in."""
    uri = f"https://localhost:{pod.sidecar.port}/apply_policies/on_run_apply"
    trust = pod.path("/var/lib/dstack-admission/trust.pem")
    session = requests.Session()
    session.trust_env = False
    assert session.post(uri, json={}, verify=str(trust), timeout=5).status_code == 401


def test_helm_test_passes(pod: Pod, tmp_path: Path) -> None:
    arguments = the(pod.documents, "Pod")["spec"]["containers"][0]["args"]
    token = tmp_path / "token"
    token.write_text(pod.server.token)
    own = {"http://dstack-dstack-admission.dstack.svc:3000": pod.server.url, "/run/dstack/token": str(token)}
    command = [pod.sidecar.binary, *(own.get(argument, argument) for argument in arguments)]
    asked = subprocess.run(
        command, env=minimal_environment(HOME=str(tmp_path)), capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
