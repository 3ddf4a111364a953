"""The configurations under `tests/specs`, and what a real server sends its plugin service for each.

A file is a comment, a dstack configuration and, after `---`, what stands around it in the spec where that is
not what the command line says anyway (`profile`, `run_name`, …). In the comment two lines are read:

    # trap: ROW              what a policy has to look at
    # versions: >=0.21.5     the servers that take it, as comparisons that all hold; absent: every server
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import environments
from harness.dstack import DstackServer
from harness.recorder import REFUSAL, Recorder

SPECS = environments.REPOSITORY / "tests" / "specs"
CONFIGURATIONS = SPECS / "configurations"
README = SPECS / "README.md"
# Who applies everything; not the administrator, who may do what others may not.
USER = "alice"


class Malformed(Exception):
    """A configuration file is not what it should be; the text says which and how."""


@dataclass(frozen=True)
class SpecCase:
    """One file of `configurations/`."""

    name: str
    about: str
    trap: str
    versions: tuple[str, ...]
    configuration: Mapping[str, Any]
    parts: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name


@dataclass
class Captured:
    """What one server sent: a text for each case it knows, and a sentence for each that went wrong."""

    texts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@cache
def cases() -> tuple[SpecCase, ...]:
    """Every configuration, by name."""
    return tuple(_read(path) for path in sorted(CONFIGURATIONS.glob("*.yml")))


@cache
def case(name: str) -> SpecCase:
    """The configuration `configurations/NAME.yml`."""
    return _read(CONFIGURATIONS / f"{name}.yml")


def capture(server: DstackServer, recorder: Recorder, refused: str = REFUSAL) -> Captured:
    """Submits every configuration to a server whose reviews reach `recorder`, as a client does.

    `refused` is what the server's answer ends with once the recorder has refused. A version that a file's
    header leaves out is tried as well: it has to refuse by itself, or the header says too much.
    """
    token = server.member(USER)
    captured = Captured()
    recorder.take()
    for each in cases():
        answer = server.submit(each.configuration, parts=each.parts, token=token)
        bodies = recorder.take()
        if server.version not in each.versions:
            if bodies:
                captured.problems.append(f"{each.name}: {server.version} takes it, but its header leaves it out")
        elif len(bodies) != 1 or answer.status != 400 or not answer.message.endswith(refused):
            captured.problems.append(
                f"{each.name}: {len(bodies)} reviews by {server.version}, which answered {answer.status}: {answer.text}"
            )
        else:
            captured.texts[each.name] = rendered(bodies[0])
    return captured


def rendered(body: Any) -> str:
    """A body as it stands in a file: keys in the order in which they came, every number as it came."""
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def committed(version: str) -> dict[str, str]:
    """What the project holds of one version, by name."""
    return {path.stem: path.read_text() for path in sorted((SPECS / version).glob("*.json"))}


def table(listed: Iterable[SpecCase]) -> str:
    """The table of `README.md`: the name, what it traps, which servers take it and what it is there for."""
    lines = ["| name | trap | servers | what it is there for |", "|---|---|---|---|"]
    for each in sorted(listed, key=lambda each: (each.trap, each.name)):
        known = "all" if each.versions == environments.DSTACK_VERSIONS else ", ".join(reversed(each.versions))
        lines.append(f"| `{each.name}` | {each.trap} | {known} | {each.about.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """The text of `README.md` with the table that fits the configurations, which is its end."""
    head, found, _ = readme.partition("\n| name | trap |")
    if not found:
        raise Malformed(f"{README.name} has no table")
    return f"{head}\n{table(cases())}"


def _read(path: Path) -> SpecCase:
    text = path.read_text()
    about: list[str] = []
    said: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").strip()
        key, colon, value = line.partition(": ")
        if colon and key in ("trap", "versions"):
            said[key] = value.strip()
        else:
            about.append(line)
    documents = list(yaml.safe_load_all(text))
    if not about or "trap" not in said:
        raise Malformed(f"{path.name}: the comment at its top has to say what it is for, and `trap: ROW`")
    if not 1 <= len(documents) <= 2:
        raise Malformed(f"{path.name}: one configuration, and at most one document after it")
    return SpecCase(
        name=path.stem,
        about=" ".join(about),
        trap=said["trap"],
        versions=_versions(path, said.get("versions", "")),
        configuration=documents[0],
        parts=documents[1] if len(documents) == 2 else {},
    )


def _versions(path: Path, conditions: str) -> tuple[str, ...]:
    """The versions that fulfil every one of the comma-separated conditions."""
    known = environments.DSTACK_VERSIONS
    for condition in filter(None, (part.strip() for part in conditions.split(","))):
        if condition.startswith(">="):
            known = tuple(version for version in known if _number(version) >= _number(condition[2:]))
        elif condition.startswith("<"):
            known = tuple(version for version in known if _number(version) < _number(condition[1:]))
        else:
            raise Malformed(f"{path.name}: `versions: {conditions}` is not a list of `>=X` and `<X`")
    if not known:
        raise Malformed(f"{path.name}: no version is left by `versions: {conditions}`")
    return known


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
