"""The ways to deploy agree with the executable's defaults, and so with each other."""

from __future__ import annotations

import json
import re

import pytest
import tools
import yaml
from conftest import DEPLOY

import environments

CHART = tools.REPOSITORY / "charts/dstack-admission"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((DEPLOY / "schema/configuration.json").read_text())
UNIT = (DEPLOY / "systemd/dstack-admission.service").read_text()
DROP_IN = (DEPLOY / "systemd/dstack.service.d/admission.conf").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
COMPILE = (DEPLOY / "compile.sh").read_text()

DEFAULTS = {name: setting.get("default") for name, setting in SCHEMA["properties"].items()}
GRACE = int(SCHEMA["$defs"]["Limits"]["properties"]["gracePeriod"]["default"].removesuffix("s"))
LISTEN, ADMIN = (DEFAULTS[name].rpartition(":")[2] for name in ("listen", "admin"))
STATE = DEFAULTS["stateDir"]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (UNIT, r"^TimeoutStopSec=(\d+)$"),
        (COMPOSE, r"^ +stop_grace_period: (\d+)s$"),
        ((tools.REPOSITORY / "docs/docker.md").read_text(), r"--stop-timeout (\d+)"),
        ((CHART / "values.yaml").read_text(), r"^terminationGracePeriodSeconds: (\d+)$"),
    ],
    ids=["unit", "compose", "docker", "chart"],
)
def test_what_stops_it_waits_longer_than_it_drains(text: str, pattern: str) -> None:
    waits = [int(found) for found in re.findall(pattern, text, re.MULTILINE)]
    assert waits and min(waits) > GRACE


def test_everything_talks_to_the_same_ports() -> None:
    assert set(re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)) == {f"{LISTEN} {ADMIN}"}
    assert set(re.findall(r"https://\w+:(\d+)", COMPOSE + DROP_IN)) == {LISTEN}
    assert (str(VALUES["standalone"]["service"]["port"]), str(VALUES["metrics"]["port"])) == (LISTEN, ADMIN)
    scraped = (DEPLOY / "compose/prometheus/prometheus.yml").read_text()
    assert f"admission:{ADMIN}" in scraped


def test_no_proxy_comes_between_in_either_spelling() -> None:
    """`requests` reads `no_proxy` first, and only without it `NO_PROXY`."""
    for text, pattern, host in (
        (COMPOSE, r"^ +(no_proxy|NO_PROXY): (.+)$", "admission"),
        (DROP_IN, r"^Environment=(no_proxy|NO_PROXY)=(.+)$", "localhost"),
    ):
        direct = dict(re.findall(pattern, text, re.MULTILINE))
        assert direct.keys() == {"NO_PROXY", "no_proxy"}
        assert direct["NO_PROXY"] == direct["no_proxy"]
        assert host in direct["NO_PROXY"].split(",")


def test_the_state_is_in_one_place() -> None:
    parent, _, name = STATE.rpartition("/")
    assert parent == "/var/lib"
    assert re.findall(r"^StateDirectory=(.+)$", UNIT, re.MULTILINE) == [name]
    assert set(re.findall(r"^Environment=\w+_CA_BUNDLE=(.+)$", DROP_IN, re.MULTILINE)) == {
        f"{STATE}/trust",
        f"{STATE}/trust.pem",
    }
    assert set(re.findall(r'^VOLUME \["(.+)"\]$', DOCKERFILE, re.MULTILINE)) == {STATE}
    assert f'"stateDir" "{STATE}"' in (CHART / "templates/_config.tpl").read_text()
    assert f":{STATE}" in COMPOSE or f"target: {STATE}" in COMPOSE


def test_containers_run_as_one_user() -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"--(?:uid|gid) (\d+)", DOCKERFILE)) == {user}
    assert set(re.findall(r"^echo 'nonroot:x:(\d+):", COMPILE, re.MULTILINE)) == {user}
    assert set(re.findall(r"^ +chown (\d+):", COMPOSE, re.MULTILINE)) == {user}
    assert set(re.findall(r"runAs(?:User|Group): (\d+)", (CHART / "values.yaml").read_text())) >= {user}


def test_one_version_of_it_and_of_the_server_is_named() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (tools.REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert set(re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE)) == {chart["appVersion"]} == {version}
    server = environments.DSTACK_VERSIONS[0]
    assert set(re.findall(r"^ARG DSTACK_VERSION=(.+)$", DOCKERFILE, re.MULTILINE)) == {server}
    assert set(re.findall(r"DSTACK_VERSION:-([\d.]+)", COMPOSE)) == {server} == {VALUES["server"]["image"]["tag"]}
