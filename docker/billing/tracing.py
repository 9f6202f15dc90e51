"""Spans of the sample service: W3C Trace Context in, OTLP over HTTP (JSON) out, and no dependency.

A real service uses its language's OpenTelemetry SDK, which does the same from the same two inputs: the header
traceparent of the call, and the variable OTEL_EXPORTER_OTLP_ENDPOINT. Without the variable nothing happens.
"""

import contextlib
import json
import os
import queue
import re
import secrets
import sys
import threading
import time
import urllib.request

ENDPOINT = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
SERVICE = os.environ.get("OTEL_SERVICE_NAME", "billing")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
MAX_QUEUED = 1000
SERVER, ERROR = 2, 2  # SpanKind and StatusCode of OTLP

_spans = queue.Queue(MAX_QUEUED)


@contextlib.contextmanager
def server_span(name, headers):
    """Spans the with block; the block fills the attributes. A parent that is not sampled has no children here."""
    attributes = {}
    parent = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if not ENDPOINT or (parent and not int(parent[3], 16) & 1):
        yield attributes
        return
    began = time.time_ns()
    yield attributes
    span = {
        "traceId": parent[1] if parent else secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "parentSpanId": parent[2] if parent else "",
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": [_attribute(key, value) for key, value in attributes.items()],
        "status": {"code": ERROR} if attributes.get("http.response.status_code", 0) >= 500 else {},
    }
    with contextlib.suppress(queue.Full):  # telemetry never holds the service up
        _spans.put_nowait(span)


def flush(seconds=5):
    """Waits until what is queued was sent, but not for ever."""
    end = time.monotonic() + seconds
    while ENDPOINT and _spans.unfinished_tasks and time.monotonic() < end:
        time.sleep(0.01)


def _attribute(key, value):
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": key, "value": {kind: str(value)}}


def _send():
    while True:
        span = _spans.get()
        message = {
            "resourceSpans": [
                {
                    "resource": {"attributes": [_attribute("service.name", SERVICE)]},
                    "scopeSpans": [{"scope": {"name": "billing"}, "spans": [span]}],
                }
            ]
        }
        request = urllib.request.Request(
            f"{ENDPOINT}/v1/traces", json.dumps(message).encode(), {"content-type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError as error:
            print(f"a span could not be sent: {error}", file=sys.stderr, flush=True)
        _spans.task_done()


if ENDPOINT:
    threading.Thread(target=_send, daemon=True).start()
