"""Shows the sidecar at work: a real dstack server, an example chain, three configurations applied.

    python3 tests/e2e/demo.py target/release/dstack-admission

The first run makes two Python environments under `target/e2e/`; after that it takes under a minute.
Everything else lives in a directory of its own that is removed at the end. It exits with 1 when a
decision is not the one that was announced.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import environments

VERSION = environments.DSTACK_VERSIONS[0]
HERE = Path(__file__).resolve().parent
FINISHED_WITHIN = 90

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, GREEN, YELLOW, RED, CYAN = "1", "2", "32", "33", "31", "36"

# File, decision as the audit log names it, title, colour.
ACTS = (
    ("allowed.dstack.yml", "allowed", "Allowed: it says what it may cost and for how long", GREEN),
    ("patched.dstack.yml", "patched", "Patched: what it leaves open is filled in", YELLOW),
    ("denied.dstack.yml", "denied", "Denied: every reason at once", RED),
)


class NotAsAnnounced(Exception):
    """The demo did not go as it should; the text says where."""


def main() -> int:
    parser = argparse.ArgumentParser(description="A real dstack server with its admission sidecar, in three acts.")
    parser.add_argument("binary", type=Path, help="the dstack-admission executable")
    binary = parser.parse_args().binary.resolve()
    if not binary.is_file():
        print(f"error: {binary} is missing: build it first with `cargo build --release`", file=sys.stderr)
        return 2
    # A request to end is an exception like any other, so that the processes are ended with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        in_own_environment()
        with tempfile.TemporaryDirectory(prefix="dstack-admission-demo-") as directory:
            play(binary, Path(directory))
    except (environments.EnvironmentFailed, NotAsAnnounced) as failure:
        sys.stdout.flush()
        print(f"\nerror: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def in_own_environment() -> None:
    """Goes on in the tests' environment, which has the libraries that the harness needs."""
    home = environments.ensure("tests")
    environments.ensure(f"dstack-{VERSION}")
    if Path(sys.prefix).resolve() != home:
        sys.stdout.flush()
        os.execv(home / "bin" / "python", [str(home / "bin" / "python"), *sys.argv])


def play(binary: Path, directory: Path) -> None:
    import yaml

    from harness.dstack import DstackServer
    from harness.processes import DidNotStart
    from harness.sidecar import Sidecar

    began = time.monotonic()
    chain = (HERE / "demo" / "chain.yaml").read_text()
    user = directory / "user-files"
    shutil.copytree(HERE / "demo", user)
    sidecar, server = Sidecar(binary, directory / "sidecar"), DstackServer(VERSION, directory / "server")
    try:
        heading("The chain, which the dstack server's users never see")
        show(chain, DIM)

        heading("The stage")
        with timed("dstack-admission, with certificates of its own"):
            sidecar.serve(yaml.safe_load(chain)["plugins"])
        for name, value in sidecar.announced().items():
            print(f"  {paint(name, CYAN)}={value}")
        with timed(f"dstack server {VERSION}, with these variables and plugins: [rest_plugin]"):
            server.serve(sidecar.announced())
        with timed("a fleet to run on"):
            dstack(server, user, "apply", "-f", "fleet.dstack.yml", "-y", "-d")

        for number, (file, decision, title, colour) in enumerate(ACTS, 1):
            heading(f"{number}. {title}", colour)
            act(server, sidecar, user, file, decision)
    except DidNotStart as failure:
        raise NotAsAnnounced(str(failure)) from failure
    finally:
        pids = [process.pid for process in (server, sidecar) if process.is_running()]
        server.stop()
        sidecar.stop()
    heading("Tidied up")
    print(f"  ended {len(pids)} processes, removed {directory}; {time.monotonic() - began:.0f} s in all\n")


def act(server, sidecar, user: Path, file: str, decision: str) -> None:
    """Applies one configuration and shows what a person at the terminal sees."""
    command("cat", file)
    show((user / file).read_text())
    command("dstack", "apply", "-f", file, "-y", "-d")
    before = len(sidecar.audit())
    finished = dstack(server, user, "apply", "-f", file, "-y", "-d")
    show((finished.stdout + finished.stderr).strip("\n"))
    if decision == "patched":
        show_diff(server, sidecar, user, file)
    decided = {record["decision"] for record in sidecar.audit()[before:]}
    if decided != {decision} or (finished.returncode == 0) != (decision != "denied"):
        raise NotAsAnnounced(f"{file} should be {decision}, the audit log says {sorted(decided)}\n{sidecar.tail()}")


def show_diff(server, sidecar, user: Path, file: str) -> None:
    """Decides the same spec offline and shows what `dstack-admission review` prints."""
    import yaml

    spec = server.plan(yaml.safe_load((user / file).read_text())).body["run_spec"]
    request = user / "request.json"
    request.write_text(json.dumps({"user": "admin", "project": "main", "spec": spec}))
    command("dstack-admission", "review", "--config", "admission.yaml", request.name)
    review = [sidecar.binary, "review", "--config", sidecar.configuration_file, request.name]
    finished = run(review, user, dict(os.environ))
    show((finished.stdout + finished.stderr).strip("\n"))
    if finished.returncode != 0:
        raise NotAsAnnounced(f"review ended with {finished.returncode}")


def dstack(server, user: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([server.executable("dstack"), *arguments], user, server.command_line())


def run(command: list, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FINISHED_WITHIN,
    )


def heading(text: str, colour: str = BOLD) -> None:
    print(f"\n{paint('── ' + text + ' ' + '─' * max(2, 76 - len(text)), BOLD, colour)}", flush=True)


def command(*words: str) -> None:
    print(f"\n{paint('$ ' + ' '.join(words), BOLD)}", flush=True)


def show(text: str, *codes: str) -> None:
    for line in text.rstrip("\n").splitlines():
        print(f"  {paint(line, *codes)}" if line.strip() else "")


@contextmanager
def timed(what: str):
    """Says what is being waited for, and how long it took."""
    print(f"  {what} … ", end="", flush=True)
    began = time.monotonic()
    yield
    print(paint(f"{time.monotonic() - began:.1f} s", DIM), flush=True)


def paint(text: str, *codes: str) -> str:
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if COLOUR and codes else text


if __name__ == "__main__":
    sys.exit(main())
