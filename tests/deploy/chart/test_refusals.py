"""A value that cannot be used is refused before anything is installed, in words that name it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import values_of
from manifests import problems
from rendering import NEWEST, OPERATORS, Chart, Refused

STANDALONE = values_of("standalone")
CREDENTIALS = "/etc/dstack-admission/credentials"
PROXY = "http://proxy:3128"
POSTGRES = {"database": {"existingSecret": "postgres"}}


def paths(values: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        yield from paths(value, *above, key) if isinstance(value, dict) else ()


PATHS = list(paths(values_of("defaults")))


def mounted(path: str) -> dict[str, Any]:
    """A file or folder of the user's own in the server's container."""
    return {"server": {"extraVolumeMounts": [{"name": "tmp", "mountPath": path}]}}


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
        ({"admission": {"bindAddress": "999.0.0.1"}}, "/admission/bindAddress"),
        # `image:` with nothing behind it, which takes the default away.
        ({"image": None}, "'image'"),
        ({"server": {"persistence": None}}, "'persistence'"),
        ({"server": {"image": {"tag": None}}}, "'tag'"),
        ({"admission": {"startupProbe": None}}, "'startupProbe'"),
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
        ({"server": {"extraEnv": [{"name": "no_proxy", "value": "a"}]}}, "no_proxy is set by the chart"),
        (
            {"server": {"proxy": {"httpProxy": PROXY}, "extraEnv": [{"name": "http_proxy", "value": PROXY}]}},
            "server.extraEnv: http_proxy is set by the chart; see server.proxy",
        ),
        (
            {"server": {"proxy": {"httpsProxy": PROXY}, "extraEnv": [{"name": "HTTPS_PROXY", "value": PROXY}]}},
            "server.extraEnv: HTTPS_PROXY is set by the chart; see server.proxy",
        ),
        (
            {"server": {"proxy": {"httpProxy": "http://me:secret@proxy:3128"}}},
            "server.proxy.httpProxy: a user and a password would stand in the Deployment",
        ),
        (
            {"server": {"proxy": {"httpsProxy": "http://me@proxy:3128"}}},
            "set HTTPS_PROXY in server.extraEnv, by valueFrom from a Secret",
        ),
        (
            {"server": {"extraEnv": [{"name": "DSTACK_SERVER_CONFIG_DISABLED", "value": "1"}]}},
            "the server loads no plugin and nothing is reviewed",
        ),
        (
            {"server": {"extraEnv": [{"name": "DSTACK_SERVER_DIR", "value": "/data"}]}},
            "server.extraEnv: with DSTACK_SERVER_DIR the server reads another config.yml than the chart writes",
        ),
        (
            {"server": {"extraEnv": [{"name": "HOME", "value": "/data"}]}},
            "server.extraEnv: with HOME the server reads another config.yml than the chart writes",
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
            "podDisruptionBudget.minAvailable: 1 of 1 pods is all of them, and no node could ever be drained",
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
            {"config": {"audit": {"sinks": [{"http": {"url": "https://a", "caFile": f"{CREDENTIALS}/b/ca.crt"}}]}}},
            "config.audit: /etc/dstack-admission/credentials/b is no directory, since credentials has no b",
        ),
        (
            {"config": {"audit": {"sinks": [{"stdout": {}}, {"file": {"path": "/var/log/audit.log"}}]}}},
            "config.audit.sinks: /var/log/audit.log is on the image's read-only file system",
        ),
        (
            {"terminationGracePeriodSeconds": 90, "config": {"limits": {"gracePeriod": "1m30s"}}},
            "terminationGracePeriodSeconds: reviews in hand are given 90 s",
        ),
        ({"terminationGracePeriodSeconds": 25}, "so this must be more"),
        (
            {"podDisruptionBudget": {"enabled": True, "minAvailable": "100%"}},
            "podDisruptionBudget.minAvailable: 100% of 1 pods is all of them",
        ),
        ({"podDisruptionBudget": {"enabled": True, "minAvailable": "1%"}}, "minAvailable: 1% of 1 pods is all of them"),
        (
            {**STANDALONE, "replicas": 3, "podDisruptionBudget": {"enabled": True, "minAvailable": "67%"}},
            "minAvailable: 67% of 3 pods is all of them",
        ),
        (
            {"podDisruptionBudget": {"enabled": True, "maxUnavailable": 0}},
            "podDisruptionBudget.maxUnavailable: with 0, no node could ever be drained: take 1 or more",
        ),
        ({"podDisruptionBudget": {"enabled": True, "maxUnavailable": "0%"}}, "maxUnavailable: with 0%, no node could"),
        ({"server": {"extraEnv": [{"name": "A"}, {"name": "A"}]}}, "server.extraEnv: A is there twice"),
        ({"admission": {"extraEnv": [{"name": "A"}, {"name": "A"}]}}, "admission.extraEnv: A is there twice"),
        ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "extraVolumes: the pod has a volume tmp already"),
        (
            {"extraContainers": [{"name": "dstack-server", "image": "a"}]},
            "extraContainers, extraInitContainers: the pod has a container dstack-server already",
        ),
        (
            {"server": {"extraVolumeMounts": [{"name": "lost", "mountPath": "/lost"}]}},
            "server.extraVolumeMounts: the pod has no volume lost",
        ),
        (mounted("/root/.dstack/server/config.yml"), "see server.config and server.existingConfigSecret instead"),
        (mounted("/root//.dstack/server/config.yml/"), "/root/.dstack/server/config.yml is where the chart writes"),
        (mounted("/var/lib/dstack-admission/trust"), "/var/lib/dstack-admission/trust is where the chart writes"),
        (mounted("/var/lib/dstack-admission/trust.pem"), "see certificates instead"),
        (mounted("/var/lib/dstack-admission/trust/a.0"), "see certificates instead"),
        (mounted("/run/dstack-admission/netrc"), "server.extraVolumeMounts: /run/dstack-admission/netrc is where"),
        (
            {"admission": {"extraVolumeMounts": [{"name": "state", "mountPath": "/tmp/"}]}},
            "admission.extraVolumeMounts: there is a mount at /tmp/ already",
        ),
        ({"admission": {"bindAddress": "127.0.0.1"}}, "admission.bindAddress: nobody outside of the pod reaches"),
        (
            {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["DstackAdmissionDow"]}}},
            "metrics.prometheusRule.disabled: there is no alert called DstackAdmissionDow",
        ),
        (
            {"config": {"plugins": [{"name": "a", "use": "canary"}, {"fanOut": [{"name": "a", "use": "canary"}]}]}},
            "config.plugins: two plugins have the name a",
        ),
        (
            {"image": {"repository": "registry.example.com/dstack-admission:0.1.0"}},
            "image.repository: registry.example.com/dstack-admission:0.1.0 is no name of an image",
        ),
        ({"image": {"repository": "registry.example.com/Policies"}}, "write it in lower case, with its registry"),
        ({"image": {"repository": f"a/b@sha256:{'a' * 64}"}}, "its digest in image.digest"),
        ({"image": {"repository": "https://registry.example.com/a"}}, "without https://"),
        ({"image": {"repository": "registry.example.com:5000"}}, "image.repository: registry.example.com:5000 is no"),
        ({"image": {"repository": "a b"}}, "image.repository: a b is no name"),
        ({"server": {"image": {"repository": "dstackai/dstack:0.22.5"}}}, "its tag in server.image.tag"),
        ({"config": {"pathPrefix": "/a\x7f"}}, "config: holds a character that YAML cannot carry"),
        ({"server": {"config": {"encryption": {"a": "\u2028"}}}}, "server.config: holds a character"),
        ({"enabled": False}, "enabled: is for the `condition` of a chart around this one"),
        ({"metrics": {"port": 8443}}, "metrics.port: 8443 is taken"),
        ({"config": {"plugins": [{"name": "canary", "use": "forbid-privileged"}]}}, "the name canary is taken"),
        (
            {"config": {"plugins": [{"fanOut": [{"name": "canary", "use": "forbid-privileged"}]}]}},
            "config.plugins: the name canary is taken by canary.enabled",
        ),
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


def test_a_release_that_begins_with_a_digit_needs_a_name(chart: Chart) -> None:
    assert "fullnameOverride: the name of a Service begins with a letter" in refusal(chart, {}, name="2nd")
    assert problems(chart.render({"fullnameOverride": "second"}, name="2nd"), NEWEST) == []


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_value_with_nothing_behind_it_is_taken_or_named(chart: Chart, path: tuple[str, ...]) -> None:
    values: Any = None
    for key in reversed(path):
        values = {key: values}
    try:
        assert problems(chart.render(values, apis=OPERATORS), NEWEST) == []
    except Refused as refused:
        assert f"missing property '{path[-1]}'" in str(refused)


def test_every_problem_is_shown_at_once(chart: Chart) -> None:
    said = refusal(chart, {"replicas": 2, "metrics": {"port": 3000}, "podDisruptionBudget": {"enabled": True}})
    assert [key for key in ("replicas:", "metrics.port:", "podDisruptionBudget:") if f"- {key}" not in said] == []


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3, "server": {**POSTGRES, "persistence": {"enabled": False}}},
        {"replicas": 3, "server": {**POSTGRES, "persistence": {"accessModes": ["ReadWriteMany"]}}},
        {"image": {"python": True}, "config": {"plugins": [{"name": "old", "python": {"plugin": "mine"}}]}},
        {**STANDALONE, "replicas": 3, "podDisruptionBudget": {"enabled": True, "minAvailable": "66%"}},
        {"podDisruptionBudget": {"enabled": True, "minAvailable": "0%"}},
        {"podDisruptionBudget": {"enabled": True, "maxUnavailable": 1}},
        {"podDisruptionBudget": {"enabled": True, "maxUnavailable": "1%"}},
        {"terminationGracePeriodSeconds": 10, "config": {"limits": {"gracePeriod": "5s"}}},
        {"admission": {"bindAddress": "[::]"}},
        {"config": {"audit": {"sinks": [{"file": {"path": "/var/lib/dstack-admission/audit.log"}}]}}},
        {"config": {"plugins": []}, "canary": {"enabled": False}},
        {"server": {"proxy": {"httpProxy": PROXY}, "extraEnv": [{"name": "HTTPS_PROXY", "value": PROXY}]}},
        {"image": {"repository": "registry.example.com:5000/platform/dstack-admission"}},
        {"image": {"repository": "localhost:5000/a.b__c--d_e"}},
        {"image": {"repository": "[fd00::1]:5000/dstack-admission"}},
        {"server": {"image": {"repository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/dstackai/dstack"}}},
        mounted("/root/.dstack/server/data"),
        mounted("/root/.dstack/server/config.yml.d"),
    ],
)
def test_what_goes_together_is_taken(chart: Chart, values: dict[str, Any]) -> None:
    assert chart.render(values)
