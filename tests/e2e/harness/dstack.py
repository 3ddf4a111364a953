"""A real dstack server, and a client that asks it what the `dstack` command line asks it.

The server runs from its own environment with a HOME of its own. Its plugin service is named by the
variables that the sidecar announced, as a person would set them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import environments
from harness.processes import LOOPBACK, Process, free_port, minimal_environment

HERE = Path(__file__).resolve().parents[1]
OFFLINE = HERE / "offline"
CONFIGURATIONS = HERE / "configurations"
READY_WITHIN = 180
CALL_WITHIN = 60
ADMIN = "admin"
PROJECT = "main"

# Project `main` can hold volumes, project `cloud` gateways; see `offline/sitecustomize.py`.
SERVER_CONFIGURATION: dict[str, Any] = {
    "projects": [
        {"name": PROJECT, "backends": [{"type": "runpod", "creds": {"type": "api_key", "api_key": "offline"}}]},
        {
            "name": "cloud",
            "backends": [
                {
                    "type": "aws",
                    "regions": ["eu-west-1"],
                    "creds": {"type": "access_key", "access_key": "offline", "secret_key": "offline"},
                }
            ],
        },
    ],
    "plugins": ["rest_plugin"],
}

# The files under `configurations/`, and which of the versions know what is written there.
CONFIGURATIONS_OF: dict[str, tuple[str, ...]] = {
    **{
        name: environments.DSTACK_VERSIONS
        for name in ("task", "dev-environment", "service", "fleet-cloud", "fleet-ssh", "volume", "gateway")
    },
    "service-replicas": ("0.22.5", "0.21.5", "0.20.29"),
    "service-groups": ("0.22.5", "0.21.5"),
    "task-groups": ("0.22.5", "0.21.5"),
}


@dataclass(frozen=True)
class Answer:
    """What the server answered, as the user of the API sees it."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """The sentence that `dstack apply` shows for a refusal, newlines kept."""
        detail = self.body["detail"]
        return "\n".join(part["msg"] for part in detail) if isinstance(detail, list) else str(detail)

    @property
    def spec(self) -> dict[str, Any]:
        """The spec that came out of the review, from whichever form this answer has."""
        if self.status != 200:
            raise AssertionError(f"the server answered {self.status}: {self.text}")
        body = self.body
        for name in ("effective_run_spec", "effective_spec", "run_spec", "spec"):
            if body.get(name) is not None:
                return body[name]
        return {"configuration": body["configuration"]}

    @property
    def configuration(self) -> dict[str, Any]:
        return self.spec["configuration"]


class DstackServer(Process):
    """One running dstack server of one version."""

    def __init__(
        self, version: str, directory: Path, plugins: tuple[str, ...] = ("rest_plugin",), python: Path | None = None
    ):
        """`plugins` are those that its configuration enables; `python` is one that has more than this dstack."""
        super().__init__(f"dstack-{version}", directory)
        self.version = version
        self.plugins = plugins
        self.python = python
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.home = directory / "home"
        self.netrc = directory / "netrc"
        self.token = uuid.uuid4().hex

    def serve(self, announced: Mapping[str, str]) -> None:
        """Starts the server with the variables that the sidecar announced."""
        environments.ensure(f"dstack-{self.version}")
        state = self.home / ".dstack" / "server"
        state.mkdir(parents=True, exist_ok=True)
        configuration = SERVER_CONFIGURATION | {"plugins": list(self.plugins)}
        (state / "config.yml").write_text(yaml.safe_dump(configuration, sort_keys=False))
        self.credentials(None)
        self.start(
            [
                *([self.python, "-m", "dstack._internal.cli.main"] if self.python else [self.executable("dstack")]),
                *("server", "--host", LOOPBACK, "--port", str(self.port), "-y"),
            ],
            minimal_environment(
                HOME=str(self.home),
                NETRC=str(self.netrc),
                PYTHONPATH=str(OFFLINE),
                GPUHUNT_CATALOG_DIR=str(OFFLINE / "catalogue"),
                DSTACK_SERVER_ADMIN_TOKEN=self.token,
                COLUMNS="200",
                **announced,
            ),
            self.is_ready,
            READY_WITHIN,
        )

    def executable(self, name: str) -> Path:
        return environments.program(f"dstack-{self.version}", name)

    def credentials(self, pair: tuple[str, str] | None) -> None:
        """What the server's netrc file says about its plugin service; it is read anew on each review."""
        lines = (
            [f"machine {host} login {pair[0]} password {pair[1]}\n" for host in ("localhost", LOOPBACK)] if pair else []
        )
        self.netrc.write_text("".join(lines))
        self.netrc.chmod(0o600)

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthcheck", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def call(self, path: str, body: Mapping[str, Any], token: str | None = None) -> Answer:
        """One call of the server's API, as the administrator unless another user's token is given."""
        answer = requests.post(
            f"{self.url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {token or self.token}"},
            timeout=CALL_WITHIN,
        )
        return Answer(answer.status_code, answer.text)

    def member(self, name: str) -> str:
        """The token of a user who may do everything in every project of the server, made unless there is one."""
        # A user who is there already is refused, and then the next call finds them.
        self.call("/api/users/create", {"username": name, "global_role": "user", "email": None})
        for project in SERVER_CONFIGURATION["projects"]:
            member = {"username": name, "project_role": "admin"}
            self.call(f"/api/projects/{project['name']}/add_members", {"members": [member]})
        return self.call("/api/users/get_user", {"username": name}).body["creds"]["token"]

    def plan(
        self, configuration: Mapping[str, Any], project: str | None = None, parts: Mapping[str, Any] | None = None
    ) -> Answer:
        """Asks for what `dstack apply` asks for before it prompts: a plan, or a new volume or gateway
        where this version has no plan for it."""
        if configuration["type"] == "volume" or self.creates_gateways_unplanned(configuration):
            configuration = named_anew(configuration)
        return self.submit(configuration, project=project, parts=parts)

    def submit(
        self,
        configuration: Mapping[str, Any],
        project: str | None = None,
        parts: Mapping[str, Any] | None = None,
        token: str | None = None,
    ) -> Answer:
        """What `plan` asks, under the very name of the configuration; `parts` add to the spec around it, or
        replace what the command line would say there."""
        kind = configuration["type"]
        at = f"/api/project/{project or ('cloud' if kind == 'gateway' else PROJECT)}"
        if kind == "volume" or self.creates_gateways_unplanned(configuration):
            return self.call(f"{at}/{kind}s/create", {"configuration": configuration}, token)
        if kind in ("fleet", "gateway"):
            return self.call(f"{at}/{kind}s/get_plan", {"spec": spec(configuration, parts)}, token)
        return self.call(f"{at}/runs/get_plan", {"run_spec": spec(configuration, parts)}, token)

    def creates_gateways_unplanned(self, configuration: Mapping[str, Any]) -> bool:
        """Whether this is a gateway of a version that creates gateways without a plan."""
        return configuration["type"] == "gateway" and self.version.startswith("0.19.")

    def apply(self, configuration: Mapping[str, Any], parts: Mapping[str, Any] | None = None) -> Answer:
        """Submits a run or a fleet, as `dstack apply` does once the user has agreed to the plan."""
        at = f"/api/project/{PROJECT}"
        sent = spec(configuration, parts)
        if configuration["type"] == "fleet":
            return self.call(f"{at}/fleets/apply", {"plan": {"spec": sent}, "force": False})
        return self.call(f"{at}/runs/apply", {"plan": {"run_spec": sent}, "force": False})

    def command_line(self) -> dict[str, str]:
        """The environment in which this version's `dstack` command talks to this server."""
        home = self.directory / "user"
        (home / ".dstack").mkdir(parents=True, exist_ok=True)
        project = {"name": PROJECT, "url": self.url, "token": self.token, "default": True}
        (home / ".dstack" / "config.yml").write_text(yaml.safe_dump({"projects": [project]}))
        return minimal_environment(HOME=str(home), PYTHONPATH=str(OFFLINE), COLUMNS="120", TERM="dumb")


