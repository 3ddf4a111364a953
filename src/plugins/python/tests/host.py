"""A worker without a plugin: it speaks the protocol, and misbehaves as the spec's member `do` says, or at its start as
its one argument says. What it does at its start is `NAME` or `NAME:PARAMETER`."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time

REQUESTS = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
ANSWERS = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 10)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)


def read(size):
    data = b""
    while len(data) < size:
        more = os.read(REQUESTS, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def write(data):
    while data:
        data = data[os.write(ANSWERS, data):]


def send(message):
    body = json.dumps(message).encode()
    write(struct.pack(">I", len(body)) + body)


def stderr(text):
    os.write(2, text.encode())


def forever(step, *arguments):
    while True:
        step(*arguments)


def begin(how, parameter):
    if how == "missing":
        send({"failed": {"reason": "not-found", "message": "`missing` is not installed", "found": ["other"]}})
        sys.exit(1)
    if how == "dies":
        stderr("first line\nlast line\n")
        sys.exit(3)
    if how == "talks":
        write(b"hello, world")
    if how == "hangs":
        forever(time.sleep, 60)
    if how == "meets":
        # Ready when as many as the parameter says are starting.
        open(str(os.getpid()), "w").close()
        while len(os.listdir(".")) < int(parameter):
            time.sleep(0.005)
    if how == "starts":
        # Starts as often as the parameter says, and then no more.
        starts = len(os.listdir("."))
        open(str(starts), "w").close()
        if starts >= int(parameter):
            sys.exit("no more")
    plugin = {"name": how, "version": "1.0", "value": "m:P"}
    send({"ready": {"protocol": 1, "python": "3", "dstack": "0", "plugin": plugin, "found": ["other"]}})


def answer(spec):
    do, parameter = spec.get("do", "nothing"), spec.get("with")
    if do == "nothing":
        return {"result": "unchanged"}
    if do == "tag":
        before = {**spec, "tags": {}, "nodes": None}
        return {"result": "changed", "before": before, "after": {**before, "tags": {"by": "plugin"}}}
    if do == "pid":
        return {"result": "denied", "message": str(os.getpid())}
    if do == "environment":
        return {"result": "denied", "message": json.dumps({**os.environ, "cwd": os.getcwd()})}
    if do == "fail":
        return {"result": "failed", "reason": parameter, "message": "it failed", "detail": "Traceback"}
    if do == "invalid":
        return {"result": "invalid", "errors": [{"path": "a.b", "message": "wrong"}]}
    if do == "sleep":
        time.sleep(parameter)
    if do == "hang":
        # With a child in the same group, and one in a session of its own.
        children = [subprocess.Popen(["sleep", "600"], start_new_session=own) for own in (False, True)]
        with open("children", "w") as file:
            file.write("\n".join(str(child.pid) for child in children) + "\n")
        forever(time.sleep, 60)
    if do == "leave a child":
        subprocess.Popen(["sh", "-c", "sleep 600 & echo $! > children; exec sleep 600"], start_new_session=True)
        while not os.path.exists("children") or not os.path.getsize("children"):
            time.sleep(0.01)
        os._exit(3)
    if do == "exit":
        stderr("one\ntwo\n")
        os._exit(3)
    if do == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "close":
        os.closerange(0, 256)
        forever(time.sleep, 60)
    if do == "garbage":
        write(b"\x00\x00\x00\x02no")
    if do == "endless frame":
        write(b"\xff\xff\xff\xff")
    if do == "answer twice":
        for _ in range(3):
            send({"id": 1 << 40, "result": "unchanged"})
    if do == "print":
        print("chatter" * 1000, flush=True)
    if do == "flood":
        threading.Thread(target=forever, args=(stderr, "x" * 1000), daemon=True).start()
    if do == "log":
        for level in ("debug", "info", "warning", "error"):
            send({"log": {"level": level, "logger": "dstack.plugins.p", "message": level, "detail": None}})
    if do == "last":
        send({"id": REQUEST, "result": "unchanged", "last": True})
        os._exit(1)
    if do == "leak":
        KEPT.append(b"x" * parameter)
    return {"result": "unchanged"}


KEPT = []
begin(*(sys.argv[1] + ":").split(":")[:2])
while True:
    (length,) = struct.unpack(">I", read(4))
    request = json.loads(read(length))
    REQUEST = request["id"]
    send({"id": request["id"], **answer(request["spec"])})
