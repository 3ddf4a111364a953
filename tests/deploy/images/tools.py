"""What the tests of the images stand on, made once under `target/images/`: Docker's own engine and base images.

No image registry is needed. What a Dockerfile or the compose file names is made here or in `stand-ins/` under that
name. Nothing outside `target/images/` is written.

    python3 tests/deploy/images/tools.py    # makes everything, so that a test run afterwards is quick
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ROOT = (REPOSITORY / "target").resolve() / "images"
DOCKER = ROOT / "docker"
# Debian's current release: its Python is the one of the image, its Docker has BuildKit and a Compose that knows
# `depends_on.required`. The older release beside it is the one of Rust's image.
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The machine's own CAs, and where they are in the images: what is reached may be behind a proxy that they vouch for.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PYTHON_TRUST = Path("/usr/lib/ssl/cert.pem")

# What has to be on the path, and the Debian package that brings it.
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "catatonit": "catatonit",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "readelf": "binutils",
    "cargo": "",
}
LIBRARIES = {"netavark": "netavark", "aardvark-dns": "aardvark-dns"}

# The packages of Docker, and where each of its programs goes. They are unpacked, not installed: a machine of tests
# may have a Docker of its own, or none.
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd", "tini")
PLACES = {
    "usr/sbin/dockerd": "bin/dockerd",
    "usr/sbin/docker-proxy": "bin/docker-proxy",
    "usr/bin/docker": "bin/docker",
    "usr/bin/containerd": "bin/containerd",
    "usr/bin/containerd-shim-runc-v2": "bin/containerd-shim-runc-v2",
    "usr/bin/tini-static": "bin/docker-init",
    "usr/libexec/docker/cli-plugins/docker-buildx": "client/cli-plugins/docker-buildx",
    "usr/libexec/docker/cli-plugins/docker-compose": "client/cli-plugins/docker-compose",
}


class Missing(Exception):
    """A tool is not there; the text says how to install it."""


def mirror() -> str:
    """Where this machine takes Debian's packages from."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    shape = "$(SITE) $(RELEASE) $(COMPONENT)"
    listed = run(["apt-get", "indextargets", "--no-release-info", "--format", shape, "Created-By: Packages"])
    for site, release, component in map(str.split, listed.splitlines()):
        if (release, component) == (codename, "main"):
            return site
    raise Missing(f"apt has no source of Debian's packages: `main` of {codename}")


def require() -> None:
    """Fails, naming all that is missing, unless every tool is there."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [name for name in LIBRARIES if not Path("/usr/lib/podman", name).exists()]
    if missing:
        packages = " ".join(filter(None, ({**PROGRAMS, **LIBRARIES}[name] for name in missing)))
        raise Missing(f"missing: {', '.join(missing)}; apt-get install -y --no-install-recommends {packages}")
    if os.geteuid() != 0:
        raise Missing("images are built and run as root")


def docker() -> Path:
    """Docker's engine, client, BuildKit and Compose, in one folder."""
    if all((DOCKER / place).exists() for place in PLACES.values()):
        return DOCKER
    apt = ROOT / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (apt / folder).mkdir(parents=True)
    sources = apt / "debian.sources"
    sources.write_text(f"Types: deb\nURIs: {mirror()}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n")
    apt_get = [
        "apt-get",
        "-qq",
        *("-o", f"Dir::Etc::SourceList={sources}"),
        *("-o", "Dir::Etc::SourceParts=/dev/null"),
        *("-o", f"Dir::State::lists={apt / 'lists'}"),
        *("-o", f"Dir::Cache={apt / 'cache'}"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    run([*apt_get, "update"])
    run([*apt_get, "download", *PACKAGES], cwd=apt)
    for package in apt.glob("*.deb"):
        run(["dpkg-deb", "-x", package, apt / "unpacked"])
    for source, place in PLACES.items():
        (DOCKER / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(apt / "unpacked" / source, DOCKER / place)
    shutil.rmtree(apt)
    return DOCKER


def python_base() -> Path:
    """The root file system of Debian with Python, which stands in for Python's official image of that release."""
    packages = ("python3", "python3-venv", "ca-certificates", "netbase", "tzdata")
    return _base(f"python-{SUITE}", SUITE, packages, PYTHON_TRUST)


def rust_base() -> Path:
    """What Rust's official image has besides Rust: Debian with a C compiler."""
    return _base("gcc-bookworm", "bookworm", ("ca-certificates", "gcc", "libc6-dev"), CERTIFICATES)


def toolchain() -> Path:
    """Where this machine's Rust is, which goes into the stand-in of Rust's image."""
    return Path(run(["rustc", "--print", "sysroot"], cwd=REPOSITORY).strip())


def run(command: list[str | Path], **options: object) -> str:
    """Runs a command to its end; its output, or an error that shows it."""
    words = [str(word) for word in command]
    finished = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if finished.returncode != 0:
        raise AssertionError(f"`{' '.join(words)}` ended with {finished.returncode}:\n{finished.stdout[-6000:]}")
    return str(finished.stdout)


def _base(name: str, suite: str, packages: tuple[str, ...], trust: Path) -> Path:
    """A root file system of Debian packages, made once; the machine's own CAs go to `trust` in it."""
    archive = ROOT / "bases" / f"{name}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        making = archive.with_suffix(".making.tar")
        certificates = [f"--customize-hook=upload {CERTIFICATES} {trust}"] if CERTIFICATES.exists() else []
        unneeded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
        languages = '--aptopt=Acquire::Languages "none"'
        shape = ["--variant=minbase", f"--include={','.join(packages)}", languages, *unneeded, *certificates]
        run(["mmdebstrap", *shape, suite, making, mirror()])
        making.rename(archive)
    return archive


def main() -> int:
    try:
        require()
    except Missing as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 1
    for make in (docker, python_base, rust_base):
        print(f"{make.__name__}: {make()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
