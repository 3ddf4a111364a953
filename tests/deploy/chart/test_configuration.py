"""The rendered configuration is one that the binary takes."""

from __future__ import annotations

import json
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


# What the parsers of Helm, Kubernetes and the binary may each take for something else than text.
TEXTS = [
    *("1e3", "+1", "0o17", "0x1F", "0b101", "0777", "1_000", ".5", "1.", "-0", "1.10", ".inf", ".NaN", "12:30:45"),
    *("yes", "No", "on", "y", "~", "null", "true", "TRUE", "=", "<<", "2020-01-01", "123456789012345678901234567890"),
    *("", " ", "\n", "a\n", "\na", "a\n\n", "  lead\nmore", "a\n  b\n c", "a\tb", "a\r\nb", "a  ", "x" * 200 + " y"),
    *("-", "---", "...", "a: b", "# c", "a #b", "- x", "? y", "!tag", "&a", "*a", "@x", "`x", "%x", "|", ">", "{", "["),
    *("'", '"', "\\", "{{ .Values.mode }}", "ü", "😀", "\u00a0", "\ufeff", "\x01"),
]


def test_a_text_of_the_values_is_the_same_text_for_the_binary(chart: Chart, binary: Path, tmp_path: Path) -> None:
    texts = {f"T{index}": text for index, text in enumerate(TEXTS)}
    mutation = {"set": {"path": "/configuration/env", "value": texts}}
    plugins = [{"name": "texts", "cel": {"mutations": [mutation]}}]
    documents = chart.render({"config": {"plugins": plugins, "audit": {"sinks": []}}, "canary": {"enabled": False}})
    configuration, spec = tmp_path / "configuration.yaml", tmp_path / "spec.json"
    (configuration_map,) = [one for one in documents if one["kind"] == "ConfigMap"]
    configuration.write_text(configuration_map["data"]["configuration.yaml"], encoding="utf-8", newline="")
    spec.write_text(json.dumps({"run_name": "a", "configuration": {"type": "task", "commands": ["id"]}}))
    review = [binary, "review", "--config", configuration, "--output", "json", spec]
    decided = subprocess.run(review, capture_output=True, text=True, timeout=60)
    assert decided.returncode == 0, decided.stdout + decided.stderr
    assert env_in(json.loads(decided.stdout)) == texts


def env_in(node: Any) -> dict[str, str] | None:
    """The first environment with the texts in it, wherever the review shows the patched spec."""
    if isinstance(node, dict) and "T0" in node:
        return node
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for item in inner if (found := env_in(item)) is not None), None)


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
