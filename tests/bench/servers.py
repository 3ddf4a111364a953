"""What the benchmark runs and reads: builds, certificates, servers pinned to one core, load pinned to another."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import policy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "bench"
CERTS = WORK / "certs"
PYTHON = WORK / "venv" / "bin" / "python"
BODY = HERE / "body.json"
REQUIREMENTS = ["dstack==0.22.5", "fastapi", "uvicorn[standard]"]

SERVER_CORE, LOAD_CORE = 0, 1


def prepare():
    """Builds the binaries, makes the Python environment and the certificates."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"the benchmark needs the cores {SERVER_CORE} and {LOAD_CORE}")
    for tool, package in (("openssl", "openssl"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            sys.exit(f"the benchmark needs {tool}: apt-get install {package}")
    subprocess.run(["cargo", "build", "--release", "--bins", "--examples"], cwd=ROOT, check=True)
    WORK.mkdir(parents=True, exist_ok=True)
    stamp = WORK / "venv" / "requirements"
    if not stamp.exists() or stamp.read_text() != str(REQUIREMENTS):
        _run(sys.executable, "-m", "venv", "--clear", WORK / "venv")
        _run(PYTHON, "-m", "pip", "install", "--quiet", *REQUIREMENTS)
        stamp.write_text(str(REQUIREMENTS))
    make_certificates()


def make_certificates():
    """Makes a CA and a server's certificate (P-256), and the CA as the hashed directory that OpenSSL looks up lazily."""
    shutil.rmtree(CERTS, ignore_errors=True)
    trust = CERTS / "trust"
    trust.mkdir(parents=True)
    (CERTS / "openssl.cnf").write_text(
        "[req]\ndistinguished_name=name\n[name]\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
        "[server]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    for name, subject, signer in (
        ("ca", "/CN=bench CA", []),
        ("server", "/CN=localhost", ["-CA", CERTS / "ca.pem", "-CAkey", CERTS / "ca.key"]),
    ):
        _run(
            *("openssl", "req", "-x509", "-config", CERTS / "openssl.cnf", "-extensions", name, "-subj", subject, *signer),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
            *("-keyout", CERTS / f"{name}.key", "-out", CERTS / f"{name}.pem"),
        )
    digest = _run("openssl", "x509", "-noout", "-hash", "-in", CERTS / "ca.pem").strip()
    shutil.copy(CERTS / "ca.pem", trust / f"{digest}.0")


class Server:
    """A server process on its core, from ready to stopped."""

    def __init__(self, name, port, command, patience=30):
        self.port, self.log = port, WORK / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(part) for part in (*pinned(SERVER_CORE), *command)], stdout=log, stderr=log)
        self._wait_until_ready(patience)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu(self):
        """CPU seconds so far, user and system, of all threads, ended ones included."""
        # The clock that clock_getcpuclockid(3) names: in nanoseconds, where /proc/PID/stat counts in hundredths.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident(self):
        """Resident memory, in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the server is gone")

    def load(self, mode, requests, connections):
        """Sends reviews; gives back the load generator's report with the server's `cpu` seconds for 1,000 reviews."""
        before = self.cpu()
        report = json.loads(
            _run(
                *(*pinned(LOAD_CORE), TARGET / "release" / "examples" / "load", "--connect", f"127.0.0.1:{self.port}"),
                *("--ca", CERTS / "ca.pem", "--body", BODY, "--mode", mode),
                *("--requests", requests, "--connections", connections),
            )
        )
        return report | {"cpu": (self.cpu() - before) / requests * 1000}

    def _wait_until_ready(self, patience):
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()
        raise RuntimeError(f"{self.log.stem} does not serve: {self.log.read_text()[-2000:]}")


def bare(under=(), **options):
    """The limit."""
    port = free_port()
    program = TARGET / "release" / "examples" / "bare"
    files = ("--cert", CERTS / "server.pem", "--key", CERTS / "server.key")
    return Server("bare", port, [*under, program, "--listen", f"127.0.0.1:{port}", *files], **options)


def product(name, plugins, under=(), audit=None, **options):
    """The product with a chain of the given plugins, and an audit file unless `audit` says otherwise."""
    port, admin = free_port(), free_port()
    directory = WORK / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    config = directory / "config.yaml"
    policy.write_config(config, f"127.0.0.1:{port}", f"127.0.0.1:{admin}", CERTS, plugins, audit)
    return Server(name, port, [*under, TARGET / "release" / "dstack-admission", "serve", "--config", config], **options)


def fastapi():
    """The same policy in a FastAPI plugin server."""
    port = free_port()
    return Server("fastapi", port, [PYTHON, HERE / "fastapi_server.py", port, CERTS / "server.pem", CERTS / "server.key"])


def dstack_waits(calls, servers):
    """The waits of dstack's own client, in milliseconds: a list for each server."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    report = _run(
        *(*pinned(LOAD_CORE), PYTHON, HERE / "dstack_client.py", BODY, calls),
        *(f"https://localhost:{server.port}" for server in servers),
        env=environment | {"REQUESTS_CA_BUNDLE": str(CERTS / "trust"), "NETRC": "/dev/null", "HOME": str(WORK)},
    )
    return json.loads(report)


def pinned(core):
    return "taskset", "-c", core


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run(*command, **options):
    """Runs a command to its end and gives back what it printed; a failure carries what it complained of."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()[:2000]}")
    return done.stdout
