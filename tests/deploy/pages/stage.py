"""What a reader of every page has: a checkout, a dstack server, and eyes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.dstack import DstackServer, spec
from walk import REPOSITORY

LEFT_OUT = (".git", "target", "node_modules", "__pycache__")
VARIABLES = ("DSTACK_PLUGIN_SERVICE_URI", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
PRIVILEGED = {"type": "task", "name": "privileged", "image": "debian", "commands": ["id"], "privileged": True}
TRAIN = {"type": "task", "name": "train", "commands": ["nvidia-smi"]}


def checkout(folder: Path) -> Path:
    """The project as it lies here, in a folder of the reader's."""
    return Path(shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def announced(text: str) -> dict[str, str]:
    """The variables that a text tells to set."""
    pairs = (line.strip().partition("=") for line in text.splitlines())
    found = {name: value for name, _, value in pairs if name in VARIABLES}
    assert set(found) == set(VARIABLES), text
    return found


def is_patched(server: DstackServer, **expected: Any) -> bool:
    """Whether a spec that leaves everything open comes out of the server with what is expected."""
    configuration = server.plan(TRAIN).configuration
    return {key: configuration[key] for key in expected} == expected


def denial(server: DstackServer) -> str:
    """What the user of a privileged task reads; it is a denial."""
    answer = server.plan(PRIVILEGED)
    assert answer.status == 400, answer.text
    return answer.message
