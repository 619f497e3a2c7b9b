"""Real clients and a real broker over a network that delays, cuts, holds and loses: none twice, none lost, nobody stuck."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, RecordMetadata
from logsvc_common.errors import UnknownGroup
from logsvc_common.messages import DescribeGroupReply
from tests.crash.fault_proxy import DOWN, UP, FaultProxy, fault_proxy
from tests.e2e.raw_peer import RawPeer

TOPIC = "orders"
PARTITIONS = 2
WAIT_S = 60.0
# Heartbeats: every second, and two more until the other side counts as gone. The request timeout is 30 s.
NOTICED_WITHIN_S = 12.0
# When only what the client sends is lost, it still hears the broker's heartbeats: the broker notices, after the 30 s that it
# gives a slow link to carry a batch.
NOTICED_BY_THE_BROKER_WITHIN_S = 45.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path / "data", "--log-level", "warning", "--http-port", "-1") as running:
        with RawPeer(running.server) as peer:
            peer.create_topic(TOPIC, PARTITIONS)
        yield running


@pytest.fixture
def proxy(broker: BrokerProcess) -> Iterator[FaultProxy]:
    with fault_proxy(broker.server) as made:
        yield made


def stored(broker: BrokerProcess) -> list[list[int]]:
    with RawPeer(broker.server) as peer:
        return [[int(record.value or b"") for record in peer.read_all(TOPIC, partition)] for partition in range(PARTITIONS)]


@contextmanager
def sending(server: str, *, idempotent: bool = True) -> Iterator[dict[int, RecordMetadata]]:
    """Numbered records to both partitions in turn while the block runs; then waits until each has ended in a result."""
    acked: dict[int, RecordMetadata] = {}
    failed: list[BaseException] = []
    stop = threading.Event()
    producer = Producer(server, linger_ms=1, batch_bytes=4 << 10, buffer_bytes=64 << 10, idempotent=idempotent)

    def told(number: int, where: RecordMetadata | None, error: BaseException | None) -> None:
        if where is not None:
            acked[number] = where
        elif error is not None:
            failed.append(error)

    def send() -> None:
        number = 0
        while not stop.is_set():
            producer.send(TOPIC, b"%d" % number, partition=number % 2, on_delivery=lambda w, e, n=number: told(n, w, e))
            number += 1
            if number % 20 == 0:
                stop.wait(0.002)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield acked
        stop.set()
        thread.join(WAIT_S)
        producer.flush(WAIT_S)
        assert failed == []
    finally:
        stop.set()
        thread.join(WAIT_S)
        producer.close(1)


def wait_for_more(acked: dict[int, RecordMetadata]) -> float:
    """Until more is acknowledged than was; how long that took."""
    began, before = time.monotonic(), len(acked)
    while len(acked) <= before:
        assert time.monotonic() - began < WAIT_S, "nothing is acknowledged any more"
        time.sleep(0.005)
    return time.monotonic() - began


def lose_answers(proxy: FaultProxy, acked: dict[int, RecordMetadata], times: int) -> None:
    for _ in range(times):
        wait_for_more(acked)
        proxy.swallow(DOWN)
        time.sleep(0.05)
        proxy.cut()


def assert_each_once_and_in_order(broker: BrokerProcess, acked: dict[int, RecordMetadata]) -> None:
    found = stored(broker)
    assert sorted(found[0] + found[1]) == list(range(len(acked)))
    assert found == [sorted(partition) for partition in found]
    assert all(found[where.partition][where.offset] == number for number, where in acked.items())


def test_lost_answers_double_nothing(broker: BrokerProcess, proxy: FaultProxy) -> None:
    with sending(proxy.server) as acked:
        lose_answers(proxy, acked, 12)
    assert proxy.swallowed_bytes > 0
    assert_each_once_and_in_order(broker, acked)


def test_without_idempotence_the_same_losses_double_records(broker: BrokerProcess, proxy: FaultProxy) -> None:
    # What shows that the test above puts something to the test
    with sending(proxy.server, idempotent=False) as acked:
        lose_answers(proxy, acked, 12)
    found = stored(broker)
    assert len(found[0] + found[1]) > len(acked)


def test_connections_cut_within_a_frame_lose_nothing_and_readers_go_on(broker: BrokerProcess, proxy: FaultProxy) -> None:
    read: list[list[int]] = [[], []]
    with Consumer(TOPIC, server=proxy.server, fetch_max_wait_ms=100) as consumer, sending(proxy.server) as acked:
        for number in range(20):
            wait_for_more(acked)
            for record in consumer.poll(200):
                read[record.partition].append(int(record.value or b""))
            proxy.cut_within((UP, DOWN)[number % 2])
    assert proxy.cuts_within >= 20
    assert_each_once_and_in_order(broker, acked)
    assert all(numbers == list(range(partition, 2 * len(numbers) + partition, 2)) for partition, numbers in enumerate(read))
    assert sum(map(len, read)) > 0


@pytest.mark.parametrize("directions", [(UP,), (DOWN,), (UP, DOWN)], ids=["up", "down", "both"])
def test_a_connection_that_carries_nothing_any_more_is_noticed_by_heartbeats(
    proxy: FaultProxy, directions: tuple[str, ...]
) -> None:
    # Given a connection that stands and carries nothing one way, where a new one would
    with sending(proxy.server) as acked:
        wait_for_more(acked)
        proxy.hold(*directions)
        time.sleep(0.1)  # what was on its way
        # Then it is found out by silence.
        noticed_s = wait_for_more(acked)
    print(f"held {directions}: noticed and mended within {noticed_s:.1f} s")
    assert noticed_s < (NOTICED_BY_THE_BROKER_WITHIN_S if directions == (UP,) else NOTICED_WITHIN_S)


def test_a_slow_link_is_slow_and_nothing_else(broker: BrokerProcess, proxy: FaultProxy) -> None:
    proxy.delay_s, proxy.bytes_per_s = 0.05, 100_000
    with sending(proxy.server) as acked:
        for _ in range(5):
            wait_for_more(acked)
        proxy.heal()
    assert_each_once_and_in_order(broker, acked)


def test_an_answer_that_takes_longer_than_heartbeats_wait_gets_through(broker: BrokerProcess, proxy: FaultProxy) -> None:
    # Given a batch of 350 kB, and a link that carries it in more than three seconds
    with Producer(broker.server) as producer:
        deliveries = [producer.send(TOPIC, b"x" * 1_000, partition=0) for _ in range(350)]
        producer.flush(WAIT_S)
    assert deliveries[-1].result(WAIT_S).offset == 349
    proxy.bytes_per_s = 100_000
    with Consumer(TOPIC, server=proxy.server) as consumer:
        deadline, got = time.monotonic() + WAIT_S, 0
        while got < 350:
            assert time.monotonic() < deadline, f"{got} records over {proxy.connections} connections"
            got += len(consumer.poll(500))
        proxy.heal()
    assert proxy.connections > 1


def test_a_batch_that_takes_long_to_arrive_gets_through(broker: BrokerProcess, proxy: FaultProxy) -> None:
    # Given 400 kB that a link carries in seven seconds, when they are sent as one batch
    proxy.bytes_per_s = 55_000
    with Producer(proxy.server) as producer:
        deliveries = [producer.send(TOPIC, b"x" * 1_000, partition=0) for _ in range(400)]
        assert deliveries[-1].result(WAIT_S).offset == 399
        proxy.heal()
    assert proxy.connections == 1


def described(server: str) -> DescribeGroupReply:
    with Admin(server) as admin:
        return admin.describe_group("billing")


def settled(server: str, members: list[Consumer]) -> DescribeGroupReply:
    """The group, once all members are in and have what is theirs."""
    deadline = time.monotonic() + WAIT_S
    while True:
        for member in members:
            member.poll(50)
        with contextlib.suppress(UnknownGroup):
            group = described(server)
            if group.state == "stable" and len(group.members) == len(members):
                return group
        assert time.monotonic() < deadline


def polled(members: list[Consumer], count: int) -> list[bytes | None]:
    """The values of the next `count` records that members are given."""
    deadline = time.monotonic() + WAIT_S
    values: list[bytes | None] = []
    while len(values) < count:
        assert time.monotonic() < deadline, values
        for member in members:
            values += [record.value for record in member.poll(50)]
    return values


def test_a_member_keeps_its_session_over_short_cuts(broker: BrokerProcess, proxy: FaultProxy) -> None:
    with Consumer(TOPIC, group_id="billing", server=proxy.server, session_timeout_ms=10_000) as consumer:
        before = settled(broker.server, [consumer])
        # When its connections are cut again and again, and for a second no new one can be made
        for _ in range(5):
            proxy.cut()
            time.sleep(0.1)
        proxy.refusing = True
        proxy.cut()
        time.sleep(1)
        proxy.heal()
        with Producer(broker.server) as producer:
            producer.send(TOPIC, b"7", partition=0).result(WAIT_S)
        # Then it goes on, the same member in the same epoch.
        assert polled([consumer], 1) == [b"7"]
        assert_same_members(before, described(broker.server))


def test_a_stopped_broker_takes_no_member_its_session(broker: BrokerProcess) -> None:
    # Given members, when the broker stands still for longer than their session timeout
    members = [Consumer(TOPIC, group_id="billing", server=broker.server, session_timeout_ms=3_000) for _ in range(2)]
    try:
        before = settled(broker.server, members)
        os.kill(broker.pid, signal.SIGSTOP)
        time.sleep(4.5)
        os.kill(broker.pid, signal.SIGCONT)
        with Producer(broker.server) as producer:
            for partition in range(PARTITIONS):
                producer.send(TOPIC, b"7", partition=partition).result(WAIT_S)
        # Then nobody has lost a session to it.
        assert polled(members, PARTITIONS) == [b"7"] * PARTITIONS
        assert_same_members(before, described(broker.server))
    finally:
        for member in members:
            member.close()


def assert_same_members(before: DescribeGroupReply, after: DescribeGroupReply) -> None:
    assert after.epoch == before.epoch
    assert {member.member_id for member in after.members} == {member.member_id for member in before.members}
