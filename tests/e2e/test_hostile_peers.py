"""Peers that misuse the connection itself: they do not read, do not finish, or never stop sending.

Whatever one does, the others are served and the broker's memory stays bounded. One thing cannot be bounded from above libzmq:
the frames of a message that is not complete yet. They go when the peer goes (see the test of the endless message); an
address-space limit on the process is the last wall.
"""

import time
from collections.abc import Iterator

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_common import messages as m
from logsvc_common.batch import RecordData, encode
from logsvc_common.frames import encode_request
from tests.e2e.raw_peer import RawPeer
from tests.e2e.raw_zmtp import GREETING, RawZmtp
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic, resident_bytes

MIB = 1 << 20
HANDSHAKE_S = 2.0  # the broker cuts a handshake that takes longer
PEER_QUEUE_BYTES = 64 * MIB  # answers waiting for one peer, the default setting
# What Python, libzmq and the allocator need beside the queue itself.
SLACK_BYTES = 120 * MIB


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--log-level", "warning") as running:
        ensure_good_topic(running)
        with RawPeer(running.server) as peer:
            peer.create_topic("large", 1)
            batch = encode([RecordData(b"x" * (MIB - 100), timestamp_ms=1)])
            for _ in range(16):
                peer.produce("large", 0, batch)
        assert_unharmed(running)
        yield running


@pytest.fixture(autouse=True)
def _unharmed_afterwards(broker: BrokerProcess) -> Iterator[None]:
    yield
    assert_unharmed(broker)


def settles_below(broker: BrokerProcess, limit: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while resident_bytes(broker.pid) > limit:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_peer_that_never_reads_costs_bounded_memory(broker: BrokerProcess) -> None:
    # Given a peer that asks for 16 MiB a hundred times, 1.6 GiB in all, and takes nothing
    before = resident_bytes(broker.pid)
    with RawPeer(broker.server, receive_high_water=1) as peer:
        largest = before
        for _ in range(100):
            peer.send(m.Fetch([m.FetchPartition("large", 0, 0, 16 * MIB)], 0, 1, 16 * MIB))
            largest = max(largest, resident_bytes(broker.pid))
        # When the broker has had its time to answer them all, then it holds no more than one peer may make it hold.
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            largest = max(largest, resident_bytes(broker.pid))
            time.sleep(0.02)
        assert_unharmed(broker)
        assert largest - before < PEER_QUEUE_BYTES + SLACK_BYTES, f"{(largest - before) / MIB:.0f} MiB"


def test_a_peer_that_asks_for_small_answers_and_never_reads_costs_bounded_memory(broker: BrokerProcess) -> None:
    before = resident_bytes(broker.pid)
    with RawPeer(broker.server, receive_high_water=1) as peer:
        for _ in range(30_000):
            peer.send(m.Metadata(None, True))
        assert_unharmed(broker)
        assert resident_bytes(broker.pid) - before < PEER_QUEUE_BYTES + SLACK_BYTES


def test_four_hundred_connections_that_do_not_finish_their_handshake_are_cut(broker: BrokerProcess) -> None:
    # Given 400 connections: silent ones, ones in the middle of the greeting, ones that never say who they are, and noise
    openings = [b"", GREETING[:10], GREETING[:40], GREETING, bytes(64), b"\xff" * 64]
    connections = [RawZmtp(broker.server) for _ in range(400)]
    try:
        opened = time.monotonic()
        for number, connection in enumerate(connections):
            connection.socket.sendall(openings[number % len(openings)])
        # Then good clients are served beside them,
        assert_unharmed(broker)
        # and all are cut once the time for a handshake is over.
        for connection in connections:
            assert connection.is_cut(within_s=max(0.1, opened + 3 * HANDSHAKE_S - time.monotonic()))
    finally:
        for connection in connections:
            connection.socket.close()


def test_a_frame_of_a_tebibyte_is_refused_by_its_head(broker: BrokerProcess) -> None:
    before = resident_bytes(broker.pid)
    for size in (73 * MIB, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        with RawZmtp(broker.server) as peer:
            peer.handshake()
            peer.claim(size)
            assert peer.is_cut(within_s=2)
    assert resident_bytes(broker.pid) - before < 8 * MIB


def test_a_frame_that_is_claimed_and_never_sent_is_not_paid_for(broker: BrokerProcess) -> None:
    before = resident_bytes(broker.pid)
    peers = [RawZmtp(broker.server) for _ in range(20)]
    try:
        for peer in peers:
            peer.handshake()
            peer.claim(70 * MIB)
            peer.socket.sendall(b"x")
        assert_unharmed(broker)
        # Room for a frame is reserved, and becomes memory only as it is filled.
        assert resident_bytes(broker.pid) - before < 20 * MIB
    finally:
        for peer in peers:
            peer.socket.close()


def test_messages_without_an_end_harm_nobody_and_their_memory_is_used_again(broker: BrokerProcess) -> None:
    before = resident_bytes(broker.pid)
    for _ in range(5):
        # Given a peer that sends 100 MiB of frames, each with "more to come"
        with RawZmtp(broker.server) as peer:
            peer.handshake()
            for _ in range(100):
                peer.frame(bytes(MIB), more=True)
            # Then others are served while libzmq holds what may still become a message,
            assert_unharmed(broker)
    # and what left with one peer is there for the next: five cost no more than one.
    assert settles_below(broker, before + 160 * MIB, within_s=10)


def test_web_browsers_and_scanners_harm_nobody(broker: BrokerProcess) -> None:
    # libzmq takes what is no ZMTP 3 for ZMTP 1.0, which has no handshake to time: such a connection holds a descriptor until
    # its peer goes, and nothing else.
    before = resident_bytes(broker.pid)
    connections = [RawZmtp(broker.server) for _ in range(100)]
    try:
        for connection in connections:
            connection.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert_unharmed(broker)
    finally:
        for connection in connections:
            connection.socket.close()
    assert resident_bytes(broker.pid) - before < 16 * MIB


def test_a_peer_that_hangs_up_in_the_middle_of_a_message_leaves_nothing(broker: BrokerProcess) -> None:
    for _ in range(50):
        with RawZmtp(broker.server) as peer:
            peer.handshake()
            peer.frame(b"\x94\x01", more=True)
            peer.socket.sendall(b"\x02" + (1_000).to_bytes(8, "big") + b"half")


def test_peers_that_leave_before_their_answer_is_ready_are_forgotten(broker: BrokerProcess) -> None:
    for _ in range(100):
        with RawPeer(broker.server) as peer:
            peer.send_frames(encode_request(1, m.Fetch([m.FetchPartition("good", 0, 0)], 300, 1 << 30)))


def test_two_peers_with_the_same_routing_id_do_not_read_each_others_answers(broker: BrokerProcess) -> None:
    # A routing id is an address and no identity: the second one with it is not let in, or replaces nothing.
    with RawPeer(broker.server) as first, RawPeer(broker.server) as second:
        for number in range(20):
            assert first.hello().broker_id == second.hello().broker_id
            assert next(r.offset for r in first.read_all("large", 0, number % 16)) == number % 16
