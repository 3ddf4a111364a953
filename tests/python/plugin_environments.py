"""Makes, for each dstack version, an environment with the plugin packages of these tests in it.

The packages under `plugins/` are built into wheels and installed, as an operator would do it. dstack itself is not
installed again: a path file adds the environment of the end-to-end tests, which is left as it is. What is made lies
under `target/python-tests/` and is made anew when the packages or the Python change.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import environments

HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "plugins"
ROOT = environments.REPOSITORY / "target" / "python-tests"
MARKER = "plugins.installed"


def interpreter(version: str) -> Path:
    """The Python that has this dstack and every plugin package; makes the environment where it is missing."""
    home = ROOT / f"dstack-{version}"
    python = home / "bin" / "python"
    base = environments.ensure(f"dstack-{version}")
    wanted = f"{sys.version} {base} {_digest()}"
    marker = home / MARKER
    if not (marker.is_file() and marker.read_text() == wanted):
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", home])
        (packages,) = home.glob("lib/python3*/site-packages")
        (inherited,) = base.glob("lib/python3*/site-packages")
        (packages / "dstack.pth").write_text(f"{inherited}\n")
        _install(python, packages)
        marker.write_text(wanted)
    return python


def _install(python: Path, packages: Path) -> None:
    wheels = ROOT / "wheels" / _digest()
    uv = _uv()
    if not wheels.is_dir():
        building = wheels.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        for package in sorted(PACKAGES.glob("*/pyproject.toml")):
            build = [uv, "build", "--quiet", "--wheel", "-o", building] if uv else [*_pip("wheel"), "-w", building]
            _run([*build, package.parent])
        building.rename(wheels)
    install = [uv, "pip", "install", "--quiet", "--python", python] if uv else [*_pip("install"), "-t", packages]
    _run([*install, "--no-deps", *sorted(wheels.glob("*.whl"))])


def _uv() -> Path | None:
    found = shutil.which("uv")
    own = environments.program(environments.INSTALLER, "uv")
    return Path(found) if found else own if own.is_file() else None


def _pip(command: str) -> list[str | Path]:
    return [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--disable-pip-version-check"]


def _run(command: list[str | Path]) -> None:
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        raise environments.EnvironmentFailed(f"`{' '.join(map(str, command))}` failed:\n{finished.stdout}")


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(PACKAGES.rglob("*")):
        if path.suffix in {".py", ".toml"}:
            digest.update(f"{path.relative_to(PACKAGES)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
