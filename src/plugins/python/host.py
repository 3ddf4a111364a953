"""Runs one dstack Python plugin, unchanged, in a process of its own: the worker of the sidecar.

    python host.py PLUGIN

PLUGIN names an entry point of the group `dstack.plugins`. Requests arrive on descriptor 0 and answers leave on
descriptor 1, each as a frame: four bytes of length, the highest first, then one JSON object in UTF-8. The plugin is
loaded and called as the server does it (`dstack/_internal/server/services/plugins.py`): in a running event loop, its
policies one after the other in a thread of the loop's executor, with the dstack models of this environment.

This process judges nothing: it knows no timeouts, no failure policies and no other plugins, and a plugin that takes
it down takes down nothing else. It needs Python 3.9 and, until the plugin is loaded, the standard library alone.
"""

from __future__ import annotations

import fcntl
import os
import sys


def take_channel() -> tuple[int, int]:
    """Moves the channel to descriptors of its own, so that nothing that the plugin, its children or C code does with
    the descriptors 0 and 1 touches it: from now on those read nothing, and write to stderr."""
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
    answers = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 10)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


# Before any other import, as whatever is imported may print. A process that the plugin spawns with `multiprocessing`
# reads this file too, under another name, and has no channel. Nothing beside this file is to be imported.
if __name__ == "__main__":
    CHANNEL = take_channel()
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]

import asyncio
import contextvars
import importlib
import importlib.metadata
import json
import logging
import mmap
import platform
import resource
import signal
import threading
import traceback
from typing import Any, Callable, NoReturn, Optional, Union

GROUP = "dstack.plugins"
FRAME_LIMIT = 64 * 1024 * 1024
TEXT_LIMIT = 8 * 1024
PROCESS = os.getpid()
# Given up where memory runs out, as even the way to the answer takes some. Never touched, so it costs none before.
RESERVE = mmap.mmap(-1, 8 * 1024 * 1024, flags=mmap.MAP_PRIVATE)
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Bound now: a plugin that replaces functions of the module does not change what goes over the channel.
encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
decode_json = json.JSONDecoder().decode


class Failed(Exception):
    """The plugin could not be asked, or gave no usable answer. `message` is one sentence that a user may read and
    holds no values of the spec; `detail` is for the log."""

    def __init__(self, reason: str, message: str, detail: Optional[str] = None):
        super().__init__(message)
        self.report = {"reason": reason, "message": message, "detail": detail}


class Denied(Exception):
    """A policy refused the spec; the text is what it said."""


async def serve(channel: Channel, name: str) -> NoReturn:
    """Loads the plugin, says so, and answers requests until the channel ends."""
    entry_points: dict[str, Any] = {}
    try:
        entry_points = find_entry_points()
        models = Models()
        host = Host(load_plugin(name, entry_points, models.plugin_class), models)
        await host.warm_up()
    except Failed as failed:
        channel.send(encode({"failed": {**failed.report, "found": sorted(entry_points.keys() - {name})}}))
        leave(1)
    channel.send(encode({"ready": describe(name, entry_points, models)}))
    frames: asyncio.Queue[bytes] = asyncio.Queue()

    def receive() -> None:
        try:
            for frame in channel.receive():
                frames.put_nowait(frame)
        except MemoryError:
            leave(1)

    # Read even while a policy runs, so that this process ends with the sidecar.
    asyncio.get_running_loop().add_reader(channel.requests, receive)
    while True:
        frame = await frames.get()
        channel.send(await host.answer(decode_json(frame.decode())))
        if host.out_of_memory:
            leave(1)


