"""What the sidecar leaves of a decision: the audit line, the metric, and never a secret."""

import re

import pytest

from harness.chains import denial, deny, label
from harness.dstack import DstackServer, load
from harness.sidecar import Sidecar

pytestmark = pytest.mark.versions("0.22.5")


def test_the_decision_in_the_message_is_the_audit_lines_id(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([deny()])
    answer = server.plan(load("task"))

    found = denial("run", "no-admins: administrators apply nothing here").fullmatch(answer.message)
    assert found, answer.message
    (record,) = sidecar.audit()
    assert record["auditID"] == found["id"]
    assert record["decision"] == "denied"
    assert record["user"]["username"] == "admin"


def test_each_decision_is_counted_by_kind(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([label("a", "b", match={"kinds": ["run"]}), deny(match={"kinds": ["fleet"]})])
    server.plan(load("task"))
    server.plan(load("fleet-cloud"))
    server.plan(load("volume"))

    for kind in ("run", "fleet", "volume"):
        assert sidecar.counted("dstack_admission_request_total", kind=kind) == 1, kind
    assert sidecar.counted("dstack_admission_request_total", kind="fleet", decision="denied") == 1
    assert sidecar.counted("dstack_admission_plugin_rejection_total", plugin="no-admins", kind="fleet") == 1


@pytest.mark.parametrize("level", ["Metadata", "Patch", "Spec"])
def test_secrets_of_a_spec_reach_no_record(sidecar: Sidecar, server: DstackServer, level: str) -> None:
    secret = "s3cr3t-that-nobody-may-read"
    tokens = {
        "name": "token",
        "cel": {"mutations": [{"mergeMap": {"path": "/configuration/env", "value": {"EXTRA": secret}}}]},
    }
    sidecar.serve([tokens, label()], audit={"level": level, "sinks": [sidecar.sink()]})
    task = {
        **load("task"),
        "env": {"TOKEN": secret},
        "registry_auth": {"username": "me", "password": secret},
        "image": "busybox",
    }
    task.pop("python")
    answer = server.plan(task)

    assert answer.configuration["env"] == {"TOKEN": secret, "EXTRA": secret}
    assert len(sidecar.audit()) == 1
    for text in (
        sidecar.audit_file.read_text(),
        sidecar.stdout.read_text(),
        sidecar.stderr.read_text(),
        sidecar.metrics(),
    ):
        assert not re.search(secret, text)
