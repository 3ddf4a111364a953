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
    **{
        f"dstack-{version}": (f"dstack[server,aws]=={version}", *SERVER_BOUNDS)
        for version in DSTACK_VERSIONS
    },
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
    began = time.monotonic()
    print(f"environment {name}: installing {', '.join(REQUIREMENTS[name])}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    for command in _commands(home, REQUIREMENTS[name]):
        finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if finished.returncode != 0:
            shutil.rmtree(home, ignore_errors=True)
            raise EnvironmentFailed(
                f"environment {name} could not be made: `{' '.join(map(str, command))}` "
                f"ended with {finished.returncode}:\n{_tail(finished.stdout)}"
            )
    marker.write_text(wanted)
    print(f"environment {name}: ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return home


def _commands(home: Path, requirements: tuple[str, ...]) -> list[list[str]]:
    uv = shutil.which("uv")
    if uv:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), *requirements],
        ]
    return [
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ]


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the Python environments of the end-to-end tests.")
    parser.add_argument("names", nargs="*", choices=[[], *REQUIREMENTS], help="which ones; all of them without a name")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    for name in arguments.names or REQUIREMENTS:
        try:
            ensure(name)
        except (EnvironmentFailed, OSError) as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
