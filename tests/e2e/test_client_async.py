"""The async twins against a real broker: the same verbs, the same promises, and a loop that is never blocked."""

import asyncio
import time
from collections import defaultdict

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import (
    AsyncAdmin,
    AsyncConsumer,
    AsyncProducer,
    ClientClosed,
    Record,
    RequestTimeout,
    RetryPolicy,
    TopicPartition,
    UnknownTopic,
)

WAIT = 20.0
NOWHERE = "tcp://127.0.0.1:1"


async def fill(server: str, topic: str, count: int, *, keys: int = 10, partition: int | None = None) -> None:
    async with AsyncAdmin(server) as admin:
        await admin.create_topic(topic, partitions=3)
    async with AsyncProducer(server) as producer:
        for number in range(count):
            await producer.send(topic, b"%d" % number, key=b"k%d" % (number % keys), partition=partition)


def test_what_is_sent_comes_back(broker: BrokerProcess) -> None:
    async def scenario() -> None:
        async with AsyncAdmin(broker.server) as admin:
            await admin.create_topic("async.back", partitions=2)
            async with AsyncProducer(broker.server) as producer:
                delivery = await producer.send("async.back", b"v", key=b"k", headers={"h": b"1"}, partition=1)
                metadata = await delivery
                assert (metadata.topic, metadata.partition, metadata.offset) == ("async.back", 1, 0)
                assert delivery.done
                many = [await producer.send("async.back", b"%d" % number, partition=0) for number in range(100)]
                await producer.flush()
                assert all(sent.done and sent.exception is None for sent in many)
            described = await admin.describe_topics(["async.back"])
            assert [partition.end_offset for partition in described[0].partitions] == [100, 1]
        async with AsyncConsumer("async.back", server=broker.server) as consumer:
            found: list[Record] = []
            async for record in consumer:
                found.append(record)
                if len(found) == 101:
                    break
            tp = TopicPartition("async.back", 0)
            assert await consumer.position(tp) == 100
            assert await consumer.end_offsets([tp]) == {tp: 100}
            assert await consumer.beginning_offsets([tp]) == {tp: 0}
        assert sorted(int(record.value or b"") for record in found if record.partition == 0) == list(range(100))

    asyncio.run(scenario())


def test_run_keeps_the_order_of_keys_with_handlers_that_overlap(broker: BrokerProcess) -> None:
    finished: dict[bytes | None, list[int]] = defaultdict(list)
    under_way = most = 0

    async def scenario() -> None:
        await fill(broker.server, "async.run", 200)

        async def handler(record: Record) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.002)
            under_way -= 1
            number = int(record.value or b"")
            if number % 50 == 3 and record.attempt < 3:  # fewer failures than open the group's breaker
                raise ValueError("not yet")
            finished[record.key].append(number)
            if sum(map(len, finished.values())) == 200:
                consumer.stop()

        async with AsyncConsumer("async.run", group_id="async.run", server=broker.server) as consumer:
            retry = RetryPolicy(max_attempts=5, initial_ms=20)
            await asyncio.wait_for(consumer.run(handler, retry=retry, concurrency=8), WAIT)

    asyncio.run(scenario())
    assert most > 1
    assert sum(map(len, finished.values())) == 200
    assert all(numbers == sorted(numbers) for numbers in finished.values())


def test_commit_and_close_leave_the_group_where_it_stands(broker: BrokerProcess) -> None:
    async def scenario() -> None:
        await fill(broker.server, "async.commit", 20, partition=0)
        tp = TopicPartition("async.commit", 0)
        async with AsyncConsumer("async.commit", group_id="async.commit", server=broker.server, auto_commit=False) as consumer:
            async for record in consumer:
                if record.offset == 4:
                    await consumer.commit()
                    break
            assert await consumer.committed([tp]) == {tp: 5}
        async with AsyncConsumer("async.commit", group_id="async.commit", server=broker.server) as consumer:
            records = await consumer.poll(5_000, max_records=3)
            assert [record.offset for record in records] == [5, 6, 7]
        async with AsyncAdmin(broker.server) as admin:
            assert (await admin.committed_offsets("async.commit"))[tp].committed == 8

    asyncio.run(scenario())


def test_loop_stays_free_while_clients_wait(broker: BrokerProcess) -> None:
    async def scenario() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with AsyncConsumer(server=broker.server) as consumer:
            await consumer.poll(200)
        ticking.cancel()
        return ticks

    assert asyncio.run(scenario()) > 10


def test_errors_are_raised_where_they_are_awaited(broker: BrokerProcess) -> None:
    async def scenario() -> None:
        async with AsyncProducer(broker.server) as producer:
            with pytest.raises(UnknownTopic):
                await producer.send("async.no-such-topic", b"v")
        with pytest.raises(ClientClosed):
            await producer.send("async.no-such-topic", b"v")
        async with AsyncAdmin(NOWHERE, timeout_ms=100) as admin:
            with pytest.raises(RequestTimeout):
                await admin.list_topics()
        began = time.monotonic()
        async with AsyncProducer(NOWHERE, max_block_ms=100) as producer:
            with pytest.raises(RequestTimeout):
                await producer.send("t", b"v")
        assert time.monotonic() - began < 5

    asyncio.run(scenario())


def test_full_memory_suspends_the_sender_only(broker: BrokerProcess) -> None:
    async def scenario() -> None:
        async with AsyncAdmin(broker.server) as admin:
            await admin.create_topic("async.full")
        async with AsyncProducer(broker.server, buffer_bytes=40_000, batch_bytes=16_384, max_block_ms=5_000) as producer:
            sent = [await producer.send("async.full", b"x" * 1_000) for _ in range(500)]
        assert all(delivery.exception is None for delivery in sent)

    asyncio.run(scenario())
