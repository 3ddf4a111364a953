"""The systemd unit on a machine that systemd runs, installed by the commands of docs/systemd.md."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import machine
import pytest
import tools
from conftest import DEPLOY, HERE
from engine import Docker, wait_until
from machine import CACHE, UV, Machine

import environments
from harness.dstack import Answer, spec

PAGE = (tools.REPOSITORY / "docs/systemd.md").read_text()
CHECKOUT = "/root/dstack-admission"
SIDECAR = "dstack-admission"
CONFIGURATION = "/etc/dstack-admission/admission.yaml"
STATE = "/var/lib/dstack-admission"
TOKEN = re.findall(r"DSTACK_SERVER_ADMIN_TOKEN=(\S+)", machine.UNIT.read_text())[0]

FLEET = {"type": "fleet", "name": "pool", "nodes": 1, "backends": ["aws"]}
PRIVILEGED = {"type": "task", "name": "job", "image": "debian", "commands": ["id"], "privileged": True}


@pytest.fixture(scope="module")
def executable(engine: Docker, small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release, which the page's first command builds as the Dockerfile does."""
    copy = tmp_path_factory.mktemp("release") / "dstack-admission"
    made = engine.command("create", "--pull", "never", small).split()[-1]
    try:
        engine.command("cp", f"{made}:/usr/bin/dstack-admission", copy)
    finally:
        engine.command("rm", "--volumes", made)
    return copy


