"""A client in a process of its own that writes down what it does: producer, member of a group, or reader.

Started as `python -m tests.crash.actor JSON` by `actors`. Each line of its journal is one JSON array, [what, at, ...], written
with one write(2), so it outlives a kill of the process. `at` is CLOCK_MONOTONIC, the same for all processes of a machine.

    producer   sent number key | acked number partition offset | failed number error
    member     began|ok|failed member partition offset number key attempt
    reader     polled partition offset number key intact

SIGTERM ends it in good order: a producer waits for what is on its way, a member leaves its group.
"""

import logging
import os
import random
import signal
import sys
import threading
import time

import msgspec

from logsvc_client import Consumer, LogsvcError, Producer, Record, RecordMetadata, RetryPolicy
from tests.crash.kill_values import found_in, value_of
from tests.e2e.raw_peer import Stored

TOPIC = "history"
GROUP = "handlers"
KEYS = 40
BURST = 10
POLL_MS = 200
SETTLE_S = 60.0  # a producer that is told to end waits so long for its records
LOOK_S = 0.1
AGAIN_S = 0.2  # a consumer that ended in an error is made anew


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is told. A number that `bad_every` divides fails in its handler, until the file `healed` exists; `first` is
    a producer's first number."""

    role: str
    server: str
    journal: str
    first: int = 0
    records_per_s: int = 200
    bad_every: int = 0
    healed: str = ""
    max_attempts: int = 3
    ordering: str = "key"
    session_timeout_ms: int = 10_000
    seed: int = 0


class Journal:
    """Appends lines; safe from any thread."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, *details: object) -> None:
        os.write(self._file, msgspec.json.encode([what, time.monotonic(), *details]) + b"\n")


class CannotHandle(Exception):
    """What the handler raises for a bad record."""


def key_text(key: bytes | None) -> str:
    return (key or b"").decode("ascii", "replace")


def produce(orders: Orders, journal: Journal, ended: threading.Event) -> None:
    rng = random.Random(orders.seed)

    def told(number: int, where: RecordMetadata | None, error: LogsvcError | None) -> None:
        if where is not None:
            journal.note("acked", number, where.partition, where.offset)
        else:
            journal.note("failed", number, str(error))

    producer = Producer(
        orders.server, linger_ms=2, batch_bytes=16 << 10, buffer_bytes=256 << 10, request_timeout_ms=10_000, max_block_ms=60_000
    )
    number = orders.first
    while not ended.is_set():
        for _ in range(BURST):
            key = f"{orders.first}-{rng.randrange(KEYS)}"
            journal.note("sent", number, key)
            try:
                producer.send(
                    TOPIC,
                    value_of(number),
                    key=key.encode(),
                    on_delivery=lambda w, e, n=number: told(n, w, e),  # type: ignore[misc]
                )
            except LogsvcError as error:
                journal.note("failed", number, str(error))
            number += 1
        ended.wait(rng.random() * 2 * BURST / orders.records_per_s)
    producer.flush(SETTLE_S)
    producer.close(1)


def handle_all(orders: Orders, journal: Journal, ended: threading.Event) -> None:
    retry = RetryPolicy(max_attempts=orders.max_attempts, initial_ms=50, max_ms=400, ordering=orders.ordering)
    member = f"{os.getpid()}"

    def handle(record: Record) -> None:
        stored = Stored(record.offset, record.timestamp_ms, record.key, record.value)
        number = found_in(stored).number
        details = (member, record.partition, record.offset, number, key_text(record.key), record.attempt)
        journal.note("began", *details)
        if orders.bad_every and number % orders.bad_every == 0 and not os.path.exists(orders.healed):
            journal.note("failed", *details)
            raise CannotHandle(f"record {number}")
        journal.note("ok", *details)

    while not ended.is_set():
        consumer = Consumer(
            TOPIC,
            group_id=GROUP,
            server=orders.server,
            auto_commit_interval_ms=100,
            fetch_max_wait_ms=100,
            session_timeout_ms=orders.session_timeout_ms,
            request_timeout_ms=10_000,
        )
        stopper = threading.Thread(target=lambda c=consumer: (ended.wait(), c.stop()), daemon=True)  # type: ignore[misc]
        stopper.start()
        try:
            with consumer:
                consumer.run(handle, retry=retry)
        except LogsvcError as error:
            journal.note("error", member, f"{type(error).__name__}: {error}")
            time.sleep(AGAIN_S)


def read_all(orders: Orders, journal: Journal, ended: threading.Event) -> None:
    with Consumer(TOPIC, server=orders.server, fetch_max_wait_ms=100, request_timeout_ms=10_000) as consumer:
        while not ended.is_set():
            try:
                records = consumer.poll(POLL_MS)
            except LogsvcError as error:
                journal.note("error", "reader", f"{type(error).__name__}: {error}")
                time.sleep(AGAIN_S)
                continue
            for record in records:
                found = found_in(Stored(record.offset, record.timestamp_ms, record.key, record.value))
                journal.note("polled", record.partition, record.offset, found.number, key_text(record.key), found.intact)


ROLES = {"producer": produce, "member": handle_all, "reader": read_all}


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    ended = threading.Event()
    worker = threading.Thread(target=ROLES[orders.role], args=(orders, Journal(orders.journal), ended), daemon=True)
    # On the main thread, which has nothing else to do: the clients' own signal handling stays out of it.
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    worker.start()
    while worker.is_alive() and not ended.is_set():
        worker.join(LOOK_S)
    asked = ended.is_set()  # or it has ended in an exception, told on stderr
    ended.set()
    worker.join(2 * SETTLE_S)
    sys.exit(1 if worker.is_alive() or not asked else 0)


if __name__ == "__main__":
    main()
