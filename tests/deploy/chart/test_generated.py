"""What is generated is in step with what it is generated from, and the values are documented, strict and complete."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import generate
from conftest import VALUES, values_of
from rendering import CHART, REPOSITORY

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.mark.parametrize("path", generate.written(), ids=lambda path: path.name)
def test_generated_files_are_in_step(path: Path) -> None:
    assert path.read_text() == generate.written()[path], "run `make chart`"


def test_the_schema_of_the_configuration_is_that_of_the_binary(binary: Path) -> None:
    printed = subprocess.run([binary, "schema"], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == json.loads(generate.CONFIGURATION.read_text())


def test_every_key_of_the_configuration_is_a_value_or_set_by_the_chart() -> None:
    keys = set(json.loads(generate.CONFIGURATION.read_text())["properties"])
    assert set(generate.SET_BY_THE_CHART) <= keys
    assert set(SCHEMA["properties"]["config"]["properties"]) == keys - set(generate.SET_BY_THE_CHART)


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_no_map_takes_unknown_keys() -> None:
    # What is not ours: values of charts around this one, dstack's own configuration, any object at all. The parameters
    # of a built-in policy are strict where the policy is known.
    free = {
        "properties.global",
        "properties.server.properties.config.properties.projects.items",
        "properties.server.properties.config.properties.encryption",
        "properties.server.properties.config.properties.default_permissions",
        "properties.extraObjects.items.anyOf.0",
        "$defs.configuration.PluginEntry.properties.with",
    }
    assert set(_open(SCHEMA, "")) == free


def _open(node: Any, path: str) -> Iterator[str]:
    """Places of maps that take any key."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _open(item, f"{path}.{index}".lstrip("."))
    if not isinstance(node, dict):
        return
    is_map = node.get("type") == "object" or node.get("type") == ["object", "null"]
    if is_map and node.get("additionalProperties", True) is True and "$defs.kubernetes." not in path:
        yield path
    for key, value in node.items():
        yield from _open(value, f"{path}.{key}".lstrip("."))


def test_values_and_schema_have_the_same_keys() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    only_in_schema = set(_keys_of_schema(SCHEMA)) - set(_keys_of_values(values))
    # Optional keys of the configuration and of dstack, of which the defaults hold.
    assert {key for key in only_in_schema if not key.startswith(("config.", "server.config."))} == {
        "global",
        "enabled",
        *(
            f"{container}{probe}.initialDelaySeconds"
            for container in ("admission.", "server.")
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        ),
    }


def _keys_of_schema(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    node = SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else node
    if "additionalProperties" not in node or "properties" not in node:
        return
    for key, value in node["properties"].items():
        yield f"{prefix}{key}"
        reference = value.get("$ref", "").removeprefix("#/$defs/")
        if not reference.startswith(("kubernetes.", "configuration.", "resources")):
            yield from _keys_of_schema(value, f"{prefix}{key}.")


def _keys_of_values(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys_of_values(value, f"{prefix}{key}.")


@pytest.mark.parametrize("name", VALUES)
def test_the_sets_of_values_fit_the_schema(name: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(_laid_over(values_of("defaults"), values_of(name)))


def _laid_over(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """As Helm does it."""
    merged = {
        key: _laid_over(defaults[key], value) if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value
        for key, value in values.items()
    }
    return {**defaults, **merged}


def test_every_top_level_value_is_used_somewhere_in_the_sets() -> None:
    used = {key for name in VALUES if name != "defaults" for key in values_of(name)}
    known = set(yaml.safe_load((CHART / "values.yaml").read_text()))
    assert known - used == {"nameOverride", "podSecurityContext", "standalone"}


def test_the_versions_of_chart_and_binary_agree() -> None:
    cargo = (REPOSITORY / "Cargo.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in cargo
    images = {one["name"]: one["image"] for one in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])}
    assert images == {
        "dstack-admission": f"dstack-admission:{chart['appVersion']}",
        "dstack": f"dstackai/dstack:{values['server']['image']['tag']}",
    }
