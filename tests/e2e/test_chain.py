"""Chains of several kinds of plugins, all real processes, between the real server and the answer."""

from typing import Any

import pytest

from harness.chains import denial, label
from harness.dstack import DstackServer, load
from harness.services import RestPlugin, Webhook
from harness.sidecar import Sidecar

NEWEST = pytest.mark.versions("0.22.5")


@NEWEST
def test_cel_webhook_and_two_rest_servers_each_leave_their_mark(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook, rest_plugin: RestPlugin
) -> None:
    sidecar.serve(
        [
            label("first", "cel"),
            webhook.plugin("second", "/tag/second/webhook"),
            {
                "fanOut": [
                    rest_plugin.plugin("third", "tag.third.rest"),
                    rest_plugin.plugin("fourth", "tag.fourth.rest"),
                ]
            },
        ]
    )
    answer = server.plan({**load("task"), "tags": {"team": "ml"}})

    assert answer.configuration["tags"] == {
        "team": "ml",
        "first": "cel",
        "second": "webhook",
        "third": "rest",
        "fourth": "rest",
    }
    (review,) = webhook.reviews()
    seen = review["request"]["object"]["spec"]["configuration"]["tags"]
    assert seen == {"team": "ml", "first": "cel"}, "a mutating plugin sees what those before it left"


@NEWEST
def test_a_webhook_is_asked_as_kubernetes_asks(sidecar: Sidecar, server: DstackServer, webhook: Webhook) -> None:
    sidecar.serve([webhook.plugin("hook", "/allow", timeout="1s")])
    assert server.plan(load("task")).status == 200

    (review,) = webhook.reviews()
    request: dict[str, Any] = review["request"]
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert request["kind"] == {"group": "dstack.ai", "version": "v1", "kind": "Run"}
    assert (request["namespace"], request["name"], request["operation"]) == ("main", "train", "CREATE")
    assert request["userInfo"]["username"] == "admin"
    assert request["object"]["metadata"] == {"name": "train", "namespace": "main"}
    assert request["object"]["spec"]["configuration"]["commands"] == load("task")["commands"]


@NEWEST
def test_two_members_of_a_fan_out_that_disagree_deny_and_are_named(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook, rest_plugin: RestPlugin
) -> None:
    members = [webhook.plugin("blue", "/tag/colour/blue"), rest_plugin.plugin("red", "tag.colour.red")]
    sidecar.serve([{"fanOut": members}])
    answer = server.plan({**load("task"), "tags": {"team": "ml"}})

    assert answer.status == 400
    for part in ("blue", "red", "configuration", "tags"):
        assert part in answer.message
    sidecar.serve([{"fanOut": members, "onConflict": "lastWins"}])
    assert server.plan({**load("task"), "tags": {"team": "ml"}}).configuration["tags"]["colour"] == "red"


@NEWEST
def test_a_webhook_denies_in_its_own_words(sidecar: Sidecar, server: DstackServer, webhook: Webhook) -> None:
    sidecar.serve([webhook.plugin("hook", "/deny")])
    answer = server.plan(load("task"))
    assert denial("run", "hook: the webhook says no").fullmatch(answer.message), answer.message


@NEWEST
def test_warnings_and_annotations_of_a_webhook_are_recorded(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook
) -> None:
    sidecar.serve([webhook.plugin("warner", "/warn"), webhook.plugin("noter", "/annotate")])
    assert server.plan(load("task")).status == 200

    (record,) = sidecar.audit()
    assert "seen by the webhook" in str(record)
    assert any(key.startswith("noter/") for key in record["annotations"]), record["annotations"]


def test_a_rest_plugin_server_that_changes_nothing_leaves_no_patch(
    sidecar: Sidecar, server: DstackServer, rest_plugin: RestPlugin, configuration: dict[str, Any]
) -> None:
    sidecar.serve([rest_plugin.plugin("quota", "allow")])
    answer = server.plan(configuration)

    assert answer.status == 200, answer.text
    (record,) = sidecar.audit()
    assert record.get("patch", []) == []
    assert record["decision"] == "allowed"


def test_a_rest_plugin_server_denies_by_price(sidecar: Sidecar, server: DstackServer, rest_plugin: RestPlugin) -> None:
    sidecar.serve([rest_plugin.plugin("price", "price.1")])
    answer = server.plan(load("task"))

    assert answer.status == 400
    expected = denial("run", "price: max_price $1.5 is over $1 an hour")
    assert expected.fullmatch(answer.message), answer.message


def test_a_rest_plugin_server_patches(sidecar: Sidecar, server: DstackServer, rest_plugin: RestPlugin) -> None:
    sidecar.serve([rest_plugin.plugin("team", "tag.team.ml")])
    assert server.plan(load("task")).configuration["tags"] == {"team": "ml"}


@NEWEST
def test_a_monitored_plugin_never_denies_and_its_verdict_is_recorded(
    sidecar: Sidecar, server: DstackServer, webhook: Webhook
) -> None:
    sidecar.serve([webhook.plugin("trial", "/deny", mode="monitor")])
    assert server.plan(load("task")).status == 200

    sidecar.wait_until(lambda: sidecar.counted("dstack_admission_would_deny_total", plugin="trial") == 1)