class Host:
    """One plugin and the models that it is asked with."""

    def __init__(self, plugin: Any, models: Models):
        self._plugin = plugin
        self._models = models
        self.out_of_memory = False

    async def warm_up(self) -> None:
        """Does once what a first review would wait for, without asking the plugin."""
        for kind, configuration in TINY.items():
            try:
                spec = self._models.parse(kind, {"configuration": configuration, "profile": {"name": "default"}})
                self._models.encode(self._models.dump(spec))
            except Exception:
                logging.getLogger(__name__).debug("no first round for %s", kind, exc_info=True)
        await in_thread(lambda: None)

    async def answer(self, request: dict[str, Any]) -> bytes:
        """The frame that answers a request, whatever happens."""
        head = encode_json(request["id"]).encode()
        try:
            body = await self._answer(request)
        except Denied as denied:
            body = encode({"result": "denied", "message": str(denied)})
        except Failed as failed:
            body = encode({"result": "failed", **failed.report})
        except BaseException as error:
            body = encode({"result": "failed", **self._failure("the worker", error).report})
        if len(body) > FRAME_LIMIT - len(head) - 18:
            body = encode({"result": "failed", **Failed("invalid-result", "the answer is too large").report})
        # Who ends after this answer says so, and is given no other review.
        last = b'"last":true,' if self.out_of_memory else b""
        return b'{"id":%b,%b%b' % (head, last, body[1:])

    async def _answer(self, request: dict[str, Any]) -> bytes:
        kind, spec = request["kind"], request["spec"]
        if kind not in self._models.kinds:
            raise Failed("unreadable", f"the plugin's dstack {self._models.version} has no specs of this kind")
        if request["call"] == "check":
            return encode(self._check(kind, spec))
        if request["call"] == "apply":
            return await self._apply(kind, spec, request["user"], request["project"])
        raise Failed("exception", "the worker does not know this call")

    def _check(self, kind: str, spec: Any) -> dict[str, Any]:
        try:
            self._models.validate(kind, spec)
        except self._models.refusal as refusal:
            errors = [{"path": fault.path, "message": fault.message} for fault in faults(refusal, spec)]
            return {"result": "invalid", "errors": errors}
        except Exception as error:
            return {"result": "invalid", "errors": [{"path": "", "message": one_line(error)}]}
        return {"result": "valid"}

    async def _apply(self, kind: str, original: Any, user: str, project: str) -> bytes:
        models = self._models
        try:
            spec = models.parse(kind, original)
            full, given = models.dump(spec), models.dump(spec, exclude_unset=True)
            before = models.encode(full)
        except Exception as error:
            raise self._refusal("unreadable", error, original) from None
        result = await self._run_policies(user, project, spec)
        if not isinstance(result, models.kinds[kind]):
            raise Failed("invalid-result", f"it returned no {kind} spec but {type(result).__name__}")
        dumped = None
        try:
            dumped = models.dump(result)
            if forget_defaults(full, given, models.dump(result, exclude_unset=True)):
                before = models.encode(full)
            elif models.is_dump(dumped, before):
                return b'{"result":"unchanged"}'
            # Assignments are not validated: this makes "1d" 86400, as the server does after its plugins.
            after = models.encode(models.dump(models.validate(kind, dumped)))
        except Exception as error:
            raise self._refusal("invalid-result", error, dumped) from None
        if after == before:
            return b'{"result":"unchanged"}'
        return b'{"result":"changed","before":%b,"after":%b}' % (before, after)

    async def _run_policies(self, user: str, project: str, spec: Any) -> Any:
        try:
            policies = list(self._plugin.get_apply_policies())
        except BaseException as error:
            raise self._failure("get_apply_policies", error) from None
        finally:
            leave_if_forked()
        for policy in policies:
            spec, error = await in_thread(lambda: policy.on_apply(user=user, project=project, spec=spec))
            if isinstance(error, ValueError):
                said = error.args[0] if error.args else None
                raise Denied("" if said is None else str(said))
            if error is not None:
                raise self._failure(type(policy).__name__, error)
        return spec

    def _refusal(self, reason: str, error: Exception, value: Any) -> Failed:
        if isinstance(error, MemoryError):
            return self._failure("the worker", error)
        return self._models.failure(reason, error, value)

    def _failure(self, where: str, error: BaseException) -> Failed:
        self.out_of_memory |= isinstance(error, MemoryError)
        return Failed("exception", f"{where} raised {type(error).__name__}", format_exception(error))


