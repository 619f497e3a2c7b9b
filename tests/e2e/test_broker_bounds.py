"""What a broker costs at most, measured on a real process: with a thousand partitions, five hundred clients, storms of them.

The bounds asserted here are those of docs/limits.md. Times are those of a machine that does other things too; what was felt is
printed (`-rP`).
"""

import contextlib
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer
from logsvc_common import messages as m
from logsvc_common.batch import RecordData, encode
from tests.e2e.crowd import Crowd, Felt, good_client, open_files
from tests.e2e.raw_peer import RawPeer
from tests.e2e.raw_zmtp import RawZmtp
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic, resident_bytes

MIB = 1 << 20
PARTITIONS = 1_000
CLIENTS = 500
FULL_CLIENTS = 20  # of them with a real producer or consumer, the others speak the protocol by hand
RESIDENT_BYTES_MAX = 200 * MIB
P99_MS_MAX = 5_000.0  # on a busy machine; the figure itself is printed


def files_max(partitions: int, clients: int) -> int:
    """As docs/operations.md tells to reckon."""
    return 2 * partitions + clients + 200


def settles(what: str, measured: Callable[[], int], limit: int, within_s: float = 20.0) -> None:
    """`measured()` falls to `limit` in time."""
    deadline = time.monotonic() + within_s
    while (now := measured()) > limit:
        assert time.monotonic() < deadline, f"{what}: {now}, at most {limit}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--log-level", "warning") as running:
        ensure_good_topic(running)
        with Admin(running.server, timeout_ms=120_000) as admin:
            admin.create_topic("wide", partitions=PARTITIONS)
        assert_unharmed(running)
        yield running
        running.kill()  # a good end writes a checkpoint for each of the thousand


@pytest.fixture(autouse=True)
def _unharmed_afterwards(broker: BrokerProcess) -> Iterator[None]:
    yield
    assert_unharmed(broker)


