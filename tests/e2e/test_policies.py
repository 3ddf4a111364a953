"""What single policies make of the configurations of `tests/specs`, as a user of the real server sees it.

A row of the table is a policy, a configuration and what is expected. The sidecar serves that policy alone, and the
configuration is applied to every server that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import specs
from harness.chains import NOUNS, denial_like
from harness.dstack import Answer, DstackServer, named_anew
from harness.sidecar import Sidecar

POLICY = "policy"
RUNS = ("task", "dev-environment", "service")


@dataclass(frozen=True)
class Denied:
    """Refused; the whole reason that the user reads, as a regular expression."""

    reason: str


@dataclass(frozen=True)
class Patched:
    """Accepted, with these values at these JSON pointers of the spec and nothing else changed. Absent is null."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Allowed:
    """Accepted as it is."""


@dataclass(frozen=True)
class Row:
    """One line of the table: `policy` is a chain item without its name."""

    title: str
    policy: Mapping[str, Any]
    configuration: str
    expected: Denied | Patched | Allowed

    @property
    def case(self) -> specs.SpecCase:
        return specs.case(self.configuration)

    @property
    def versions(self) -> tuple[str, ...]:
        return self.case.versions

    @property
    def is_submitted(self) -> bool:
        """Whether it is applied for good as well: a run that is more than planned, and that these servers take."""
        if self.case.configuration["type"] not in RUNS or self.case.trap == "offer":
            return False
        return isinstance(self.expected, Denied) or not needs_gateway(self.case.configuration)

    def __str__(self) -> str:
        return f"{self.title}-{self.configuration}"


def needs_gateway(service: Mapping[str, Any]) -> bool:
    """Whether servers refuse to run a service since their project has no gateway; they do so after the review."""
    groups = service.get("groups") or service.get("replicas")
    scaled = any("scaling" in each for each in (service, *(groups if isinstance(groups, list) else ())))
    return scaled or bool(service.get("gateway")) or service.get("https") is False


def builtin(use: str, configuration: str, expected: Denied | Patched | Allowed, **parameters: Any) -> Row:
    """A row for a policy of the library: `use:` with these parameters."""
    return Row(use, {"use": use, **({"with": parameters} if parameters else {})}, configuration, expected)


UNPRIVILEGED = {
    "cel": {
        "validations": [
            {
                "expression": "!spec.configuration.privileged",
                "messageExpression": "spec.run_name + ' must not be privileged'",
            }
        ]
    }
}
OWNED = {"cel": {"mutations": [{"mergeMap": {"path": "/configuration/tags", "value": {"owner": "platform"}}}]}}
CAPPED = {
    "cel": {
        "mutations": [
            {
                "when": "spec.configuration.max_price == null || spec.configuration.max_price > 2.0",
                "set": {"path": "/configuration/max_price", "value": 2.0},
            }
        ]
    }
}
OWNER = Patched({"/configuration/tags": {"owner": "platform"}})
CAP = Patched({"/configuration/max_price": 2.0})

ROWS = (
    Row("unprivileged", UNPRIVILEGED, "privileged-top-level", Denied("build.* must not be privileged")),
    Row("unprivileged", UNPRIVILEGED, "plain-task", Allowed()),
    Row("owned", OWNED, "plain-dev-environment", OWNER),
    Row("owned", OWNED, "plain-service", OWNER),
    Row("owned", OWNED, "plain-fleet-cloud", OWNER),
    Row("owned", OWNED, "plain-volume", OWNER),
    Row("owned", OWNED, "plain-gateway", OWNER),
    Row("owned", OWNED, "offer", OWNER),
    Row("capped", CAPPED, "price-null", CAP),
    Row("capped", CAPPED, "price-over-profile", CAP),
    Row("capped", CAPPED, "price-small", Allowed()),
    Row("capped", CAPPED, "price-fleet", CAP),
    Row("capped", CAPPED, "gpu-replica-groups", CAP),
    Row("capped", CAPPED, "gpu-old-replicas", CAP),
)


def test_a_policy_decides_as_the_table_says(sidecar: Sidecar, server: DstackServer, row: Row) -> None:
    sidecar.serve([{"name": POLICY, **row.policy}])
    answer = server.plan(row.case.configuration, parts=row.case.parts)
    seen(row, answer, sidecar)
    if isinstance(row.expected, Patched):
        # A policy leaves alone what it has patched.
        again = server.plan(answer.configuration, parts=answer.spec)
        assert again.status == 200, again.text
        assert values(again.spec, row.expected) == row.expected.values
        assert sidecar.audit()[-1]["decision"] == "allowed", sidecar.audit()[-1]
    if row.is_submitted:
        seen(row, submitted(server, row.case), sidecar)


def seen(row: Row, answer: Answer, sidecar: Sidecar) -> None:
    """Whether the user reads, and the last audit record says, what the row expects."""
    record = sidecar.audit()[-1]
    match row.expected:
        case Denied(reason):
            assert answer.status == 400, answer.text
            noun = NOUNS[row.case.configuration["type"]]
            assert denial_like(noun, f"{POLICY}: {reason}").fullmatch(answer.message), answer.message
            assert record["decision"] == "denied", record
        case Allowed():
            assert answer.status == 200, answer.text
            assert record["decision"] == "allowed", record
        case Patched(wanted):
            assert answer.status == 200, answer.text
            assert values(answer.spec, row.expected) == wanted
            unexpected = [path for path in patched_paths(record) if not is_expected(path, row.expected)]
            assert unexpected == [], record["patch"]


def submitted(server: DstackServer, case: specs.SpecCase) -> Answer:
    """Applies a run for good, under a name that no run has yet; one that was denied is not there afterwards."""
    configuration, parts = dict(case.configuration), dict(case.parts)
    if "name" in configuration:
        configuration = named_anew(configuration)
        parts["run_name"] = configuration["name"]
    answer = server.apply(configuration, parts=parts)
    if answer.status != 200 and "name" in configuration:
        assert server.call("/api/project/main/runs/get", {"run_name": configuration["name"]}).status in (400, 404)
    return answer


def patched_paths(record: Mapping[str, Any]) -> list[str]:
    return [operation["path"] for operation in record["patch"]]


def is_expected(path: str, expected: Patched) -> bool:
    """Whether a patched path is one of those that are expected, lies below one or holds one."""
    return any(f"{path}/".startswith(f"{pointer}/") or pointer.startswith(f"{path}/") for pointer in expected.values)


def values(spec: Any, expected: Patched) -> dict[str, Any]:
    """What stands where `expected` names a value."""
    return {pointer: at(spec, pointer) for pointer in expected.values}


def at(spec: Any, pointer: str) -> Any:
    """What stands at a JSON pointer; None where there is nothing."""
    for token in pointer.removeprefix("/").split("/"):
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(spec, list):
            spec = spec[int(token)] if int(token) < len(spec) else None
        else:
            spec = spec.get(token) if isinstance(spec, dict) else None
    return spec