class Models:
    """The spec models of the dstack that is installed, made with pydantic 1 (up to 0.20) or 2 (from 0.21)."""

    def __init__(self) -> None:
        # GitPython, which dstack imports, otherwise refuses to be imported where no `git` is.
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        try:
            plugins = importlib.import_module("dstack.plugins")
            self.version = importlib.metadata.version("dstack")
            self.plugin_class = plugins.Plugin
            names = {"run": "RunSpec", "fleet": "FleetSpec", "volume": "VolumeSpec", "gateway": "GatewaySpec"}
            self.kinds = {kind: getattr(plugins, name) for kind, name in names.items()}
            self.refusal = importlib.import_module("pydantic").ValidationError
            # The module that encodes for pydantic 2; with pydantic 1 the models do it.
            modern = hasattr(plugins.RunSpec, "model_validate")
            self._core = importlib.import_module("pydantic_core") if modern else None
        except BaseException as error:
            message = f"{sys.executable} cannot import dstack.plugins: {one_line(error)}"
            raise Failed("dstack", message, format_exception(error)) from None

    def validate(self, kind: str, value: Any) -> Any:
        """Makes a spec of plain data, as strictly as the server does. May change `value`."""
        model = self.kinds[kind]
        return model.model_validate(value) if self._core else model.parse_obj(value)

    def parse(self, kind: str, value: Any) -> Any:
        """The same for the spec of a server of another version: fields that this dstack does not know are left out
        where they are null, as they say nothing then."""
        while True:
            try:
                return self.validate(kind, value)
            except self.refusal as refusal:
                if not any([fault.drop_null(value) for fault in faults(refusal, value) if fault.unknown]):
                    raise

    def dump(self, spec: Any, exclude_unset: bool = False) -> Any:
        """Plain data, as `rest_plugin` sends it. Not the models' own JSON: that is for older clients in places."""
        if self._core:
            return spec.model_dump(warnings=False, exclude_unset=exclude_unset)
        return spec.dict(exclude_unset=exclude_unset)

    def encode(self, dumped: Any) -> bytes:
        """Digits, enums, dates and identifiers as the server writes them."""
        if self._core:
            return self._core.to_json(dumped, inf_nan_mode="null")
        return self.kinds["run"].__config__.json_dumps(dumped, default=None).encode()

    def is_dump(self, dumped: Any, encoded: bytes) -> bool:
        """Whether `dumped`, which a policy may have filled with anything, is what was encoded."""
        try:
            return self.encode(dumped) == encoded
        except Exception:
            return False

    def failure(self, reason: str, error: Exception, value: Any) -> Failed:
        """What it means that the models refuse a spec or a policy's result."""
        whose = f"the plugin's dstack {self.version}"
        if not isinstance(error, self.refusal):
            return Failed(reason, f"{whose} fails on it with {type(error).__name__}", format_exception(error))
        found = faults(error, value)
        unknown = listing([fault.path for fault in found if fault.unknown])
        refused = listing([fault.path for fault in found if not fault.unknown])
        said = [f"does not know {unknown}"] * bool(unknown) + [f"does not accept {refused}"] * bool(refused)
        detail = "\n".join(f"{fault.path}: {fault.message}" for fault in found)
        return Failed(reason, f"{whose} {' and '.join(said)}", cut(detail))


def forget_defaults(full: Any, given: Any, result: Any) -> bool:
    """Takes the fields that a policy set and nobody had `given` out of the dump that has every field; says whether it
    did. Their defaults here need not be those of the server, so that setting one to its default is a change."""
    if given == result or type(full) is not type(result) or not isinstance(full, (dict, list)):
        return False
    if isinstance(full, list):
        return any([forget_defaults(*pair) for pair in zip(full, given, result)])
    fresh = [key for key in result if key in full and key not in given]
    for key in fresh:
        del full[key]
    return any([forget_defaults(full[key], given[key], result[key]) for key in result.keys() & full.keys()] + fresh)


