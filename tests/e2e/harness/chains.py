"""Chain items that several tests serve, and what the message of a denial looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ULID = r"[0-9A-HJKMNP-TV-Z]{26}"

# The word that a message has for what is applied.
NOUNS = {
    "task": "run",
    "dev-environment": "run",
    "service": "run",
    "fleet": "fleet",
    "volume": "volume",
    "gateway": "gateway",
}


def allow(name: str = "allow") -> dict[str, Any]:
    """A rule that everything fulfils."""
    return {"name": name, "cel": {"validations": [{"expression": "user == 'admin'", "message": "who are you?"}]}}


def deny(name: str = "no-admins", message: str = "administrators apply nothing here", **common: Any) -> dict[str, Any]:
    """A rule that nothing in these tests fulfils."""
    return {"name": name, "cel": {"validations": [{"expression": "user != 'admin'", "message": message}]}, **common}


def label(key: str = "managed-by", value: str = "platform", name: str = "label", **common: Any) -> dict[str, Any]:
    """A rule that sets a tag and keeps the others."""
    return {"name": name, "cel": {"mutations": [merged("/configuration/tags", {key: value})]}, **common}


def merged(path: str, value: Mapping[str, str]) -> dict[str, Any]:
    """A `mergeMap` mutation."""
    return {"mergeMap": {"path": path, "value": dict(value)}}


def denial(noun: str, *reasons: str) -> re.Pattern[str]:
    """The whole text a user reads when these reasons deny; the decision's id is the group `id`."""
    return denial_like(noun, *map(re.escape, reasons))


def denial_like(noun: str, *reasons: str) -> re.Pattern[str]:
    """The same, each reason a regular expression."""
    count = "1 policy denies" if len(reasons) == 1 else f"{len(reasons)} policies deny"
    lines = "".join(f"\n- {reason}" for reason in reasons)
    return re.compile(rf"Apply request rejected: {count} this {noun} \(decision (?P<id>{ULID})\):{lines}")


def unchecked(noun: str, plugin: str) -> re.Pattern[str]:
    """The whole text a user reads when this plugin's fault denies, whatever the reason in the group `why`."""
    count = "1 policy could not be checked, so"
    decided = rf"this {noun} is denied \(decision (?P<id>{ULID})\):"
    return re.compile(rf"Apply request rejected: {count} {decided}\n- {re.escape(plugin)}: (?P<why>.+)", re.DOTALL)
