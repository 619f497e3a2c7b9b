"""Groups against a real broker: sharing, moving, committing, failing, retrying, order by key, `run`."""

import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import (
    Admin,
    Consumer,
    InvalidRequest,
    Producer,
    Record,
    RetryPolicy,
    TopicPartition,
)

WAIT = 20.0
SOON = RetryPolicy(max_attempts=3, initial_ms=20, max_ms=50)


@pytest.fixture
def admin(broker: BrokerProcess) -> Iterator[Admin]:
    with Admin(broker.server) as made:
        yield made


@pytest.fixture
def topic(admin: Admin, request: pytest.FixtureRequest) -> str:
    name = f"groups.{request.node.name[:100].translate(str.maketrans('[]', '..'))}"
    admin.create_topic(name, partitions=4)
    return name


def produce(broker: BrokerProcess, topic: str, count: int, *, keys: int = 8, partition: int | None = None) -> None:
    with Producer(broker.server) as producer:
        for number in range(count):
            producer.send(topic, b"%d" % number, key=b"k%d" % (number % keys), partition=partition)


def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + WAIT
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.poll(200)
    return records


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def handle_all(consumer: Consumer, handler: Callable[[Record], None], done: Callable[[], bool], **run: object) -> None:
    """Run `handler` until `done`."""

    def watch() -> None:
        eventually(done)
        consumer.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    consumer.run(handler, **run)  # type: ignore[arg-type]
    watcher.join()


def lag(admin: Admin, group: str) -> int:
    return sum(partition.lag for partition in admin.describe_group(group).partitions)


def test_group_goes_on_where_it_was(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 100)
    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        first = consumer.poll(5_000, max_records=40)
        assert 0 < len(first) <= 40
    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        rest = read(consumer, 100 - len(first))
        assert sum(consumer.committed().values()) <= 100
    offsets = [(record.partition, record.offset) for record in first + rest]
    assert len(offsets) == len(set(offsets)) == 100
    assert lag(admin, topic) == 0


def test_record_in_hand_when_a_loop_raises_is_not_committed(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 10, partition=0)

    def consume_until_it_breaks() -> None:
        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            for record in consumer:
                if record.offset == 4:
                    raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        consume_until_it_breaks()
    committed = admin.committed_offsets(topic)[TopicPartition(topic, 0)].committed
    assert committed == 4


def test_without_auto_commit_only_commit_commits(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 20, partition=0)
    tp = TopicPartition(topic, 0)
    with Consumer(topic, group_id=topic, server=broker.server, auto_commit=False) as consumer:
        for record in consumer:
            if record.offset == 6:
                consumer.commit()
            if record.offset == 12:
                break
        assert consumer.committed([tp]) == {tp: 7}
    assert admin.committed_offsets(topic)[tp].committed == 7


def test_partitions_are_shared_and_move_when_members_come_and_go(broker: BrokerProcess, topic: str) -> None:
    def settled(*consumers: Consumer) -> bool:
        for consumer in consumers:
            consumer.poll(10)
        held = [consumer.assignment() for consumer in consumers]
        return sum(map(len, held)) == len(frozenset().union(*held)) == 4 and max(map(len, held)) == 4 // len(consumers)

    with Consumer(topic, group_id=topic, server=broker.server) as first:
        assert eventually(lambda: settled(first))
        with Consumer(topic, group_id=topic, server=broker.server) as second:
            assert eventually(lambda: settled(first, second))
            produce(broker, topic, 400, keys=50)
            seen = [(r.partition, r.offset) for _ in range(20) for c in (first, second) for r in c.poll(50)]
            assert len(seen) == len(set(seen)) == 400
        assert eventually(lambda: settled(first))


def test_moving_partitions_lose_and_double_nothing_while_records_flow(broker: BrokerProcess, topic: str) -> None:
    handled: Counter[tuple[int, int]] = Counter()
    lock = threading.Lock()

    def handler(record: Record) -> None:
        with lock:
            handled[record.partition, record.offset] += 1
        time.sleep(0.0005)

    def work() -> None:
        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            consumers.append(consumer)
            consumer.run(handler)

    consumers: list[Consumer] = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    threads[0].start()
    produce(broker, topic, 1_000, keys=50)
    threads[1].start()
    produce(broker, topic, 1_000, keys=50)
    threads[2].start()
    assert eventually(lambda: len(handled) > 1_000)
    consumers[0].stop()
    threads[0].join()
    assert eventually(lambda: len(handled) == 2_000)
    for consumer in consumers:
        consumer.stop()
    for thread in threads:
        thread.join()
    assert set(handled.values()) == {1}


