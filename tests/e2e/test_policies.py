"""What single policies make of the configurations of `tests/specs`, as a user of the real server sees it.

A row of the table is a policy, a configuration and what is expected. The sidecar serves that policy alone, and the
configuration is applied to every server that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

import environments
from harness import specs
from harness.chains import NOUNS, denial_like
from harness.dstack import Answer, DstackServer, named_anew
from harness.sidecar import Sidecar

POLICY = "policy"
DOCUMENTED = environments.REPOSITORY / "deploy" / "examples" / "documented-policy.yaml"
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


def capped(use: str, configuration: str, path: str, value: Any, **parameters: Any) -> Row:
    """A row for a policy of the library that writes one value of a configuration."""
    return builtin(use, configuration, Patched({f"/configuration/{path}": value}), **parameters)


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
PLATFORM = {"owner": "platform"}
KEPT = {"cost-center": "1200", **PLATFORM}
PINNED = {"allow": ["ghcr.io/acme/*"]}

# Every policy of the library that changes specs is here with what it writes, on each shape that servers have;
# of those that only deny, one trap each. Their suites in `src/plugins/library` are the whole truth.
ROWS = (
    Row("unprivileged", UNPRIVILEGED, "privileged-top-level", Denied("build.* must not be privileged")),
    capped("max-price", "price-null", "max_price", 2.0, limit=2),
    capped("max-price", "price-in-profile", "max_price", 2.0, limit=2),
    capped("max-price", "price-fleet-null", "max_price", 0.75, limit=0.75),
    capped("max-price", "gpu-old-replicas", "max_price", 2.0, limit=2),
    capped("max-price", "offer", "max_price", 2.0, limit=2, action="deny"),
    builtin("max-price", "price-small", Allowed(), limit=2),
    builtin("max-price", "price-over-profile", Denied(r".*configuration\.max_price\)"), limit=2, action="deny"),
    capped("max-duration", "duration-off-over-profile", "max_duration", 7200, limit="2h"),
    capped("max-duration", "plain-dev-environment", "max_duration", 7200, limit="2h"),
    builtin("max-duration", "duration-off-in-profile", Denied(r".*profile\.max_duration\)"), limit="2h", action="deny"),
    capped("max-idle-duration", "idle-negative", "idle_duration", 600, limit="10m"),
    capped("max-idle-duration", "idle-fleet-in-profile", "idle_duration", 600, limit="10m"),
    capped("max-idle-duration", "inactivity-off", "inactivity_duration", 7200, limit="10m", inactivity="2h"),
    capped("priority-cap", "priority-highest", "priority", 50, limit=50),
    capped("gpu-limit", "gpu-unbounded-by-name", "resources/gpu/count/max", 8, max=8, unbounded="cap"),
    builtin("gpu-limit", "gpu-replica-groups", Denied(".*33.*"), max=8),
    capped("allowed-gpus", "gpu-memory-only", "resources/gpu/name", ["L4", "A100"], allow=["L4", "A100"]),
    capped("allowed-backends", "places-null", "backends", ["aws", "gcp"], allow=["AWS", "gcp"]),
    capped("allowed-backends", "price-fleet-null", "backends", ["aws"], allow=["aws"]),
    capped("allowed-regions", "places-null", "regions", ["EU-West-1"], allow=["EU-West-1"]),
    builtin("allowed-regions", "places-mixed-case", Denied(r".*us-east-1 \(configuration\.regions\)"), allow=["eu-*"]),
    capped("allowed-instance-types", "places-null", "instance_types", ["g5.xlarge"], allow=["g5.xlarge"]),
    capped("spot-policy", "plain-task", "spot_policy", "auto", allow=["auto", "spot"]),
    capped("spot-policy", "gpu-old-replicas", "spot_policy", "spot", allow=["spot"]),
    capped("spot-policy", "spot-in-group", "groups/0/spot_policy", "spot", allow=["spot"]),
    builtin("spot-policy", "spot-in-profile", Denied(r".*profile\.spot_policy\)"), allow=["on-demand"]),
    capped("set-tags", "tags-in-profile", "tags", KEPT, tags=PLATFORM),
    capped("set-tags", "tags-empty-over-profile", "tags", PLATFORM, tags=PLATFORM),
    capped("set-tags", "tags-fleet-in-profile", "tags", KEPT, tags=PLATFORM),
    capped("set-tags", "plain-volume", "tags", {"by": "admin in main"}, tags={"by": "{user} in {project}"}),
    capped("set-tags", "plain-gateway", "tags", PLATFORM, tags=PLATFORM),
    capped("set-tags", "offer", "tags", PLATFORM, tags=PLATFORM),
    builtin("set-tags", "plain-fleet-ssh", Allowed(), tags=PLATFORM),
    builtin("required-tags", "tags-empty-over-profile", Denied(".*cost-center.*"), tags=["cost-center"]),
    builtin("required-tags", "offer", Allowed(), tags=["cost-center"]),
    builtin("forbid-privileged", "privileged-by-docker", Denied(r".*configuration\.docker.*")),
    builtin("forbid-host-mounts", "host-mount-docker-socket-untidy", Denied(".*docker.sock.*"), allow=["/cache/*"]),
    builtin("forbid-commands", "commands-init", Denied(r".*configuration\.init.*"), deny=["*"]),
    builtin("plain-secrets-in-env", "secrets-in-env", Denied(".*HF_TOKEN.*")),
    builtin("placement-guard", "placement-in-profile", Denied(r".*profile\.fleets.*")),
    builtin("limit-nodes", "fleet-unbounded", Denied(r".*configuration\.nodes.*"), max=2),
    builtin("limit-replicas", "gpu-replica-groups", Denied(r".*configuration\.groups.*"), max=4),
    builtin("allowed-images", "image-lookalike-registry", Denied(r".*configuration\.image.*"), **PINNED),
    builtin("allowed-images", "offer", Allowed(), **PINNED),
    builtin("allowed-reservations", "reservation-in-profile", Denied(".*reservation.*"), allow=["other"]),
    builtin("service-exposure", "exposure-no-auth", Denied(r".*configuration\.auth.*")),
    builtin("gateway-rules", "gateway-other-domain", Denied(".*notexample.*"), domains=["*.example.com"]),
    builtin("volume-limits", "volume-large", Denied(".*10240GB.*"), maxSize="1TB"),
    builtin("name-pattern", "name-of-run-differs", Denied(".*(something-else|train-).*"), pattern="^train$"),
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


def test_the_documented_policy_closes_its_own_hole(sidecar: Sidecar, server: DstackServer) -> None:
    """The policy of dstack's documentation lets privileged groups through on the servers that send `groups`."""
    sidecar.serve(yaml.safe_load(DOCUMENTED.read_text())["plugins"])
    traps = [case for case in specs.cases() if case.trap == "privileged" and server.version in case.versions]
    assert "privileged-in-group" in map(str, traps) or server.version < "0.21"
    for case in traps:
        answer = server.plan(case.configuration, parts=case.parts)
        assert denial_like("run", r"unprivileged: .*(privileged|docker)\)").fullmatch(answer.message), (case, answer)

    service = server.plan(specs.case("exposure-https-false").configuration)
    assert service.status == 200, service.text
    written = {"max_price": 2.0, "max_duration": 86400, "tags": {"team": "my_team"}, "https": True}
    assert {key: service.configuration[key] for key in written} == written


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
