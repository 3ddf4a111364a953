"""The rendered configuration is one that the binary takes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from conftest import VALUES, values_of
from rendering import OPERATORS, Chart
from test_rendering import configuration_of, containers_of, pod_of


@pytest.mark.parametrize("name", VALUES)
def test_the_binary_takes_the_configuration(chart: Chart, name: str, binary: Path, tmp_path: Path) -> None:
    documents = chart.render(values_of(name), apis=OPERATORS)
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(yaml.safe_dump(below(configuration_of(documents), tmp_path)))
    put_mounts(documents, tmp_path)
    checked = subprocess.run([binary, "check", "--config", configuration], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_plugin_of_the_values_is_the_plugin_of_the_file(chart: Chart) -> None:
    """Nothing is lost or turned into something else: numbers, quotes, braces, words that YAML takes for booleans."""
    plugin = {
        "name": "odd",
        "match": {"projects": ["*", "!no", "1.10"]},
        "cel": {
            "variables": [{"name": "a", "expression": "'{{ .Values }}' + \"\\n\\\\\""}],
            "mutations": [{"set": {"path": "/configuration/tags", "value": {"a": "on", "b": "1e3", "c": ""}}}],
            "validations": [{"expression": "effective.max_price <= 0.1 || 123456789 > 1", "message": "a: b # c"}],
        },
    }
    rendered = configuration_of(chart.render({"config": {"plugins": [plugin]}, "canary": {"enabled": False}}))
    assert rendered["plugins"] == [plugin]


@pytest.mark.parametrize("name", VALUES)
def test_every_file_of_the_configuration_is_in_a_mount(chart: Chart, name: str) -> None:
    documents = chart.render(values_of(name), apis=OPERATORS)
    mounts = containers_of(pod_of(documents))["dstack-admission"]["volumeMounts"]
    for path in paths_in(configuration_of(documents)):
        assert any(Path(path).is_relative_to(mount["mountPath"]) for mount in mounts), path


def paths_in(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [
            path
            for key, value in node.items()
            for path in ([value] if key.endswith("File") or key == "stateDir" else paths_in(value))
        ]
    return [path for item in node for path in paths_in(item)] if isinstance(node, list) else []


def below(node: Any, root: Path) -> Any:
    """The same configuration with its files below a directory."""
    if isinstance(node, dict):
        return {key: below(value, root) for key, value in node.items()}
    if isinstance(node, list):
        return [below(item, root) for item in node]
    if isinstance(node, str) and node.startswith(("/etc/dstack-admission", "/var/")):
        return str(root / node.lstrip("/"))
    return node


def put_mounts(documents: list[dict[str, Any]], root: Path) -> None:
    """What the kubelet would mount: certificates and credentials."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    content = {
        "tls.crt": b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
        "tls.key": leaf.private_key_pem.bytes(),
        "ca.crt": authority.cert_pem.bytes(),
        "token": b"token\n",
        "password": b"secret\n",
    }
    mounts = containers_of(pod_of(documents))["dstack-admission"]["volumeMounts"]
    for mount in mounts:
        directory = root / mount["mountPath"].lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for key, value in content.items():
            (directory / key).write_bytes(value)
