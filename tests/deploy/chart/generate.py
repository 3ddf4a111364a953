"""Writes what is generated for the chart: `values.schema.json`, its README's tables, the pod of docs/kubernetes.md.

    target/e2e/chart/bin/python tests/deploy/chart/generate.py    # `make chart`

The tests see that the files are in step.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from rendering import CHART, REPOSITORY, Chart

SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
PAGE = REPOSITORY / "docs" / "kubernetes.md"
CONFIGURATION = REPOSITORY / "deploy" / "schema" / "configuration.json"
# The newest, which also knows what the older ones do.
KUBERNETES = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"

# Keys of the configuration that only the chart can know.
SET_BY_THE_CHART = ("apiVersion", "kind", "listen", "admin", "stateDir", "serverNames", "tls", "auth")

# What the formats of the configuration look like. Helm does not check formats, it does check patterns.
PATTERNS = {
    "kubernetes-duration": r"^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+)$",
    "kubernetes-quantity": r"^[0-9]+(\.[0-9]+)?([kKMGTPE]?B?|[KMGTPE]i|[KMGTPE]iB)$",
    "expiry-date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$",
}
QUANTITY = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][+-]?[0-9]+)?$"


def values_schema() -> str:
    """The whole of values.schema.json, in draft 7, which every version of Helm reads."""
    own = yaml.safe_load((CHART / "values.schema.in.yaml").read_text())
    definitions: dict[str, Any] = {}
    schema = _resolved(own, definitions)
    definitions.update(schema.pop("$defs"))
    _require(schema, yaml.safe_load((CHART / "values.yaml").read_text()), definitions)
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of dstack-admission", **schema}
    whole["$defs"] = dict(sorted(definitions.items()))
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    """Our part, strict, with the references to the other two in place."""
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref", "")
    source, _, name = reference.partition(":")
    if source == "kubernetes":
        return {"$ref": _kubernetes(f"io.k8s.api.{name}", definitions)}
    if source == "configuration":
        configuration = json.loads(CONFIGURATION.read_text())
        keys = {key: value for key, value in configuration["properties"].items() if key not in SET_BY_THE_CHART}
        of_values = {"type": "object", "additionalProperties": False, "properties": keys}
        return _configuration(of_values, configuration["$defs"], definitions)
    resolved = {key: _resolved(value, definitions) for key, value in node.items()}
    if "properties" in node and isinstance(node.get("type"), str):
        resolved.setdefault("additionalProperties", False)
    return resolved


def _require(node: dict[str, Any], defaults: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Requires what templates read and values.yaml has, so that `key:` with nothing behind it is named: Helm takes the
    key away then, with its default. What is empty by default may be missing, and what Kubernetes has defaults of."""
    required = set(node.get("required", []))
    for key, default in defaults.items():
        part = node["properties"][key]
        reference = part.get("$ref", "").removeprefix("#/$defs/")
        part = definitions[reference] if reference else part
        if reference.startswith("kubernetes.") or reference in ("resources", "labels"):
            continue
        if key != "config" and reference != "probe" and isinstance(default, dict) and part.get("properties"):
            _require(part, default, definitions)
        if default not in ("", [], {}):
            required.add(key)
    if required:
        node["required"] = sorted(required)


def _kubernetes(name: str, definitions: dict[str, Any]) -> str:
    """The reference to a definition of Kubernetes, which is taken over with all that it refers to."""
    ours = "kubernetes." + name.removeprefix("io.k8s.").removeprefix("api.").removeprefix("apimachinery.pkg.")
    if ours not in definitions:
        definitions[ours] = {}
        known = json.loads(KUBERNETES.read_text())["$defs"] if not _KNOWN else _KNOWN
        _KNOWN.update(known)
        definitions[ours] = _without_prose(_KNOWN[name], definitions)
        if name.endswith(".Quantity"):
            definitions[ours] = {"anyOf": [{"type": "string", "pattern": QUANTITY}, {"type": "number"}]}
    return f"#/$defs/{ours}"


_KNOWN: dict[str, Any] = {}


