"""The small image: what is in it, how it starts, what it may do, how it ends."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import tools
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from engine import Container, Docker, wait_until

Start = Callable[..., Container]
HARDENED = (
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
)
LIMIT = 25_000_000
READY_WITHIN = 1.0


@pytest.fixture
def served(small: str, start: Start) -> Container:
    """The image as its documentation runs it, serving what it brings."""
    container = start(small, options=HARDENED)
    wait_until(container.serves, "it serves", show=container.logs)
    return container


@pytest.fixture(scope="module")
def files(engine: Docker, small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the image, unpacked."""
    folder = tmp_path_factory.mktemp("small")
    made = engine.command("create", "--pull", "never", small).split()[-1]
    try:
        engine.command("export", "--output", folder / "image.tar", made)
    finally:
        engine.command("rm", "--volumes", made)
    with tarfile.open(folder / "image.tar") as archive:
        archive.extractall(folder / "files", filter="tar")
    return folder / "files"


def test_the_image_holds_the_executable_and_no_shell(files: Path) -> None:
    found = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file() and path.stat().st_size}
    assert found == {
        "etc/dstack-admission/admission.yaml",
        "etc/group",
        "etc/passwd",
        "usr/bin/dstack-admission",
        "usr/share/doc/dstack-admission/LICENSE",
        "usr/share/doc/dstack-admission/dstack-admission.cdx.json",
    }


def test_the_image_is_small(engine: Docker, small: str) -> None:
    size = engine.json("image", "inspect", small)[0]["Size"]
    assert size < LIMIT, f"{size / 1e6:.1f} MB"


def test_the_executable_asks_for_no_library(files: Path) -> None:
    headers = tools.run(["readelf", "--program-headers", files / "usr/bin/dstack-admission"])
    assert "INTERP" not in headers
    assert "NEEDED" not in tools.run(["readelf", "--dynamic", files / "usr/bin/dstack-admission"])


def test_labels_ports_and_user_are_declared(engine: Docker, small: str) -> None:
    image = engine.json("image", "inspect", small)[0]
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "dstack-admission"
    assert image["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    manifest = (tools.REPOSITORY / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)
    assert version and image["Config"]["Labels"]["org.opencontainers.image.version"] == version.group(1)
    assert image["Config"]["User"] == "65532:65532"
    assert set(image["Config"]["ExposedPorts"]) == {"8443/tcp", "9443/tcp"}
    assert set(image["Config"]["Volumes"]) == {"/var/lib/dstack-admission"}


def test_the_bill_of_materials_names_every_dependency_that_is_linked(files: Path) -> None:
    text = (files / "usr/share/doc/dstack-admission/dstack-admission.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == "dstack-admission"
    machine = os.uname().machine
    tree = tools.run(
        [
            "cargo",
            "tree",
            "--locked",
            "--edges=normal",
            "--prefix=none",
            "--format={p}",
            f"--target={machine}-unknown-linux-gnu",
        ],
        cwd=tools.REPOSITORY,
    )
    linked = {line.split()[0] for line in tree.splitlines() if line and "(proc-macro)" not in line}
    named = {component["name"] for component in document["components"]}
    assert linked - named == {"dstack-admission"}
    assert not named & {"insta", "proptest", "rstest"}, "what is only tested with is no material"
    assert all(component.get("licenses") for component in document["components"])


def test_the_kernel_holds_it_to_its_hardening(served: Container) -> None:
    status = served.status()
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a filter"
    mounts = [line.split() for line in Path(f"/proc/{served.pid}/mounts").read_text().splitlines()]
    writable = {point for _, point, _, options, *_ in mounts if "rw" in options.split(",")}
    assert "/" not in writable
    disks = {point for _, point, kind, options, *_ in mounts if "rw" in options.split(",") and kind not in PSEUDO}
    assert disks == {"/var/lib/dstack-admission"}


# File systems of the kernel, which hold nothing that stays; what the engine mounts for names comes from its own.
PSEUDO = {"proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"}


def test_it_is_ready_within_a_second_of_a_cold_start(served: Container) -> None:
    began = datetime.fromisoformat(_shortened(served.inspect()["State"]["StartedAt"]))
    wait_until(lambda: "serving listen" in served.logs(), "it says that it serves", show=served.logs)
    (line,) = [line for line in served.logs().splitlines() if "serving listen" in line]
    ready = datetime.fromisoformat(_shortened(line.split()[0]))
    assert "made a CA" in served.logs(), "cold: nothing was there"
    assert (ready - began).total_seconds() < READY_WITHIN


def test_its_health_check_follows_its_readiness(small: str, start: Start, tmp_path: Path) -> None:
    configuration = tmp_path / "admission.yaml"
    configuration.write_text("apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nadmin: 127.0.0.1:9555\n")
    tmp_path.chmod(0o755)
    mounted = f"--volume={tmp_path}:/etc/dstack-admission:ro"
    container = start(small, options=(*HARDENED, mounted, "--health-interval=1s", "--health-retries=1"))
    wait_until(lambda: container.health() == "healthy", "it is healthy", show=container.logs)
    # The address of another configuration: nobody answers there.
    configuration.write_text(configuration.read_text().replace("9555", "9556"))
    wait_until(lambda: container.health() == "unhealthy", "it is not healthy", show=container.logs)


def test_a_mounted_configuration_is_what_every_command_means(engine: Docker, small: str, tmp_path: Path) -> None:
    policies = "plugins:\n  - {name: only-this, use: forbid-privileged}\n"
    header = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\n"
    (tmp_path / "admission.yaml").write_text(header + policies)
    tmp_path.chmod(0o755)
    mounted = f"--volume={tmp_path}:/etc/dstack-admission:ro"
    assert "only-this" in engine.command("run", "--rm", "--pull=never", *HARDENED, mounted, small, "check")
    assert "only-this" not in engine.command("run", "--rm", "--pull=never", *HARDENED, small, "check")


def test_a_broken_configuration_ends_with_2_and_says_why(small: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "admission.yaml").write_text(
        "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nplugin: []\n"
    )
    tmp_path.chmod(0o755)
    container = start(small, "serve", options=(*HARDENED, f"--volume={tmp_path}:/etc/dstack-admission:ro"))
    wait_until(lambda: container.inspect()["State"]["Status"] == "exited", "it ends", show=container.logs)
    assert container.inspect()["State"]["ExitCode"] == 2
    assert "plugins" in container.logs()


def test_it_drains_and_ends_with_0_on_sigterm(served: Container) -> None:
    assert served.stop() == 0
    assert "drained" in served.logs()


def _shortened(moment: str) -> str:
    """A moment without the nanoseconds that Python does not read, and without a zone's name after it."""
    return re.sub(r"(\.\d{6})\d*", r"\1", moment.split(" ")[0] if "T" in moment else moment).replace("Z", "+00:00")
