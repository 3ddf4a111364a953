"""The alerts: as promtool reads them, one firing and one quiet test for each, and one fired and resolved for real."""

from __future__ import annotations

import datetime
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from harness.processes import LOOPBACK, Process
from harness.sidecar import Sidecar
from panels import REPOSITORY, RULES
from programs import Alertmanager, Prometheus, Receiver, eventually, program

HERE = Path(__file__).resolve().parent
TESTS = (HERE / "alerts_test.yaml", HERE / "alerts_week_test.yaml")
RUNBOOKS = REPOSITORY / "docs/runbooks.md"
PREFIX = "docs/runbooks.md#"


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> str:
    command = [program("promtool"), *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_rules_are_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_and_stays_quiet_when_it_should() -> None:
    promtool("test", "rules", *TESTS)


def test_no_alert_is_without_both_tests() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    tests = (test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"])
    for case in (case for test in tests for case in test["alert_rule_test"]):
        (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    names = {alert["alert"] for alert in alerts()}
    assert (fires, quiet) == (names, names)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_has_a_severity_and_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"].endswith(".") and alert["annotations"]["description"].endswith(".")
    url = alert["annotations"]["runbook_url"]
    assert url == PREFIX + alert["alert"].lower()
    section = re.search(rf"^## {alert['alert']}$(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL)
    assert section, f"docs/runbooks.md has no section {alert['alert']}"
    for part in ("means", "users see", "look", "mend"):
        assert re.search(rf"\*\*{part}\*\*", section[1], re.IGNORECASE), part


def test_no_runbook_is_left_over() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    taking = Receiver()
    yield taking
    taking.stop()


def certificate(directory: Path, authority: trustme.CA, days: int) -> dict[str, str]:
    """Writes a server certificate that is good for so many days, over what is there."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    issued = authority.issue_cert("localhost", LOOPBACK, not_after=until)
    key, chain = directory / "server.key", directory / "server.pem"
    issued.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return {"certFile": str(chain), "keyFile": str(key)}


def test_an_alert_reaches_its_receiver_and_is_resolved_when_the_cause_is_mended(
    binary: Path, tmp_path: Path, running: Callable[[Process], None], receiver: Receiver
) -> None:
    authority = trustme.CA()
    sidecar, alertmanager = Sidecar(binary, tmp_path / "sidecar"), Alertmanager(tmp_path / "alertmanager")
    prometheus = Prometheus(tmp_path / "prometheus")
    for process in (sidecar, alertmanager, prometheus):
        running(process)
    tmp_path.joinpath("tls").mkdir()
    files = certificate(tmp_path / "tls", authority, days=1)
    # The files are all that an installation of the sidecar with a certificate of its own has.
    sidecar.write([], tls=files)
    sidecar.serve([], tls=files)
    alertmanager.serve(receiver.url)
    prometheus.serve({"dstack-admission": sidecar.admin}, [RULES], alertmanager.port)

    name = "DstackAdmissionCertificateExpires"
    eventually("the alert arrives", lambda: receiver.got(name, "firing") is not None)
    fired = receiver.got(name, "firing")
    assert fired is not None
    assert fired["labels"] == {
        "alertname": name,
        "certificate": "server",
        "instance": f"{LOOPBACK}:{sidecar.admin}",
        "job": "dstack-admission",
        "severity": "critical",
    }
    assert fired["annotations"]["runbook_url"] == PREFIX + name.lower()
    assert "expires in" in fired["annotations"]["summary"]

    certificate(tmp_path / "tls", authority, days=90)
    eventually("it is resolved", lambda: receiver.got(name, "resolved") is not None)
    assert receiver.got("DstackAdmissionReloadFailing", "firing") is None
    assert {alert["labels"]["alertname"] for alert in receiver.alerts} == {name}
    for process in (prometheus, alertmanager, sidecar):
        process.stop()