@pytest.fixture(scope="module")
def booted(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a dstack server, a checkout and the executable that its first command would build."""
    wheels = tmp_path_factory.mktemp("wheels")
    wheels.chmod(0o755)
    tools.run([UV, "build", "--quiet", "--wheel", "--offline", "--out-dir", wheels, HERE / "plugins/patient"])
    built = "target/x86_64-unknown-linux-gnu/release/dstack-admission"
    booted = Machine(
        machine.base(),
        {
            DEPLOY: f"{CHECKOUT}/deploy",
            executable: f"{CHECKOUT}/{built}",
            wheels: "/opt/wheels",
        },
    )
    booted.boot()
    try:
        yield booted
    finally:
        booted.power_off()


@pytest.fixture(scope="module")
def installed(booted: Machine) -> Machine:
    """The page's steps, done one after the other."""
    build, *install = commands("1. ")
    assert build.startswith("RUSTFLAGS=") and "cargo build --release" in build
    for command in (*install, *commands("2. ")):
        booted.run(command, CHECKOUT)
    assert booted.show(SIDECAR, "ActiveState") == "active"
    path = booted.run("echo ~dstack").strip() + "/.dstack/server/config.yml"
    wait_until(lambda: healthy(booted), "the server is up", 120, lambda: journal(booted, "dstack"))
    (wanted,) = re.findall(r"```yaml\n +plugins:\n( +- rest_plugin)\n", PAGE)
    booted.run(f"printf 'plugins:\\n{wanted}\\n' >> {path}")
    for command in commands("3. "):
        booted.run(command, CHECKOUT)
    wait_until(lambda: healthy(booted), "the server is back", 120, lambda: journal(booted, "dstack"))
    return booted


@pytest.fixture
def configured(installed: Machine) -> Iterator[Machine]:
    """The machine, whose configuration and unit are afterwards what they were."""
    before = installed.run(f"cat {CONFIGURATION}")
    yield installed
    installed.write(CONFIGURATION, before)
    installed.run(f"rm -rf /etc/systemd/system/{SIDECAR}.service.d; systemctl daemon-reload")
    installed.run(f"systemctl restart {SIDECAR}")


def test_a_spec_is_patched_and_one_denied(installed: Machine) -> None:
    assert plan(installed, FLEET).configuration["max_price"] == 4.0
    answer = plan(installed, PRIVILEGED)
    assert answer.status == 400
    assert without_id(answer.message) == without_id("\n".join(commands("4. ")))


def test_the_user_owns_the_state_and_everybody_reads_the_trust(installed: Machine) -> None:
    as_server = f"runuser -u dstack -- cat {STATE}"
    assert "BEGIN CERTIFICATE" in installed.run(f"{as_server}/trust.pem")
    assert "Permission denied" in installed.attempt(f"{as_server}/tls/ca-1.pem").stderr
    assert installed.run(f"stat -c '%U:%G %a' {STATE}").strip() == "dstack-admission:dstack-admission 755"
    owned = installed.run(f"find {STATE}/tls -type f -printf '%u %m\\n'").split("\n")
    assert set(filter(None, owned)) == {"dstack-admission 600"}


def test_the_kernel_holds_it_to_its_confinement(installed: Machine) -> None:
    status = installed.status(SIDECAR)
    user = installed.run("id -u dstack-admission").strip()
    assert set(status["Uid"].split()) == {user} != {"0"}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    process = f"/proc/{installed.show(SIDECAR, 'MainPID')}"
    mapped = installed.run(f"cat {process}/uid_map").split()
    assert "4294967295" not in mapped, "no user but root and its own"
    limits = installed.run(f"cat {process}/limits")
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert re.search(r"^Max open files +16384 +16384 ", limits, re.MULTILINE)
    for kind in ("mnt", "user", "uts"):
        outside, inside = installed.run(f"readlink /proc/1/ns/{kind} {process}/ns/{kind}").split()
        assert outside != inside, kind


@pytest.mark.parametrize("path", ["/usr/bin", "/etc/dstack-admission", "/var/lib", "/root", "/sys/kernel"])
def test_the_unit_can_write_nowhere_else(installed: Machine, path: str) -> None:
    done = installed.within(SIDECAR, f"touch {path}/x")
    assert done.returncode != 0
    assert re.search("Read-only file system|Permission denied", done.stderr), done.stderr


def test_the_unit_sees_its_own_things_alone(installed: Machine) -> None:
    assert installed.within(SIDECAR, f"touch {STATE}/x && rm {STATE}/x").returncode == 0
    installed.run("touch /tmp/of-others /home/dstack/of-others")
    assert "of-others" not in installed.within(SIDECAR, "ls -A /tmp /home /root").stdout
    assert installed.within(SIDECAR, "test -e /proc/meminfo").returncode != 0
    devices = installed.within(SIDECAR, "ls /dev").stdout.split()
    assert "null" in devices and "fuse" not in devices and "kmsg" not in devices


def test_systemd_rates_it_as_the_page_says(installed: Machine) -> None:
    said = installed.run(f"systemd-analyze security --no-pager {SIDECAR}").splitlines()[-1]
    (rated,) = re.findall(r"rates it ([\d.]+), OK", PAGE)
    assert f": {rated} OK" in said


def test_the_journal_has_the_log_and_the_decisions(installed: Machine) -> None:
    plan(installed, PRIVILEGED)
    wait_until(lambda: "no-privileged" in journal(installed, SIDECAR), "the denial is in the journal")
    wait_until(lambda: "serving" in journal(installed, SIDECAR), "it is in the journal that it serves")


def test_a_reload_brings_the_new_configuration_and_keeps_the_process(configured: Machine) -> None:
    before = configured.show(SIDECAR, "MainPID")
    configured.run(f"sed -i 's/limit: 4.0/limit: 2.5/' {CONFIGURATION} && systemctl reload {SIDECAR}")
    wait_until(lambda: plan(configured, FLEET).configuration["max_price"] == 2.5, "the new limit is in force")
    assert configured.show(SIDECAR, "MainPID") == before


def test_what_kills_it_is_not_the_end_of_it_nor_of_the_server(installed: Machine) -> None:
    server = installed.show("dstack", "MainPID")
    before = installed.show(SIDECAR, "MainPID")
    installed.run(f"systemctl kill --signal=KILL --kill-whom=main {SIDECAR}")

    def is_back() -> bool:
        return installed.show(SIDECAR, "ActiveState") == "active" and installed.show(SIDECAR, "MainPID") != before

    wait_until(is_back, "it was started again", show=lambda: journal(installed, SIDECAR))
    assert installed.show(SIDECAR, "NRestarts") == "1"
    assert plan(installed, FLEET).configuration["max_price"] == 4.0
    assert installed.show("dstack", "MainPID") == server


def test_a_configuration_that_cannot_be_used_is_not_tried_again(configured: Machine) -> None:
    configured.run(f"echo 'plugins: 3' > {CONFIGURATION}")
    done = configured.attempt(f"systemctl restart {SIDECAR}")
    assert done.returncode != 0
    assert configured.show(SIDECAR, "ExecMainStatus") == "2"
    assert (configured.show(SIDECAR, "ActiveState"), configured.show(SIDECAR, "NRestarts")) == ("failed", "0")
    assert "plugins" in configured.attempt(f"systemctl status --lines=50 {SIDECAR}").stdout


def test_a_python_plugin_is_installed_and_runs_confined_and_a_stop_waits_for_its_review(configured: Machine) -> None:
    configured.run(f"cp -r {CACHE} {STATE}/uv-cache && chown -R dstack-admission: {STATE}/uv-cache")
    offline = f"[Service]\nEnvironment=UV_OFFLINE=1 UV_CACHE_DIR={STATE}/uv-cache UV_LINK_MODE=copy\n"
    configured.write(f"/etc/systemd/system/{SIDECAR}.service.d/offline.conf", offline)
    (wheel,) = configured.run("ls /opt/wheels/*.whl").split()
    install = [wheel, f"dstack=={environments.DSTACK_VERSIONS[0]}", *environments.SERVER_BOUNDS]
    plugin = {"plugin": "patient", "install": install, "memoryLimit": "512MiB"}
    chain = json.dumps([{"name": "patient", "timeout": "6s", "python": plugin}])
    before = configured.run(f"sed '/^plugins:/,$d' {CONFIGURATION}")
    configured.write(CONFIGURATION, f"{before}\nplugins: {chain}\n")
    configured.run(f"systemctl daemon-reload && systemctl restart {SIDECAR}")

    assert plan(configured, FLEET).configuration["tags"] == {"reviewed-by": "patient"}
    workers = configured.run(f"systemctl show --property=ControlGroup --value {SIDECAR}").strip()
    processes = configured.run(f"cat /sys/fs/cgroup{workers}/cgroup.procs").split()
    statuses = [configured.run(f"cat /proc/{process}/status") for process in processes]
    assert len(statuses) > 1 and all(re.search(r"^Seccomp:\t2$", one, re.MULTILINE) for one in statuses)

    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(plan(configured, {**FLEET, "name": "slow-4"})))
    asking.start()
    wait_until(lambda: in_flight(configured) == 1, "the review is in hand")
    configured.run(f"systemctl stop {SIDECAR}")
    asking.join()
    assert answers[0].configuration["tags"] == {"reviewed-by": "patient"}
    ended = {name: configured.show(SIDECAR, name) for name in ("Result", "ExecMainCode", "ExecMainStatus")}
    assert ended == {"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"}


