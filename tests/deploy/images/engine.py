"""Podman and Buildah with storage of their own, and the containers that a test runs.

Their settings, images, volumes and networks lie under one folder. What a test starts it also removes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tools

LIMITS = '["nofile=16384:16384", "nproc=4096:4096"]'


class Engine:
    """Containers without a daemon, driven by the commands `podman` and `buildah`."""

    def __init__(self, root: Path):
        self.root = root
        settings = root / "settings"
        settings.mkdir(parents=True, exist_ok=True)
        storage = settings / "storage.conf"
        driver = "overlay" if _can_overlay(root) else "vfs"
        storage.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{root}/graph-{driver}"\nrunroot = "{root}/run"\n'
        )
        containers = settings / "containers.conf"
        containers.write_text(
            f"[containers]\ndefault_ulimits = {LIMITS}\n"
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{root}/tmp"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{root}/networks"\n'
        )
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
            # Without systemd there is no timer for health checks: `Health` is one.
            "DISABLE_HC_SYSTEMD": "true",
        }

    def podman(self, *arguments: str | Path) -> str:
        return tools.run(["podman", *arguments], env=self.environment)

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.podman(*arguments))

    def has(self, image: str) -> bool:
        return self.attempt("image", "exists", image).returncode == 0

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        words = ["podman", *map(str, arguments)]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True)

    def load(self, archive: Path, name: str) -> None:
        """Takes a root file system for an image, unless the image is there."""
        if not self.has(name):
            self.podman("import", "--quiet", archive, name)

    def build(
        self,
        dockerfile: Path,
        context: Path,
        name: str,
        *,
        target: str | None = None,
        contexts: Mapping[str, Path] | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        """Builds an image in Docker's format, which alone has health checks; layers are kept for the next time."""
        words = ["buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never"]
        words += ["--file", str(dockerfile), "--tag", name]
        words += ["--target", target] if target else []
        words += [word for key, folder in (contexts or {}).items() for word in ("--build-context", f"{key}={folder}")]
        words += [word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")]
        tools.run([*words, context], env=self.environment)

    def run(self, name: str, image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        """Starts a container in the background."""
        self.podman("run", "--detach", "--name", name, "--pull", "never", *options, image, *command)
        return Container(self, name)


@dataclass(frozen=True)
class Container:
    """A container that was started."""

    engine: Engine
    name: str

    def inspect(self) -> dict[str, Any]:
        return dict(self.engine.json("container", "inspect", self.name)[0])

    @property
    def pid(self) -> int:
        """The first process, as the machine numbers it."""
        return int(self.inspect()["State"]["Pid"])

    def status(self) -> dict[str, str]:
        """What the kernel says of the first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def logs(self) -> str:
        finished = self.engine.attempt("logs", "--timestamps", self.name)
        return finished.stdout + finished.stderr

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.engine.attempt("exec", self.name, *command)

    def serves(self) -> bool:
        """Whether its log says that it serves; fails at once when it has ended instead."""
        logs = self.logs()
        if "serving" not in logs and self.inspect()["State"]["Status"] == "exited":
            raise AssertionError(f"it ended before it served:\n{logs}")
        return "serving" in logs

    def healthy(self) -> bool:
        """Runs the image's health check once."""
        return self.engine.attempt("healthcheck", "run", self.name).returncode == 0

    def stop(self, seconds: int = 20) -> int:
        """Asks the first process to end, and answers its exit code; 137 if it had to be killed."""
        self.engine.podman("stop", "--time", str(seconds), self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def remove(self) -> None:
        self.engine.attempt("rm", "--force", "--volumes", "--time", "0", self.name)


class Health(threading.Thread):
    """Runs the health checks of every container that is up, as systemd's timers do where there is systemd."""

    def __init__(self, engine: Engine):
        super().__init__(daemon=True)
        self.engine = engine
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(1):
            for name in self.engine.attempt("ps", "--format", "{{.Names}}").stdout.split():
                self.engine.attempt("healthcheck", "run", name)

    def stop(self) -> None:
        self.stopping.set()
        self.join()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30, show: Callable[[], str] = str) -> None:
    """Returns once the condition holds; fails with what `show` says when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}\n{show()}")
        time.sleep(0.05)


def _can_overlay(root: Path) -> bool:
    """Whether layers can be laid over each other here; copying them takes longer and more room."""
    probe = root / "overlay-probe"
    shutil.rmtree(probe, ignore_errors=True)
    for folder in ("lower", "upper", "work", "merged"):
        (probe / folder).mkdir(parents=True)
    options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, probe / "merged"], capture_output=True
    )
    if mounted.returncode == 0:
        subprocess.run(["umount", probe / "merged"], check=True)
    shutil.rmtree(probe)
    return mounted.returncode == 0
