"""What listens in these tests, in threads of their own: a receiver of OTLP and a webhook."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Span:
    """One span as it was sent, and by which service."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]


class Listener:
    """An HTTP server on a port of its own, and what was posted to it."""

    def __init__(self) -> None:
        posted: list[tuple[dict[str, str], bytes]] = []
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                posted.append((headers, body))
                content_type, text = answer(body)
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.posted = posted
        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self.server.server_port}"

    def answer(self, body: bytes) -> tuple[str, bytes]:
        """The type and the body of an answer."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Collector(Listener):
    """A receiver of OTLP that takes everything."""

    def answer(self, body: bytes) -> tuple[str, bytes]:
        return "application/x-protobuf", b""

    def spans(self) -> list[Span]:
        """Every span that came."""
        spans: list[Span] = []
        for headers, body in list(self.posted):
            text = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            for resource in ExportTraceServiceRequest.FromString(text).resource_spans:
                named = (pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name")
                service = next(named, "")
                spans += [_span(service, span) for scope in resource.scope_spans for span in scope.spans]
        return spans


class Webhook(Listener):
    """An AdmissionReview webhook that allows everything."""

    def answer(self, body: bytes) -> tuple[str, bytes]:
        review = json.loads(body)
        response = {"uid": review["request"]["uid"], "allowed": True}
        answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return "application/json", json.dumps(answer).encode()


def _span(service: str, span: trace_pb2.Span) -> Span:
    attributes = {pair.key: pair.value.string_value for pair in span.attributes}
    kind = trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Span(service, span.name, kind, *ids, attributes)