def test_a_password_is_handed_over_as_a_credential(configured: Machine) -> None:
    (drop_in,) = re.findall(r"^    (\[Service\])\n    (LoadCredential=\S+)$", PAGE, re.MULTILINE)
    (auth,) = re.findall(r"^auth:\n  basic: .+$", PAGE, re.MULTILINE)
    secrets = "/etc/dstack-admission/secrets"
    configured.run(f"install -d -m 700 {secrets} && umask 077 && printf secret > {secrets}/password")
    configured.write(f"/etc/systemd/system/{SIDECAR}.service.d/secret.conf", "\n".join(drop_in) + "\n")
    configured.run(f"cat >> {CONFIGURATION} <<'END'\n{auth}\nEND\nsystemctl daemon-reload; systemctl restart {SIDECAR}")
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' --cacert {STATE}/trust.pem --json '{{}}'"
    url = "https://localhost:8443/apply_policies/on_run_apply"
    assert configured.run(f"{ask} {url}") == "401"
    assert configured.run(f"{ask} --user dstack:secret {url}") == "400", "no review, but let in"
    assert configured.attempt("runuser -u dstack -- ls /run/credentials/dstack-admission.service").returncode != 0


def test_the_doctor_finds_nothing_wrong_from_the_server_s_side(configured: Machine) -> None:
    configured.run(f"echo '  - {{name: canary, use: canary}}' >> {CONFIGURATION}; systemctl reload {SIDECAR}")
    configured.run(f"umask 077; echo {TOKEN} > /root/token")
    server = configured.show("dstack", "MainPID")
    asked = f"dstack-admission doctor --env-of {server} --server http://localhost:3000 --token-file /root/token -o json"
    found: list[str] = []

    def is_well() -> bool:
        found.append(configured.attempt(asked).stdout)
        return bool(json.loads(found[-1])["ok"])

    wait_until(is_well, "the doctor finds nothing", show=lambda: found[-1])


