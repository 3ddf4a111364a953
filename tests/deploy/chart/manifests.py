"""What is wrong with Kubernetes manifests, found without a cluster.

First by Kubernetes' own schemas, then by rules of the API server that no schema tells: names and references that
must agree.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

# It reads two files of a megabyte for every document; once each is enough.
utils.schema_contents = functools.cache(utils.schema_contents)

Document = dict[str, Any]

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
QUANTITY = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$")
PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?$")

# Which model of which package knows a custom resource.
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PodMonitor"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
    ("cert-manager.io/v1", "Certificate"): "cloudcoil.models.cert_manager.v1",
    ("cert-manager.io/v1", "Issuer"): "cloudcoil.models.cert_manager.v1",
}


def problems(documents: list[Document], kubernetes: str) -> list[str]:
    """Everything that is wrong, each with the object it is wrong in."""
    found = [f"{_title(document)}: {text}" for document in documents for text in _of_one(document, kubernetes)]
    return found + list(_between(documents))


def _title(document: Document) -> str:
    return f"{document.get('kind')} {document.get('metadata', {}).get('name')}"


def _of_one(document: Document, kubernetes: str) -> Iterator[str]:
    yield from schema_problems(document, kubernetes)
    yield from _metadata(document)
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Service":
        yield from _ports(spec.get("ports", []), "port")
        if not SERVICE_NAME.match(document["metadata"]["name"]):
            yield "the name of a Service has at most 63 of a-z, 0-9 and -, and begins with a letter"
    if kind == "PodDisruptionBudget" and ("minAvailable" in spec) == ("maxUnavailable" in spec):
        yield "give one of minAvailable and maxUnavailable"
    if kind == "HorizontalPodAutoscaler" and spec["minReplicas"] > spec["maxReplicas"]:
        yield "minReplicas is more than maxReplicas"
    if kind == "PersistentVolumeClaim":
        yield from _quantities(spec["resources"], "resources")
    if kind == "ConfigMap" and sum(len(text.encode()) for text in document.get("data", {}).values()) > 1 << 20:
        yield "a ConfigMap holds at most 1 MiB"
    if kind == "Deployment":
        yield from _deployment(spec)
    if kind == "Pod":
        yield from _pod(spec)


def schema_problems(document: Document, kubernetes: str) -> Iterator[str]:
    """By Kubernetes' own schema, or by that of the operator whose resource it is."""
    key = (document.get("apiVersion"), document.get("kind"))
    if key in CUSTOM:
        for error in _custom_validator(*key).iter_errors(document):
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        return
    try:
        kubernetes_validate.validate(document, kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except (kubernetes_validate.InvalidSchemaError, kubernetes_validate.SchemaNotFoundError) as error:
        yield f"Kubernetes {kubernetes} knows no {key}: {error}"


@functools.cache
def _custom_validator(api: str, kind: str) -> jsonschema.Draft202012Validator:
    model = getattr(importlib.import_module(CUSTOM[api, kind]), kind)
    return jsonschema.Draft202012Validator(_strict(model.model_json_schema(by_alias=True)))


def _strict(node: Any) -> Any:
    """The same schema, in which an object with properties takes no others."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if "properties" in node and node.get("type") == "object":
        strict["additionalProperties"] = False
    return strict


def _metadata(document: Document) -> Iterator[str]:
    metadata = document["metadata"]
    if len(metadata["name"]) > 253 or not DNS_NAME.match(metadata["name"]):
        yield f"the name `{metadata['name']}` is no DNS name"
    yield from _labels(metadata.get("labels", {}))
    for key, value in metadata.get("annotations", {}).items():
        if not isinstance(value, str) or not LABEL_KEY.match(key):
            yield f"the annotation {key}: {value!r} cannot be used"


def _labels(labels: dict[str, Any]) -> Iterator[str]:
    for key, value in labels.items():
        if not isinstance(value, str) or not LABEL_VALUE.match(value) or not LABEL_KEY.match(key):
            yield f"the label {key}: {value!r} cannot be used"


def _deployment(spec: Document) -> Iterator[str]:
    wanted, template = spec["selector"]["matchLabels"], spec["template"]
    if not _matches(wanted, template["metadata"]["labels"]):
        yield f"the selector {wanted} does not match the pods' labels"
    strategy = spec.get("strategy", {})
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield "Recreate knows no rollingUpdate"
    yield from _labels(template["metadata"]["labels"])
    yield from _pod(template["spec"])


def _pod(spec: Document) -> Iterator[str]:
    plain = [one for one in spec.get("initContainers", []) if one.get("restartPolicy") != "Always"]
    init, containers = spec.get("initContainers", []), spec["containers"]
    names = Counter(one["name"] for one in [*init, *containers])
    yield from (f"two containers have the name {name}" for name, count in names.items() if count > 1)
    volumes = Counter(volume["name"] for volume in spec.get("volumes", []))
    yield from (f"two volumes have the name {name}" for name, count in volumes.items() if count > 1)
    for volume in spec.get("volumes", []):
        if len(volume) != 2:
            yield f"the volume {volume['name']} has {len(volume) - 1} sources"
        if not DNS_LABEL.match(volume["name"]) or len(volume["name"]) > 63:
            yield f"the volume's name `{volume['name']}` is no DNS label"
    used = {mount["name"] for one in [*init, *containers] for mount in one.get("volumeMounts", [])}
    yield from (f"the volume {name} is mounted nowhere" for name in volumes if name not in used)
    for one in plain:
        for key in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
            if key in one:
                yield f"the init container {one['name']} cannot have a {key}"
    ports: list[Document] = []
    for one in [*init, *containers]:
        ports += one.get("ports", [])
        yield from (f"container {one['name']}: {text}" for text in _container(one, set(volumes)))
    yield from _ports(ports, "containerPort")
    for constraint in spec.get("topologySpreadConstraints", []):
        if not constraint.get("labelSelector"):
            yield "a topology spread constraint without labelSelector spreads nothing"


def _container(one: Document, volumes: set[str]) -> Iterator[str]:
    if not DNS_LABEL.match(one["name"]) or len(one["name"]) > 63:
        yield "its name is no DNS label"
    mounts = one.get("volumeMounts", [])
    yield from (f"mounts {mount['name']}, which is no volume" for mount in mounts if mount["name"] not in volumes)
    paths = Counter(mount["mountPath"].rstrip("/") for mount in mounts)
    yield from (f"mounts two volumes at {path}" for path, count in paths.items() if count > 1)
    variables = Counter(variable["name"] for variable in one.get("env", []))
    yield from (f"{name} is set twice" for name, count in variables.items() if count > 1)
    for variable in one.get("env", []):
        if "value" in variable and not isinstance(variable["value"], str):
            yield f"the value of {variable['name']} is no string"
    named = {port.get("name") for port in one.get("ports", [])}
    for key in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = one.get(key, {})
        port = probe.get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in named:
            yield f"{key} asks the port {port}, which the container does not have"
        handlers = [handler for handler in ("httpGet", "exec", "tcpSocket", "grpc") if handler in probe]
        if probe and len(handlers) != 1:
            yield f"{key} has {len(handlers)} handlers"
    yield from _quantities(one.get("resources", {}), "resources")
    context = one.get("securityContext", {})
    if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
        yield "runs as root, which runAsNonRoot forbids"


def _ports(ports: list[Document], number: str) -> Iterator[str]:
    for port in ports:
        name = port.get("name", "")
        if name and (len(name) > 15 or not PORT_NAME.match(name) or not re.search("[a-z]", name)):
            yield f"the port's name `{name}` is none: at most 15 of a-z, 0-9 and -"
    for key in ("name", number):
        counted = Counter((port[key], port.get("protocol", "TCP")) for port in ports if key in port)
        yield from (f"two ports have the {key} {value[0]}" for value, count in counted.items() if count > 1)
    if len(ports) > 1 and number == "port" and not all(port.get("name") for port in ports):
        yield "several ports of a Service need names"


def _quantities(resources: Document, path: str) -> Iterator[str]:
    for group in ("requests", "limits"):
        for name, value in resources.get(group, {}).items():
            if not QUANTITY.match(str(value)):
                yield f"{path}.{group}.{name}: `{value}` is no quantity"


def _between(documents: list[Document]) -> Iterator[str]:
    """What one object says of another in the same release."""
    named = Counter((one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in documents)
    yield from (f"{kind} {name} is there twice" for (_, kind, name), count in named.items() if count > 1)
    deployments = [one for one in documents if one["kind"] == "Deployment"]
    names = {one["metadata"]["name"] for one in deployments}
    templates = [one["spec"]["template"] for one in deployments]
    services = [one for one in documents if one["kind"] == "Service"]
    for document in documents:
        title, spec = _title(document), document.get("spec", {})
        selector = _selector(document)
        if selector is not None:
            candidates = services if document["kind"] == "ServiceMonitor" else templates
            chosen = [one for one in candidates if _matches(selector, one["metadata"]["labels"])]
            if not chosen:
                yield f"{title}: selects nothing by {selector}"
            if document["kind"] == "Service":
                yield from (f"{title}: {text}" for text in _targets(spec["ports"], chosen))
            if document["kind"] == "ServiceMonitor":
                ports = {port["name"] for service in chosen for port in service["spec"]["ports"]}
                for endpoint in spec["endpoints"]:
                    if endpoint["port"] not in ports:
                        yield f"{title}: no selected Service has the port {endpoint['port']}"
                if len(chosen) > 1:
                    yield f"{title}: selects {len(chosen)} Services, which would be counted twice"
        if document["kind"] == "HorizontalPodAutoscaler" and spec["scaleTargetRef"]["name"] not in names:
            yield f"{title}: scales {spec['scaleTargetRef']['name']}, which is not there"
        if document["kind"] == "Ingress":
            ports = {(one["metadata"]["name"], port["name"]) for one in services for port in one["spec"]["ports"]}
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    if (backend["name"], backend["port"].get("name")) not in ports:
                        yield f"{title}: leads to {backend}, which is not there"


def _selector(document: Document) -> dict[str, str] | None:
    spec = document.get("spec", {})
    match document["kind"]:
        case "Service":
            return spec.get("selector")
        case "PodDisruptionBudget" | "PodMonitor" | "ServiceMonitor":
            return spec["selector"]["matchLabels"]
        case "NetworkPolicy":
            return spec["podSelector"]["matchLabels"]
    return None


def _targets(ports: list[Document], templates: list[Document]) -> Iterator[str]:
    for template in templates:
        pod = template["spec"]
        # A sidecar's port has to be meant by its number; a name is looked for in containers alone by some versions.
        named = {port.get("name") for one in pod["containers"] for port in one.get("ports", [])}
        every = [*pod.get("initContainers", []), *pod["containers"]]
        numbers = {port["containerPort"] for one in every for port in one.get("ports", [])}
        for port in ports:
            target = port.get("targetPort", port["port"])
            if target not in (named if isinstance(target, str) else numbers):
                yield f"no container has the target port {target}"


def _matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()
