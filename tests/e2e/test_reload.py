"""A changed configuration is served within 15 s, a broken one never."""

import pytest

from harness.chains import allow, deny
from harness.dstack import DstackServer, load
from harness.sidecar import Sidecar

pytestmark = pytest.mark.versions("0.22.5")


def allows(server: DstackServer) -> bool:
    return server.plan(load("task")).status == 200


@pytest.mark.parametrize("told", [True, False], ids=["by-signal", "by-the-changed-file"])
def test_a_changed_configuration_changes_the_verdict(sidecar: Sidecar, server: DstackServer, told: bool) -> None:
    sidecar.serve([allow()])
    assert allows(server)
    pid = sidecar.pid

    sidecar.write([deny()])
    if told:
        sidecar.hang_up()
    sidecar.wait_until(lambda: not allows(server))
    assert sidecar.pid == pid and sidecar.is_running()


def test_a_broken_configuration_keeps_the_last_good_one(sidecar: Sidecar, server: DstackServer) -> None:
    sidecar.serve([deny()])
    assert not allows(server)

    sidecar.write([{**allow(), "modus": "monitor"}])
    sidecar.hang_up()
    failures = "dstack_admission_config_reload_total"
    sidecar.wait_until(lambda: sidecar.counted(failures, result="failure") >= 1)
    assert not allows(server)
    assert len({record["configuration"] for record in sidecar.audit()}) == 1

    sidecar.write([allow()])
    sidecar.hang_up()
    sidecar.wait_until(lambda: allows(server))
