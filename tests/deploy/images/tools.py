"""What the tests of the images stand on, made once under `target/images/`: base images, Docker Compose, the executable.

No image registry is needed. What a Dockerfile or the compose file names is made here under that name: Python's image
from Debian's packages, the others in `stand-ins/`. Nothing outside `target/images/` is written.

    python3 tests/deploy/images/tools.py    # makes everything, so that a test run afterwards is quick
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ROOT = (REPOSITORY / "target").resolve() / "images"
BUILD = ROOT / "build"
CYCLONEDX = "0.5.9"
# Debian's current release: its Python is the one of the image, its Docker Compose knows `depends_on.required`.
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
COMPOSE_FROM = (2, 20, 2)

# What has to be on the path, and the Debian package that brings it.
PROGRAMS = {
    "buildah": "buildah",
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


class Missing(Exception):
    """A tool is not there; the text says how to install it."""


def require() -> None:
    """Fails, naming all that is missing, unless every tool is there."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [name for name in LIBRARIES if not Path("/usr/lib/podman", name).exists()]
    if missing:
        packages = " ".join(filter(None, ({**PROGRAMS, **LIBRARIES}[name] for name in missing)))
        raise Missing(f"missing: {', '.join(missing)}; apt-get install -y --no-install-recommends {packages}")
    if os.geteuid() != 0:
        raise Missing("images are built and run as root")


def compose() -> Path:
    """Docker Compose: the machine's own if it is new enough, else Debian's, unpacked."""
    own = ROOT / "docker-compose"
    candidates = [shutil.which("docker-compose"), "/usr/libexec/docker/cli-plugins/docker-compose", own]
    for candidate in filter(None, candidates):
        if Path(candidate).is_file() and _version(Path(candidate)) >= COMPOSE_FROM:
            return Path(candidate)
    apt = ROOT / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (apt / folder).mkdir(parents=True)
    sources = apt / "debian.sources"
    sources.write_text(f"Types: deb\nURIs: {MIRROR}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n")
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
    run([*apt_get, "download", "docker-compose"], cwd=apt)
    (package,) = apt.glob("docker-compose_*.deb")
    run(["dpkg-deb", "-x", package, apt / "unpacked"])
    shutil.copy(apt / "unpacked/usr/libexec/docker/cli-plugins/docker-compose", own)
    shutil.rmtree(apt)
    return own


def python_base() -> Path:
    """The root file system of Debian with Python, which stands in for Python's official image of that release."""
    archive = ROOT / "bases" / f"python-{SUITE}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        making = archive.with_suffix(".making.tar")
        packages = "python3,python3-venv,ca-certificates,netbase,tzdata"
        # The machine's own CAs, too: what it reaches may be behind a proxy that only it trusts.
        certificates = (
            [f"--customize-hook=upload {CERTIFICATES} /usr/lib/ssl/cert.pem"] if CERTIFICATES.exists() else []
        )
        unneeded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
        languages = '--aptopt=Acquire::Languages "none"'
        shape = ["--variant=minbase", f"--include={packages}", languages, *unneeded, *certificates]
        run(["mmdebstrap", *shape, SUITE, making, MIRROR])
        making.rename(archive)
    return archive


def prebuilt() -> Path:
    """The folder that replaces the Dockerfile's compile stage, made by the very script that the stage runs."""
    own_tools = ROOT / "tools"
    if not (own_tools / "bin/cargo-cyclonedx").exists():
        install = ["cargo", "install", "--quiet", "--locked", "--debug", f"cargo-cyclonedx@{CYCLONEDX}"]
        run([*install, "--root", own_tools, "--target-dir", ROOT / "tools-target"])
        shutil.rmtree(ROOT / "tools-target")
    shutil.rmtree(BUILD, ignore_errors=True)
    path = f"{own_tools / 'bin'}:{os.environ['PATH']}"
    own = {"PATH": path, "CARGO_TARGET_DIR": str(ROOT / "cargo")}
    script = REPOSITORY / "deploy/compile.sh"
    run([script, architecture(), BUILD / "out"], env={**os.environ, **own})
    return BUILD


def architecture() -> str:
    """This machine's architecture, as Docker writes it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def digest(*paths: Path) -> str:
    """A short name for the content of files and folders."""
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found.update(str(file.relative_to(path)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]


def run(command: list[str | Path], **options: object) -> str:
    """Runs a command to its end; its output, or an error that shows it."""
    words = [str(word) for word in command]
    finished = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if finished.returncode != 0:
        raise AssertionError(f"`{' '.join(words)}` ended with {finished.returncode}:\n{finished.stdout[-6000:]}")
    return str(finished.stdout)


def _version(program: Path) -> tuple[int, ...]:
    said = subprocess.run([program, "version", "--short"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(number) for number in found.groups()) if found else (0,)


def main() -> int:
    try:
        require()
    except Missing as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 1
    for make in (compose, python_base, prebuilt):
        print(f"{make.__name__}: {make()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
