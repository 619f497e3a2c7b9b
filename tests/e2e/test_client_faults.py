"""What clients do when the broker goes: nothing acknowledged is lost, nothing doubled, nobody hangs."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import (
    Admin,
    BufferExhausted,
    ClientClosed,
    Consumer,
    CorruptBatch,
    DeliveryTimeout,
    Producer,
    Record,
    RequestTimeout,
    RetryPolicy,
    TopicPartition,
)
from logsvc_common.batch import RecordData, encode
from logsvc_common.frames import DecodedRequest, encode_response
from logsvc_common.messages import Fetch, FetchReply, FetchResult
from tests.unit.client.fake_peer import fake_peer

NOWHERE = "tcp://127.0.0.1:1"
WAIT = 30.0


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of this test's own, with topic `t` of two partitions."""
    with broker_process(tmp_path / "data") as running:
        with Admin(running.server) as admin:
            admin.create_topic("t", partitions=2)
        yield running


def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + WAIT
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.poll(200)
    return records


def test_kill_under_load_loses_and_doubles_nothing_and_clients_recover_by_themselves(mortal: BrokerProcess) -> None:
    deliveries = []
    stop = threading.Event()

    def produce() -> None:
        number = 0
        while not stop.is_set():
            deliveries.append((number, producer.send("t", b"%d" % number, partition=number % 2)))
            number += 1
            if number % 50 == 0:
                time.sleep(0.001)

    with Producer(mortal.server, linger_ms=1) as producer:
        thread = threading.Thread(target=produce)
        thread.start()
        for _ in range(3):
            time.sleep(0.3)
            mortal.kill()
            time.sleep(0.1)
            mortal.start()
        time.sleep(0.3)
        stop.set()
        thread.join()
    assert [delivery.exception for _, delivery in deliveries] == [None] * len(deliveries)
    with Consumer("t", server=mortal.server) as consumer:
        records = read(consumer, len(deliveries))
        assert consumer.poll(200) == []
    for partition in (0, 1):
        values = [int(record.value or b"") for record in records if record.partition == partition]
        assert values == list(range(partition, len(deliveries), 2))
    found = {(record.partition, record.offset): record.value for record in records}
    for number, delivery in deliveries:
        metadata = delivery.result(0)
        assert found[metadata.partition, metadata.offset] == b"%d" % number


def test_group_goes_on_after_the_broker_was_killed(mortal: BrokerProcess) -> None:
    handled: set[int] = set()
    failed_once: set[int] = set()

    def handler(record: Record) -> None:
        number = int(record.value or b"")
        if number % 100 == 7 and record.attempt == 1:
            failed_once.add(number)
            raise ValueError("once")
        handled.add(number)
        time.sleep(0.001)

    def work() -> None:
        consumer.run(handler, retry=RetryPolicy(initial_ms=50))

    with Producer(mortal.server) as producer:
        for number in range(1_000):
            producer.send("t", b"%d" % number, key=b"%d" % (number % 50))
    consumer = Consumer("t", group_id="g", server=mortal.server, session_timeout_ms=3_000)
    with consumer:
        thread = threading.Thread(target=work)
        thread.start()
        deadline = time.monotonic() + WAIT
        while len(handled) < 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        mortal.kill()
        mortal.start()
        while len(handled) < 1_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        consumer.stop()
        thread.join()
    assert handled == set(range(1_000))
    assert len(failed_once) == 10
    with Admin(mortal.server) as admin:
        description = admin.describe_group("g")
        assert sum(partition.lag for partition in description.partitions) == 0


def test_producer_without_a_broker_fails_within_its_deadline() -> None:
    with Producer(NOWHERE, max_block_ms=200) as producer:
        began = time.monotonic()
        with pytest.raises(RequestTimeout, match="is a broker running there"):
            producer.send("t", b"v")
        assert time.monotonic() - began < 5


def test_records_end_in_an_error_when_the_broker_stays_away(mortal: BrokerProcess) -> None:
    with Producer(mortal.server, delivery_timeout_ms=500) as producer:
        producer.send("t", b"v").result(WAIT)
        mortal.kill()
        delivery = producer.send("t", b"lost", partition=0)
        with pytest.raises(RequestTimeout, match="still on its way"):
            delivery.result(0.01)
        with pytest.raises(DeliveryTimeout, match="t-0"):
            delivery.result(WAIT)
        mortal.start()
        assert producer.send("t", b"after", partition=0).result(WAIT).offset >= 0


def send_forever(producer: Producer) -> None:
    while True:
        producer.send("t", b"x" * 1_000)


def test_full_memory_without_a_broker_is_an_error_not_a_hang(mortal: BrokerProcess) -> None:
    with Producer(mortal.server, buffer_bytes=40_000, batch_bytes=16_384, max_block_ms=200) as producer:
        producer.send("t", b"v").result(WAIT)
        mortal.kill()
        with pytest.raises(BufferExhausted, match="200 ms"):
            send_forever(producer)
        producer.close(timeout=0)


def test_close_does_not_wait_longer_than_told_and_says_what_became_of_the_rest(mortal: BrokerProcess) -> None:
    producer = Producer(mortal.server)
    producer.send("t", b"v").result(WAIT)
    mortal.kill()
    delivery = producer.send("t", b"lost")
    producer.close(timeout=0.1)
    with pytest.raises(ClientClosed):
        delivery.result(WAIT)


def test_consumer_without_a_broker_says_so_after_its_connect_timeout() -> None:
    with Consumer("t", server=NOWHERE, connect_timeout_ms=200) as consumer:
        assert consumer.poll(10) == []
        with pytest.raises(RequestTimeout, match="is a broker running there"):
            next(iter(consumer))


def test_group_member_without_a_broker_closes_without_hanging() -> None:
    began = time.monotonic()
    with Consumer("t", group_id="g", server=NOWHERE) as consumer:
        consumer.poll(10)
    assert time.monotonic() - began < 5


def test_corrupt_batch_is_named_and_never_skipped() -> None:
    good = encode([RecordData(b"%d" % number) for number in range(3)])
    bad = bytearray(encode([RecordData(b"later")], base_offset=3))
    bad[-1] ^= 1

    def behaviour(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        assert isinstance(request.body, Fetch)
        result = FetchResult(topic="t", partition=0, high_watermark=4)
        return encode_response(request.correlation_id, FetchReply([result]), [good + bytes(bad)])

    with fake_peer(behaviour) as peer, Consumer(server=peer.server) as consumer:
        consumer.assign([TopicPartition("t", 0)])
        consumer.seek(TopicPartition("t", 0), 0)
        assert [record.value for record in read(consumer, 3)] == [b"0", b"1", b"2"]
        for _ in range(2):
            with pytest.raises(CorruptBatch, match="t-0, batch at offset 3"):
                read(consumer, 1)
        assert consumer.position(TopicPartition("t", 0)) == 3
