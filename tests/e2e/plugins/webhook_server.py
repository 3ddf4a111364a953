"""An AdmissionReview v1 webhook, with a path for each thing that a webhook can say or do wrong.

    python webhook_server.py --port 9001 [--cert server.pem --key server.key]

    POST /allow                 allows
    POST /deny                  denies, `status.message` says why
    POST /tag/KEY/VALUE         patches: sets the tag KEY under /spec/configuration/tags
    POST /patch                 patches with the operations of the query, `?operations=[…]` (JSON)
    POST /warn, /annotate       allows with a warning, with an audit annotation
    POST /fault/NAME            misbehaves; the names are the keys of FAULTS
    GET  /reviews               every AdmissionReview that came, oldest first

The standard library alone is used, and nothing of dstack: it is what an outsider would write.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# Longer than any timeout a plugin may have, shorter than a test.
SLOW_SECONDS = 9
HUGE_BYTES = 64 * 1024 * 1024

Json = dict[str, Any]
reviews: list[Json] = []


def response(review: Json, **fields: Any) -> Json:
    """An AdmissionReview that answers `review`, allowed unless `fields` say otherwise."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": True, **fields},
    }


def patch(review: Json, operations: list[Json], patch_type: str = "JSONPatch") -> Json:
    """An AdmissionReview that allows with a base64 JSON Patch."""
    return response(review, patchType=patch_type, patch=base64.b64encode(json.dumps(operations).encode()).decode())


def tag(review: Json, key: str, value: str) -> Json:
    """Sets one tag, whether the spec has tags already or not."""
    tags = review["request"]["object"]["spec"]["configuration"].get("tags") or {}
    return patch(review, [{"op": "add", "path": "/spec/configuration/tags", "value": {**tags, key: value}}])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The status line and the body leave together, so no answer waits for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/reviews":
            self.answer(200, json.dumps(reviews).encode())
        else:
            self.answer(404, b"{}")

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reviews.append(review)
        address = urlsplit(self.path)
        match [unquote(part) for part in address.path.strip("/").split("/")]:
            case ["allow"]:
                self.answer_json(response(review))
            case ["deny"]:
                self.answer_json(
                    response(review, allowed=False, status={"message": "the webhook says no", "code": 403})
                )
            case ["tag", key, value]:
                self.answer_json(tag(review, key, value))
            case ["patch"]:
                self.answer_json(patch(review, json.loads(parse_qs(address.query)["operations"][0])))
            case ["warn"]:
                self.answer_json(response(review, warnings=["this will be denied from next month"]))
            case ["annotate"]:
                self.answer_json(response(review, auditAnnotations={"reason": "seen by the webhook"}))
            case ["fault", name] if name in FAULTS:
                FAULTS[name](self, review)
            case _:
                self.answer(404, b'{"message": "no such path"}')

    def answer_json(self, body: Json) -> None:
        self.answer(200, json.dumps(body).encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> None:
        """Closes the connection with a reset and no answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def send_much(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(HUGE_BYTES))
        self.end_headers()
        chunk = b" " * 65536
        try:
            for _ in range(HUGE_BYTES // len(chunk)):
                self.wfile.write(chunk)
        except OSError:
            # The sidecar stopped reading, as it should.
            self.close_connection = True

    def answer_late(self, review: Json) -> None:
        time.sleep(SLOW_SECONDS)
        try:
            self.answer_json(response(review))
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """One line a request is noise here: `/reviews` tells what came."""


def _add_tag(path: str) -> list[Json]:
    return [{"op": "add", "path": path, "value": {"by": "webhook"}}]


FAULTS: dict[str, Callable[[Handler, Json], None]] = {
    "wrong-uid": lambda http, review: http.answer_json(response({"request": {"uid": "another"}})),
    "garbled": lambda http, review: http.answer(200, b'{"apiVersion": "admission.k8s.io/v1", "kind"'),
    "html": lambda http, review: http.answer(200, b"<html><body>It works!</body></html>"),
    "empty": lambda http, review: http.answer(200, b""),
    "no-response": lambda http, review: http.answer_json(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    ),
    "other-version": lambda http, review: http.answer_json(
        {**response(review), "apiVersion": "admission.k8s.io/v1beta1"}
    ),
    "huge": lambda http, review: http.send_much(),
    "redirect": lambda http, review: http.answer(307, b"", location="/allow"),
    "slow": lambda http, review: http.answer_late(review),
    "status-500": lambda http, review: http.answer(500, b'{"message": "out of order"}'),
    "drop": lambda http, review: http.drop(),
    "bad-patch-type": lambda http, review: http.answer_json(
        patch(review, _add_tag("/spec/configuration/tags"), "JSONMergePatch")
    ),
    "patch-without-type": lambda http, review: http.answer_json(
        response(review, patch=base64.b64encode(b"[]").decode())
    ),
    "patch-not-base64": lambda http, review: http.answer_json(response(review, patchType="JSONPatch", patch="%%%")),
    "patch-that-does-not-apply": lambda http, review: http.answer_json(
        patch(review, [{"op": "remove", "path": "/spec/nowhere"}])
    ),
    "patch-outside-spec": lambda http, review: http.answer_json(patch(review, _add_tag("/metadata/labels"))),
    "patch-run-name": lambda http, review: http.answer_json(
        patch(review, [{"op": "add", "path": "/spec/run_name", "value": "another"}])
    ),
    "patch-unknown-field": lambda http, review: http.answer_json(
        patch(review, _add_tag("/spec/configuration/no_such_field"))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", help="PEM chain; without it the webhook speaks plain HTTP")
    parser.add_argument("--key", help="PEM key of the certificate")
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    server.daemon_threads = True
    if arguments.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert, arguments.key)
        # The handshake is left to the connection's own thread, so a stalled one holds up nobody.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
