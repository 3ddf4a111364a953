"""The sidecar asks for Basic credentials; the dstack server takes them from its netrc file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.chains import allow
from harness.dstack import DstackServer, load
from harness.sidecar import Sidecar

pytestmark = pytest.mark.versions("0.22.5", "0.19.40")


@pytest.fixture
def basic(tmp_path: Path, server: DstackServer) -> Iterator[dict[str, Any]]:
    """The `auth` of a sidecar that wants dstack:correct; the server's netrc file is emptied afterwards."""
    password = tmp_path / "password"
    password.write_text("correct\n")
    yield {"basic": {"username": "dstack", "passwordFile": str(password)}}
    server.credentials(None)


def test_the_right_credentials_are_reviewed(sidecar: Sidecar, server: DstackServer, basic: dict[str, Any]) -> None:
    sidecar.serve([allow()], auth=basic)
    server.credentials(("dstack", "correct"))
    assert server.plan(load("task")).status == 200
    assert [record["decision"] for record in sidecar.audit()] == ["allowed"]


@pytest.mark.parametrize("pair", [("dstack", "wrong"), ("other", "correct"), None], ids=["password", "user", "none"])
def test_wrong_credentials_allow_nothing(
    sidecar: Sidecar, server: DstackServer, basic: dict[str, Any], pair: tuple[str, str] | None
) -> None:
    sidecar.serve([allow()], auth=basic)
    server.credentials(pair)
    answer = server.plan(load("task"))

    assert answer.status == 400
    assert answer.message == "Request to the plugin service failed"
    assert sidecar.audit() == []
