"""One apply is one trace: from the dstack server's own span through the sidecar's to what a webhook is told."""

from __future__ import annotations

import time

from harness.dstack import DstackServer, load
from harness.sidecar import Sidecar
from listeners import Collector, Span, Webhook

SERVICE = "dstack-admission"
WITHIN = 30


def _trace_of_a_review(collector: Collector) -> list[Span]:
    """The spans of the trace that a review of the sidecar is in, once its root has come too."""
    deadline = time.monotonic() + WITHIN
    spans: list[Span] = []
    while time.monotonic() < deadline:
        spans = collector.spans()
        review = next((span for span in spans if span.service == SERVICE and span.kind == "server"), None)
        if review:
            trace = [span for span in spans if span.trace == review.trace]
            if any(not span.parent for span in trace):
                return trace
        time.sleep(0.05)
    raise AssertionError(f"no whole trace with a review within {WITHIN} s: {spans}")


def test_an_apply_is_one_trace(
    server: DstackServer, sidecar: Sidecar, collector: Collector, webhook: Webhook
) -> None:
    assert server.plan(load("task")).status == 200
    trace = _trace_of_a_review(collector)
    by_id = {span.id: span for span in trace}

    # The way up from the review is the server's: the call that it made, and the request that it answers.
    (review,) = (span for span in trace if span.service == SERVICE and span.kind == "server")
    assert review.name == "POST /apply_policies/on_run_apply"
    caller = by_id[review.parent]
    assert (caller.service != SERVICE, caller.kind) == (True, "client")
    root = caller
    while root.parent:
        root = by_id[root.parent]
    assert (root.kind, "runs/get_plan" in root.name) == ("server", True)

    # The way down is the sidecar's, and the webhook is told of the span of its own call.
    called = {span.name: span for span in trace if span.parent == review.id}
    assert {name: span.kind for name, span in called.items()} == {
        "plugin quota": "client",
        "plugin house-rules": "internal",
    }
    (headers, _), *_ = webhook.posted
    version, told, caller_of_webhook, flags = headers["traceparent"].split("-")
    assert (version, told, caller_of_webhook) == ("00", review.trace, called["plugin quota"].id)
    assert int(flags, 16) & 1, "the trace is recorded"

    # The record leads to the trace and the trace to the record.
    (event, *_) = sidecar.audit()
    assert event["traceID"] == review.trace
    assert event["auditID"] == review.attributes["dstack_admission.audit_id"]
