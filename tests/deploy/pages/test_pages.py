"""The pages whose commands need no container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plugin_environments
import yaml
from conftest import VERSION
from stage import announced, checkout, denial, is_patched
from walk import REPOSITORY, Walk, not_in

from harness.dstack import DstackServer
from harness.processes import free_port

Follow = Callable[..., Walk]
HEADER = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\n"
CHAIN = """\
plugins:
  - {name: cost, use: max-price, with: {limit: 4.0}}
  - {name: no-privileged, use: forbid-privileged}
"""


def addresses() -> str:
    """Ports that are free here, as lines of a configuration."""
    return f"listen: 127.0.0.1:{free_port()}\nadmin: 127.0.0.1:{free_port()}\n"


def test_the_quick_start(follow: Follow, server: DstackServer, binary: Path, tmp_path: Path) -> None:
    walk = follow("README.md", checkout(tmp_path / "checkout"), section="Set it up")
    configuration = walk.folder / "deploy/quickstart.yaml"
    configuration.write_text(configuration.read_text() + addresses())
    copied = f"install -D {binary} target/release/dstack-admission"
    walk.run("cargo build --release", instead=copied, because="the tests of the images build the release")
    walk.run("target/release/dstack-admission check")
    walk.start("target/release/dstack-admission serve", until="serving")
    variables = announced(walk.said)
    walk.words["localhost:8443"] = variables["DSTACK_PLUGIN_SERVICE_URI"].removeprefix("https://")
    walk.shown("DSTACK_PLUGIN_SERVICE_URI")
    assert yaml.safe_load(walk.read("plugins:")) == {"plugins": list(server.plugins)}
    server.serve(variables)
    walk.said = f"Apply request rejected: {denial(server).removeprefix('Apply request rejected: ')}"
    walk.shown("Apply request rejected")
    walk.end()
    assert is_patched(server, max_price=4.0, max_duration=3 * 24 * 3600)


def test_the_demo(follow: Follow, binary: Path) -> None:
    walk = follow("README.md", section="See it work")
    demo = f"python3 {REPOSITORY / 'tests/e2e/demo.py'} {binary}"
    walk.run("make demo", instead=demo, because="it is built already", within=300)
    walk.end()


def test_python_plugins_move_out_of_the_server(follow: Follow, tmp_path: Path) -> None:
    python = plugin_environments.interpreter(VERSION)
    server = DstackServer(VERSION, tmp_path / "server", plugins=("documented",), python=python)
    walk = follow(
        "docs/python.md",
        section="From the server's list to the sidecar",
        words={"/opt/dstack/bin/python": str(python)},
        HOME=str(server.home),
    )
    file = server.home / ".dstack/server/config.yml"
    try:
        server.serve({})
        before = denial(server)
        server.stop()
        kept = yaml.safe_load(file.read_text())

        walk.run("dstack-admission migrate")
        assert "documented" in walk.said
        walk.run("dstack-admission migrate")
        assert yaml.safe_load(file.read_text()) == {**kept, "plugins": ["rest_plugin"]}
        with (walk.folder / "admission.yaml").open("a") as configuration:
            configuration.write(addresses() + f"stateDir: {tmp_path / 'state'}\n")
        walk.run("dstack-admission check")
        walk.start("dstack-admission serve", until="serving")
        walk.end()
        server.plugins = ("rest_plugin",)
        server.serve(announced(walk.said))
        assert before.removeprefix("Apply request rejected: ") in denial(server)
        assert is_patched(server, tags={"team": "my_team"})
    finally:
        server.stop()


def test_the_keys_of_a_python_plugin_are_what_the_page_shows(follow: Follow) -> None:
    # Nothing is fetched: the packages are nobody's.
    walk = follow("docs/python.md", PIP_NO_INDEX="1", UV_OFFLINE="1")
    for _ in range(4):
        walk.not_run("dstack-admission", because="the walk above runs it")
    for file in ("wheels/house_rules-1.2-py3-none-any.whl", "requirements.lock"):
        (walk.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (walk.folder / file).write_text("nobodys-package==1.2\n")
    for _ in range(2):
        shown = walk.read("- name: house-rules")
        (walk.folder / "admission.yaml").write_text(f"{HEADER}stateDir: state\nplugins:\n{shown}\n")
        said = walk.aside("dstack-admission check --config admission.yaml")
        assert "`house-rules` was not loaded: " in said, said
    assert "does not know" not in walk.read("1 policy could not be checked")
    walk.end()


def test_certificates_made_by_hand(follow: Follow, server: DstackServer) -> None:
    walk = follow("docs/certificates.md", words={"admission.example.com": "localhost"})
    state = walk.folder / "state"
    (walk.folder / "config.yaml").write_text(f"{HEADER}{addresses()}stateDir: {state}\n{CHAIN}")
    walk.run("dstack-admission certs make --config")
    walk.run("dstack-admission certs make -d pki")
    walk.run("dstack-admission certs renew")
    walk.run("dstack-admission certs print")
    assert "localhost" in walk.said
    walk.words |= {"company-ca.pem": "pki/ca.pem", " ca.pem": " state/ca.pem"}
    walk.run("dstack-admission certs bundle")

    # Another's certificate, whose CA the server has by that bundle.
    walk.words |= {f"/etc/tls/tls.{end}": str(walk.folder / "pki/tls/server.pem") for end in ("crt", "key")}
    with (walk.folder / "config.yaml").open("a") as configuration:
        configuration.write(walk.read("tls:") + "\n")
    walk.end()
    walk.background("dstack-admission serve --config config.yaml", until="serving")
    port = yaml.safe_load((walk.folder / "config.yaml").read_text())["listen"].rpartition(":")[2]
    bundle = walk.folder / "bundle"
    server.serve(
        {
            "DSTACK_PLUGIN_SERVICE_URI": f"https://localhost:{port}",
            "REQUESTS_CA_BUNDLE": str(bundle / "trust"),
            "AWS_CA_BUNDLE": str(bundle / "trust.pem"),
        }
    )
    assert is_patched(server, max_price=4.0)
    assert "no-privileged" in denial(server)


def test_the_doctor_and_the_health_check(follow: Follow, server: DstackServer, tmp_path: Path) -> None:
    walk = follow("docs/doctor.md", words={"http://localhost:3000": server.url})
    shown = walk.read("$ dstack-admission doctor").splitlines()
    configuration = f"{HEADER}{addresses()}stateDir: state\n"
    chain = CHAIN + walk.read("plugins:").removeprefix("plugins:\n") + "\n"
    (walk.folder / "config.yaml").write_text(configuration + chain)
    (walk.folder / "token").write_text(server.token)
    walk.background("dstack-admission serve --config config.yaml", until="serving")
    variables = announced(walk.said)
    server.serve(variables)
    assert is_patched(server, max_price=4.0)
    assert "no-privileged" in denial(server)

    walk.words['$(pgrep -o -f \'dstack server\')'] = str(server.pid)
    walk.run("dstack-admission doctor --env-of")
    # As at the top of the page: the same server behind a proxy that it was not told to pass by.
    server.stop()
    behind = variables | {"HTTPS_PROXY": "http://proxy.example.com:3128", "NO_PROXY": ""}
    server.serve(behind)
    walk.environment |= behind | {"HOME": str(server.home)}
    walk.said = walk.aside(shown[0].removeprefix("$ "))
    own = {
        "/root": str(server.home),
        "https://localhost:8443": variables["DSTACK_PLUGIN_SERVICE_URI"],
        "/var/lib/dstack-admission": str(walk.folder / "state"),
    }
    walk.words |= own
    assert not_in(walk.worded("\n".join(shown[1:])), walk.said) is None, walk.said

    walk.words |= {"the-password": "secret"}
    assert walk.read("machine localhost").split() == ["machine", "localhost", "login", "dstack", "password", "secret"]
    walk.words["--config FILE"] = "--config config.yaml"
    walk.run("dstack-admission healthcheck")
    assert "dstack-admission" in walk.read("HEALTHCHECK")
    walk.end()


def test_upgrading(follow: Follow, server: DstackServer) -> None:
    words = {"URL": server.url, "FILE": "token"}
    walk = follow("docs/upgrading.md", words=words)
    audit = "audit:\n  level: Spec\n  sinks: [{file: {path: audit.log, mode: blocking}}]\n"
    chain = CHAIN + "  - {name: canary, use: canary}\n"
    (walk.folder / "config.yaml").write_text(f"{HEADER}{addresses()}stateDir: state\n{audit}{chain}")
    (walk.folder / "token").write_text(server.token)
    walk.background("dstack-admission serve --config config.yaml", until="serving")
    server.serve(announced(walk.said))
    assert is_patched(server, max_price=4.0)
    assert "no-privileged" in denial(server)

    assert "install" in walk.read("plugins:")
    walk.run("dstack-admission replay")
    walk.words["PID"] = str(server.pid)
    walk.run("dstack-admission doctor")
    walk.run("dstack-admission check")
    walk.run("dstack-admission replay")
    walk.end()
