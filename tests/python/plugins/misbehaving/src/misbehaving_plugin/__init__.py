"""Does what a plugin should not do: the spec's tag `misbehave` names a function of this module.

A function that returns nothing leaves the spec as it is, but for a tag that says that it came to its end.
"""

import asyncio
import ctypes
import faulthandler
import json
import locale
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

from dstack.plugins import ApplyPolicy, Plugin, RunSpec, VolumeSpec

hoard = []


class MisbehavingPolicy(ApplyPolicy):
    def on_run_apply(self, user: str, project: str, spec: RunSpec) -> RunSpec:
        name = (spec.configuration.tags or {}).get("misbehave", "nothing")
        result = globals()[name.replace("-", "_")](spec)
        if result is not None:
            return None if result == "none" else result
        spec.configuration.tags = {"came": "through"}
        return spec


class LastPolicy(ApplyPolicy):
    """Has no rule for what is no spec: dstack's own base class then denies."""


class MisbehavingPlugin(Plugin):
    def get_apply_policies(self):
        mode = os.environ.get("MISBEHAVE_POLICIES")
        if mode == "raise":
            raise ValueError("no policies today")
        if mode == "none":
            return None
        if mode == "signals":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, lambda number, frame: logging.info("an alarm while %s", frame))
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        if mode == "loop":
            asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        if mode == "two":
            return (policy for policy in (MisbehavingPolicy(), LastPolicy()))
        return [MisbehavingPolicy()]


def nothing(spec):
    return spec


def prints(spec):
    print("printed")
    sys.stdout.write("x" * 100_000 + "\n")
    os.write(1, b"\x00\x00\x00\x05hello")
    os.system("echo from a child")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    sys.__stdout__.write("no line end")


def reads_stdin(spec):
    assert sys.stdin.read() == "" and os.read(0, 10) == b""


def asks(spec):
    input("really? ")


def closes_descriptors(spec):
    for descriptor in range(3):
        os.close(descriptor)


def closes_and_reopens(spec):
    os.closerange(0, 3)
    # These take the numbers 0, 1 and 2.
    hoard.extend(open(os.devnull, "w") for _ in range(3))
    os.write(1, b"into nothing")


def forks_and_returns(spec):
    os.fork()


def forks_and_lingers(spec):
    if os.fork() == 0:
        logging.warning("from the child")
        time.sleep(600)
        os._exit(0)


def forks_and_logs(spec):
    for _ in range(10):
        child = os.fork()
        if child == 0:
            logging.warning("from the child " + "x" * 5000)
            os._exit(0)
        logging.warning("from the parent " + "x" * 5000)
        os.waitpid(child, 0)


def runs_children(spec):
    subprocess.run([sys.executable, "-c", "print('from a child', input.__name__)"], check=True)
    # Left running, with our descriptors 0 to 2.
    hoard.append(subprocess.Popen(["sleep", "600"]))


def spawns(spec):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(len, ["spawned"]) == [7]


def starts_threads(spec):
    for number in range(20):
        threading.Thread(target=lambda number=number: [logging.info("%d %s", number, "y" * 3000) for _ in range(20)]).start()
    threading.Thread(target=time.sleep, args=(600,)).start()


def sleeps(spec):
    time.sleep(600)


def changes_the_process(spec):
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
    os.umask(0o777)
    locale.setlocale(locale.LC_ALL, "C")
    os.environ.clear()
    sys.path.clear()
    sys.argv.clear()
    sys.setrecursionlimit(200)


def sets_signals(spec):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def wants_a_loop(spec):
    asyncio.get_event_loop()


def runs_a_loop(spec):
    asyncio.run(asyncio.sleep(0))


def exits(spec):
    sys.exit(3)


def dies(spec):
    os._exit(7)


def crashes(spec):
    faulthandler.disable()
    ctypes.string_at(0)


def raises_a_base_exception(spec):
    raise GeneratorExit("enough")


def interrupts(spec):
    raise KeyboardInterrupt


def stops_an_iteration(spec):
    raise StopIteration


def recurses(spec):
    return recurses(spec)


def takes_memory(spec):
    while True:
        hoard.append(bytearray(8 << 20))


def leaks(spec):
    hoard.append(b"x" * (8 << 20))
    return spec


def takes_memory_in_small_pieces(spec):
    while True:
        hoard.append([None] * 20)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def raises_the_unprintable(spec):
    raise Unprintable


def denies_with_the_unprintable(spec):
    raise ValueError(Unprintable())


def raises_with_a_value(spec):
    raise KeyError(spec.configuration.env)


def denies(spec):
    raise ValueError("nein: „größer“ als 8\n- erstens\n- zweitens 🙂")


def denies_without_a_word(spec):
    raise ValueError


def denies_with_none(spec):
    raise ValueError(None)


def denies_with_a_number(spec):
    raise ValueError(0)


def denies_with_two(spec):
    raise ValueError("first", "second")


def denies_with_half_a_character(spec):
    raise ValueError("a \ud83d b")


def denies_by_accident(spec):
    json.loads("{")


def denies_as_subclass(spec):
    class TooExpensive(ValueError):
        pass

    raise TooExpensive("too expensive")


def validates_within(spec):
    type(spec).parse_obj({"configuration": {"type": "nonsense"}})


def returns_none(spec):
    return "none"


def returns_a_mapping(spec):
    return dict(spec)


def returns_text(spec):
    return "allowed"


def returns_another_kind(spec):
    return VolumeSpec.parse_obj(
        {"configuration": {"type": "volume", "backend": "aws", "region": "eu-west-1", "size": "1GB"}}
    )


async def returns_a_coroutine(spec):
    return spec


def assigns_what_is_invalid(spec):
    spec.configuration.max_price = "cheap"
    return spec


def assigns_what_is_no_data(spec):
    spec.configuration.max_price = object()
    return spec


def assigns_the_infinite(spec):
    spec.configuration.max_price = float("inf")
    return spec


def assigns_half_a_character(spec):
    spec.configuration.tags = {"half": "\ud83d"}
    return spec


def assigns_too_much(spec):
    spec.configuration.env = type(spec.configuration.env).parse_obj({"LARGE": "x" * (65 << 20)})
    return spec


def assigns_the_same_in_words(spec):
    spec.configuration.max_duration = "2h"
    return spec


def replaces_json(spec):
    json.dumps = json.loads = json.JSONEncoder.default = None
    json.JSONEncoder.item_separator = "nonsense"


def replaces_logging(spec):
    logging.getLogger().handlers.clear()
    logging.Logger._log = None


def logs_what_cannot_be_logged(spec):
    logging.info("%d", "no number")
    logging.info("%s", Unprintable())
    logging.info("half \ud83d")
    logging.log(55, "beyond critical")
    try:
        json.loads("{")
    except ValueError:
        logging.exception("with a traceback")
    logging.warning("z" * 100_000)
    warnings.warn("a warning")
    logging.debug("nobody sees this")


def dumps_itself(spec):
    """What pydantic says about the plugin's own dump is not ours to suppress."""
    spec.configuration.max_duration = "1d"
    getattr(spec, "model_dump", spec.dict)()
    return spec
