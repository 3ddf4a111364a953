"""What breaks on the way, seen from the user's side: never an allowed spec, always the plugin's name."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.chains import allow, label, unchecked
from harness.dstack import DstackServer, load
from harness.processes import Process, free_port
from harness.services import RestPlugin, Webhook
from harness.sidecar import Sidecar
from plugins.webhook_server import FAULTS

pytestmark = pytest.mark.versions("0.22.5")

# The server gives up after 8 s; the default deadline of the whole chain is 5 s.
ANSWERED_WITHIN = 7


@pytest.mark.parametrize("fault", FAULTS)
def test_a_misbehaving_webhook_denies_and_is_named(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook, fault: str
) -> None:
    sidecar.serve([label(), webhook.plugin("broken-hook", f"/fault/{fault}")])
    began = time.monotonic()
    answer = server.plan(load("task"))

    assert answer.status == 400
    assert unchecked("run", "broken-hook").fullmatch(answer.message), answer.message
    assert time.monotonic() - began < ANSWERED_WITHIN


@pytest.mark.parametrize("fault", FAULTS)
def test_a_misbehaving_webhook_that_may_be_ignored_is_skipped_and_counted(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook, fault: str
) -> None:
    sidecar.serve([label(), webhook.plugin("broken-hook", f"/fault/{fault}", failurePolicy="Ignore")])
    answer = server.plan(load("task"))

    assert answer.status == 200, answer.text
    assert answer.configuration["tags"] == {"managed-by": "platform"}
    assert sidecar.counted("dstack_admission_plugin_fail_open_total", plugin="broken-hook") == 1


@pytest.mark.parametrize("fault", ["status-500", "garbled", "empty-error", "no-spec", "slow"])
def test_a_misbehaving_rest_plugin_server_denies_and_is_named(
    sidecar: Sidecar, server: DstackServer, rest_plugin: RestPlugin, fault: str
) -> None:
    sidecar.serve([rest_plugin.plugin("broken-rest", f"fault.{fault}")])
    answer = server.plan(load("task"))

    assert answer.status == 400
    assert unchecked("run", "broken-rest").fullmatch(answer.message), answer.message


def test_a_plugin_that_is_down_denies_and_is_named(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([{"name": "quota", "rest": {"url": f"http://127.0.0.1:{free_port()}"}}])
    answer = server.plan(load("task"))

    assert answer.status == 400
    assert unchecked("run", "quota").fullmatch(answer.message), answer.message
    assert [record["decision"] for record in sidecar.audit()] == ["denied"]


def test_a_webhook_with_an_unknown_certificate_denies(sidecar: Sidecar, server: DstackServer, webhook: Webhook) -> None:
    plugin = webhook.plugin("stranger", "/allow")
    del plugin["webhook"]["caFile"]
    sidecar.serve([plugin])
    answer = server.plan(load("task"))

    assert answer.status == 400
    assert unchecked("run", "stranger").fullmatch(answer.message), answer.message


def test_a_plugin_server_of_another_dstack_version_denies_what_it_cannot_read(
    sidecar: Sidecar, server: DstackServer, tmp_path: Path, start: Callable[[Process], Process]
) -> None:
    old = RestPlugin(tmp_path / "old", "0.19.40")
    start(old)
    old.serve()
    sidecar.serve([old.plugin("old-quota", "allow")])
    answer = server.plan(load("task"))

    assert answer.status == 400
    found = unchecked("run", "old-quota").fullmatch(answer.message)
    assert found and "422" in found["why"], answer.message


def test_nothing_is_allowed_while_the_sidecar_is_down(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([allow()])
    assert server.plan(load("task")).status == 200
    sidecar.stop()

    for name in ("task", "fleet-cloud", "volume", "gateway"):
        answer = server.plan(load(name))
        assert answer.status == 400
        assert answer.message.startswith("Could not connect to plugin service at https://")
