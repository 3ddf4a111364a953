"""docs/kubernetes.md, followed to the letter up to where only a cluster goes on: the chart's own pods run in Podman."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import tools
import yaml
from cluster import Cluster
from conftest import DSTACK
from engine import Container, Docker, Podman, wait_until
from stage import checkout
from walk import Walk, path_with

import environments
from harness.processes import LOOPBACK, free_port

PAGE = tools.REPOSITORY / "docs/kubernetes.md"
CHART_PAGE = tools.REPOSITORY / "charts/dstack-admission/README.md"
IMAGE = "registry.example.com/dstack-admission:0.1.0"
NO_CLUSTER = "there is no cluster"


@dataclass
class Reader:
    """Who follows the page, and what they have in the end."""

    walk: Walk
    cluster: Cluster

    def is_up(self) -> bool:
        try:
            return requests.get(f"http://{LOOPBACK}:{self.cluster.port}/healthcheck", timeout=2).status_code == 200
        except requests.RequestException:
            return False


@pytest.fixture(scope="module")
def reader(
    engine: Docker, podman: Podman, small: str, server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    """The page up to its first denial."""
    folder = tmp_path_factory.mktemp("kubernetes")
    cluster = Cluster(podman, folder / "volumes", free_port())
    cluster.folder.mkdir()
    programs = path_with(folder, engine.root / "bin", environments.directory(f"dstack-{DSTACK}") / "bin")
    words = {"localhost:3000": f"localhost:{cluster.port}"}
    environment = engine.environment | {"HOME": str(folder / "home")}
    walk = Walk(PAGE, checkout(folder / "checkout"), words=words, **environment)
    walk.environment["PATH"] = programs

    walk.run("docker build", within=900)
    walk.not_run("docker push", because="there is no registry")
    for image in (IMAGE, server):
        podman.take(engine, image)
    walk.not_run("kubectl create namespace dstack", because=NO_CLUSTER)
    cluster.create_secret(walk.take("kubectl -n dstack create secret"))
    walk.write("image:", "values.yaml")
    try:
        cluster.install(cluster.render(walk.take("helm install"), walk.folder))
        reader = Reader(walk, cluster)
        walk.not_run("kubectl -n dstack rollout status", because=NO_CLUSTER)
        wait_until(reader.is_up, "the server is up", 120, cluster.container("dstack-server").logs)
        yield reader
    finally:
        podman.stop()


def test_the_page_ends_with_a_denied_and_a_patched_spec(reader: Reader, tmp_path: Path) -> None:
    walk, cluster = reader.walk, reader.cluster
    assert walk.take("helm test") == ["helm", "test", "dstack", "-n", "dstack", "--logs"]
    asked = cluster.test()
    wait_until(lambda: asked.inspect()["State"]["Status"] == "exited", "the doctor is done", show=asked.logs)
    assert asked.inspect()["State"]["ExitCode"] == 0, asked.logs()

    walk.not_run("kubectl -n dstack port-forward", because="Podman publishes the port")
    _kubectl(walk, f"echo {cluster.secrets['dstack-admin']['token']}")
    walk.run("dstack project add", keys="y\n")
    walk.run("printf 'type: task")
    walk.run("dstack apply -f bad.dstack.yml", code=1)
    walk.shown("Apply request rejected")
    walk.run("printf 'type: task")
    walk.run("dstack apply -f good.dstack.yml", keys="n\n", code=None)
    assert re.search(r"Max price +\$4 ", walk.said), walk.said
    walk.take("kubectl -n dstack logs")
    log = cluster.container("dstack-admission").logs
    wait_until(lambda: log().count('"decision":"denied"') >= 2, "both denials are in the log", show=log)

    values = walk.folder / "values.yaml"
    values.write_text(values.read_text().replace("limit: 4.0", "limit: 2.0"))
    cluster.upgrade(cluster.render(walk.take("helm upgrade"), walk.folder))
    wait_until(
        lambda: "$2 " in walk.aside("dstack apply -f good.dstack.yml", keys="n\n"),
        "the changed policy is in force",
        show=cluster.container("dstack-admission").logs,
    )

    # A server elsewhere: what Helm makes of it is looked at in tests/deploy/chart.
    walk.not_run("kubectl create namespace admission", because=NO_CLUSTER)
    for name in ("PASSWORD", "HOST"):
        walk.run(name)
    cluster.create_secret(walk.take("kubectl -n admission create secret"))
    netrc = cluster.secrets["dstack-admission-credentials"]["netrc"]
    assert netrc.startswith("machine dstack-admission.admission.svc ")
    elsewhere = cluster.render(walk.take("helm install dstack-admission"), walk.folder)
    assert f"{IMAGE}" in str(elsewhere) and "dstack-admission-credentials" in str(elsewhere)
    walk.not_run("helm test", because="cert-manager is an operator of a cluster")
    assert "initContainers" in walk.read("enableServiceLinks")
    walk.end()


def test_the_chart_s_own_page_can_be_rendered(reader: Reader) -> None:
    walk = Walk(CHART_PAGE, reader.walk.folder)
    command = walk.take("helm install")
    command.remove("--create-namespace")
    command[command.index("--namespace")] = "-n"
    assert reader.cluster.render(command, walk.folder)
    blocks = {"credentials:": "quota-client", "config:": "claimName: audit", "server:": "proxy-body-size: 4m"}
    for starts, shown in blocks.items():
        walk.write(starts, "shown.yaml")
        rendered = reader.cluster.render([*command, "-f", "shown.yaml"], walk.folder)
        assert shown in yaml.safe_dump(rendered)
    walk.end()


def test_the_kernel_holds_both_containers_to_what_the_chart_says(reader: Reader) -> None:
    for name, user in (("dstack-admission", "65532"), ("dstack-server", "0")):
        status = reader.cluster.container(name).status()
        assert status["Uid"].split()[0] == user
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = _mounts(reader.cluster.container("dstack-admission"))
    assert mounts["/"] == mounts["/etc/dstack-admission/config"] == "ro"
    assert mounts["/var/lib/dstack-admission"] == mounts["/tmp"] == "rw"
    assert _mounts(reader.cluster.container("dstack-server"))["/var/lib/dstack-admission"] == "ro"


def test_the_server_has_the_variables_and_the_files_that_they_name(reader: Reader) -> None:
    server = reader.cluster.container("dstack-server")
    pairs = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    environment = dict(pair.partition("=")[::2] for pair in pairs)
    assert environment["DSTACK_PLUGIN_SERVICE_URI"] == "https://localhost:8443"
    assert "localhost" in environment["NO_PROXY"].split(",")
    root = Path(f"/proc/{server.pid}/root")
    assert any((root / environment["REQUESTS_CA_BUNDLE"].lstrip("/")).glob("*.0"))
    assert "BEGIN CERTIFICATE" in (root / environment["AWS_CA_BUNDLE"].lstrip("/")).read_text()
    refused = server.execute("cat", "/var/lib/dstack-admission/tls/ca-1.pem")
    assert "Permission denied" in refused.stderr, "the keys are the sidecar's alone"


def test_both_containers_are_on_one_loopback(reader: Reader) -> None:
    containers = [reader.cluster.container(name) for name in ("dstack-admission", "dstack-server")]
    spaces = {os.readlink(f"/proc/{container.pid}/ns/net") for container in containers}
    assert len(spaces) == 1
    assert spaces != {os.readlink("/proc/self/ns/net")}


def _mounts(container: Container) -> dict[str, str]:
    """Where each file system is in a container, and whether it can be written."""
    lines = (line.split() for line in Path(f"/proc/{container.pid}/mounts").read_text().splitlines())
    return {point: options.split(",")[0] for _, point, _, options, *_ in lines}


def _kubectl(walk: Walk, does: str) -> None:
    """A `kubectl` for what one command of the page asks it inside of itself."""
    program = Path(walk.environment["PATH"].split(":")[0]) / "kubectl"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
