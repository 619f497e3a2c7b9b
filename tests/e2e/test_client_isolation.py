"""A consumer of an isolated partition is given one record at a time, however it takes them; the one it dies of spends attempts.

A death is made quickly: a static member whose connection just ends is replaced by another of the same `instance_id`.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin, AsyncConsumer, Consumer, Producer, Record, RetryPolicy

WAIT_MS = 10_000
RECORDS = 12
SUSPECTED_AFTER = 2
POLICY = RetryPolicy(max_attempts=2, initial_ms=10, max_ms=10)

Take = Callable[[Consumer, int], list[int]]


@pytest.fixture
def admin(broker: BrokerProcess) -> Iterator[Admin]:
    with Admin(broker.server) as made:
        yield made


@pytest.fixture
def topic(admin: Admin, broker: BrokerProcess, request: pytest.FixtureRequest) -> str:
    name = f"isolation.{request.node.name[:100].translate(str.maketrans('[]', '..'))}"
    admin.create_topic(name)
    with Producer(broker.server) as producer:
        for number in range(RECORDS):
            producer.send(name, b"%d" % number, key=b"k%d" % (number % 5))
    return name


def member(broker: BrokerProcess, topic: str) -> Consumer:
    return Consumer(topic, group_id=topic, server=broker.server, instance_id="the one", retry=POLICY)


def die(consumer: Consumer) -> None:
    """The process is gone: nothing is committed, nobody leaves."""
    consumer._transport.stop()


def suspected(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    """Two have died with all records in their hands."""
    for _ in range(SUSPECTED_AFTER):
        consumer = member(broker, topic)
        assert len(consumer.poll(WAIT_MS)) == RECORDS
        die(consumer)


def by_poll(consumer: Consumer, count: int) -> list[int]:
    offsets = []
    while len(offsets) < count:
        (record,) = consumer.poll(WAIT_MS)
        offsets.append(record.offset)
    return offsets


def by_iteration(consumer: Consumer, count: int) -> list[int]:
    return [record.offset for record in islice(consumer, count)]


@pytest.mark.parametrize("take", [by_poll, by_iteration])
def test_a_record_in_hand_alone_at_a_death_has_spent_an_attempt_and_ends_as_a_dead_letter(
    broker: BrokerProcess, admin: Admin, topic: str, take: Take
) -> None:
    suspected(broker, admin, topic)
    consumer = member(broker, topic)
    assert take(consumer, 4) == [0, 1, 2, 3]
    (described,) = admin.describe_group(topic).partitions
    assert (described.deaths, described.isolated, described.committed) == (2, True, 3)
    die(consumer)

    consumer = member(broker, topic)
    seen: list[tuple[int, int]] = []
    while (3, 2) not in seen:
        (record,) = consumer.poll(WAIT_MS)
        seen.append((record.offset, record.attempt))
    die(consumer)

    with member(broker, topic) as consumer:
        deadline = time.monotonic() + WAIT_MS / 1_000
        while len({offset for offset, _attempt in seen}) < RECORDS - 3 and time.monotonic() < deadline:
            seen += [(record.offset, record.attempt) for record in consumer.poll(200)]
    assert sorted(offset for offset, attempt in seen if offset != 3) == list(range(4, RECORDS))
    assert [each for each in seen if each[0] == 3] == [(3, 2)]
    (described,) = admin.describe_group(topic).partitions
    assert (described.isolated, described.committed) == (False, RECORDS)
    with Consumer(f"dlq.{topic}.{topic}", server=broker.server) as letters:
        (letter,) = letters.poll(WAIT_MS)
    assert letter.value == b"3"
    assert dict(letter.headers)["logsvc.dlq.exception.class"] == b"logsvc.ConsumerDied"


def test_those_who_commit_themselves_get_one_at_a_time_too(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    suspected(broker, admin, topic)
    with Consumer(topic, group_id=topic, server=broker.server, instance_id="the one", auto_commit=False) as consumer:
        for offset in range(RECORDS):
            (record,) = consumer.poll(WAIT_MS)
            assert record.offset == offset
            if offset % 2:
                consumer.commit()
    (described,) = admin.describe_group(topic).partitions
    assert (described.isolated, described.committed) == (False, RECORDS)


def test_asyncio_alike(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    suspected(broker, admin, topic)
    offsets: list[int] = []

    async def main() -> None:
        made = AsyncConsumer(topic, group_id=topic, server=broker.server, instance_id="the one")
        async with made as consumer, asyncio.timeout(WAIT_MS / 1_000):
            while len(offsets) < RECORDS:
                (record,) = await consumer.poll(WAIT_MS)
                offsets.append(record.offset)

    asyncio.run(main())
    assert offsets == list(range(RECORDS))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_handlers_of_run_are_never_two_at_a_time_and_failures_keep_their_order(
    broker: BrokerProcess, admin: Admin, topic: str, concurrency: int
) -> None:
    suspected(broker, admin, topic)
    lock, most, now = threading.Lock(), 0, 0
    finished: list[tuple[int, int]] = []

    def handler(record: Record) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        if record.offset == 1 and record.attempt == 1:
            raise ValueError("not yet")
        finished.append((record.offset, record.attempt))
        if len(finished) == RECORDS:
            consumer.stop()

    with member(broker, topic) as consumer:
        consumer.run(handler, concurrency=concurrency)
    assert most == 1
    assert sorted(finished) == [(offset, 2 if offset == 1 else 1) for offset in range(RECORDS)]
    for lane in range(5):
        assert [offset for offset, _ in finished if offset % 5 == lane] == list(range(lane, RECORDS, 5))
    (described,) = admin.describe_group(topic).partitions
    assert (described.isolated, described.committed) == (False, RECORDS)
