"""The files that people read and change: Dockerfile, compose file, systemd units."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml
from conftest import DEPLOY

MANY = ("small", "python", "small,alerting")
HADOLINT = Path(sys.executable).with_name("hadolint")


def test_hadolint_finds_nothing() -> None:
    tools.run([HADOLINT, DEPLOY / "Dockerfile"])


def test_the_build_sees_what_it_needs_and_no_more() -> None:
    listed = (tools.REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in listed if line.startswith("!")}
    assert "*" in listed
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert allowed == {source for line in copied for source in line.split()}
    assert all((tools.REPOSITORY / source).exists() for source in allowed)


@pytest.mark.parametrize("profiles", MANY)
def test_the_compose_file_is_valid(profiles: str) -> None:
    services = _compose(profiles)["services"]
    assert ("admission" in services) == ("small" in profiles)
    assert ("admission-python" in services) == ("python" in profiles)
    assert ("alertmanager" in services) == ("alerting" in profiles)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service.get("read_only") or name == "dstack", name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), mount["source"]
                assert mount["read_only"], mount["source"]


def test_plain_up_starts_the_whole_set_up() -> None:
    assert set(_compose(None)["services"]) == {"dstack", "admission", "credentials", "prometheus", "grafana"}


def test_no_plugin_is_mounted_into_the_server_and_its_image_is_the_official_one() -> None:
    for profiles in ("small", "python"):
        server = _compose(profiles)["services"]["dstack"]
        assert re.fullmatch(r"dstackai/dstack:[\d.]+", server["image"])
        assert "build" not in server
        targets = {mount["target"] for mount in server["volumes"]}
        own = {"/root/.dstack/server", "/root/.dstack/server/config.yml"}
        assert targets == own | {"/run/admission", "/run/credentials"}


def test_grafana_is_given_prometheus_and_the_chart_s_dashboards() -> None:
    services = _compose("small")["services"]
    sources = yaml.safe_load((DEPLOY / "compose/grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert [(one["type"], one["url"]) for one in sources] == [("prometheus", "http://prometheus:9090")]
    providers = yaml.safe_load((DEPLOY / "compose/grafana/dashboards/dstack-admission.yaml").read_text())["providers"]
    mounts = {mount["target"]: mount["source"] for mount in services["grafana"]["volumes"]}
    dashboards = mounts[providers[0]["options"]["path"]]
    assert Path(dashboards) == tools.REPOSITORY / "charts/dstack-admission/dashboards"
    rules = {mount["target"]: mount["source"] for mount in services["prometheus"]["volumes"]}
    assert Path(rules["/etc/prometheus-rules"]) == tools.REPOSITORY / "charts/dstack-admission/rules"


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    # The executable has to be where the unit looks for it, so the unit is looked at as it would be installed.
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/dstack-admission", "/bin/true")
        (tmp_path / unit.name).write_text(text)
        said = tools.run(["systemd-analyze", "verify", "--man=no", tmp_path / unit.name])
        assert unit.name not in said, said
    assert UNITS


def test_systemd_finds_the_unit_well_confined() -> None:
    for unit in UNITS:
        said = tools.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit])
        assert "Overall exposure level" in said


def _compose(profiles: str | None) -> dict[str, Any]:
    """The compose file as Compose understands it; `None` is what the file beside it says."""
    docker = tools.docker()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_CONFIG": str(docker / "client")}
    environment |= {"COMPOSE_PROFILES": profiles} if profiles else {}
    said = tools.run([docker / "bin/docker", "compose", "-f", DEPLOY / "compose.yaml", "config"], env=environment)
    return dict(yaml.safe_load(said))
