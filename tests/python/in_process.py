"""The same plugins in the process of a dstack server, called by the server's own code.

Imported by a test it drives a process; run with a server's Python it is that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

SECONDS = 30.0
LOADED: list[str] = []


class InProcess:
    """A process with the server's plugin machinery, asked line by line."""

    def __init__(self, python: Path):
        self._process = subprocess.Popen(
            [python, "-B", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def apply(self, plugin: str, kind: str, body: dict[str, Any], environment: dict[str, str] | None = None) -> Any:
        """`{"spec": …}` as the server goes on with it, `{"denied": …}` or `{"raised": …}`."""
        return self._ask({"plugin": plugin, "kind": kind, "environment": environment or {}, **body})

    def read(self, kind: str, spec: Any) -> Any:
        """What the server makes of a spec that its `rest_plugin` was answered: `{"spec": …}` or `{"raised": …}`."""
        return self._ask({"plugin": None, "kind": kind, "spec": spec})

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answered, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        assert answered, f"no answer in time to {question}"
        return json.loads(self._process.stdout.readline())


async def answer(question: dict[str, Any]) -> dict[str, Any]:
    from dstack._internal.core.errors import ServerClientError
    from dstack._internal.server.services import plugins
    from dstack.plugins.builtin import rest_plugin

    kind = question["kind"].capitalize()
    model = getattr(rest_plugin, f"{kind}SpecRequest")
    try:
        if question["plugin"] is None:
            spec = getattr(rest_plugin, f"{kind}SpecResponse")(spec=question["spec"], error=None).spec
        else:
            os.environ.update(question["environment"])
            if LOADED != [question["plugin"]]:
                LOADED[:] = [question["plugin"]]
                plugins.load_plugins(LOADED)
            spec = model(user="", project="", spec=question["spec"]).spec
            spec = await plugins.apply_plugin_policies(question["user"], question["project"], spec)
        return {"spec": plain(spec)}
    except ServerClientError as denied:
        return {"denied": denied.msg if isinstance(denied.msg, str) else str(denied.msg)}
    except Exception as error:
        return {"raised": type(error).__name__}


def plain(spec: Any) -> Any:
    """Parses the spec anew, as the server does with what plugins made of runs and fleets (volumes and gateways it
    stores as they are), and dumps it as `rest_plugin` does."""
    if hasattr(spec, "model_dump"):
        from pydantic_core import to_json

        again = type(spec).model_validate(spec.model_dump(warnings=False))
        return json.loads(to_json(again.model_dump(), inf_nan_mode="null"))
    return json.loads(type(spec).parse_obj(spec.dict()).json())


async def main() -> None:
    # Plugins read nothing and print elsewhere, as those of a server do.
    questions, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in questions:
        answers.write(json.dumps(await answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    asyncio.run(main())
