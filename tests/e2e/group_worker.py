"""A member of a group as a process of its own, with a handler that behaves as it is told: `python -m tests.e2e.group_worker`.

Every call of the handler is written down before it does anything, and again when it ends, as one line of JSON appended by one
write: what stands in a journal happened, whatever became of the process. `at` is the system's monotonic clock, the same for
all processes of a machine. The epoch is the member's when the handler was called: a partition that moves reaches its new
owner at a later epoch than the old one's, so two members in one epoch with one partition are two owners.
"""

import logging
import os
import sys
import time
from pathlib import Path

import msgspec

from logsvc_client import Consumer, Record, RetryPolicy


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told, as JSON, on its command line.

    The handler takes `handler_s` seconds of sleep, or of work when `busy`; the process ends at a record whose value is
    `deadly_value`; records fail while the file `dead_while` exists.
    """

    server: str
    topic: str
    group: str
    journal: str
    session_timeout_ms: int
    retry: RetryPolicy = RetryPolicy()
    concurrency: int = 1
    handler_s: float = 0.0
    busy: bool = False
    deadly_value: str | None = None
    dead_while: str | None = None


class Entry(msgspec.Struct, frozen=True):
    """One line of a journal. `what` is `began`, `done` or `failed`."""

    what: str
    at: float
    pid: int
    member: str
    epoch: int
    partition: int
    offset: int
    attempt: int


class DownstreamDead(Exception):
    """What the handler calls does not answer."""


class Handler:
    """The handler, and its journal."""

    def __init__(self, orders: Orders, consumer: Consumer) -> None:
        self._orders = orders
        self._deadly = None if orders.deadly_value is None else orders.deadly_value.encode()
        self._dead_while = None if orders.dead_while is None else Path(orders.dead_while)
        membership = consumer._engine.membership
        assert membership is not None
        self._membership = membership
        self._journal = os.open(orders.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, record: Record) -> None:
        epoch = self._membership.epoch
        self._note("began", epoch, record)
        if self._deadly is not None and record.value == self._deadly:
            os._exit(1)
        if self._orders.busy:
            until = time.monotonic() + self._orders.handler_s
            while time.monotonic() < until:
                pass
        elif self._orders.handler_s:
            time.sleep(self._orders.handler_s)
        if self._dead_while is not None and self._dead_while.exists():
            self._note("failed", epoch, record)
            raise DownstreamDead("downstream does not answer")
        self._note("done", epoch, record)

    def _note(self, what: str, epoch: int, record: Record) -> None:
        entry = Entry(
            what,
            time.monotonic(),
            os.getpid(),
            self._membership.member_id,
            epoch,
            record.partition,
            record.offset,
            record.attempt,
        )
        os.write(self._journal, msgspec.json.encode(entry) + b"\n")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    with Consumer(
        orders.topic,
        group_id=orders.group,
        server=orders.server,
        session_timeout_ms=orders.session_timeout_ms,
        auto_commit_interval_ms=200,
    ) as consumer:
        consumer.run(Handler(orders, consumer), retry=orders.retry, concurrency=orders.concurrency)


if __name__ == "__main__":
    main()
