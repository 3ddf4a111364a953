"""Docker's own engine and Podman, each with storage of its own, and the containers that a test runs.

Their settings, images, volumes and networks lie under `target/images/`. What a test starts it also removes.
Docker builds and runs everything; Podman, which knows pods, runs one of what Docker built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tools

from harness.processes import Process

STARTS_WITHIN = 60
LIMITS = '["nofile=16384:16384", "nproc=4096:4096"]'
# The engine of the machine itself, if there is one.
OTHER_ENGINE = Path("/var/run/docker.sock")


class Engine:
    """What Docker and Podman have in common: a command with the same words."""

    program: Path
    environment: dict[str, str]

    def command(self, *arguments: str | Path) -> str:
        return tools.run([self.program, *arguments], env=self.environment)

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.command(*arguments))

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        words = [str(self.program), *map(str, arguments)]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True)

    def image(self, name: str) -> str | None:
        """The id of an image, if it is there."""
        found = self.attempt("image", "inspect", "--format", "{{.Id}}", name)
        return found.stdout.strip().removeprefix("sha256:") if found.returncode == 0 else None


class Docker(Engine):
    """Docker's daemon, client, BuildKit and Compose, apart from any other on this machine."""

    def __init__(self, root: Path):
        self.root = root
        self.socket = root / "sock"
        self.program = root / "bin/docker"
        self.environment = {
            "PATH": f"{root / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(root),
            "DOCKER_CONFIG": str(root / "client"),
            "DOCKER_HOST": f"unix://{self.socket}",
        }
        self.daemon = Process("dockerd", root / "log")

    def start(self) -> None:
        """Starts the daemon; fails where another one runs, since both would write the same firewall rules."""
        if OTHER_ENGINE.exists() and self.attempt("--host", f"unix://{OTHER_ENGINE}", "version").returncode == 0:
            raise tools.Missing("Docker runs on this machine: stop it for these tests, which start one of their own")
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{option}={self.root / place}" for option, place in places.items()]
        command = [self.root / "bin/dockerd", *options, f"--host=unix://{self.socket}"]
        self.daemon.start(command, self.environment, lambda: self.attempt("info").returncode == 0, STARTS_WITHIN)

    def stop(self) -> None:
        """Removes what was run, keeps images and caches, and ends the daemon, which leaves a mount behind."""
        for container in self.attempt("ps", "--all", "--quiet").stdout.split():
            self.attempt("rm", "--force", "--volumes", container)
        for kind in ("volume", "network"):
            self.attempt(kind, "prune", "--force", *(["--all"] if kind == "volume" else []))
        self.daemon.stop(60)
        subprocess.run(["umount", "--quiet", self.root / "exec/netns/default"], check=False)

    def load(self, archive: Path, name: str, *changes: str) -> None:
        """Takes a root file system for an image, unless the image is there."""
        if self.image(name) is None:
            self.command("import", *(f"--change={change}" for change in changes), archive, name)

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
        """Builds an image; layers and caches are kept for the next time."""
        words = ["--target", target] if target else []
        words += [word for key, folder in (contexts or {}).items() for word in ("--build-context", f"{key}={folder}")]
        words += [word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")]
        self.command("build", "--progress=plain", f"--file={dockerfile}", f"--tag={name}", *words, context)

    def run(self, name: str, image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        """Starts a container in the background."""
        self.command("run", "--detach", "--name", name, "--pull", "never", *options, image, *command)
        return Container(self, name)


class Podman(Engine):
    """Containers without a daemon, and pods as Kubernetes describes them."""

    def __init__(self, root: Path):
        self.root = root
        self.program = Path(str(shutil.which("podman")))
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
            f'tmp_dir = "{root}/tmp"\nimage_copy_tmp_dir = "{root}"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{root}/networks"\n'
        )
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
            # Without systemd there is no timer for health checks.
            "DISABLE_HC_SYSTEMD": "true",
        }

    def take(self, docker: Docker, image: str) -> None:
        """Copies an image that Docker has."""
        if self.image(image) == docker.image(image):
            return
        archive = self.root / "taken.tar"
        docker.command("save", "--output", archive, image)
        self.command("load", "--quiet", "--input", archive)
        archive.unlink()

    def stop(self) -> None:
        """Removes what was run, and keeps images."""
        self.attempt("pod", "rm", "--all", "--force", "--time", "5")
        self.attempt("volume", "prune", "--force")
        self.attempt("network", "prune", "--force")


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

    def health(self) -> str:
        """What Docker found when it last ran the health check: `starting`, `healthy` or `unhealthy`."""
        return str(self.inspect()["State"]["Health"]["Status"])

    def stop(self, seconds: int = 20) -> int:
        """Asks the first process to end, and answers its exit code; 137 if it had to be killed."""
        self.engine.command("stop", "--time", str(seconds), self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def remove(self) -> None:
        self.engine.attempt("rm", "--force", "--volumes", self.name)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60, show: Callable[[], str] = str) -> None:
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