def test_a_thousand_partitions_and_five_hundred_clients_cost_what_is_documented(broker: BrokerProcess) -> None:
    # Given a record in each of a thousand partitions, and 500 clients: some whole ones that write and read, the others each
    # with a long poll
    batch = encode([RecordData(b"x" * 100, timestamp_ms=1)])
    felt: list[Felt] = []
    producers = [Producer(broker.server) for _ in range(FULL_CLIENTS // 2)]
    consumers = [Consumer("wide", group_id="bounds", server=broker.server) for _ in range(FULL_CLIENTS // 2)]
    try:
        with good_client(broker.server, felt.append), Crowd(broker.server, CLIENTS - FULL_CLIENTS) as crowd:
            crowd.greet()
            for first in range(0, PARTITIONS, CLIENTS - FULL_CLIENTS):
                wanted = [m.ProducePartition("wide", (first + n) % PARTITIONS) for n in range(CLIENTS - FULL_CLIENTS)]
                crowd.tell(lambda number, wanted=wanted: m.Produce([wanted[number]]), [batch])  # type: ignore[misc]
                crowd.hear()
            for producer in producers:
                for number in range(100):
                    producer.send("wide", b"y", partition=number * 10)
            for producer in producers:
                producer.flush()
            for consumer in consumers:
                consumer.poll(timeout_ms=50)
            crowd.tell(lambda n: m.Fetch([m.FetchPartition("good", 0, 0)], 2_000, 1 << 30))
            files, resident = open_files(broker.pid), resident_bytes(broker.pid)
            crowd.hear()
            resident = max(resident, resident_bytes(broker.pid))
    finally:
        for client in (*producers, *consumers):
            client.close()
    # Then memory and descriptors are within what the documents say, and a good client was served beside them.
    print(f"{PARTITIONS} partitions, {CLIENTS} clients: {resident / MIB:.0f} MiB, {files} files; good client {felt[0]}")
    assert resident < RESIDENT_BYTES_MAX
    assert files < files_max(PARTITIONS, CLIENTS)
    assert felt[0].p99_ms < P99_MS_MAX
    # Descriptors of clients that left are given back.
    settles("open files", lambda: open_files(broker.pid), files_max(PARTITIONS, 0))


def test_five_hundred_clients_that_reconnect_at_once_again_and_again_are_all_served(broker: BrokerProcess) -> None:
    # Given five storms: 500 clients connect at once, greet, ask what there is, and hang up
    felt: list[Felt] = []
    seconds, resident = [], []
    with good_client(broker.server, felt.append):
        for _ in range(5):
            with Crowd(broker.server, CLIENTS) as crowd:
                seconds.append(crowd.greet())
                crowd.tell(lambda _: m.Metadata(["good"], True))
                crowd.hear()
            resident.append(resident_bytes(broker.pid))
    # Then every one was served, a good client beside them too,
    print(f"storms of {CLIENTS}: served in {[f'{taken:.2f} s' for taken in seconds]}; good client {felt[0]}")
    print(f"memory after each: {[f'{size / MIB:.0f} MiB' for size in resident]}")
    assert felt[0].p99_ms < P99_MS_MAX
    # and a storm leaves nothing: the last ones cost no more memory than the first, and descriptors are given back.
    assert resident[-1] - resident[0] < 24 * MIB
    settles("open files", lambda: open_files(broker.pid), files_max(PARTITIONS, 0))


def test_four_hundred_half_open_connections_cost_a_descriptor_each_for_two_seconds(broker: BrokerProcess) -> None:
    before, felt = open_files(broker.pid), list[Felt]()
    with good_client(broker.server, felt.append):
        silent = [RawZmtp(broker.server) for _ in range(400)]
        try:
            time.sleep(0.5)
            during = open_files(broker.pid)
            assert during <= before + 400 + 20
            # When their time for a handshake is over, then their descriptors are free, though not one has hung up.
            settles("open files", lambda: open_files(broker.pid), before + 20)
        finally:
            for connection in silent:
                connection.socket.close()
    print(f"400 half-open connections: {during - before} files more at first; good client {felt[0]}")
    assert felt[0].p99_ms < P99_MS_MAX


def test_messages_of_many_frames_and_of_large_ones_are_refused_and_cost_no_memory_for_long(broker: BrokerProcess) -> None:
    # Given peers that send messages of 50,000 frames, and of the largest frame there may be, over and over
    before, felt = resident_bytes(broker.pid), list[Felt]()
    with good_client(broker.server, felt.append), RawPeer(broker.server) as peer:
        for _ in range(5):
            peer.send_frames([b"x"] * 50_000)
            peer.receive_frames()
        large = bytes(70 * MIB)
        for _ in range(4):
            peer.send_frames([large])
            peer.receive_frames()
    print(f"messages of 50,000 frames and of 70 MiB: good client {felt[0]}")
    assert felt[0].p99_ms < P99_MS_MAX
    settles("resident bytes", lambda: resident_bytes(broker.pid), before + 160 * MIB)


def test_hundreds_of_idle_and_slow_http_connections_keep_nobody_out(broker: BrokerProcess) -> None:
    # Given 400 connections to the HTTP port: silent ones, ones with half a request, and ones that do not read their answer
    assert broker.http_url is not None
    host, port = broker.http_url.removeprefix("http://").rsplit(":", 1)
    openings = [
        b"",
        b"GET /metr",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    before, resident = open_files(broker.pid), resident_bytes(broker.pid)
    connections, taken_s = [], []
    try:
        for number in range(400):
            connections.append(socket.create_connection((host, int(port)), 10))
            with contextlib.suppress(ConnectionError):
                connections[-1].sendall(openings[number % len(openings)])
            if number % 40 == 39:
                # Then good clients are answered beside them,
                started = time.monotonic()
                with urllib.request.urlopen(f"{broker.http_url}/healthz", timeout=30) as answer:
                    assert answer.status == 200
                taken_s.append(time.monotonic() - started)
        # and they cost no more descriptors than connections are allowed, and little memory.
        during = open_files(broker.pid)
        print(f"400 slow HTTP connections: {during - before} files more; /healthz took up to {max(taken_s):.2f} s")
        settles("open files", lambda: open_files(broker.pid), before + 64 + 10)
        assert resident_bytes(broker.pid) - resident < 64 * MIB
    finally:
        for connection in connections:
            connection.close()
