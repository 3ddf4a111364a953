"""The image for plugins in Python: the plugin of the compose set-up works in it, and orphans are reaped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEPLOY, HERE
from engine import Container, Docker, wait_until

Start = Callable[..., Container]
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
)
PLUGINS = {"house_rules": DEPLOY / "compose/python/plugin", "orphans": HERE / "plugins/orphans"}

# Sends one review, as the dstack server does, from inside the container, which has no network but loopback.
ASK = """
import json, sys, urllib.request
body = json.dumps({"user": "ada", "project": "main", "spec": json.loads(sys.argv[1])}).encode()
url = "http://127.0.0.1:8443/apply_policies/on_run_apply"
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


@pytest.fixture(scope="module")
def baked(engine: Docker, python: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with plugins installed into it, as docs/docker.md describes; nothing is fetched."""
    context = tmp_path_factory.mktemp("baked")
    for source in PLUGINS.values():
        copy = context / source.name
        shutil.copytree(source, copy)
    packages = " ".join(f"/plugins/{source.name}" for source in PLUGINS.values())
    (context / "Dockerfile").write_text(
        f"FROM {python}\nUSER 0\nCOPY . /plugins/\n"
        f"RUN uv pip install --offline --no-deps --python /opt/python/bin/python {packages}\nUSER 65532:65532\n"
    )
    engine.build(context / "Dockerfile", context, "baked:latest")
    return "baked:latest"


@pytest.fixture
def served(baked: str, start: Start, tmp_path: Path) -> Container:
    chain = "".join(f"  - {{name: {name.replace('_', '-')}, python: {{plugin: {name}}}}}\n" for name in PLUGINS)
    (tmp_path / "admission.yaml").write_text(
        "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\ntls: off\nplugins:\n" + chain
    )
    tmp_path.chmod(0o755)
    container = start(baked, options=(*HARDENED, f"--volume={tmp_path}:/etc/dstack-admission:ro"))
    wait_until(container.serves, "it serves", show=container.logs)
    return container


def test_plugins_patch_and_deny(served: Container) -> None:
    wait_until(lambda: served.health() == "healthy", "it is healthy", show=served.logs)
    answer = _ask(served)
    assert answer["error"] is None
    assert answer["spec"]["configuration"]["tags"] == {"owner": "ada"}
    assert "house rules: no privileged containers" in _ask(served, privileged=True)["error"]


def test_the_kernel_holds_the_first_process_and_the_workers_to_their_hardening(served: Container) -> None:
    family = [served.pid, *_below(served.pid)]
    commands = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in family]
    assert commands[0] == "tini"
    assert commands[1] == "dstack-admissio", "the kernel keeps 15 characters"
    assert any("python" in command for command in commands), commands
    for pid in family:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == ["65532"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"


def test_orphans_of_a_plugin_are_reaped(served: Container) -> None:
    first = served.pid
    _ask(served)
    wait_until(lambda: "sleep" in _children(first).values(), "the orphan is the first process's")
    (orphan,) = [pid for pid, name in _children(first).items() if name == "sleep"]
    # A zombie would stay in /proc until it is reaped.
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan is reaped")


def test_it_drains_and_ends_with_0_on_sigterm(served: Container) -> None:
    assert served.stop() == 0
    assert "drained" in served.logs()


def test_it_has_dstack_uv_and_the_bill_of_materials(engine: Docker, python: str) -> None:
    ask = ("run", "--rm", "--pull=never", *HARDENED, "--entrypoint=python3", python, "-c")
    wanted = "from importlib.metadata import version; print(version('dstack'), version('uv'))"
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    dstack, uv = engine.command(*ask, wanted).split()
    assert f"ARG DSTACK_VERSION={dstack}\n" in dockerfile
    assert f"ARG UV_VERSION={uv}\n" in dockerfile
    path = "/usr/share/doc/dstack-admission/dstack-admission.cdx.json"
    assert json.loads(engine.command(*ask, f"print(open('{path}').read())"))["bomFormat"] == "CycloneDX"


def _ask(container: Container, **configuration: object) -> dict:
    """What is answered to a review of a task."""
    task = {"type": "task", "commands": ["true"], "image": "debian", **configuration}
    spec = {
        "run_name": "run",
        "repo_id": None,
        "repo_data": None,
        "configuration": task,
        "ssh_key_pub": "ssh-ed25519 A",
    }
    said = container.execute("python3", "-c", ASK, json.dumps(spec))
    assert said.returncode == 0, said.stderr + container.logs()
    return dict(json.loads(said.stdout))


def _children(pid: int) -> dict[int, str]:
    """The processes whose parent is `pid`, with their names."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(tail.split()[1]) == pid:
            found[int(head.split()[0])] = head.partition("(")[2]
    return found


def _below(pid: int) -> list[int]:
    """Every process under `pid`, parents before children."""
    return [one for child in _children(pid) for one in (child, *_below(child))]
