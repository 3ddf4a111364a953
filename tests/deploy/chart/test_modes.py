"""A value that belongs to the other mode is refused by its name, or the notes say that it does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import values_of
from rendering import OPERATORS, Chart, Refused

DEFAULTS = values_of("defaults")
STANDALONE = values_of("standalone")
# Of values that are empty by default: something that the schema takes.
GIVEN: dict[str, Any] = {
    "accessModes": ["ReadWriteMany"],
    "annotations": {"example.com/a": "b"},
    "config": {"projects": [{"name": "main"}]},
    "digest": f"sha256:{'a' * 64}",
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraEnvFrom": [{"secretRef": {"name": "aws"}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/scratch"}],
    "hosts": [{"host": "dstack.example.com"}],
    "httpProxy": "http://proxy:3128",
    "httpsProxy": "http://proxy:3128",
    "memory": "9Gi",
    "noProxy": [".svc"],
    "pullPolicy": "Always",
    "size": "99Gi",
    "tls": [{"secretName": "tls"}],
    "type": "LoadBalancer",
    "url": "https://dstack.example.com",
}


def leaves(values: dict[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and "ecurityContext" not in key and key != "requests":
            yield from leaves(value, *above, key)
        elif "ecurityContext" not in key and key != "requests":
            yield (*above, key), value


def other(key: str, value: Any) -> Any:
    """Another value than the default."""
    if key in GIVEN:
        return GIVEN[key]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else f"{value}z"


def under(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def foreign(mode: str) -> list[Any]:
    """Every value of the part that the other mode has."""
    part = {"standalone": "server", "sidecar": "standalone"}[mode]
    return [pytest.param(path, value, id=".".join(path)) for path, value in leaves(DEFAULTS[part], part)]


def is_on(key: str, value: Any) -> bool:
    """Whether another value than this default asks for something, rather than shapes what is there anyway."""
    return value is False or value in ("", [], {}, "ClusterIP")


def assert_refused_or_noted(chart: Chart, mode: dict[str, Any], path: tuple[str, ...], value: Any, note: str) -> None:
    values = mode | under(path, other(path[-1], value))
    if is_on(path[-1], value):
        with pytest.raises(Refused) as refused:
            chart.texts(values)
        said = str(refused.value)
        assert ".".join(path) in said and ": only mode " in said
        return
    documents, notes = chart.render(values), notes_of(chart, values)
    assert documents == chart.render(mode), "it does something after all"
    assert note in notes


def notes_of(chart: Chart, values: dict[str, Any]) -> str:
    return next(text for path, text in chart.texts(values, apis=OPERATORS).items() if path.endswith("NOTES.txt"))


@pytest.mark.parametrize(("path", "value"), foreign("standalone"))
def test_no_value_of_the_server_passes_silently_where_there_is_none(
    chart: Chart, path: tuple[str, ...], value: Any
) -> None:
    note = "No dstack server is installed: what is set under `server` does nothing."
    assert_refused_or_noted(chart, STANDALONE, path, value, note)


@pytest.mark.parametrize(("path", "value"), foreign("sidecar"))
def test_no_value_of_standalone_passes_silently_beside_the_server(
    chart: Chart, path: tuple[str, ...], value: Any
) -> None:
    assert_refused_or_noted(chart, {}, path, value, "so what is set under `standalone` does nothing")


def test_all_of_them_are_named_at_once(chart: Chart) -> None:
    server = {"ingress": {"enabled": True, "hosts": [{"host": "a.example.com"}]}, "adminToken": {"existingSecret": "a"}}
    with pytest.raises(Refused) as refused:
        chart.render({**STANDALONE, "server": server})
    expected = "server.adminToken.existingSecret, server.ingress.enabled, server.ingress.hosts: only mode sidecar"
    assert all(name in str(refused.value) for name in expected.removesuffix(": only mode sidecar").split(", "))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"auth": {"username": "me"}}, "auth.username, auth.passwordKey: nobody is asked for credentials"),
        ({"auth": {"passwordKey": "secret"}}, "auth.username, auth.passwordKey: nobody is asked for credentials"),
        (
            {"certificates": {"dnsNames": ["a.example.com"]}},
            "certificates.dnsNames: is for certificates.source certManager, which is made",
        ),
        (
            {"certificates": {"certManager": {"issuerRef": {"name": "company"}}}},
            "certificates.certManager.issuerRef: is for certificates.source certManager, which is made",
        ),
        (
            {"server": {"persistence": {"enabled": False, "existingClaim": "data"}}},
            "server.persistence.existingClaim: nothing is kept there",
        ),
    ],
)
def test_what_would_be_relied_on_in_vain_is_refused(chart: Chart, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence.replace(".", "[.]")):
        chart.render(values)


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"networkPolicy": {"clients": [{"podSelector": {}}]}}, "nothing is restricted: networkPolicy.enabled is false"),
        ({"networkPolicy": {"egress": [{}]}}, "nothing is restricted: networkPolicy.enabled is false"),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "there is no PodDisruptionBudget"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "there is no PodDisruptionBudget"),
        ({"server": {"ingress": {"hosts": [{"host": "a.example.com"}]}}}, "there is no Ingress"),
        (
            {"networkPolicy": {"enabled": True, "metrics": [{"podSelector": {}}]}, "metrics": {"enabled": False}},
            "so networkPolicy.metrics does nothing",
        ),
    ],
)
def test_what_is_given_and_not_switched_on_is_said(chart: Chart, values: dict[str, Any], warning: str) -> None:
    warnings = [line for line in notes_of(chart, values).splitlines() if line.startswith("WARNING: ")]
    assert [line for line in warnings if warning in line], warnings


@pytest.mark.parametrize(
    ("values", "first", "version"),
    [
        ({"server": {"image": {"tag": "0.21.0"}}}, "dstack 0.21.0 starts as soon as", "0.21.0"),
        ({"server": {"image": {"digest": GIVEN["digest"]}}}, "The dstack server starts as soon as", None),
        ({**STANDALONE, "image": {"digest": GIVEN["digest"]}}, "dstack-admission waits for", None),
    ],
)
def test_a_version_is_named_only_where_it_is_known(
    chart: Chart, values: dict[str, Any], first: str, version: str | None
) -> None:
    assert notes_of(chart, values).startswith(first)
    labels = [one["metadata"]["labels"] for one in chart.render(values, apis=OPERATORS)]
    assert {one.get("app.kubernetes.io/version") for one in labels} == {version}


@pytest.mark.parametrize("mode", ["defaults", "sidecar-full", "ha", "standalone"])
def test_values_of_the_mode_itself_are_not_warned_of(chart: Chart, mode: str) -> None:
    notes = notes_of(chart, values_of(mode))
    said = ("under `standalone` does nothing", "metrics does nothing", "nothing is restricted", "there is no ")
    assert [warning for warning in said if warning in notes] == []
