"""Each kind of spec, allowed, patched and denied, on each version of the real dstack server."""

import copy
from collections.abc import Iterator
from typing import Any

from harness.chains import NOUNS, allow, denial, deny, label, merged
from harness.dstack import DstackServer
from harness.sidecar import Sidecar

# What the server itself fills in after a review where it was null; everything else has to come back as it went.
FILLED_IN = {"repo_id", "repo_data", "priority", "nodes", "vendor"}


def comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec without the names that the tests make anew for what is really created."""
    spec = copy.deepcopy(spec)
    spec["configuration"].pop("name", None)
    return spec


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path of a JSON value that holds no further paths, with what is there."""
    match value:
        case dict() if value:
            for key, member in value.items():
                yield from leaves(member, (*path, key))
        case list() if value:
            for index, member in enumerate(value):
                yield from leaves(member, (*path, str(index)))
        case _:
            yield path, value


def differences(sent: Any, reviewed: Any) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """The paths that differ, less the nulls that the server is known to fill and the keys it hides in a plan."""
    before, after = dict(leaves(sent)), dict(leaves(reviewed))
    found = {
        path: (before.get(path), after.get(path)) for path in {*before, *after} if before.get(path) != after.get(path)
    }
    return {
        path: (old, new)
        for path, (old, new) in found.items()
        if "ssh_key" not in path and (old is not None or not FILLED_IN.intersection(path[-2:]))
    }


def extra_map(configuration: dict[str, Any]) -> str:
    """A map that this kind of configuration may carry: dstack refuses tags on a fleet of one's own hosts."""
    return "env" if "ssh_config" in configuration else "tags"


def test_an_allowed_spec_is_not_touched(sidecar: Sidecar, server: DstackServer, configuration: dict[str, Any]) -> None:
    sidecar.serve([allow()])
    answer = server.plan(configuration)

    assert answer.status == 200, answer.text
    body = answer.body
    # A created volume or gateway comes back without what was sent, so what was applied stands for it.
    sent = body.get("run_spec") or body.get("spec")
    if sent is not None:
        assert differences(sent, answer.spec) == {}
    else:
        assert {key: answer.configuration[key] for key in configuration if key not in ("name", "size")} == {
            key: value for key, value in configuration.items() if key not in ("name", "size")
        }
    (record,) = sidecar.audit()
    assert record["decision"] == "allowed"
    assert "patch" not in record


def test_a_patched_spec_is_accepted_and_differs_by_the_patch_alone(
    sidecar: Sidecar, server: DstackServer, configuration: dict[str, Any]
) -> None:
    sidecar.serve([allow()])
    untouched = comparable(server.plan(configuration).spec)

    where = extra_map(configuration)
    patch = {"name": "label", "cel": {"mutations": [merged(f"/configuration/{where}", {"managed-by": "platform"})]}}
    sidecar.serve([patch])
    answer = server.plan(configuration)

    assert answer.status == 200, answer.text
    patched = comparable(answer.spec)
    assert patched["configuration"].pop(where) == {"managed-by": "platform"}
    untouched["configuration"].pop(where, None)
    assert patched == untouched


def test_a_denied_spec_is_refused_in_the_words_of_the_policy(
    sidecar: Sidecar, server: DstackServer, configuration: dict[str, Any]
) -> None:
    sidecar.serve([label(), deny(message="ask platform@example.com — ünïcode too")])
    answer = server.plan(configuration)

    assert answer.status == 400
    expected = denial(NOUNS[configuration["type"]], "no-admins: ask platform@example.com — ünïcode too")
    assert expected.fullmatch(answer.message), answer.message


def test_every_denial_of_the_validating_phase_reaches_the_user(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([deny("first", "one thing is wrong"), deny("second", "another thing is wrong")])
    answer = server.plan({"type": "task", "name": "train", "commands": ["true"]})

    assert answer.status == 400
    expected = denial("run", "first: one thing is wrong", "second: another thing is wrong")
    assert expected.fullmatch(answer.message), answer.message


def test_the_synthetic_task_of_dstack_offer_passes(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([allow(), label()])
    answer = server.plan({"type": "task", "image": "scratch", "commands": [":"], "user": "root"})

    assert answer.status == 200, answer.text
    assert answer.configuration["tags"] == {"managed-by": "platform"}


def test_a_denied_run_is_never_submitted(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([deny()])
    task = {"type": "task", "name": "never", "image": "busybox", "commands": ["true"]}
    answer = server.apply(task)

    assert answer.status == 400
    assert denial("run", "no-admins: administrators apply nothing here").fullmatch(answer.message), answer.message
    assert server.call("/api/project/main/runs/get", {"run_name": "never"}).status in (400, 404)


def test_a_patched_run_is_submitted_as_patched(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([label()])
    task = {"type": "task", "name": "labelled", "image": "busybox", "commands": ["true"], "tags": {"team": "ml"}}
    answer = server.apply(task)

    assert answer.status == 200, answer.text
    assert answer.body["run_spec"]["configuration"]["tags"] == {"team": "ml", "managed-by": "platform"}
