"""The truth about one partition and its group, written down by who produces to it and commits in it.

Every change (records acknowledged, an offset committed) has happened at the broker some time between the call and its return.
So at any moment a few states are possible, one when nothing is under way, and a sample that the broker gave is right when it is
one of them.
"""

import time
from typing import NamedTuple, Self

from logsvc_client import Consumer, Producer

CALL_TIMEOUT_S = 20.0


class Change(NamedTuple):
    """What holds since a moment between `begun` and `ended` (seconds since the epoch)."""

    begun: float
    ended: float
    end_offset: int
    committed: int


class Truth(NamedTuple):
    """What the lag may have been: in records, and the timestamp in seconds of the first record not consumed."""

    lag: int
    first_timestamp: float | None

    def lag_seconds(self, at: float) -> float:
        """The age of that record; 0 when caught up."""
        return 0.0 if self.first_timestamp is None else max(0.0, at - self.first_timestamp)


class Ledger:
    """A group and its topic of one partition. One thread at a time uses it."""

    def __init__(self, server: str, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self._producer = Producer(server)
        self._consumer: Consumer | None = Consumer(topic, group_id=group, server=server, auto_commit=False)
        self._timestamps: list[float] = []
        self._changes: list[Change] = []
        self._committed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self._producer.close()

    def produce(self, count: int, *, age_s: float = 0.0) -> None:
        """Records, acknowledged when this returns, with the timestamp of now less `age_s`."""
        begun = time.time()
        timestamp_ms = int((begun - age_s) * 1_000)
        deliveries = [self._producer.send(self.topic, b"x" * 100, timestamp_ms=timestamp_ms) for _ in range(count)]
        self._producer.flush(CALL_TIMEOUT_S)
        assert max(delivery.result(CALL_TIMEOUT_S).offset for delivery in deliveries) == len(self._timestamps) + count - 1
        self._timestamps += [timestamp_ms / 1_000] * count
        self._note(begun)

    def consume(self, count: int) -> None:
        """Take so many records and commit behind them."""
        assert self._consumer is not None
        deadline = time.monotonic() + CALL_TIMEOUT_S
        taken = 0
        while taken < count:
            assert time.monotonic() < deadline, f"{taken} of {count} records of {self.topic} within {CALL_TIMEOUT_S:.0f} s"
            taken += len(self._consumer.poll(500, max_records=count - taken))
        begun = time.time()
        self._consumer.commit()
        self._committed += count
        self._note(begun)

    def leave(self) -> None:
        """The consumer is closed: the group has no members."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _note(self, begun: float) -> None:
        self._changes.append(Change(begun, time.time(), len(self._timestamps), self._committed))

    def possible(self, since: float, until: float) -> list[Truth]:
        """What may have been true at some moment of a stretch of time."""
        ends = [change.ended for change in self._changes[1:]] + [float("inf")]
        return [
            self._truth(change)
            for change, replaced in zip(self._changes, ends, strict=True)
            if change.begun <= until and replaced >= since
        ]

    def _truth(self, change: Change) -> Truth:
        first = self._timestamps[change.committed] if change.committed < change.end_offset else None
        return Truth(change.end_offset - change.committed, first)
