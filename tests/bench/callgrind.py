"""Counts the instructions of one review with valgrind's callgrind: exact where CPU time is noisy, blind to the kernel."""

import re
import shutil

import servers

FEW, MANY = 50, 250


def instructions(start, mode):
    """What one review costs; `start` starts the server under the given tool. Start-up cancels out between two runs."""
    if shutil.which("valgrind") is None:
        raise RuntimeError("valgrind is missing: apt-get install valgrind")
    return (_total(start, mode, MANY) - _total(start, mode, FEW)) / (MANY - FEW)


def _total(start, mode, reviews):
    output = servers.WORK / "callgrind.out"
    output.unlink(missing_ok=True)
    with start(under=["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"], patience=120) as server:
        server.load(mode, reviews, 1)
    return int(re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)[1])