def _without_prose(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_without_prose(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": _kubernetes(node["$ref"].rsplit("/", 1)[-1], definitions)}
    prose = {"description", "format", "default"}
    kept = {
        key: _without_prose(value, definitions)
        for key, value in node.items()
        if not (key.startswith("x-") or key in prose and isinstance(value, str))
    }
    return kept


def _configuration(node: Any, known: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """A part of the configuration's schema, with what it refers to, and with patterns for its formats."""
    if isinstance(node, list):
        return [_configuration(item, known, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            name = value.rsplit("/", 1)[-1]
            result[key] = f"#/$defs/configuration.{name}"
            if f"configuration.{name}" not in definitions:
                definitions[f"configuration.{name}"] = {}
                definitions[f"configuration.{name}"] = _configuration(known[name], known, definitions)
        elif key == "format" and isinstance(value, str):
            # Both are never there: a pattern of the schema's own is the narrower one.
            if value in PATTERNS:
                result.setdefault("pattern", PATTERNS[value])
        elif key not in ("examples", "default") or not isinstance(value, list | str | int | float | bool):
            result[key] = _configuration(value, known, definitions)
    return result


def readme(text: str) -> str:
    """The README with its tables of values written anew."""
    return _between(text, "values", values_tables())


def page(text: str) -> str:
    """The page for Kubernetes with its pod written anew."""
    return _between(text, "pod", f"```yaml\n{pod_snippet()}```\n")


def pod_snippet() -> str:
    """What people with manifests of their own put into their pod: the chart's, without the server's own settings."""
    documents = Chart().render({"metrics": {"enabled": True}}, name="dstack-admission", namespace="dstack")
    pod = next(item for item in documents if item["kind"] == "Deployment")["spec"]["template"]["spec"]
    sidecar = next(item for item in pod["initContainers"] if item["name"] == "dstack-admission")
    server = next(item for item in pod["containers"] if item["name"] == "dstack-server")
    own = {"config", "state", "tmp"}
    snippet = {
        "enableServiceLinks": pod["enableServiceLinks"],
        "initContainers": [sidecar],
        "containers": [
            {
                "name": server["name"],
                "env": server["env"],
                "volumeMounts": [mount for mount in server["volumeMounts"] if mount["name"] in own],
            }
        ],
        "volumes": [volume for volume in pod["volumes"] if volume["name"] in own],
    }
    return yaml.safe_dump(snippet, sort_keys=False, width=120)


def _between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}: written by `make chart` -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"the marks {begin.strip()} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def values_tables() -> str:
    """One table for each top-level map of values.yaml, and one for the rest."""
    tables: dict[str, list[str]] = {}
    for path, default, text in documented(CHART / "values.yaml"):
        top = path.split(".")[0] if "." in path else ""
        tables.setdefault(top, []).append(f"| `{path}` | {_cell(default)} | {text} |")
    parts = []
    for top, rows in tables.items():
        title = f"### `{top}`" if top else "### The pod and its names"
        parts.append("\n".join((title, "", "| key | default | meaning |", "|---|---|---|", *rows)))
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    if value in ("", None, [], {}):
        return ""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > 60:
        return "see [values.yaml](values.yaml)"
    return f"`{text.replace('|', chr(92) + '|')}`"


def documented(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Every value with a comment `# -- …` above it: its path, default and text.

    A value without one, whose parent has none either, is an error.
    """
    lines = path.read_text().splitlines()
    root = yaml.compose(path.read_text())
    values = yaml.safe_load(path.read_text())
    yield from _documented(root, values, "", lines)


def _documented(node: yaml.MappingNode, values: Any, prefix: str, lines: list[str]) -> Iterator[tuple[str, Any, str]]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        text = _comment(lines, key.start_mark.line)
        if text is not None:
            yield path, values[key.value], text
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _documented(value, values[key.value], f"{path}.", lines)
        else:
            raise SystemExit(f"values.yaml, line {key.start_mark.line + 1}: {path} has no comment `# -- …`")


def _comment(lines: list[str], line: int) -> str | None:
    gathered: list[str] = []
    for above in reversed(lines[:line]):
        match = re.match(r"\s*# (-- )?(.*)", above)
        if not match:
            return None
        gathered.insert(0, match[2])
        if match[1]:
            return " ".join(gathered).replace("|", "\\|")
    return None


def written() -> dict[Path, str]:
    """Every generated file with what it should hold."""
    return {SCHEMA: values_schema(), README: readme(README.read_text()), PAGE: page(PAGE.read_text())}


def main() -> int:
    # The schema comes first: the pod is rendered with it.
    SCHEMA.write_text(values_schema())
    for path, text in written().items():
        path.write_text(text)
        print(path.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