def test_a_new_executable_takes_over(installed: Machine) -> None:
    before = installed.show(SIDECAR, "MainPID")
    for command in commands("## Upgrading"):
        if "cargo build" not in command:
            installed.run(command, CHECKOUT)
    assert installed.show(SIDECAR, "MainPID") != before
    assert plan(installed, FLEET).configuration["max_price"] == 4.0


def test_a_start_of_the_server_waits_for_reviews_that_are_answered(installed: Machine) -> None:
    installed.run(f"systemctl stop dstack {SIDECAR} && systemctl start dstack")
    answered = int(installed.show(SIDECAR, "ActiveEnterTimestampMonotonic"))
    began = int(installed.show(SIDECAR, "ExecMainStartTimestampMonotonic"))
    assert began < answered <= int(installed.show("dstack", "ExecMainStartTimestampMonotonic"))


def test_nothing_is_left_once_it_is_removed(installed: Machine) -> None:
    installed.run("sed -i '/^plugins:/,$d' /home/dstack/.dstack/server/config.yml")
    for command in commands("## Removing"):
        installed.run(command, CHECKOUT)
    left = "find /usr /etc /var/lib /run -xdev -name '*dstack-admission*' ! -path '/run/host/*'"
    assert installed.run(left) == ""
    assert installed.attempt("id dstack-admission").returncode != 0
    assert installed.attempt(f"systemctl cat {SIDECAR}").returncode != 0
    wait_until(lambda: healthy(installed), "the server is back", 120, lambda: journal(installed, "dstack"))
    assert plan(installed, FLEET).configuration.get("max_price") is None


def commands(heading: str) -> list[str]:
    """The page's commands under a heading or at a numbered step, in their order."""
    (part,) = re.findall(rf"^{re.escape(heading)}.*?(?=^\d\. |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    deeper = " " * (7 if heading[0].isdigit() else 4)
    return [line.removeprefix(deeper) for line in part.splitlines() if line.startswith(deeper)]


def plan(machine: Machine, configuration: dict[str, object]) -> Answer:
    """What the server answers to a plan; it listens on that machine's loopback alone."""
    fleet = configuration["type"] == "fleet"
    path, key = ("fleets/get_plan", "spec") if fleet else ("runs/get_plan", "run_spec")
    body = json.dumps({key: spec(configuration)}).replace("'", "'\\''")
    headers = f"-H 'Authorization: Bearer {TOKEN}' -H 'Content-Type: application/json'"
    url = f"http://localhost:3000/api/project/main/{path}"
    said = machine.run(f"curl -sS --max-time 60 -w '\\n%{{http_code}}' {headers} -d '{body}' {url}")
    text, _, status = said.rpartition("\n")
    return Answer(int(status), text)


def healthy(machine: Machine) -> bool:
    return machine.attempt("curl -sf --max-time 2 http://localhost:3000/healthcheck").returncode == 0


def in_flight(machine: Machine) -> int:
    metrics = machine.run("curl -sf --max-time 2 http://localhost:9443/metrics")
    return int(re.findall(r"^dstack_admission_in_flight_requests (\d+)", metrics, re.MULTILINE)[0])


def journal(machine: Machine, unit: str) -> str:
    return machine.run(f"journalctl --no-pager --unit {unit}")


def without_id(text: str) -> str:
    return re.sub(r"decision [0-9A-Z]{26}", "decision ID", text)
