"""A value that cannot be used is refused before anything is installed, in words that name it."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import values_of
from rendering import OPERATORS, Chart, Refused

STANDALONE = values_of("standalone")
CREDENTIALS = "/etc/dstack-admission/credentials"
POSTGRES = {"database": {"existingSecret": "postgres"}}


def refusal(chart: Chart, values: dict[str, Any], **options: Any) -> str:
    with pytest.raises(Refused) as refused:
        chart.render(values, **options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"mode": "both"}, "/mode"),
        ({"replicas": "2"}, "/replicas"),
        ({"replica": 2}, "'replica'"),
        ({"config": {"deadlin": "5s"}}, "'deadlin'"),
        ({"config": {"deadline": "5 seconds"}}, "/config/deadline"),
        ({"config": {"listen": "0.0.0.0:1"}}, "'listen'"),
        ({"config": {"limits": {"bodyBytes": "8 MB"}}}, "/config/limits/bodyBytes"),
        ({"config": {"plugins": [{"name": "a", "use": "max-prise"}]}}, "/config/plugins/0/use"),
        ({"config": {"plugins": [{"name": "a", "use": "max-price", "with": {"limt": 1}}]}}, "'limt'"),
        ({"config": {"plugins": [{"name": "a", "rest": {"url": 1}}]}}, "/config/plugins/0/rest/url"),
        ({"config": {"exemptions": [{"plugins": ["a"]}]}}, "/config/exemptions/0"),
        ({"server": {"image": {"tag": 0.22}}}, "/server/image/tag"),
        ({"server": {"url": "https://me:secret@dstack"}}, "/server/url"),
        ({"server": {"config": {"plugins": ["rest-plugin"]}}}, "/server/config/plugins/0"),
        ({"server": {"config": {"project": []}}}, "'project'"),
        ({"server": {"persistence": {"size": "10 GB"}}}, "/server/persistence/size"),
        ({"server": {"extraEnv": [{"nam": "A"}]}}, "/server/extraEnv/0"),
        ({"server": {"resources": {"limits": {"memory": "2 Gi"}}}}, "/server/resources/limits/memory"),
        ({"tolerations": [{"kei": "a"}]}, "'kei'"),
        ({"extraVolumes": [{"name": "a", "secret": {"secret": "b"}}]}, "/extraVolumes/0/secret"),
        ({"podAnnotations": {"a": 1}}, "/podAnnotations/a"),
        ({"auth": {"existingSecret": "Not_A_Name"}}, "/auth/existingSecret"),
        ({"extraObjects": [{"kind": "ConfigMap"}]}, "/extraObjects/0"),
        ({"metrics": {"port": 80}}, "/metrics/port"),
    ],
)
def test_a_value_of_the_wrong_form_is_named(chart: Chart, values: dict[str, Any], place: str) -> None:
    assert place in refusal(chart, values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replicas": 2}, "replicas: more than one dstack server needs Postgres"),
        ({"replicas": 2, "server": POSTGRES}, "server.persistence: several pods cannot share"),
        ({"autoscaling": {"enabled": True}}, "autoscaling.enabled: is for mode standalone"),
        (
            {"server": {"config": {"projects": []}, "existingConfigSecret": "a"}},
            "server.config: server.existingConfigSecret is set as well",
        ),
        ({"server": {"ingress": {"enabled": True}}}, "server.ingress.hosts: an Ingress needs a host"),
        (
            {"server": {"extraEnv": [{"name": "REQUESTS_CA_BUNDLE", "value": "/a"}]}},
            "server.extraEnv: REQUESTS_CA_BUNDLE is set by the chart",
        ),
        (
            {"server": {"extraEnv": [{"name": "DSTACK_SERVER_CONFIG_DISABLED", "value": "1"}]}},
            "the server loads no plugin and nothing is reviewed",
        ),
        ({"server": {"extraEnv": [{"name": "DSTACK_SERVER_PORT", "value": "1"}]}}, "DSTACK_SERVER_PORT must not be"),
        ({**STANDALONE, "auth": {"existingSecret": ""}}, "auth.existingSecret: in mode standalone"),
        ({**STANDALONE, "certificates": {"source": "made"}}, "certificates.source: `made` is for mode sidecar"),
        ({"certificates": {"source": "secret"}}, "certificates.existingSecret: name the Secret"),
        ({"certificates": {"existingSecret": "a"}}, "certificates.existingSecret: is for certificates.source secret"),
        (
            {**STANDALONE, "autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}},
            "autoscaling.minReplicas: is more than",
        ),
        ({"podDisruptionBudget": {"enabled": True}}, "podDisruptionBudget: give one of"),
        (
            {"podDisruptionBudget": {"enabled": True, "minAvailable": 0, "maxUnavailable": 1}},
            "podDisruptionBudget: give one of",
        ),
        (
            {"podDisruptionBudget": {"enabled": True, "minAvailable": 1}},
            "podDisruptionBudget.minAvailable: with 1 pods, no node could ever be drained",
        ),
        (
            {"credentials": [{"name": "a", "secretName": "b"}, {"name": "a", "secretName": "c"}]},
            "credentials: a is there twice",
        ),
        ({"terminationGracePeriodSeconds": 20}, "terminationGracePeriodSeconds: reviews in hand are given 25 s"),
        ({**STANDALONE, "terminationGracePeriodSeconds": 29}, "are given 30 s"),
        ({"commonLabels": {"app.kubernetes.io/name": "a"}}, "commonLabels: app.kubernetes.io/name is set by the chart"),
        ({"podLabels": {"app.kubernetes.io/component": "a"}}, "podLabels: app.kubernetes.io/component is set"),
        (
            {"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}},
            "metrics.enabled: a monitor has nothing to scrape",
        ),
        (
            {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
            "everything would be counted twice",
        ),
        (
            {"config": {"plugins": [{"name": "a", "rest": {"url": "https://a", "caFile": f"{CREDENTIALS}/a/ca.crt"}}]}},
            "config.plugins: /etc/dstack-admission/credentials/a is no directory, since credentials has no a",
        ),
        (
            {"config": {"audit": {"sinks": [{"stdout": {}}, {"file": {"path": "/var/log/audit.log"}}]}}},
            "config.audit.sinks: /var/log/audit.log is on the image's read-only file system",
        ),
        ({"metrics": {"port": 8443}}, "metrics.port: 8443 is taken"),
        ({"config": {"plugins": [{"name": "canary", "use": "forbid-privileged"}]}}, "the name canary is taken"),
        (
            {"config": {"plugins": [{"name": "old", "python": {"plugin": "mine"}}]}},
            "config.plugins: old is a Python plugin, which needs image.python",
        ),
        (
            {"config": {"plugins": [{"fanOut": [{"name": "old", "python": {"plugin": "mine"}}]}]}},
            "config.plugins: old is a Python plugin",
        ),
    ],
)
def test_values_that_do_not_go_together_are_named(chart: Chart, values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(chart, values, apis=OPERATORS)


@pytest.mark.parametrize(
    ("values", "api"),
    [
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        ({"metrics": {"podMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        ({"metrics": {"prometheusRule": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        ({"certificates": {"source": "certManager"}}, "cert-manager.io/v1"),
    ],
)
def test_a_missing_operator_is_named(chart: Chart, values: dict[str, Any], api: str) -> None:
    assert f"this cluster does not know {api}: install" in refusal(chart, values)
    assert chart.render(values, apis=(api,))


def test_every_problem_is_shown_at_once(chart: Chart) -> None:
    said = refusal(chart, {"replicas": 2, "metrics": {"port": 3000}, "podDisruptionBudget": {"enabled": True}})
    assert [key for key in ("replicas:", "metrics.port:", "podDisruptionBudget:") if f"- {key}" not in said] == []


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3, "server": {**POSTGRES, "persistence": {"enabled": False}}},
        {"replicas": 3, "server": {**POSTGRES, "persistence": {"accessModes": ["ReadWriteMany"]}}},
        {"image": {"python": True}, "config": {"plugins": [{"name": "old", "python": {"plugin": "mine"}}]}},
        {"podDisruptionBudget": {"enabled": True, "minAvailable": "50%"}},
        {"podDisruptionBudget": {"enabled": True, "maxUnavailable": 0}},
        {"terminationGracePeriodSeconds": 10, "config": {"limits": {"gracePeriod": "5s"}}},
        {"admission": {"bindAddress": "[::]"}},
        {"config": {"audit": {"sinks": [{"file": {"path": "/var/lib/dstack-admission/audit.log"}}]}}},
        {"config": {"plugins": []}, "canary": {"enabled": False}},
    ],
)
def test_what_goes_together_is_taken(chart: Chart, values: dict[str, Any]) -> None:
    assert chart.render(values)
