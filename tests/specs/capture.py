"""Captures what real dstack servers send to their plugin service: writes `tests/specs/VERSION/NAME.json`.

    target/e2e/tests/bin/python tests/specs/capture.py                     # every version; `make specs`
    target/e2e/tests/bin/python tests/specs/capture.py --versions 0.22.5

For each version a server is started with a recording plugin service, and every file of `configurations/` is
submitted to it. The same servers and configurations give the same files. It exits with 1, and names each,
when a configuration could not be captured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import environments
from harness import specs
from harness.dstack import DstackServer
from harness.processes import DidNotStart
from harness.recorder import recording


def main() -> int:
    parser = argparse.ArgumentParser(description="Capture what real dstack servers send to their plugin service.")
    parser.add_argument(
        "--versions",
        nargs="+",
        choices=environments.DSTACK_VERSIONS,
        default=environments.DSTACK_VERSIONS,
        metavar="VERSION",
        help=f"of {', '.join(environments.DSTACK_VERSIONS)}; without any, all of them",
    )
    versions = parser.parse_args().versions
    try:
        problems = [problem for version in versions for problem in capture(version)]
        specs.README.write_text(specs.with_table(specs.README.read_text()))
    except (DidNotStart, specs.Malformed, environments.EnvironmentFailed, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def capture(version: str) -> list[str]:
    """Writes the files of one version, removes those that no configuration stands for, and answers what
    could not be captured."""
    with recording() as recorder, tempfile.TemporaryDirectory(prefix=f"dstack-{version}-") as directory:
        server = DstackServer(version, Path(directory))
        try:
            server.serve({"DSTACK_PLUGIN_SERVICE_URI": recorder.uri})
            captured = specs.capture(server, recorder)
        finally:
            server.stop()
    folder = specs.SPECS / version
    folder.mkdir(exist_ok=True)
    for name in specs.committed(version).keys() - captured.texts.keys():
        (folder / f"{name}.json").unlink()
    for name, text in captured.texts.items():
        (folder / f"{name}.json").write_text(text)
    print(f"{version}: {len(captured.texts)} specs of {len(specs.cases())} configurations", flush=True)
    return captured.problems


if __name__ == "__main__":
    sys.exit(main())
