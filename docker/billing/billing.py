"""A sample billing service: what a service behind Pawl's `http` handler looks like.

It shows the two things a service should do: recognise a repeated call by its Idempotency-Key,
and say by its status whether another attempt makes sense (4xx: no, 5xx: yes).
What it lacks on purpose is a database: a restart forgets the keys. With OTEL_EXPORTER_OTLP_ENDPOINT it takes
part in the trace that Pawl continues (tracing.py).
"""

import json
import os
import signal
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tracing

PORT = int(os.environ.get("PORT", "8080"))
MAX_BODY_BYTES = 1 << 20
MAX_REMEMBERED_KEYS = 100_000


class Ledger:
    """The idempotency keys of the calls that succeeded, the oldest forgotten first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._keys = OrderedDict()

    def bill(self, key):
        """Whether this is the first call with the key."""
        with self._lock:
            first = key not in self._keys
            self._keys[key] = None
            if len(self._keys) > MAX_REMEMBERED_KEYS:
                self._keys.popitem(last=False)
            return first


class Billing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open between calls
    timeout = 120  # seconds that an unused connection may stay open
    disable_nagle_algorithm = True
    ledger = Ledger()

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404)

    def do_POST(self):
        with tracing.server_span(f"POST {self.path}", self.headers) as span:
            self.span = span
            self.bill()

    def bill(self):
        length = int(self.headers.get("content-length", "0"))
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            return self.answer(413, "an event may have 1 MiB")
        body = self.rfile.read(length)
        if self.path != "/events":
            return self.answer(404, "events go to /events")
        if self.headers.get("pawl-tombstone") == "true":
            event = None
        else:
            try:
                event = json.loads(body)
            except ValueError as error:
                return self.answer(422, f"not JSON: {error}")
        key = self.headers.get("idempotency-key")
        if not key:
            return self.answer(400, "Idempotency-Key is missing")
        first = self.ledger.bill(key)
        order = self.headers.get("pawl-key", "-")
        attempt = self.headers.get("pawl-attempt", "1")
        # One write: other threads print too.
        line = f"order {order} attempt {attempt} {'billed' if first else 'seen before'}: {event}\n"
        print(line, end="", flush=True)
        return self.answer(204)

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        if span := getattr(self, "span", None):
            span["http.response.status_code"] = status
        if status != 204:
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, format, *args):
        """One line an event is enough."""


def main():
    server = ThreadingHTTPServer(("", PORT), Billing)
    stop = threading.Thread(target=server.shutdown)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.is_alive() or stop.start())
    print(f"billing listens on port {PORT}", flush=True)
    server.serve_forever()
    tracing.flush()


if __name__ == "__main__":
    main()
