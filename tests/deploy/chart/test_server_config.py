"""The init container of the server's pod: config.yml with `rest_plugin` in it, and a netrc file that Python can read.

The very command of the rendered manifest is run, with a `dstack` on the path whose first line names a Python with
PyYAML, as that of the official image does.
"""

from __future__ import annotations

import netrc
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rendering import Chart


class InitContainer:
    """The rendered container, its paths moved below a directory."""

    def __init__(self, rendered: dict[str, Any], root: Path) -> None:
        self.root, self.command = root, rendered["command"]
        self.environment = {variable["name"]: variable["value"] for variable in rendered["env"]}
        for mount in rendered["volumeMounts"]:
            self.path(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        dstack = root / "bin" / "dstack"
        dstack.parent.mkdir()
        dstack.write_text(f"#!{sys.executable}\nraise SystemExit('the server itself is not to be started')\n")
        dstack.chmod(0o755)

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    def run(self) -> subprocess.CompletedProcess[str]:
        moved = {
            name: str(self.path(value)) if value.startswith("/") else value for name, value in self.environment.items()
        }
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(self.command, env={**moved, "PATH": path}, capture_output=True, text=True, timeout=30)

    def written(self) -> Any:
        return yaml.safe_load(self.path("/root/.dstack/server/config.yml").read_text())


@pytest.fixture
def container(chart: Chart, tmp_path: Path) -> InitContainer:
    values = {"auth": {"existingSecret": "credentials"}, "server": {"existingConfigSecret": "config"}}
    (deployment,) = [one for one in chart.render(values) if one["kind"] == "Deployment"]
    rendered = deployment["spec"]["template"]["spec"]["initContainers"][0]
    assert rendered["name"] == "server-config"
    container = InitContainer(rendered, tmp_path)
    container.path("/etc/dstack-admission/auth/password").write_text("secret\n")
    return container


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("", {"projects": [], "plugins": ["rest_plugin"]}),
        ("projects: []", {"projects": [], "plugins": ["rest_plugin"]}),
        ("plugins: null", {"projects": [], "plugins": ["rest_plugin"]}),
        ("plugins: [mine]", {"projects": [], "plugins": ["mine", "rest_plugin"]}),
        ("plugins: [rest_plugin, mine]", {"projects": [], "plugins": ["rest_plugin", "mine"]}),
        (
            "projects: [{name: main}]\nencryption: {keys: [{type: identity}]}",
            {
                "projects": [{"name": "main"}],
                "encryption": {"keys": [{"type": "identity"}]},
                "plugins": ["rest_plugin"],
            },
        ),
    ],
)
def test_the_plugin_is_added_and_the_rest_kept(container: InitContainer, given: str, written: dict[str, Any]) -> None:
    container.path("/etc/dstack-server/config.yml").write_text(given)
    done = container.run()
    assert done.returncode == 0, done.stderr
    assert container.written() == written


def test_without_a_secret_there_is_a_configuration_all_the_same(container: InitContainer) -> None:
    container.path("/etc/dstack-server").rmdir()
    assert container.run().returncode == 0
    assert container.written() == {"projects": [], "plugins": ["rest_plugin"]}


def test_a_configuration_that_was_there_is_replaced(container: InitContainer) -> None:
    container.path("/root/.dstack/server/config.yml").write_text("plugins: []\n")
    container.path("/etc/dstack-server/config.yml").write_text("projects: [{name: new}]")
    assert container.run().returncode == 0
    assert container.written()["projects"] == [{"name": "new"}]
    assert [path.name for path in container.path("/root/.dstack/server").iterdir()] == ["config.yml"]


def test_files_with_credentials_are_the_owners_alone(container: InitContainer) -> None:
    container.path("/etc/dstack-server/config.yml").write_text("")
    assert container.run().returncode == 0
    for path in ("/root/.dstack/server/config.yml", "/run/dstack-admission/netrc"):
        assert stat.S_IMODE(container.path(path).stat().st_mode) == 0o600


@pytest.mark.parametrize("password", ["plain", "with space", 'quo"te', "back\\slash", "#hash", "p@ss:word/ü", "  "])
def test_python_reads_the_password_out_of_the_netrc_file(container: InitContainer, password: str) -> None:
    container.path("/etc/dstack-server/config.yml").write_text("")
    container.path("/etc/dstack-admission/auth/password").write_text(f"{password}\n")
    assert container.run().returncode == 0
    read = netrc.netrc(str(container.path("/run/dstack-admission/netrc")))
    assert read.authenticators("localhost") == ("dstack", "", password)
    assert read.authenticators("elsewhere.example.com") is None


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("/etc/dstack-server/config.yml", "a: [secret-1", "the server's config.yml is no YAML, line 1"),
        ("/etc/dstack-server/config.yml", "- a", "the server's config.yml is not a map"),
        ("/etc/dstack-server/config.yml", "plugins: rest_plugin", "`plugins` in the server's config.yml is not a list"),
        ("/etc/dstack-server/config.yml", None, "the server's configuration has no key config.yml"),
        ("/etc/dstack-admission/auth/password", "\n", "the password for dstack-admission is empty"),
        ("/etc/dstack-admission/auth/password", "a\nb\n", "the password for dstack-admission has more than one line"),
    ],
)
def test_what_cannot_be_used_is_said_in_the_log(
    container: InitContainer, file: str, content: str | None, sentence: str
) -> None:
    container.path("/etc/dstack-server/config.yml").write_text("")
    if content is None:
        container.path(file).unlink()
    else:
        container.path(file).write_text(content)
    done = container.run()
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "secret-1" not in done.stderr
