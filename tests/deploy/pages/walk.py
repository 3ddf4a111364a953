"""Follows a page of the documentation to the letter: its commands, files and shown outputs, in its order.

A walk takes the page's code one piece after the other. A piece that the walk does not expect fails it, naming the line
of the page, and so does one that is left over: nobody can add a command to a page without it being run here, or being
named here with the reason why it cannot be.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from harness.processes import Process, minimal_environment

REPOSITORY = Path(__file__).resolve().parents[3]
DECISION = re.compile(r"01(?:[0-9A-Z]{24}|…)")
HEREDOC = re.compile(r"<<-?'?(\w+)'?")
ASSIGNMENT = re.compile(r"([A-Z_]+)=(\$\(.*\)|\S*)")


@dataclass(frozen=True)
class Block:
    """Code of a page."""

    place: str
    text: str

    def commands(self) -> list[str]:
        """One after the other, each with the lines that go on with it."""
        found: list[str] = []
        ending: str | None = None
        for line in self.text.splitlines():
            goes_on = bool(found) and (ending is not None or found[-1].endswith("\\"))
            if goes_on:
                found[-1] += "\n" + line
            elif line.strip():
                found.append(line)
            if ending is not None:
                ending = None if line == ending else ending
            elif opened := HEREDOC.search(line):
                ending = opened.group(1)
        return found


def blocks(page: Path, section: str | None = None) -> list[Block]:
    """The code of a page, indented or fenced; `section` is a heading with all that is below it."""
    found, level = [], 0
    tokens = MarkdownIt().parse(page.read_text())
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            depth = int(token.tag[1:])
            if level and depth <= level:
                break
            level = depth if following.content == section else level
        elif token.type in ("fence", "code_block") and (section is None or level):
            line = (token.map or [0])[0] + 1
            found.append(Block(f"{os.path.relpath(page, REPOSITORY)}:{line}", token.content.rstrip("\n")))
    return found


class Walk:
    """One page, or one section of it, followed in a directory and an environment of its own."""

    def __init__(
        self,
        page: Path,
        folder: Path,
        *,
        section: str | None = None,
        words: Mapping[str, str] | None = None,
        **environment: str,
    ):
        """`words` are what a reader puts in place of the page's own, and ports that are free here."""
        self.folder = folder
        self.words = dict(words or {})
        terminal = {"TERM": "dumb", "COLUMNS": "160"}
        self.environment = minimal_environment(**{"HOME": str(folder / "home"), **terminal, **environment})
        self.said = ""
        self.started: list[Process] = []
        self._left = blocks(page, section)
        self._commands: list[str] = []
        self._place = str(page.name)
        (folder / "home").mkdir(parents=True, exist_ok=True)

    def run(
        self,
        starts: str,
        *,
        code: int | None = 0,
        instead: str | None = None,
        because: str = "",
        keys: str = "",
        until: str = "",
        again: float = 0,
        within: float = 60,
    ) -> str:
        """Runs the page's next command, or another `instead`, for a reason; what it says, errors too.

        `keys` are what its reader types. They would try it again, for so many seconds, until it does well and says
        `until`.
        """
        if instead is not None and not because:
            raise ValueError("what is run in place of a page's command needs a reason")
        command = self._next_command(starts)
        if command.startswith("cd "):
            self.folder /= self.worded(command).removeprefix("cd ")
            return ""
        if assigned := ASSIGNMENT.fullmatch(command):
            name, value = assigned.groups()
            self.environment[name] = self._bash(f"printf %s {value}", "", within).stdout
            return ""
        deadline = time.monotonic() + again
        while True:
            finished = self._bash(self.worded(instead or command), keys, within)
            self.said = finished.stdout
            if code in (None, finished.returncode) and until in self.said:
                return self.said
            if time.monotonic() > deadline:
                ended = f"{self._place}: `{command}` ended with {finished.returncode}"
                raise AssertionError(f"{ended}:\n{self.said[-6000:]}")
            time.sleep(0.5)

    def aside(self, command: str, *, keys: str = "", within: float = 60) -> str:
        """What a command says that the page has in words only; it may fail."""
        return self._bash(self.worded(command), keys, within).stdout

    def start(self, starts: str, *, until: str, within: float = 60) -> Process:
        """Starts the page's next command, which stays, and waits until it says `until`."""
        return self.background(self._next_command(starts).removesuffix("&").strip(), until=until, within=within)

    def background(self, command: str, *, until: str, within: float = 60) -> Process:
        """Starts a command that the page has in words only."""
        process = Process(f"started-{len(self.started)}", self.folder / "output")

        def said() -> str:
            return process.printed() + (process.stderr.read_text() if process.stderr.exists() else "")

        self.started.append(process)
        # `exec`, so that the process is the program and no shell around it.
        words = ["bash", "-c", f"cd {self.folder} && exec {self.worded(command)}"]
        process.start(words, self.environment, lambda: until in said(), within)
        self.said = said()
        return process

    def take(self, starts: str) -> list[str]:
        """The page's next command as the shell hands it over, word for word, for something that stands in for it."""
        command = self.worded(self._next_command(starts)).removesuffix("&").strip()
        return self._bash(f"printf '%s\\0' {command}", "", 60).stdout.split("\0")[:-1]

    def not_run(self, starts: str, because: str) -> None:
        """Passes by the page's next command, which cannot be run here."""
        if not because:
            raise ValueError("a command that is not run needs a reason")
        self._next_command(starts)

    def write(self, starts: str, path: str | Path, *, append: bool = False) -> None:
        """Writes the page's next block into a file, as the page tells its reader."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if append else ""
        file.write_text(before + self.worded(self._next_block(starts)) + "\n")

    def read(self, starts: str) -> str:
        """The page's next block, for what the reader does with it."""
        return self.worded(self._next_block(starts))

    def shown(self, starts: str) -> None:
        """The page's next block is what was said last: line for line, with `…` for anything."""
        missing = not_in(self.worded(self._next_block(starts)), self.said)
        if missing is not None:
            raise AssertionError(f"{self._place}: the page shows `{missing}`, but this was said:\n{self.said[-6000:]}")

    def end(self) -> None:
        """The page has nothing else."""
        left = [*self._commands, *(block.text for block in self._left)]
        if left:
            place = self._place if self._commands else self._left[0].place
            raise AssertionError(f"{place}: nothing here deals with `{left[0].splitlines()[0]}`")

    def stop(self) -> None:
        """Ends what was started, the last first."""
        for process in reversed(self.started):
            process.stop()

    def worded(self, text: str) -> str:
        for word, own in self.words.items():
            text = text.replace(word, own)
        return text

    def _bash(self, command: str, keys: str, within: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            input=keys,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
        )

    def _next_command(self, starts: str) -> str:
        if not self._commands:
            block = self._take(starts)
            self._place, self._commands = block.place, block.commands()
        command = self._commands.pop(0)
        if not command.startswith(starts):
            raise AssertionError(f"{self._place} has `{command}` where `{starts}…` was to come")
        return command

    def _next_block(self, starts: str) -> str:
        if self._commands:
            raise AssertionError(f"{self._place}: nothing here deals with `{self._commands[0]}`")
        block = self._take(starts)
        self._place = block.place
        if not block.text.startswith(starts):
            raise AssertionError(f"{block.place} has `{block.text.splitlines()[0]}` where `{starts}…` was to come")
        return block.text

    def _take(self, starts: str) -> Block:
        if not self._left:
            raise AssertionError(f"the page ends before `{starts}…`")
        return self._left.pop(0)


def not_in(shown: str, said: str) -> str | None:
    """The first line of what a page shows that was not said, in its order; `…` stands for anything, on a line
    of its own for any number of lines, every decision's id for every other, and a space for many."""
    lines = iter([" ".join(line.split()) for line in said.splitlines()])
    for line in filter(None, (" ".join(line.split()) for line in shown.splitlines())):
        if line == "…":
            continue
        with_ids = DECISION.sub("\0", line)
        pattern = ".*".join(map(re.escape, with_ids.split("…"))).replace(re.escape("\0"), r"01[0-9A-Z]{24}")
        if not any(re.search(rf"^{pattern}$", one) for one in lines):
            return line
    return None


def path_with(*folders: Path) -> str:
    """The programs of these folders before the machine's own."""
    return ":".join([*map(str, folders), os.environ.get("PATH", os.defpath)])
