"""`docker compose up` with the real dstack server, sidecar and Prometheus: reviews flow, and nothing was edited.

Something else stands where Grafana is, which cannot be had as a package; its files are looked at in `test_files.py`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import tools
import yaml
from conftest import DEPLOY, HERE, PYTHON, SMALL
from engine import Container, Docker, wait_until

from harness.dstack import Answer, spec
from harness.processes import LOOPBACK, free_port

SERVICES = {"small": "admission", "python": "admission-python"}
UP_WITHIN = 150
# What `python3 -c` says of an answer's status, from inside a container.
STATUS = "import requests, sys; print(requests.post(sys.argv[1], json={}, timeout=5).status_code)"


class Project:
    """The compose file, brought up under a name of its own with one of its profiles."""

    def __init__(self, engine: Docker, profile: str, folder: Path):
        self.engine = engine
        self.profile = profile
        self.name = f"test-{profile}-{uuid.uuid4().hex[:6]}"
        self.ports = {
            name: free_port() for name in ("DSTACK_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
        }
        self.url = f"http://{LOOPBACK}:{self.ports['DSTACK_PORT']}"
        self.token = uuid.uuid4().hex
        self.environment = {
            **engine.environment,
            "COMPOSE_PROFILES": f"{profile},alerting",
            "DSTACK_ADMISSION_IMAGE": SMALL,
            "DSTACK_ADMISSION_PYTHON_IMAGE": PYTHON,
            "DSTACK_SERVER_ADMIN_TOKEN": self.token,
            "PROMETHEUS_SETTINGS": str(_quicker(folder)),
            **{name: str(port) for name, port in self.ports.items()},
        }

    def compose(self, *arguments: str) -> str:
        files = ["-f", DEPLOY / "compose.yaml", "-f", HERE / "compose.test.yaml"]
        command = [self.engine.program, "compose", *files, "--project-name", self.name, *arguments]
        return tools.run(command, env=self.environment)

    def container(self, service: str) -> Container:
        return Container(self.engine, f"{self.name}-{service}-1")

    @property
    def sidecar(self) -> Container:
        return self.container(SERVICES[self.profile])

    def call(self, path: str, body: dict[str, Any]) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)
        return Answer(answer.status_code, answer.text)

    def plan(self, configuration: dict[str, Any]) -> Answer:
        kind = configuration["type"]
        if kind == "fleet":
            return self.call("/api/project/main/fleets/get_plan", {"spec": spec(configuration)})
        return self.call("/api/project/main/runs/get_plan", {"run_spec": spec(configuration)})


@pytest.fixture(scope="module", params=SERVICES)
def project(
    request: pytest.FixtureRequest, engine: Docker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    for image in ("server", "monitoring", "small", *(["python"] if request.param == "python" else [])):
        request.getfixturevalue(image)
    project = Project(engine, request.param, tmp_path_factory.mktemp("compose"))
    try:
        try:
            project.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN), "--pull=never", "--no-build")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{project.compose('logs', '--tail=40')}") from None
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout=5")


def test_a_spec_is_patched_on_its_way_through_the_server(project: Project) -> None:
    answer = project.plan({"type": "fleet", "name": "pool", "nodes": 1, "backends": ["aws"]})
    assert answer.configuration["max_price"] == 4.0


def test_a_spec_is_denied_on_its_way_through_the_server(project: Project) -> None:
    answer = project.plan({"type": "task", "name": "job", "image": "debian", "commands": ["id"], "privileged": True})
    assert answer.status == 400
    assert "privileged containers" in answer.message
    assert {"small": "no-privileged", "python": "house-rules"}[project.profile] in answer.message


def test_nobody_is_reviewed_without_the_password(project: Project) -> None:
    url = "https://admission:8443/apply_policies/on_run_apply"
    answered = project.container("dstack").execute("python3", "-c", STATUS, url)
    assert answered.stdout.strip() == "400", "no review, but let in: " + answered.stderr
    without = project.container("dstack").execute("env", "NETRC=/nowhere", "python3", "-c", STATUS, url)
    assert without.stdout.strip() == "401", without.stderr


def test_the_server_has_the_trust_and_not_the_keys(project: Project) -> None:
    inside = project.container("dstack")
    assert inside.execute("cat", "/run/admission/trust.pem").returncode == 0
    refused = inside.execute("cat", "/run/admission/tls/ca-1.pem")
    assert refused.returncode != 0 and "Permission denied" in refused.stderr
    assert inside.execute("touch", "/run/admission/x").returncode != 0


def test_the_kernel_holds_every_container_to_its_hardening(project: Project) -> None:
    users = {SERVICES[project.profile]: "65532", "dstack": "0", "prometheus": "65534", "alertmanager": "65534"}
    for service, user in users.items():
        status = project.container(service).status()
        assert status["Uid"].split()[0] == user, service
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, service
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), service
        assert project.container(service).inspect()["HostConfig"]["ReadonlyRootfs"] == (service != "dstack"), service


def test_every_port_is_on_loopback_alone(project: Project) -> None:
    published = set()
    for service in (SERVICES[project.profile], "dstack", "prometheus", "alertmanager"):
        for bound in filter(None, project.container(service).inspect()["HostConfig"]["PortBindings"].values()):
            assert {one["HostIp"] for one in bound} == {LOOPBACK}, service
            published.add(service)
    assert published == {"dstack", "prometheus", "alertmanager"}


def test_prometheus_sees_the_decisions(project: Project) -> None:
    project.plan({"type": "fleet", "name": "seen", "nodes": 1, "backends": ["aws"]})
    query = f"http://{LOOPBACK}:{project.ports['PROMETHEUS_PORT']}/api/v1/query"

    def patched() -> bool:
        asked = {"query": 'sum(dstack_admission_request_total{decision="patched",job="dstack-admission"})'}
        result = requests.get(query, params=asked, timeout=5).json()["data"]["result"]
        return bool(result) and float(result[0]["value"][1]) > 0

    wait_until(patched, "a patched review is counted")
    told = requests.get(query.replace("/query", "/alertmanagers"), timeout=5).json()["data"]["activeAlertmanagers"]
    assert [one["url"] for one in told] == ["http://alertmanager:9093/api/v2/alerts"]


def test_a_restarted_sidecar_keeps_the_trust_and_the_server(project: Project) -> None:
    engine = project.engine
    before = project.container("dstack").pid
    engine.command("restart", "--time", "20", project.sidecar.name)
    wait_until(lambda: project.sidecar.health() == "healthy", "the sidecar is back", show=project.sidecar.logs)
    answer = project.plan({"type": "fleet", "name": "again", "nodes": 1, "backends": ["aws"]})
    assert answer.configuration["max_price"] == 4.0
    assert project.container("dstack").pid == before


def _quicker(folder: Path) -> Path:
    """The compose set-up's settings of Prometheus, which looks every second."""
    settings = yaml.safe_load((DEPLOY / "compose/prometheus/prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    target = folder / "prometheus"
    target.mkdir()
    (target / "prometheus.yml").write_text(yaml.safe_dump(settings))
    os.chmod(folder, 0o755)
    os.chmod(target, 0o755)
    return target