def load(name: str) -> dict[str, Any]:
    """The configuration `configurations/NAME.yml`, an SSH key in it made for the occasion."""
    text = (CONFIGURATIONS / f"{name}.yml").read_text()
    configuration = yaml.safe_load(text)
    if "ssh_config" in configuration:
        configuration["ssh_config"]["ssh_key"] = _new_ssh_key()
    return configuration


def spec(configuration: Mapping[str, Any], parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A spec around a configuration, as the command line builds it, `parts` in place of its own."""
    kind = configuration["type"]
    built: dict[str, Any] = {"configuration": configuration}
    if kind in ("fleet", "gateway"):
        built["configuration_path"] = f"{kind}.dstack.yml"
    else:
        built |= {
            "run_name": configuration.get("name"),
            "configuration_path": ".dstack.yml",
            "ssh_key_pub": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample",
        }
    if kind != "gateway":
        built["profile"] = {"name": "default"}
    return built | dict(parts or {})


def _new_ssh_key() -> dict[str, str]:
    # dstack reads the private key at once, so it has to be a real one.
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return {"private": private.decode(), "public": public.decode()}


def named_anew(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration under a name of its own: what is really created cannot be created twice under one."""
    return {**configuration, "name": f"{configuration['name']}-{uuid.uuid4().hex[:8]}"}
