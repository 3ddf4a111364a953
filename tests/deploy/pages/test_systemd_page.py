"""docs/systemd.md, followed below a directory of the test's own: what it installs is what its unit starts.

There is no systemd here; that it takes the unit is asked in tests/deploy/images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stage import checkout, denial, is_patched
from walk import Walk

from harness.dstack import DstackServer
from harness.processes import free_port

NO_SYSTEMD = "no systemd runs here"
PLACES = ("/usr/bin", "/usr/lib/sysusers.d", "/etc/systemd/system")


def test_what_the_page_installs_is_what_its_unit_starts(
    follow: Callable[..., Walk], server: DstackServer, binary: Path, tmp_path: Path
) -> None:
    machine, listen, admin = tmp_path / "machine", free_port(), free_port()
    for place in PLACES:
        (machine / place.lstrip("/")).mkdir(parents=True)
    words = {f" /{top}/": f" {machine}/{top}/" for top in ("usr", "etc")}
    walk = follow("docs/systemd.md", checkout(tmp_path / "checkout"), words=words)
    walk.environment["PATH"] = f"{machine}/usr/bin:{walk.environment['PATH']}"

    release = "target/x86_64-unknown-linux-gnu/release/dstack-admission"
    copied = f"install -D {binary} {release}"
    walk.run("RUSTFLAGS=", instead=copied, because="the tests of the images build the release")
    for command in ("install -m 755 target", "install -m 644", "install -d", "grep", "install -m 644"):
        walk.run(command)
    for command in ("systemd-sysusers", "systemctl daemon-reload"):
        walk.not_run(command, because=NO_SYSTEMD)
    configuration = machine / "etc/dstack-admission/admission.yaml"
    state = machine / "var/lib/dstack-admission"
    with configuration.open("a") as file:
        file.write(f"listen: 127.0.0.1:{listen}\nadmin: 127.0.0.1:{admin}\nstateDir: {state}\n")

    walk.run("dstack-admission check")
    walk.not_run("systemctl enable", because=NO_SYSTEMD)
    (started,) = _lines(machine / "etc/systemd/system/dstack-admission.service", "ExecStart=")
    walk.background(started.replace("/usr/bin/", "").replace("/etc/", f"{machine}/etc/"), until="serving")
    assert walk.read("plugins:").split() == ["plugins:", "-", "rest_plugin"]
    walk.run("install -D")
    for command in ("systemctl daemon-reload", "systemctl restart dstack"):
        walk.not_run(command, because=NO_SYSTEMD)
    lines = _lines(machine / "etc/systemd/system/dstack.service.d/admission.conf", "Environment=")
    own = {"localhost:8443": f"localhost:{listen}", "/var/lib/dstack-admission": str(state)}
    variables = {}
    for name, _, value in (line.partition("=") for line in lines):
        for old, new in own.items():
            value = value.replace(old, new)
        variables[name] = value
    server.serve(variables)
    walk.said = denial(server)
    walk.shown("Apply request rejected")
    assert is_patched(server, max_price=4.0)

    assert "LoadCredential=password:" in walk.read("[Service]")
    assert "passwordFile: /run/credentials/dstack-admission.service/password" in walk.read("auth:")
    walk.end()


def _lines(file: Path, starts: str) -> list[str]:
    return [line.removeprefix(starts) for line in file.read_text().splitlines() if line.startswith(starts)]
