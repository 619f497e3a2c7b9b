"""Producer and consumer against a real broker: what goes in comes out, where and in the order it should."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import (
    Admin,
    Consumer,
    InvalidRequest,
    InvalidTopicName,
    LogsvcError,
    NoOffset,
    OffsetOutOfRange,
    Producer,
    Record,
    RecordMetadata,
    RecordTooLarge,
    TopicPartition,
    UnknownPartition,
    UnknownTopic,
)
from logsvc_client.partitioner import partition_for

WAIT = 20.0


@pytest.fixture
def admin(broker: BrokerProcess) -> Iterator[Admin]:
    with Admin(broker.server) as made:
        yield made


@pytest.fixture
def producer(broker: BrokerProcess) -> Iterator[Producer]:
    with Producer(broker.server) as made:
        yield made


@pytest.fixture
def topic(admin: Admin, request: pytest.FixtureRequest) -> str:
    name = f"records.{request.node.name[:200].translate(str.maketrans('[]', '..'))}"
    admin.create_topic(name, partitions=3)
    return name


def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + WAIT
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.poll(500)
    return records


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_record_comes_back_as_it_was_sent(broker: BrokerProcess, topic: str, compression: str) -> None:
    sent = [
        (b"value", b"key", (("trace", b"1"), ("trace", b"2"), ("none", None))),
        (None, b"tombstone", ()),
        (b"", None, ()),
        (b"x" * 100_000, b"", ()),
    ]
    with Producer(broker.server, compression=compression) as producer:
        deliveries = [
            producer.send(topic, value, key=key, headers=headers, partition=1, timestamp_ms=1_000 + number)
            for number, (value, key, headers) in enumerate(sent)
        ]
        assert [delivery.result(WAIT) for delivery in deliveries] == [
            RecordMetadata(topic, 1, offset, 1_000 + offset) for offset in range(4)
        ]
    with Consumer(topic, server=broker.server) as consumer:
        records = read(consumer, len(sent))
    assert [(record.value, record.key, record.headers) for record in records] == sent
    assert [(record.topic, record.partition, record.offset, record.timestamp_ms) for record in records] == [
        (topic, 1, offset, 1_000 + offset) for offset in range(4)
    ]


def test_keys_land_where_kafka_puts_them_and_keep_their_order(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    for number in range(2_000):
        producer.send(topic, b"%d" % number, key=b"key-%d" % (number % 17), headers={"n": b"1"})
    producer.flush(WAIT)
    by_key = defaultdict(list)
    with Consumer(topic, server=broker.server) as consumer:
        for record in read(consumer, 2_000):
            assert record.key is not None
            assert record.value is not None
            assert record.partition == partition_for(record.key, 3)
            by_key[record.key].append(int(record.value))
    assert len(by_key) == 17
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def test_records_without_a_key_spread_over_the_partitions_batch_by_batch(broker: BrokerProcess, topic: str) -> None:
    with Producer(broker.server, batch_bytes=16_384) as producer:
        deliveries = [producer.send(topic, b"x" * 100) for _ in range(5_000)]
        producer.flush(WAIT)
    counts = defaultdict(int)
    for delivery in deliveries:
        counts[delivery.result(0).partition] += 1
    assert sorted(counts) == [0, 1, 2]


def test_threads_share_a_producer(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    def work(name: int) -> None:
        for number in range(3_000):
            producer.send(topic, b"%d" % number, partition=0, key=b"%d" % name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush(WAIT)
    by_thread = defaultdict(list)
    with Consumer(topic, server=broker.server) as consumer:
        for record in read(consumer, 12_000):
            assert record.value is not None
            by_thread[record.key].append(int(record.value))
    assert [by_thread[b"%d" % name] == list(range(3_000)) for name in range(4)] == [True] * 4


def test_delivery_tells_when_it_is_done_and_calls_back(producer: Producer, topic: str) -> None:
    told: list[tuple[RecordMetadata | None, LogsvcError | None]] = []
    called = threading.Event()

    def on_delivery(metadata: RecordMetadata | None, error: LogsvcError | None) -> None:
        told.append((metadata, error))
        called.set()

    delivery = producer.send(topic, b"v", partition=2, on_delivery=on_delivery)
    metadata = delivery.result(WAIT)
    assert delivery.done
    assert delivery.exception is None
    assert called.wait(WAIT)
    assert told == [(metadata, None)]


def test_small_memory_makes_send_wait_not_fail(broker: BrokerProcess, topic: str) -> None:
    with Producer(broker.server, buffer_bytes=100_000, batch_bytes=16_384) as producer:
        deliveries = [producer.send(topic, b"x" * 1_000) for _ in range(3_000)]
    assert all(delivery.exception is None and delivery.done for delivery in deliveries)


def test_bad_input_is_refused_with_its_own_error(broker: BrokerProcess, producer: Producer, admin: Admin, topic: str) -> None:
    for name in ("../x", "", "a" * 250, "a\n"):
        with pytest.raises(InvalidTopicName):
            producer.send(name, b"v")
        with pytest.raises(InvalidTopicName):
            admin.create_topic(name)
        with pytest.raises(InvalidTopicName):
            Consumer(name, server=broker.server)
    with pytest.raises(UnknownTopic):
        producer.send("no-such-topic", b"v")
    with pytest.raises(UnknownPartition):
        producer.send(topic, b"v", partition=3)
    with pytest.raises(TypeError):
        producer.send(topic, "text")  # type: ignore[arg-type]
    producer.send(topic, b"still well").result(WAIT)


def test_record_above_the_topics_limit_fails_and_the_next_ones_do_not(admin: Admin, producer: Producer, topic: str) -> None:
    admin.alter_topic(topic, config={"max.message.bytes": "10000"})
    first = producer.send(topic, b"1", partition=0)
    assert first.result(WAIT).offset == 0
    large = producer.send(topic, b"x" * 20_000, partition=0)
    after = producer.send(topic, b"2", partition=0)
    with pytest.raises(RecordTooLarge):
        large.result(WAIT)
    assert after.result(WAIT).offset == 1
    assert isinstance(large.exception, RecordTooLarge)


def test_batches_stay_below_the_topics_limit(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    admin.alter_topic(topic, config={"max.message.bytes": "20000"})
    with Producer(broker.server) as producer:
        deliveries = [producer.send(topic, b"x" * 1_000, partition=0) for _ in range(200)]
    assert [delivery.exception for delivery in deliveries] == [None] * 200


def test_partitions_assigned_by_hand_are_read_from_where_one_seeks(
    broker: BrokerProcess, producer: Producer, topic: str
) -> None:
    for number in range(100):
        producer.send(topic, b"%d" % number, partition=number % 2, timestamp_ms=1_000_000 + number)
    producer.flush(WAIT)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with Consumer(server=broker.server) as consumer:
        consumer.assign([first, second])
        assert consumer.assignment() == {first, second}
        assert consumer.position(first) == 0
        assert consumer.beginning_offsets([first]) == {first: 0}
        assert consumer.end_offsets([first, second]) == {first: 50, second: 50}
        assert consumer.offsets_for_times({first: 1_000_050, second: 2_000_000}) == {first: 25, second: -1}
        consumer.seek(first, 45)
        consumer.seek(second, 49)
        records = read(consumer, 6)
        assert sorted((record.partition, record.offset) for record in records) == [(0, n) for n in range(45, 50)] + [(1, 49)]
        assert consumer.position(first) == 50
        consumer.assign([second])
        consumer.seek(second, 48)
        assert [record.offset for record in read(consumer, 2)] == [48, 49]
        with pytest.raises(InvalidRequest):
            consumer.seek(first, 0)


def test_seek_inside_a_loop_takes_effect_at_once(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    for number in range(50):
        producer.send(topic, b"%d" % number, partition=0)
    producer.flush(WAIT)
    seen = []
    with Consumer(topic, server=broker.server) as consumer:
        for record in consumer:
            seen.append(record.offset)
            if record.offset == 5:
                consumer.seek(record.topic_partition, 40)
            if record.offset == 49:
                break
    assert seen == [0, 1, 2, 3, 4, 5, *range(40, 50)]


def test_loop_that_was_left_goes_on_where_it_was(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    for number in range(30):
        producer.send(topic, b"%d" % number, partition=0)
    producer.flush(WAIT)
    seen = []
    with Consumer(topic, server=broker.server) as consumer:
        for record in consumer:
            seen.append(record.offset)
            if record.offset == 9:
                break
        seen += [record.offset for record in consumer.poll(1_000, max_records=5)]
        for record in consumer:
            seen.append(record.offset)
            if record.offset == 29:
                break
    assert seen == list(range(30))


def test_poll_returns_at_most_what_is_asked_for_and_waits_no_longer_than_told(
    broker: BrokerProcess, producer: Producer, topic: str
) -> None:
    for number in range(30):
        producer.send(topic, b"%d" % number, partition=0)
    producer.flush(WAIT)
    with Consumer(topic, server=broker.server, max_poll_records=12) as consumer:
        sizes = [len(consumer.poll(5_000)) for _ in range(3)]
        assert sizes == [12, 12, 6]
        assert consumer.poll(50) == []


def test_paused_partition_hands_out_nothing_until_it_is_resumed(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    for number in range(20):
        producer.send(topic, b"%d" % number, partition=number % 2)
    producer.flush(WAIT)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with Consumer(server=broker.server) as consumer:
        consumer.assign([first, second])
        consumer.pause([first])
        assert {record.partition for record in read(consumer, 10)} == {1}
        assert consumer.poll(100) == []
        consumer.resume([first])
        assert [record.partition for record in read(consumer, 10)] == [0] * 10


def test_latest_begins_with_what_comes_after(broker: BrokerProcess, producer: Producer, topic: str) -> None:
    producer.send(topic, b"before", partition=0).result(WAIT)
    with Consumer(server=broker.server, auto_offset_reset="latest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        assert consumer.position(TopicPartition(topic, 0)) == 1
        producer.send(topic, b"after", partition=0).result(WAIT)
        assert [record.value for record in read(consumer, 1)] == [b"after"]


def test_offset_that_is_gone_is_an_error_or_a_reset_as_told(
    broker: BrokerProcess, producer: Producer, admin: Admin, topic: str
) -> None:
    tp = TopicPartition(topic, 0)
    for number in range(10):
        producer.send(topic, b"%d" % number, partition=0)
    producer.flush(WAIT)
    admin.trim(topic, 0, 6)
    with Consumer(server=broker.server, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 2)
        assert [record.offset for record in read(consumer, 4)] == [6, 7, 8, 9]
    with Consumer(server=broker.server, group_id="strict", auto_offset_reset="error") as strict:
        strict.assign([tp])
        with pytest.raises(NoOffset):
            read(strict, 1)
        strict.seek(tp, 2)
        with pytest.raises(OffsetOutOfRange, match="offset 2"):
            read(strict, 1)
        strict.seek(tp, 9)
        assert [record.offset for record in read(strict, 1)] == [9]


def test_reader_of_a_topic_that_is_not_there_is_told(broker: BrokerProcess, admin: Admin) -> None:
    with Consumer("not-there-yet", server=broker.server) as consumer:
        with pytest.raises(UnknownTopic):
            read(consumer, 1)
        admin.create_topic("not-there-yet")
        with Producer(broker.server) as producer:
            producer.send("not-there-yet", b"v")
        deadline = time.monotonic() + WAIT
        records: list[Record] = []
        while not records and time.monotonic() < deadline:
            try:
                records = consumer.poll(200)
            except UnknownTopic:
                continue
        assert [record.value for record in records] == [b"v"]


def test_closed_clients_say_so(broker: BrokerProcess, topic: str) -> None:
    producer = Producer(broker.server)
    producer.send(topic, b"v")
    producer.close()
    producer.close()
    with pytest.raises(LogsvcError, match="closed"):
        producer.send(topic, b"v")
    consumer = Consumer(topic, server=broker.server)
    consumer.close()
    consumer.close()
    with pytest.raises(LogsvcError, match="closed"):
        consumer.poll(10)
