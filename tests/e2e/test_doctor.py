"""The doctor beside a real dstack server: what it says is what the server does.

Where it judges as Python's `requests` would (proxies, netrc files, bundles), `requests` itself is asked, too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.dstack import DstackServer
from harness.processes import Process, minimal_environment
from harness.sidecar import Sidecar

CANARY = {"name": "canary", "use": "canary"}
FINISHED_WITHIN = 60


def diagnosis(sidecar: Sidecar, environment: Mapping[str, str], *arguments: str) -> dict[str, dict[str, Any]]:
    """What the doctor finds, by check."""
    finished = subprocess.run(
        [str(sidecar.binary), "doctor", "-o", "json", *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=FINISHED_WITHIN,
    )
    assert finished.returncode in (0, 1), finished
    report = json.loads(finished.stdout)
    assert report["ok"] == (finished.returncode == 0)
    return {finding["check"]: finding for finding in report["findings"]}


def through(server: DstackServer, directory: Path, *arguments: str) -> list[str]:
    """The arguments by which the doctor asks this server, with the environment of its process."""
    token = directory / "token"
    token.write_text(f"{server.token}\n")
    return ["--env-of", str(server.pid), "--server", server.url, "--token-file", str(token), *arguments]


@pytest.mark.versions("0.22.5", "0.19.40")
def test_a_server_that_asks_its_plugins_is_well(sidecar: Sidecar, server: DstackServer, tmp_path: Path) -> None:
    sidecar.serve([CANARY])
    found = diagnosis(sidecar, {}, *through(server, tmp_path))

    assert [finding for finding in found.values() if finding["status"] != "ok"] == []
    assert f"dstack {server.version}" in found["version"]["message"]
    assert "denied through the dstack server" in found["plugins"]["message"]
    # Once past the server, and once through it.
    decisions = [(record["decision"], record["user"]["username"]) for record in sidecar.audit()]
    assert decisions == [("denied", "dstack-admission-doctor"), ("denied", "admin")]


@pytest.mark.versions("0.22.5")
def test_the_canary_is_a_spec_as_the_server_sends_it(sidecar: Sidecar, server: DstackServer, tmp_path: Path) -> None:
    """A policy that reads what every spec has finds it in the canary, too."""
    price = {"name": "price", "use": "max-price", "with": {"limit": 1, "action": "deny"}}
    sidecar.serve([price, CANARY])
    diagnosis(sidecar, {}, *through(server, tmp_path))
    direct, asked = (
        [(plugin["name"], plugin["verdict"], plugin.get("messages")) for plugin in record["plugins"]]
        for record in sidecar.audit()
    )
    assert direct == asked
    assert {"price", "canary"} == {name for name, verdict, _ in asked if verdict == "denied"}


@pytest.mark.versions("0.22.5")
def test_a_server_without_a_canary_in_the_chain_is_not_judged(
    sidecar: Sidecar, server: DstackServer, tmp_path: Path
) -> None:
    sidecar.serve([])
    found = diagnosis(sidecar, {}, *through(server, tmp_path))
    assert found["review"]["status"] == found["plugins"]["status"] == "warn"
    assert "use: canary" in found["plugins"]["mend"]


@pytest.mark.versions("0.22.5")
def test_a_server_that_cannot_reach_the_sidecar_is_told_apart(
    sidecar: Sidecar, server: DstackServer, tmp_path: Path
) -> None:
    sidecar.stop()
    found = diagnosis(sidecar, {}, *through(server, tmp_path))
    assert found["tcp"]["status"] == found["plugins"]["status"] == "fail"
    assert "could not connect to its plugin service" in found["plugins"]["message"]


@pytest.mark.versions("0.22.5")
def test_wrong_credentials_are_found_here_and_there(
    sidecar: Sidecar, server: DstackServer, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("correct\n")
    sidecar.serve([CANARY], auth={"basic": {"username": "dstack", "passwordFile": str(password)}})
    server.credentials(("dstack", "wrong"))
    wrong = diagnosis(sidecar, {}, *through(server, tmp_path))
    server.credentials(("dstack", "correct"))
    right = diagnosis(sidecar, {}, *through(server, tmp_path))
    server.credentials(None)

    assert wrong["review"]["message"] == "the credentials are refused"
    assert wrong["plugins"]["status"] == "fail"
    assert right["netrc"]["status"] == right["review"]["status"] == right["plugins"]["status"] == "ok"


def test_a_misspelt_plugin_is_named(
    sidecar: Sidecar, announced: dict[str, str], tmp_path: Path, start: Callable[[Process], Process]
) -> None:
    server = DstackServer("0.22.5", tmp_path / "server", plugins=("rest-plugin",))
    start(server)
    server.serve(announced)
    sidecar.serve([CANARY])
    found = diagnosis(sidecar, {}, *through(server, tmp_path))

    # All the way to the sidecar is fine, and yet nothing is reviewed.
    assert found["review"]["status"] == "ok"
    assert found["config"]["status"] == found["plugins"]["status"] == "fail"
    assert "enables `rest-plugin`" in found["config"]["message"]
    assert "does not ask its plugins" in found["plugins"]["message"]
    assert "Enabled plugins not found" in found["plugins"]["mend"]
    assert "Enabled plugins not found: ['rest-plugin']" in server.tail(400)


PROXY = "http://proxy.example.com:3128"
PROXIES: dict[str, dict[str, str]] = {
    "none": {},
    "https": {"HTTPS_PROXY": PROXY},
    "http": {"HTTP_PROXY": PROXY},
    "all": {"ALL_PROXY": PROXY},
    "lower": {"HTTPS_PROXY": PROXY, "https_proxy": ""},
    "named": {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.com, localhost"},
    "port": {"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost:PORT"},
    "other-port": {"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost:1"},
    "dot": {"HTTPS_PROXY": PROXY, "NO_PROXY": ".localhost"},
    "part": {"HTTPS_PROXY": PROXY, "NO_PROXY": "host"},
    "star": {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"},
    "star-in-list": {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.com,*"},
    "address": {"HTTPS_PROXY": PROXY, "NO_PROXY": "127.0.0.1"},
    "network": {"HTTPS_PROXY": PROXY, "NO_PROXY": "127.0.0.0/8"},
    "lower-no": {"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost", "no_proxy": "example.com"},
}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("variables", PROXIES.values(), ids=PROXIES)
def test_a_proxy_is_seen_where_requests_takes_one(
    address: Sidecar, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str
) -> None:
    uri = f"https://{host}:{address.port}"
    environment = {name: value.replace("PORT", str(address.port)) for name, value in variables.items()}
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = requests.Session().merge_environment_settings(uri, {}, None, None, None)
    taken = requests.utils.select_proxy(uri, settings["proxies"])

    found = diagnosis(address, {**environment, "DSTACK_PLUGIN_SERVICE_URI": uri}, "--timeout", "1s")
    assert (found["proxy"]["status"] == "fail") == (taken is not None), (taken, found["proxy"])


BUNDLES = ("trust", "trust.pem", "ca.pem", "unhashed", "nothing", "missing", None)


@pytest.mark.parametrize("bundle", BUNDLES, ids=str)
def test_a_bundle_does_where_requests_is_content_with_it(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: str | None
) -> None:
    sidecar.serve([CANARY])
    (tmp_path / "unhashed").mkdir()
    shutil.copy(sidecar.state / "trust.pem", tmp_path / "unhashed")
    (tmp_path / "nothing").write_text("")
    uri = f"https://localhost:{sidecar.port}"
    environment = minimal_environment(DSTACK_PLUGIN_SERVICE_URI=uri)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("NO_PROXY", environment["NO_PROXY"])
    if bundle is not None:
        place = tmp_path / bundle if (tmp_path / bundle).exists() else sidecar.state / bundle
        environment["REQUESTS_CA_BUNDLE"] = str(place)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place))
    try:
        requests.post(f"{uri}/apply_policies/on_run_apply", json={}, timeout=8)
        trusted = True
    except OSError:
        trusted = False

    found = diagnosis(sidecar, environment)
    assert ("review" in found) == trusted, found
    failed = [check for check in ("bundle", "tls") if found.get(check, {}).get("status") == "fail"]
    assert bool(failed) != trusted, found
