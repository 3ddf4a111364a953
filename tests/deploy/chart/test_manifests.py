"""The checks of manifests find what a schema lets pass: each is shown one thing that is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from conftest import values_of
from manifests import problems
from rendering import NEWEST, OPERATORS, Chart

Documents = list[dict[str, Any]]


def the(documents: Documents, kind: str) -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == kind)


def pod(documents: Documents) -> dict[str, Any]:
    return the(documents, "Deployment")["spec"]["template"]["spec"]


def server(documents: Documents) -> dict[str, Any]:
    return pod(documents)["containers"][0]


def set_in(kind: str, *path: Any) -> Callable[[Any], Callable[[Documents], None]]:
    """Changes one place of the first object of a kind."""

    def to(value: Any) -> Callable[[Documents], None]:
        def change(documents: Documents) -> None:
            node = the(documents, kind)
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value

        return change

    return to


BROKEN: dict[str, tuple[Callable[[Documents], Any], str]] = {
    "a long port name": (lambda d: server(d)["ports"][0].update(name="a" * 16), "the port's name"),
    "a port name twice": (lambda d: server(d)["ports"][0].update(name="admin"), "two ports have the name admin"),
    "a port twice": (lambda d: server(d)["ports"].append({"containerPort": 3000}), "two ports have the containerPort"),
    "a mount without volume": (
        lambda d: server(d)["volumeMounts"].append({"name": "none", "mountPath": "/a"}),
        "mounts none, which is no volume",
    ),
    "a volume nobody mounts": (
        lambda d: pod(d)["volumes"].append({"name": "idle", "emptyDir": {}}),
        "the volume idle is mounted nowhere",
    ),
    "two mounts at one place": (
        lambda d: server(d)["volumeMounts"].append(server(d)["volumeMounts"][0]),
        "mounts two volumes at",
    ),
    "a volume of two sources": (lambda d: pod(d)["volumes"][0].update(emptyDir={}), "has 2 sources"),
    "two containers of a name": (
        lambda d: server(d).update(name="dstack-admission"),
        "two containers have the name dstack-admission",
    ),
    "a variable twice": (lambda d: server(d)["env"].append(server(d)["env"][0]), "is set twice"),
    "a probe of no port": (
        lambda d: server(d)["livenessProbe"]["httpGet"].update(port="htp"),
        "livenessProbe asks the port htp",
    ),
    "a probe of two kinds": (
        lambda d: server(d)["livenessProbe"].update(exec={"command": ["true"]}),
        "livenessProbe has 2 handlers",
    ),
    "a probe on a plain init container": (
        lambda d: pod(d)["initContainers"][0].update(readinessProbe=server(d)["readinessProbe"]),
        "the init container server-config cannot have a readinessProbe",
    ),
    "a bad quantity": (
        lambda d: server(d)["resources"]["limits"].update(memory="2 GB"),
        "resources.limits.memory: `2 GB` is no quantity",
    ),
    "a root that may not be": (
        lambda d: server(d)["securityContext"].update(runAsNonRoot=True, runAsUser=0),
        "runs as root",
    ),
    "a selector of other pods": (
        set_in("Deployment", "spec", "selector", "matchLabels")({"app": "a"}),
        "does not match the pods' labels",
    ),
    "a service of other pods": (set_in("Service", "spec", "selector")({"app": "a"}), "selects nothing by"),
    "a service of no port": (
        set_in("Service", "spec", "ports", 0, "targetPort")("htp"),
        "no container has the target port htp",
    ),
    "an overlong service": (set_in("Service", "metadata", "name")("a" * 64), "at most 63"),
    "a budget of both kinds": (
        set_in("PodDisruptionBudget", "spec", "maxUnavailable")(1),
        "give one of minAvailable and maxUnavailable",
    ),
    "an overlong label": (set_in("Service", "metadata", "labels", "a")("b" * 64), "the label a"),
    "a label that is a number": (set_in("Service", "metadata", "labels", "a")(1), "the label a"),
    "a name that is none": (set_in("ConfigMap", "metadata", "name")("A_b"), "is no DNS name"),
    "an ingress to nowhere": (
        set_in("Ingress", "spec", "rules", 0, "http", "paths", 0, "backend", "service", "name")("a"),
        "which is not there",
    ),
    "an object twice": (lambda d: d.append(d[0]), "is there twice"),
    "an unknown key": (set_in("Deployment", "spec", "replica")(1), "replica"),
    "an unknown key of a custom resource": (set_in("PodMonitor", "spec", "jobLable")("a"), "jobLable"),
    "a monitor of nothing": (
        set_in("PodMonitor", "spec", "selector", "matchLabels")({"app": "a"}),
        "selects nothing by",
    ),
    "a spread over nothing": (
        lambda d: pod(d)["topologySpreadConstraints"][0].pop("labelSelector"),
        "spreads nothing",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_found(chart: Chart, name: str) -> None:
    documents = copy.deepcopy(chart.render(values_of("sidecar-full"), apis=OPERATORS))
    change, sentence = BROKEN[name]
    change(documents)
    found = problems(documents, NEWEST)
    assert [problem for problem in found if sentence in problem], found
