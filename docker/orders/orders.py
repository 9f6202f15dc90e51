"""A sample order service: what a producer in front of Pawl looks like.

It shows the three things a producer should do: key each record by the entity that it is about,
give each event an id that stays the same when it is sent again (CloudEvents header ce_id), and
let the trace go on (traceparent). Its topic is its own, so it creates it.

What it lacks on purpose is an outbox: events that it has not published when it ends are forgotten.
Some events it publishes twice, as a producer does that did not hear of its first try.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP_SERVERS = os.environ.get("BOOTSTRAP_SERVERS", "localhost:9092")
TOPIC = os.environ.get("TOPIC", "orders")
PARTITIONS = int(os.environ.get("PARTITIONS", "4"))
REPLICATION_FACTOR = int(os.environ.get("REPLICATION_FACTOR", "1"))
# Orders in all; 0: it goes on until it is told to end.
ORDERS = int(os.environ.get("ORDERS", "0"))
EVENTS_PER_SECOND = float(os.environ.get("EVENTS_PER_SECOND", "20"))
# How many of a hundred events are published twice.
REPEATED_PERCENT = float(os.environ.get("REPEATED_PERCENT", "5"))
PORT = int(os.environ.get("PORT", "8081"))

# Orders under way at a time.
OPEN_ORDERS = 50
BROKER_TIMEOUT_SECONDS = 60
# Acknowledgements that are waited for at the end; below what an orchestrator waits before it kills.
FLUSH_SECONDS = 8


@dataclass
class Order:
    """An order on its way, and the events that it still has before it."""

    id: str
    trace_id: str
    ahead: deque
    sequence: int = 0

    @classmethod
    def place(cls, number, chance):
        reminders = chance.choice([0, 0, 0, 1, 1, 2, 5])
        steps = ["place order", "confirm order", *["payment reminder"] * reminders, "pay order"]
        return cls(f"ORD-{number}", uuid.uuid4().hex, deque(steps))

    def next_event(self):
        self.sequence += 1
        return {
            "eventId": f"{self.id}/{self.sequence}",
            "orderId": self.id,
            "sequence": self.sequence,
            "type": self.ahead.popleft(),
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }


class Publisher:
    """Writes events, and counts what the brokers have acknowledged."""

    def __init__(self):
        self.producer = Producer(
            {
                "bootstrap.servers": BOOTSTRAP_SERVERS,
                "enable.idempotence": True,
                # As the Java clients place keys: librdkafka's own default would part them from theirs.
                "partitioner": "murmur2_random",
                "linger.ms": 5,
            }
        )
        self.acknowledged = 0
        self.failed = None

    def publish(self, order, event):
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event["eventId"],
            "ce_source": "/orders",
            "ce_type": f"orders.{event['type'].replace(' ', '-')}",
            "ce_time": event["at"],
            "content-type": "application/json",
            "traceparent": f"00-{order.trace_id}-{os.urandom(8).hex()}-01",
        }
        while True:
            try:
                self.producer.produce(
                    TOPIC, key=order.id, value=json.dumps(event), headers=headers, on_delivery=self.delivered
                )
                return
            except BufferError:  # its queue is full: let acknowledgements make room
                self.producer.poll(0.1)

    def delivered(self, error, _message):
        if error is None:
            self.acknowledged += 1
        else:
            self.failed = error


class Health(BaseHTTPRequestHandler):
    """How many records are published; 503 until the topic is there."""

    publisher = None
    done = False
    events = 0

    def do_GET(self):
        ready = Health.publisher is not None
        acknowledged = Health.publisher.acknowledged if ready else 0
        body = {"events": Health.events, "acknowledged": acknowledged, "done": Health.done}
        status = 404 if self.path != "/health" else 200 if ready else 503
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format, *args):
        """Nobody wants a line for each probe."""


def create_topic():
    """Creates the topic unless it is there."""
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP_SERVERS})
    topic = NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=REPLICATION_FACTOR)
    created = admin.create_topics([topic], operation_timeout=30, request_timeout=BROKER_TIMEOUT_SECONDS)
    try:
        created[TOPIC].result()
        print(f"created the topic {TOPIC} with {PARTITIONS} partitions", flush=True)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def serve_orders(publisher, stop):
    """Publishes events of open orders, in each order's own sequence, at a steady rate."""
    chance = random.Random()
    began, due, first = time.monotonic(), 0.0, int(time.time())
    open_orders, placed = [], 0
    while not stop.is_set():
        while len(open_orders) < OPEN_ORDERS and (ORDERS == 0 or placed < ORDERS):
            open_orders.append(Order.place(first * 100_000 + placed, chance))
            placed += 1
        if not open_orders:
            break
        order = chance.choice(open_orders)
        event = order.next_event()
        publisher.publish(order, event)
        if chance.random() * 100 < REPEATED_PERCENT:
            publisher.publish(order, event)
        Health.events += 1
        if not order.ahead:
            open_orders.remove(order)
        publisher.producer.poll(0)
        if publisher.failed is not None:
            sys.exit(f"a record was not acknowledged: {publisher.failed}")
        due += 1 / EVENTS_PER_SECOND
        stop.wait(max(0.0, began + due - time.monotonic()))
    publisher.producer.flush(FLUSH_SECONDS)
    Health.done = not open_orders
    print(f"published {Health.events} events in {publisher.acknowledged} records", flush=True)


def main():
    server = ThreadingHTTPServer(("", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    create_topic()
    publisher = Health.publisher = Publisher()
    serve_orders(publisher, stop)
    stop.wait()


if __name__ == "__main__":
    main()
