"""Ten thousand dead letters redriven through a real broker: cancelled half way, gone on with after a restart, and run again."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from logsvc.testing import embedded_broker
from logsvc_client import Admin, AsyncAdmin, Consumer, Producer, Record, Redrive, RedriveFilter, RetryPolicy
from logsvc_common.errors import UnknownGroup, UnknownRedrive, UnknownTopic
from logsvc_common.messages import ConfigureGroup

TOPIC, GROUP, OTHER = "orders", "billing", "audit"
RECORDS, LETTERS = 30_000, 10_000
PARTITIONS = 4
ONCE = RetryPolicy(max_attempts=1)
WAIT_SECONDS = 60.0


class Worker:
    """The handler of one group: counts what it is given; while `broken`, every third record fails."""

    def __init__(self) -> None:
        self.broken = False
        self.handled: Counter[tuple[int, int]] = Counter()
        self.failed: Counter[tuple[int, int]] = Counter()
        self.contents: dict[tuple[int, int], Record] = {}

    def __call__(self, record: Record) -> None:
        where = (record.partition, record.offset)
        if self.broken and int(record.value or b"") % 3 == 0:
            self.failed[where] += 1
            self.contents[where] = record
            raise ValueError("the downstream does not know this one yet")
        self.handled[where] += 1
        if where in self.contents:
            first = self.contents.pop(where)
            assert (record.key, record.value, record.headers, record.timestamp_ms) == (
                first.key,
                first.value,
                first.headers,
                first.timestamp_ms,
            )


@contextmanager
def running(server: str, group: str, worker: Worker) -> Iterator[None]:
    consumer = Consumer(TOPIC, group_id=group, server=server)
    thread = threading.Thread(target=lambda: consumer.run(worker, retry=ONCE))
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def wait(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"not in {WAIT_SECONDS:.0f} s: {what}"
        time.sleep(0.02)


def settled(admin: Admin, group: str, records: int = RECORDS) -> bool:
    """The group has read everything and no failure is unfinished."""
    try:
        found = admin.describe_group(group)
    except UnknownGroup:
        return False
    return sum(part.committed for part in found.partitions) == records and not any(part.failed for part in found.partitions)


def over(admin: Admin, redrive: Redrive) -> Redrive:
    def state() -> Redrive:
        return next(found for found in admin.redrives(GROUP) if found.redrive_id == redrive.redrive_id)

    wait(lambda: state().state != "running", "the redrive")
    return state()


async def redrive_by_hand(server: str) -> None:
    async with AsyncAdmin(server) as admin:
        assert (await admin.redrive(GROUP, where=RedriveFilter(exception_classes=["Other"]))).total == 3
        slow = await admin.redrive(GROUP, topic=TOPIC, rate_per_s=1)
        assert (await admin.cancel_redrive(slow.redrive_id)).state == "cancelled"
        for _ in range(1_000):
            found = await admin.redrives(GROUP)
            if found[0].state != "running":
                break
            await asyncio.sleep(0.01)
        assert [redrive.state for redrive in found] == ["done", "cancelled"]
        assert [letters.dead_letter_topic for letters in await admin.dead_letter_topics()] == [f"dlq.{TOPIC}.{GROUP}"]
        assert await admin.purge_dead_letters(f"dlq.{TOPIC}.{GROUP}") == 3
        assert (await admin.redrive(GROUP)).total == 0
        for topic in (TOPIC, f"dlq.{TOPIC}.nobody"):
            with pytest.raises(UnknownTopic):
                await admin.purge_dead_letters(topic)
        with pytest.raises(UnknownRedrive):
            await admin.cancel_redrive(99)


def test_the_async_admin_has_the_same_verbs() -> None:
    with embedded_broker(http_port=-1) as broker, Admin(broker.server) as admin:
        admin.create_topic(TOPIC)
        with Producer(broker.server) as producer:
            for n in (0, 3, 6):
                producer.send(TOPIC, b"%d" % n)
        worker = Worker()
        worker.broken = True
        with running(broker.server, GROUP, worker):
            wait(lambda: settled(admin, GROUP, 3), "three letters")
        asyncio.run(redrive_by_hand(broker.server))


def test_ten_thousand_letters_cancelled_half_way_and_gone_on_with() -> None:
    worker, other = Worker(), Worker()
    worker.broken = True
    times: list[tuple[str, float]] = [("", time.perf_counter())]

    def lap(what: str) -> None:
        times.append((what, time.perf_counter()))

    with embedded_broker(http_port=-1) as broker, Admin(broker.server) as admin:
        admin.create_topic(TOPIC, partitions=PARTITIONS)
        with Producer(broker.server) as producer:
            for n in range(RECORDS):
                producer.send(TOPIC, b"%d" % n, key=b"%d" % (n % 1_000), headers={"n": b"%d" % n})
        admin.configure_group(ConfigureGroup(GROUP, enabled=False))  # its breaker would hold back so many failures
        lap("produced")
        with running(broker.server, GROUP, worker), running(broker.server, OTHER, other):
            wait(lambda: settled(admin, GROUP) and settled(admin, OTHER), "both groups through the topic")
            assert len(worker.failed) == LETTERS
            worker.broken = False
            before = Counter(worker.handled)
            lap("failed, and their letters written")

            first = admin.redrive(GROUP, rate_per_s=5_000)
            assert first.total == LETTERS
            wait(lambda: admin.redrives(GROUP)[-1].redriven >= LETTERS // 2, "half of the redrive")
            half = admin.cancel_redrive(first.redrive_id)
            wait(lambda: settled(admin, GROUP), "what was put back before the cancel")
            assert half.state == "cancelled"
            assert LETTERS // 2 <= half.redriven < LETTERS
            assert (worker.handled - before).total() == half.redriven
            lap("half, cancelled")

            broker.restart()
            second = over(admin, admin.redrive(GROUP))
            assert (second.state, second.redriven) == ("done", LETTERS - half.redriven)
            wait(lambda: settled(admin, GROUP), "the rest")
            lap("the rest, after a restart")

            third = over(admin, admin.redrive(GROUP))
            assert (third.matched, third.redriven) == (0, 0)
            (letters,) = admin.dead_letter_topics(GROUP)
            assert letters.redriven == LETTERS
            lap("again")

    again = worker.handled - before
    assert set(again) == set(worker.failed)
    assert set(again.values()) == {1}, "a letter was delivered more than once"
    assert not worker.contents
    assert other.handled.total() == RECORDS
    assert set(other.handled.values()) == {1}, "another group was given something again"
    print(" | ".join(f"{what} {at - start:.2f} s" for (_, start), (what, at) in pairwise(times)))
