"""Disks that fill up, fail, stand still or are slow: real file systems of the kernel, made for one test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PACKAGES = {
    "mount": "mount",
    "umount": "mount",
    "losetup": "mount",
    "fsfreeze": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "logrotate": "logrotate",
    "faketime": "faketime",
}
# Debian keeps these from the path of those who are not root.
ADMINISTRATION = "/usr/sbin:/sbin"
BLKIO = Path("/sys/fs/cgroup/blkio")
UNIFIED = Path("/sys/fs/cgroup")


def program(name: str) -> str:
    """The path of an executable. A missing one ends the run and says how it is installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{ADMINISTRATION}")
    if found is None:
        line = f"apt-get install -y --no-install-recommends {PACKAGES[name]}"
        pytest.exit(f"{name} is missing: {line}", returncode=2)
    return found


def run(*command: str | Path) -> str:
    """Runs an administrator's command; its words are in the failure."""
    words = [program(str(command[0])), *map(str, command[1:])]
    finished = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    assert finished.returncode == 0, f"`{' '.join(words)}` ended with {finished.returncode}: {finished.stdout}"
    return finished.stdout


class Tmpfs:
    """A file system in memory of a fixed size."""

    def __init__(self, at: Path, size: str):
        self.at = at
        at.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", at)

    def grow(self, size: str) -> None:
        """Makes room, as somebody does who enlarges the disk."""
        run("mount", "-o", f"remount,size={size}", self.at)

    def close(self) -> None:
        _unmount(self.at)


class Ext4:
    """An ext4 in a file, on a loop device."""

    def __init__(self, at: Path, image: Path, size: int = 16 << 20):
        self.at = at
        self.image = image
        at.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-F", image)
        self.device = Path(run("losetup", "--find", "--show", image).strip())
        self.mount()

    def mount(self, options: str = "errors=remount-ro") -> None:
        run("mount", "-o", options, self.device, self.at)

    def remount(self, how: str) -> None:
        """`ro` or `rw`, while nobody writes to it."""
        run("mount", "-o", f"remount,{how}", self.at)

    def fail(self) -> None:
        """Lets the kernel find an error on it: with `errors=remount-ro` nothing can be written any more."""
        (Path("/sys/fs/ext4") / self.device.name / "trigger_fs_error").write_text("1\n")

    def leave(self) -> None:
        """Takes it from its place while somebody still has a file of it open."""
        run("umount", "--lazy", self.at)

    def is_released(self) -> bool:
        """Whether nobody has a file of it open any more."""
        return not (Path("/sys/fs/ext4") / self.device.name).exists()

    def repair(self) -> None:
        words = [program("e2fsck"), "-p", "-f", str(self.device)]
        finished = subprocess.run(words, capture_output=True, text=True, timeout=30)
        # 1: errors were corrected.
        assert finished.returncode in (0, 1), finished.stdout + finished.stderr

    def close(self) -> None:
        _unmount(self.at)
        # A device that is still in use goes with its last user.
        subprocess.run([program("losetup"), "--detach", self.device], check=False, capture_output=True)


@contextmanager
def frozen(at: Path) -> Iterator[None]:
    """Holds a file system still, as the snapshot of a machine does: whoever writes waits."""
    run("fsfreeze", "--freeze", at)
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", at)


@contextmanager
def throttled(device: Path, pid: int, writes: int) -> Iterator[None]:
    """Lets a process write so often a second to a device, by the kernel's control groups of either version."""
    numbers = os.stat(device).st_rdev
    name = f"{os.major(numbers)}:{os.minor(numbers)}"
    legacy = (BLKIO / "blkio.throttle.write_iops_device").exists()
    root = BLKIO if legacy else UNIFIED
    group = root / f"dstack-admission-disks-{pid}"
    with ExitStack() as undo:
        if not legacy:
            (root / "cgroup.subtree_control").write_text("+io")
        before = _group_of(pid, "blkio" if legacy else "")
        group.mkdir()
        undo.callback(group.rmdir)
        if legacy:
            (group / "blkio.throttle.write_iops_device").write_text(f"{name} {writes}")
        else:
            (group / "io.max").write_text(f"{name} wiops={writes}")
        (group / "cgroup.procs").write_text(str(pid))
        undo.callback(_move, pid, root / before.lstrip("/") / "cgroup.procs")
        yield


def _group_of(pid: int, controller: str) -> str:
    """The control group of a process in the hierarchy of a controller; the empty name is version 2's."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise AssertionError(f"no control group for {controller or 'version 2'}")


def _move(pid: int, procs: Path) -> None:
    # A process that has ended is in no group.
    if Path(f"/proc/{pid}").exists():
        procs.write_text(str(pid))


def _unmount(at: Path) -> None:
    """Takes everything down that is mounted there, whoever uses it still."""
    while os.path.ismount(at):
        run("umount", "--lazy", at)
