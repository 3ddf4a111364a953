"""Whatever values the schema lets pass, the chart renders what an API server takes, or says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
from hypothesis import strategies
from hypothesis_jsonschema import from_schema

from manifests import problems
from rendering import CHART, KUBERNETES, OPERATORS, Chart, Refused

# In place of definitions of Kubernetes and of the configuration, whose values go through as they are.
EXAMPLES: dict[str, list[Any]] = {
    "kubernetes.core.v1.EnvVar": [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "on"}}},
        {"name": "DSTACK_SERVER_PORT", "value": "1"},
    ],
    "kubernetes.core.v1.EnvFromSource": [{"secretRef": {"name": "aws"}}],
    "kubernetes.core.v1.VolumeMount": [{"name": "tmp", "mountPath": "/scratch"}],
    "kubernetes.core.v1.ResourceRequirements": [{}, {"limits": {"cpu": 1, "memory": "1Gi"}}],
    "kubernetes.core.v1.SecurityContext": [{}, {"readOnlyRootFilesystem": True}],
    "kubernetes.core.v1.PodSecurityContext": [{}, {"fsGroup": 65532}],
    "kubernetes.core.v1.LocalObjectReference": [{"name": "registry"}],
    "kubernetes.core.v1.Toleration": [{"operator": "Exists"}],
    "kubernetes.core.v1.Affinity": [{}],
    "kubernetes.core.v1.TopologySpreadConstraint": [
        {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "kubernetes.networking.v1.NetworkPolicyPeer": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "kubernetes.networking.v1.NetworkPolicyEgressRule": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
    "kubernetes.networking.v1.IngressTLS": [{"secretName": "tls", "hosts": ["a.example.com"]}],
    "kubernetes.autoscaling.v2.HorizontalPodAutoscalerBehavior": [
        {},
        {"scaleDown": {"stabilizationWindowSeconds": 60}},
    ],
    "repository": ["dstack-admission", "registry.example.com:5000/platform/dstack", "registry.example.com/a:1"],
    "configuration.PluginEntry": [
        {"name": "cost", "use": "max-price", "with": {"limit": 4.5}},
        {"name": "old", "python": {"plugin": "mine"}},
        {"fanOut": [{"name": "a", "rest": {"url": "http://localhost:1"}}]},
    ],
    "configuration.Exemption": [
        {"plugins": ["cost"], "match": {"projects": ["demo"]}, "reason": "a", "expires": "2099-12-31"}
    ],
    "configuration.Audit": [{"level": "None"}],
    "configuration.Limits": [{}, {"gracePeriod": "9s"}, {"gracePeriod": "1m"}],
    "configuration.Log": [{"format": "text"}],
}


def values() -> strategies.SearchStrategy[dict[str, Any]]:
    """Values by the schema, of some keys at a time."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    left_out = ("global", "extraObjects", "extraVolumes", "extraContainers", "extraInitContainers")
    parts = {key: _of(part, schema["$defs"]) for key, part in schema["properties"].items() if key not in left_out}
    return strategies.lists(strategies.sampled_from(sorted(parts)), max_size=6, unique=True).flatmap(
        lambda keys: strategies.fixed_dictionaries({key: parts[key] for key in keys})
    )


def _of(
    node: dict[str, Any], definitions: dict[str, Any], *, has_defaults: bool = True
) -> strategies.SearchStrategy[Any]:
    """What a part of the schema lets pass. Required keys may be missing where values.yaml has them.

    Objects are put together here, since the library's own way fails with newer versions of hypothesis.
    """
    if "$ref" in node:
        name = node["$ref"].removeprefix("#/$defs/")
        if name in EXAMPLES:
            return strategies.sampled_from(EXAMPLES[name])
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _of({**definitions[name], **rest}, definitions, has_defaults=has_defaults)
    if node == {"type": "object", "additionalProperties": True}:
        return strategies.sampled_from([{}, {"name": "main"}])
    if "propertyNames" in node:
        keys, items = (
            from_schema({"type": "string", **node["propertyNames"]}),
            _of(node["additionalProperties"], definitions),
        )
        return strategies.dictionaries(keys.filter(lambda key: len(key) < 300), items, max_size=2)
    if node.get("type") == "object":
        properties = node.get("properties", {})
        known = {key: _of(value, definitions, has_defaults=has_defaults) for key, value in properties.items()}
        needed = {key: known.pop(key) for key in ([] if has_defaults else node.get("required", []))}
        return strategies.fixed_dictionaries(needed, optional=known)
    if node.get("type") == "array":
        items = _of(node["items"], definitions, has_defaults=False)
        return strategies.lists(items, min_size=node.get("minItems", 0), max_size=2, unique_by=json.dumps)
    if "anyOf" in node:
        return strategies.one_of([_of(one, definitions) for one in node["anyOf"]])
    if node.get("type") == "string" and not {"pattern", "enum"} & node.keys():
        return from_schema({**node, "pattern": "^[ -~]{0,20}$"})
    return from_schema(node)


@hypothesis.settings(
    max_examples=80,
    deadline=None,
    # Finding the smallest values takes minutes; what fails is small enough to be read.
    phases=[hypothesis.Phase.generate],
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(values=values(), version=strategies.sampled_from(KUBERNETES))
def test_values_of_the_schema_render_or_are_refused_in_words(values: dict[str, Any], version: str) -> None:
    try:
        documents = CHART_OF_THE_RUN.render(values, kubernetes=version, apis=OPERATORS)
    except Refused as refused:
        said = str(refused)
        assert "The values cannot be used:\n- " in said or "this copy of the chart has no" in said, said
        return
    assert problems(documents, version) == []


CHART_OF_THE_RUN = Chart()