class Fault:
    """One error of a pydantic refusal, of either generation, at its place in the refused value."""

    def __init__(self, error: dict[str, Any], value: Any):
        self.message = error["msg"]
        self.unknown = error["type"] in ("extra_forbidden", "value_error.extra")
        self._steps: list[Union[str, int]] = []
        missing = error["type"] in ("missing", "value_error.missing")
        for position, step in enumerate(error["loc"], start=1):
            # Names of models and of union members stand among the steps of a location; they are in no value.
            if isinstance(value, dict) and step in value or isinstance(value, list) and step in range(len(value)):
                value = value[step]
            elif not (missing and position == len(error["loc"])):
                continue
            self._steps.append(step)
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self._steps)
        self.path = cut(path.lstrip("."), 200)

    def drop_null(self, value: Any) -> bool:
        """Takes the field out of the value if it is null there; says whether it did."""
        for step in self._steps[:-1]:
            value = value[step]
        return bool(self._steps) and value[self._steps[-1]] is None and value.pop(self._steps[-1]) is None


def faults(refusal: Any, value: Any) -> list[Fault]:
    """The errors of a pydantic refusal, without those of pydantic 1 on a model as a whole that others explain."""
    errors = refusal.errors()

    def is_explained(loc: tuple[Any, ...]) -> bool:
        return loc[-1] == "__root__" and any(e["loc"] != loc and e["loc"][: len(loc) - 1] == loc[:-1] for e in errors)

    return [Fault(error, value) for error in errors if not (error["loc"] and is_explained(error["loc"]))]


# A valid configuration of each kind.
TINY: dict[str, dict[str, Any]] = {
    "run": {"type": "task", "commands": ["true"]},
    "fleet": {"type": "fleet", "nodes": 1},
    "volume": {"type": "volume", "backend": "aws", "region": "eu-west-1", "size": "1GB"},
    "gateway": {"type": "gateway", "backend": "aws", "region": "eu-west-1"},
}


def find_entry_points() -> dict[str, Any]:
    """The entry points of the group by name; of two with one name the last counts, as in the server."""
    every = importlib.metadata.entry_points
    found = every(group=GROUP) if sys.version_info >= (3, 10) else every().get(GROUP, ())
    return {entry_point.name: entry_point for entry_point in found}


def load_plugin(name: str, entry_points: dict[str, Any], plugin_class: type) -> Any:
    """Imports the plugin and makes it."""
    if name not in entry_points:
        raise Failed("not-found", f"{sys.executable} has no entry point `{name}` in the group {GROUP}")
    value = entry_points[name].value
    module_path, _, class_name = value.partition(":")
    try:
        loaded = getattr(importlib.import_module(module_path), class_name, None)
        if loaded is None:
            raise Failed("no-plugin", f"`{module_path}` has no class `{class_name}`")
        if not (isinstance(loaded, type) and issubclass(loaded, plugin_class)):
            raise Failed("no-plugin", f"`{value}` is no subclass of dstack.plugins.Plugin")
        return loaded()
    except Failed:
        raise
    except BaseException as error:
        raise Failed("import", f"`{value}` cannot be loaded: {one_line(error)}", format_exception(error)) from None
    finally:
        leave_if_forked()


def describe(name: str, entry_points: dict[str, Any], models: Models) -> dict[str, Any]:
    """What the ready frame says."""
    distribution = getattr(entry_points[name], "dist", None)
    version = distribution.version if distribution else None
    return {
        "protocol": 1,
        "python": platform.python_version(),
        "dstack": models.version,
        "plugin": {"name": name, "version": version, "value": entry_points[name].value},
        "found": sorted(entry_points.keys() - {name}),
        "kinds": list(models.kinds),
    }


async def in_thread(call: Callable[[], Any]) -> tuple[Any, Optional[BaseException]]:
    """Calls where the server calls policies, and returns what came or what was raised: neither a future nor a
    coroutine carries everything that may be (`SystemExit`, `StopIteration`)."""

    def outcome() -> tuple[Any, Optional[BaseException]]:
        try:
            return call(), None
        except MemoryError as error:
            RESERVE.close()
            lift_memory_limit()
            return None, error
        except BaseException as error:
            return None, error
        finally:
            leave_if_forked()

    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, context.run, outcome)