def test_failed_record_comes_back_until_its_budget_is_spent_and_then_is_a_dead_letter(
    broker: BrokerProcess, admin: Admin, topic: str
) -> None:
    produce(broker, topic, 40)
    attempts: dict[bytes, list[int]] = defaultdict(list)

    def handler(record: Record) -> None:
        assert record.value is not None
        attempts[record.value].append(record.attempt)
        if record.value in (b"7", b"20"):
            raise ValueError(f"cannot handle {record.value!r}")

    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        handle_all(consumer, handler, lambda: sum(map(len, attempts.values())) == 44, retry=SOON)
    assert lag(admin, topic) == 0
    assert attempts[b"7"] == attempts[b"20"] == [1, 2, 3]
    assert all(made == [1] for value, made in attempts.items() if value not in (b"7", b"20"))
    letters_topic = f"dlq.{topic}.{topic}"
    assert eventually(lambda: any(found.topic == letters_topic for found in admin.list_topics()))
    with Consumer(letters_topic, server=broker.server) as letters:
        found = {record.value: dict(record.headers) for record in read(letters, 2)}
    assert found.keys() == {b"7", b"20"}
    assert found[b"7"]["__dlq.errors.message"] == b"cannot handle b'7'"
    assert found[b"7"]["logsvc.dlq.exception.class"] == b"ValueError"
    assert found[b"7"]["__dlq.errors.delivery.count"] == b"3"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_order_of_each_key_is_kept_through_failures(broker: BrokerProcess, topic: str, concurrency: int) -> None:
    produce(broker, topic, 400, keys=10)
    finished: dict[bytes, list[int]] = defaultdict(list)

    def handler(record: Record) -> None:
        assert record.value is not None
        assert record.key is not None
        number = int(record.value)
        if number % 50 == 3 and record.attempt < 3:  # fewer failures than open the group's breaker
            raise ValueError("not yet")
        finished[record.key].append(number)

    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        done = lambda: sum(map(len, finished.values())) >= 400  # noqa: E731
        handle_all(consumer, handler, done, retry=SOON, concurrency=concurrency)
    assert sum(map(len, finished.values())) == 400
    assert all(numbers == sorted(numbers) for numbers in finished.values())


def test_partition_waits_behind_a_failure_when_told_so(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, 30, partition=0)
    finished: list[int] = []

    def handler(record: Record) -> None:
        assert record.value is not None
        if record.value == b"4" and record.attempt < 3:
            raise ValueError("not yet")
        finished.append(int(record.value))

    policy = RetryPolicy(max_attempts=5, initial_ms=20, ordering="partition")
    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        handle_all(consumer, handler, lambda: len(finished) >= 30, retry=policy)
    assert finished == list(range(30))


def test_records_failed_in_a_loop_come_back_too(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, 20, keys=1, partition=0)
    seen: list[tuple[int, int]] = []
    with Consumer(topic, group_id=topic, server=broker.server, retry=SOON) as consumer:
        for record in consumer:
            seen.append((record.offset, record.attempt))
            if record.offset == 5 and record.attempt == 1:
                consumer.fail(record, "try again")
            if record.offset == 19:
                break
    assert seen == [(n, 1) for n in range(6)] + [(5, 2)] + [(n, 1) for n in range(6, 20)]


def test_failures_survive_their_consumer(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 10, keys=5, partition=0)
    slow = RetryPolicy(max_attempts=5, initial_ms=300, jitter=0.0)
    with Consumer(topic, group_id=topic, server=broker.server, retry=slow) as consumer:
        for record in consumer:
            if record.offset == 2:
                consumer.fail(record, RuntimeError("no"))
            if record.offset == 9 or record.attempt > 1:
                break
    with Consumer(topic, group_id=topic, server=broker.server, retry=slow) as consumer:
        records = read(consumer, 2)
    # Record 7 has the key of record 2: it waited behind it.
    assert [(record.offset, record.attempt) for record in records] == [(2, 2), (7, 1)]


def test_exception_named_in_the_policy_is_not_tried_again(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 3, partition=0)
    attempts: Counter[int] = Counter()

    def handler(record: Record) -> None:
        attempts[record.offset] += 1
        if record.offset == 1:
            raise KeyError("hopeless")

    policy = RetryPolicy(max_attempts=5, initial_ms=10, no_retry=("KeyError",))
    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        letters = f"dlq.{topic}.{topic}"
        handle_all(consumer, handler, lambda: any(found.topic == letters for found in admin.list_topics()), retry=policy)
    assert attempts == {0: 1, 1: 1, 2: 1}


def test_signal_drains_a_run_and_the_rest_goes_back_unspent(broker: BrokerProcess, admin: Admin, topic: str) -> None:
    produce(broker, topic, 50, partition=0)
    before = signal.getsignal(signal.SIGTERM)
    handled: list[int] = []

    def handler(record: Record) -> None:
        handled.append(record.offset)
        if record.offset == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        consumer.run(handler)
    assert signal.getsignal(signal.SIGTERM) == before
    assert handled == list(range(11))
    assert admin.committed_offsets(topic)[TopicPartition(topic, 0)].committed == 11
    with Consumer(topic, group_id=topic, server=broker.server) as consumer:
        records = read(consumer, 39)
    assert [(record.offset, record.attempt) for record in records] == [(n, 1) for n in range(11, 50)]


def test_slow_handler_keeps_its_membership(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, 2, partition=0)
    handled: list[int] = []

    def handler(record: Record) -> None:
        time.sleep(1.5)
        handled.append(record.offset)

    with Consumer(topic, group_id=topic, server=broker.server, session_timeout_ms=1_000) as consumer:
        handle_all(consumer, handler, lambda: len(handled) >= 2)
    assert handled == [0, 1]


def test_partitions_assigned_by_hand_commit_to_a_group_without_joining_it(broker: BrokerProcess, topic: str) -> None:
    produce(broker, topic, 10, partition=2)
    tp = TopicPartition(topic, 2)
    for expected in (range(10), range(0)):
        with Consumer(group_id=topic, server=broker.server) as consumer:
            consumer.assign([tp])
            consumer.position(tp)
            assert [record.offset for record in consumer.poll(300)] == list(expected)


def test_run_without_a_group_is_refused(broker: BrokerProcess, topic: str) -> None:
    with Consumer(topic, server=broker.server) as consumer, pytest.raises(InvalidRequest, match="needs a group"):
        consumer.run(print)
