"""The specs that real servers sent, and what is done with them here."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import environments

SPECS = environments.REPOSITORY / "tests" / "specs"


def bodies(version: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, kind and body of every spec that the server of this version sent."""
    for path in sorted((SPECS / version).glob("*.json")):
        body = json.loads(path.read_text())
        yield path.stem, kind_of(body["spec"]), body


def kind_of(spec: dict[str, Any]) -> str:
    kind = spec["configuration"]["type"]
    return kind if kind in {"fleet", "volume", "gateway"} else "run"


def task(**configuration: Any) -> dict[str, Any]:
    """A run spec with the least in it, which every version reads."""
    return {"configuration": {"type": "task", "commands": ["true"], **configuration}}


def patched(original: Any, before: Any, after: Any) -> Any:
    """The original with the difference of the two dumps applied, as the sidecar does it: objects member by member,
    anything else as a whole. What a dump adds or leaves out by itself is in both and changes nothing."""
    if not all(isinstance(value, dict) for value in (original, before, after)):
        return copy.deepcopy(after)
    result = copy.deepcopy(original)
    for key in before.keys() | after.keys():
        if key not in after:
            result.pop(key, None)
        elif key not in before or not same(before[key], after[key]):
            result[key] = patched(original.get(key), before.get(key), after[key])
    return result


def same(one: Any, other: Any) -> bool:
    """Equal to the last digit: 1, 1.0 and true are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