class Channel:
    """The frames from and to the sidecar. Any thread may send; a fork of this process has no channel."""

    def __init__(self, requests: int, answers: int):
        self.requests = requests
        self._answers = answers
        self._lock = threading.RLock()
        self._sending = False
        self._received = bytearray()
        os.register_at_fork(after_in_child=self._abandon)

    def receive(self) -> list[bytes]:
        """Waits for some bytes and returns the frames that are complete. The end of the channel is the end of this
        process, at once: nobody waits for an answer any more."""
        received = os.read(self.requests, 1 << 18)
        if not received:
            leave(0)
        self._received += received
        frames = []
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if end > 4 + FRAME_LIMIT:
                leave(1)
            if len(self._received) < end:
                break
            frames.append(bytes(self._received[4:end]))
            del self._received[:end]
        return frames

    def send(self, body: bytes) -> None:
        """Sends a frame. What a signal handler logs while its thread is just sending is lost, as it would stand within
        a frame."""
        with self._lock:
            if self._sending or self._answers < 0:
                return
            self._sending = True
            try:
                rest = memoryview(len(body).to_bytes(4, "big") + body)
                while rest:
                    rest = rest[os.write(self._answers, rest) :]
            except OSError:
                leave(0)
            finally:
                self._sending = False

    def _abandon(self) -> None:
        # While a child holds copies, the sidecar does not see the end of this process.
        os.close(self.requests)
        os.close(self._answers)
        self._answers, self._lock = -1, threading.RLock()


class ChannelHandler(logging.Handler):
    """Sends log records as frames."""

    def __init__(self, channel: Channel):
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            error = record.exc_info and record.exc_info[1]
            log = {
                "level": next((name for name in reversed(LEVELS) if record.levelno >= LEVELS[name]), "debug"),
                "logger": record.name,
                "message": cut(record.getMessage()),
                "detail": format_exception(error) if error else record.stack_info,
            }
            self._channel.send(encode({"log": log}))
        except Exception:
            self.handleError(record)


def encode(value: dict[str, Any]) -> bytes:
    """JSON of our own words. Halves of surrogate pairs, which a plugin's text may hold, are no UTF-8."""
    return encode_json(value).encode("utf-8", "replace")


def format_exception(error: BaseException) -> str:
    """The traceback, its end where it is long, even of an exception that cannot be printed."""
    if isinstance(error, MemoryError):
        lift_memory_limit()
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:
        text = f"{type(error).__name__}, which cannot be printed"
    return text if len(text) <= TEXT_LIMIT else "…" + text[-TEXT_LIMIT:]


def one_line(error: BaseException) -> str:
    """The exception as the last line of its traceback says it."""
    return cut(format_exception(error).strip().rpartition("\n")[2], 500)


def listing(names: list[str]) -> str:
    """`a, b, c and 2 more`, each once."""
    names = list(dict.fromkeys(name or "it" for name in names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def lift_memory_limit() -> None:
    """Makes room for one last answer."""
    RESERVE.close()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def leave(code: int) -> NoReturn:
    """Ends the process, also while threads of the plugin run."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    os._exit(code)


def leave_if_forked() -> None:
    """Ends a child that comes back out of the plugin: it must not go on as a second worker."""
    if os.getpid() != PROCESS:
        leave(0)


async def main() -> None:
    """Prepares the process and serves; whatever ends that ends the process, whichever threads still run."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if sys.stdout is not None:
            sys.stdout.reconfigure(line_buffering=True)
        limit = os.environ.get("DSTACK_ADMISSION_MEMORY_LIMIT")
        if limit:
            # Not the address space: threads and allocators reserve far more of that than they use.
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (int(limit), hard))
        channel = Channel(*CHANNEL)
        root = logging.getLogger()
        root.setLevel(LEVELS.get(os.environ.get("DSTACK_ADMISSION_LOG_LEVEL", "info"), logging.INFO))
        root.addHandler(ChannelHandler(channel))
        logging.captureWarnings(True)
        await serve(channel, sys.argv[1])
    except BaseException:
        traceback.print_exc()
        leave(1)


if __name__ == "__main__":
    asyncio.run(main())
