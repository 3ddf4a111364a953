"""Upgrades: what replaces the pods and what leaves them alone, and what is the same at each render."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import VALUES, values_of
from rendering import OPERATORS, Chart

MODES = {"sidecar": {}, "standalone": values_of("standalone")}


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def template(chart: Chart, values: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = of_kind(chart.render(values, apis=OPERATORS), "Deployment")
    return deployment["spec"]["template"]


@pytest.mark.parametrize("name", VALUES)
def test_nothing_changes_from_one_render_to_the_next(chart: Chart, name: str) -> None:
    values = values_of(name)
    assert chart.texts(values, apis=OPERATORS) == chart.texts(values, apis=OPERATORS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "values",
    [
        {"config": {"limits": {"bodyBytes": "4MiB"}}},
        {"config": {"limits": {"gracePeriod": "9s"}}},
        {"config": {"log": {"level": "debug"}}},
        {"config": {"log": {"format": "text"}}},
        {"admission": {"bindAddress": "[::]"}, "metrics": {"enabled": True}},
        {"metrics": {"enabled": False, "port": 9999}},
    ],
)
def test_what_is_read_at_the_start_alone_replaces_the_pods(chart: Chart, mode: str, values: dict[str, Any]) -> None:
    base = MODES[mode] | {"config": {}}
    before = base | {"metrics": values.get("metrics", {}) | {"port": 9443}}
    assert template(chart, before) != template(chart, base | values)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("values", [{"deadline": "4s"}, {"plugins": []}, {"audit": {"level": "Spec"}}])
def test_what_is_read_again_replaces_none(chart: Chart, mode: str, values: dict[str, Any]) -> None:
    before, after = (chart.render(MODES[mode] | {"config": config}) for config in ({}, values))
    assert of_kind(before, "ConfigMap") != of_kind(after, "ConfigMap")
    assert of_kind(before, "Deployment") == of_kind(after, "Deployment")


@pytest.mark.parametrize("mode", MODES)
def test_another_version_of_the_chart_alone_replaces_no_pod(chart: Chart, mode: str) -> None:
    labels = template(chart, MODES[mode])["metadata"]["labels"]
    assert "helm.sh/chart" not in labels
    # What monitors and services find it by is there.
    assert {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/part-of"} <= labels.keys()


def test_names_can_be_looked_up_whatever_else_is_allowed(chart: Chart) -> None:
    allowed = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    (policy,) = of_kind(chart.render({"networkPolicy": {"enabled": True, "egress": [allowed]}}), "NetworkPolicy")
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    assert policy["spec"]["egress"] == [{"ports": ports}, allowed]
    (policy,) = of_kind(chart.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_a_pod_that_is_not_ready_does_not_keep_its_node(chart: Chart) -> None:
    (budget,) = of_kind(chart.render(values_of("ha"), apis=OPERATORS), "PodDisruptionBudget")
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_ca_of_the_chart_keeps_its_key(chart: Chart) -> None:
    certificates = of_kind(chart.render(values_of("ha"), apis=OPERATORS), "Certificate")
    policies = {one["metadata"]["name"]: one["spec"]["privateKey"]["rotationPolicy"] for one in certificates}
    assert sorted(policies.values()) == ["Always", "Never"]
    assert [name for name, policy in policies.items() if policy == "Never"] == ["dstack-dstack-admission-ca"]
