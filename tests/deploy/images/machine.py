"""A machine with systemd as its first process: Debian with a dstack server, in a container of systemd-nspawn.

What it writes goes to memory and ends with it. It has a network of its own that is loopback alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tools
from engine import wait_until

import environments

HERE = Path(__file__).resolve().parent
UNIT = HERE / "stand-ins/dstack.service"
UV = Path(sys.executable).with_name("uv")
# uv's cache stays: a plugin's packages are installed from it where there is no network.
CACHE = "/opt/uv-cache"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "systemd-sysv,dbus,python3,python3-venv,ca-certificates,curl,git,openssh-client,procps"
BOOTED_WITHIN = 60


def base() -> Path:
    """The root file system of Debian with systemd, and a dstack server in /opt/dstack whose user is `dstack`."""
    wanted = [f"dstack[server]=={environments.DSTACK_VERSIONS[0]}", *environments.SERVER_BOUNDS]
    server = " ".join(f"'{one}'" for one in wanted)
    inside = 'env SSL_CERT_FILE=/usr/lib/ssl/cert.pem chroot "$1"'
    hooks = [
        f"upload {tools.CERTIFICATES} /usr/lib/ssl/cert.pem" if tools.CERTIFICATES.exists() else "true",
        f"upload {UV} /usr/local/bin/uv",
        'chmod 755 "$1/usr/local/bin/uv"',
        'chroot "$1" python3 -m venv /opt/dstack',
        f"{inside} uv pip install --cache-dir {CACHE} --link-mode copy --quiet --compile-bytecode"
        f" --python /opt/dstack/bin/python {server}",
        'chroot "$1" useradd --system --create-home --home-dir /home/dstack --shell /usr/sbin/nologin dstack',
        f"upload {UNIT} /etc/systemd/system/dstack.service",
        'chroot "$1" systemctl enable dstack',
    ]
    unneeded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
    shape = ["--variant=minbase", f"--include={PACKAGES}", '--aptopt=Acquire::Languages "none"', *unneeded]
    shape += [f"--customize-hook={hook}" for hook in hooks]
    root = tools.ROOT / "bases" / f"machine-{_digest(shape)}"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        for old in root.parent.glob("machine-*"):
            shutil.rmtree(old)
        making = root.with_name("machine-making")
        tools.run(["mmdebstrap", "--format=directory", *shape, tools.SUITE, making, tools.mirror()])
        making.rename(root)
    return root


def _digest(shape: list[str]) -> str:
    return hashlib.sha256("\n".join((*shape, UNIT.read_text())).encode()).hexdigest()[:16]


class Machine:
    """One machine, running from `boot` until `power_off`."""

    def __init__(self, root: Path, shown: Mapping[Path, str]):
        """`shown` are files and folders of this machine that the other sees, and cannot change, and where."""
        self.root = root
        self.shown = shown
        self.log = tempfile.TemporaryFile()

    def boot(self) -> None:
        """Starts it; returns when systemd is done with what it starts by itself."""
        words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"]
        words += ["--directory", str(self.root), "--volatile=overlay", "--private-network", "--link-journal=no"]
        words += ["--resolv-conf=off", "--timezone=off", f"--machine=test-{os.getpid()}"]
        words += [f"--bind-ro={here}:{there}" for here, there in self.shown.items()]
        # Control groups of the second version, whichever the machine of the tests has.
        own = {"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        self.container = subprocess.Popen(
            words, env=own, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT
        )
        wait_until(self._has_booted, "systemd has started", BOOTED_WITHIN, self._said)

    def power_off(self) -> None:
        """Ends it and everything in it."""
        for chosen in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self.container.send_signal(chosen)
            try:
                self.container.wait(15)
                return
            except subprocess.TimeoutExpired:
                continue

    def attempt(self, script: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """What root's shell does there, which may fail."""
        enter = ["nsenter", "--all", f"--target={self.leader}", f"--wdns={cwd}"]
        inside = ["env", "-i", f"PATH={PATH}", "HOME=/root", "SYSTEMD_PAGER=", "COLUMNS=200", "/bin/sh", "-eu", "-c"]
        return subprocess.run([*enter, "--", *inside, script], capture_output=True, text=True, timeout=360)

    def run(self, script: str, cwd: str = "/") -> str:
        """What root's shell prints there; an error that shows it when a command fails."""
        done = self.attempt(script, cwd)
        if done.returncode != 0:
            raise AssertionError(f"`{script}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Puts a file there, its folder too, readable by all."""
        inside = ["nsenter", "--all", f"--target={self.leader}", "install", "-D", "-m", "644", "/dev/stdin", path]
        subprocess.run(inside, input=text, text=True, check=True)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run(f"systemctl show --property={name} --value {unit}").strip()

    def status(self, unit: str) -> dict[str, str]:
        """What the kernel says of a unit's main process."""
        lines = self.run(f"cat /proc/{self.show(unit, 'MainPID')}/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def within(self, unit: str, script: str) -> subprocess.CompletedProcess[str]:
        """What root's shell does with the file system that a unit's main process has."""
        return self.attempt(f"nsenter --target {self.show(unit, 'MainPID')} --mount /bin/sh -c '{script}'")

    def _has_booted(self) -> bool:
        if self.container.poll() is not None:
            raise AssertionError(f"the machine ended with {self.container.returncode}:\n{self._said()}")
        leader = self._leader()
        if leader is None:
            return False
        self.leader = leader
        return self.attempt("systemctl is-system-running").stdout.strip() in ("running", "degraded")

    def _leader(self) -> int | None:
        """systemd, as this machine numbers its processes."""
        listed = Path(f"/proc/{self.container.pid}/task/{self.container.pid}/children").read_text().split()
        for child in map(int, listed):
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        return None

    def _said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")
