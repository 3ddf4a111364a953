"""A namespace whose kubelet is Podman: enough of `helm` and `kubectl` to follow a page, with the chart's own pods.

What Podman does not take of a rendered pod is changed in `playable`, and nowhere else.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import yaml
from engine import Container, Podman
from rendering import OPERATORS, Chart

from harness.processes import LOOPBACK

Objects = list[dict[str, Any]]
# Podman 4 can stumble over removing an init container that has just ended.
KEPT = {"io.podman.annotations.init.container.type": "always"}
MODES = {"emptyDir": 0o777, "persistentVolumeClaim": 0o755}


class Cluster:
    """Secrets that were created, and one release."""

    def __init__(self, podman: Podman, folder: Path, port: int):
        """`port` is where the dstack server is reached, as if it were forwarded."""
        self.podman = podman
        self.folder = folder
        self.port = port
        self.secrets: dict[str, dict[str, str]] = {}
        self.objects: Objects = []

    def create_secret(self, words: list[str]) -> None:
        """`kubectl create secret generic NAME --from-literal=KEY=VALUE…`"""
        name = words[words.index("generic") + 1]
        literals = (word.removeprefix("--from-literal=") for word in words if word.startswith("--from-literal="))
        self.secrets[name] = dict(literal.split("=", 1) for literal in literals)

    def render(self, words: list[str], directory: Path) -> Objects:
        """What `helm install` and `helm upgrade` make of their arguments, files being below `directory`."""
        _, _, release, chart, *rest = words
        options = list(zip(rest[::2], rest[1::2], strict=True))
        values: dict[str, Any] = {}
        for option, value in options:
            if option == "-f":
                values |= yaml.safe_load((directory / value).read_text())
            elif option == "--set":
                path, _, text = value.partition("=")
                *parents, key = path.split(".")
                inner = values
                for parent in parents:
                    inner = inner.setdefault(parent, {})
                inner[key] = yaml.safe_load(text)
        namespace = dict(options)["-n"]
        return Chart(directory / chart).render(values, name=release, namespace=namespace, apis=OPERATORS)

    def install(self, objects: Objects) -> None:
        """Starts the pod of the release's Deployment."""
        self.objects = objects
        deployment = self.the("Deployment")
        self.play(deployment["metadata"]["name"], deployment["spec"]["template"]["spec"])

    def upgrade(self, objects: Objects) -> None:
        """Brings changed ConfigMaps into the pod, as a kubelet does; the pod itself has to stay as it is."""
        before = self.the("Deployment")
        self.objects = objects
        assert self.the("Deployment") == before, "the pod would be replaced"
        for volume in before["spec"]["template"]["spec"]["volumes"]:
            self.fill(self.folder / before["metadata"]["name"] / volume["name"], volume)

    def test(self) -> Container:
        """Starts the pod of `helm test`."""
        pod = self.the("Pod")
        self.play(pod["metadata"]["name"], pod["spec"])
        return self.container(pod["spec"]["containers"][0]["name"], pod["metadata"]["name"])

    def container(self, name: str, pod: str | None = None) -> Container:
        return Container(self.podman, f"{pod or self.the('Deployment')['metadata']['name']}-{name}")

    def the(self, kind: str) -> dict[str, Any]:
        """The one object of a kind."""
        (found,) = (one for one in self.objects if one["kind"] == kind)
        return found

    def play(self, name: str, spec: dict[str, Any]) -> None:
        metadata = {"name": name, "annotations": KEPT}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.playable(name, spec)}
        manifest = self.folder / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump(pod))
        self.podman.command("kube", "play", manifest)

    def playable(self, name: str, rendered: dict[str, Any]) -> dict[str, Any]:
        """The pod as Podman 4 takes it."""
        spec = copy.deepcopy(rendered)
        # It knows no native sidecars, and would wait for this one's end.
        native = [one for one in spec.get("initContainers", []) if one.pop("restartPolicy", None) == "Always"]
        spec["initContainers"] = [one for one in spec.get("initContainers", []) if one not in native]
        spec["containers"] = [*native, *spec["containers"]]
        # Volumes are directories that are filled here.
        for volume in spec["volumes"]:
            directory = self.folder / name / volume["name"]
            self.fill(directory, volume)
            volume.clear()
            volume |= {"name": directory.name, "hostPath": {"path": str(directory)}}
        for container in spec["initContainers"] + spec["containers"]:
            # It would run `curl` in the container for them.
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                container.pop(probe, None)
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    key = variable.pop("valueFrom")["secretKeyRef"]
                    variable["value"] = self.secrets[key["name"]][key["key"]]
            for port in container.get("ports", []):
                if port["name"] == "http":
                    port |= {"hostPort": self.port, "hostIP": LOOPBACK}
        # No names of Services are served.
        service = f"{self.the('Deployment')['metadata']['name']}.dstack.svc"
        if name != self.the("Deployment")["metadata"]["name"]:
            spec["hostAliases"] = [{"ip": self.address(), "hostnames": [service]}]
        return spec

    def address(self) -> str:
        """The pod's own."""
        pod = self.podman.json("pod", "inspect", self.the("Deployment")["metadata"]["name"])
        infra = self.podman.json("container", "inspect", pod["InfraContainerID"])[0]
        return str(next(iter(infra["NetworkSettings"]["Networks"].values()))["IPAddress"])

    def fill(self, directory: Path, volume: dict[str, Any]) -> None:
        """Puts the files of a ConfigMap or a Secret into a directory, with the mode that they are mounted with."""
        directory.mkdir(parents=True, exist_ok=True)
        for kind, mode in MODES.items():
            if kind in volume:
                directory.chmod(mode)
        mode, files = 0o644, {}
        if "configMap" in volume:
            (source,) = (
                one["data"]
                for one in self.objects
                if one["kind"] == "ConfigMap" and one["metadata"]["name"] == volume["configMap"]["name"]
            )
            files, mode = source, volume["configMap"].get("defaultMode", mode)
        elif "secret" in volume:
            source = self.secrets[volume["secret"]["secretName"]]
            items = volume["secret"].get("items", [{"key": key, "path": key} for key in source])
            files = {item["path"]: source[item["key"]] for item in items}
            mode = volume["secret"].get("defaultMode", mode)
        for path, text in files.items():
            made = directory / f".{path}"
            made.write_text(text)
            made.chmod(mode)
            # What fsGroup does.
            os.chown(made, 0, 65532)
            made.rename(directory / path)
