"""Many peers that ask and do not read, each a little: what all of them together may make a broker hold is bounded too."""

import time
from collections.abc import Iterator

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_common import messages as m
from logsvc_common.batch import RecordData, encode
from tests.e2e.crowd import Crowd, Felt, good_client
from tests.e2e.raw_peer import RawPeer
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic, resident_bytes

MIB = 1 << 20
QUEUE_BYTES = 128 * MIB  # LOGSVC_QUEUE_BYTES_MAX here
PEER_QUEUE_BYTES = 32 * MIB  # LOGSVC_PEER_QUEUE_BYTES_MAX
PEERS = 40
ASKED_BYTES = 8 * MIB
SLACK_BYTES = 120 * MIB  # what Python, libzmq and the allocator need beside the queues


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerProcess]:
    monkeypatch.setenv("LOGSVC_QUEUE_BYTES_MAX", str(QUEUE_BYTES))
    monkeypatch.setenv("LOGSVC_PEER_QUEUE_BYTES_MAX", str(PEER_QUEUE_BYTES))
    with broker_process(None, "--log-level", "error") as running:
        ensure_good_topic(running)
        with RawPeer(running.server) as peer:
            peer.create_topic("large", 1)
            batch = encode([RecordData(b"x" * (MIB - 100), timestamp_ms=1)])
            for _ in range(16):
                peer.produce("large", 0, batch)
        assert_unharmed(running)
        yield running


def test_forty_peers_that_do_not_read_cost_no_more_than_the_bound_for_all(broker: BrokerProcess) -> None:
    # Given forty peers that ask for 32 MiB each and take nothing, 1.25 GiB in all
    before = largest = resident_bytes(broker.pid)
    felt: list[Felt] = []
    with good_client(broker.server, felt.append), Crowd(broker.server, PEERS, receive_high_water=1) as crowd:
        for _ in range(4):
            crowd.tell(lambda _: m.Fetch([m.FetchPartition("large", 0, 0, ASKED_BYTES)], 0, 1, ASKED_BYTES))
            largest = max(largest, resident_bytes(broker.pid))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            largest = max(largest, resident_bytes(broker.pid))
            time.sleep(0.02)
    # Then the broker holds what its setting allows for all of them, and others are served.
    print(f"{PEERS} peers that do not read: {(largest - before) / MIB:.0f} MiB more at most; good client {felt[0]}")
    assert largest - before < QUEUE_BYTES + SLACK_BYTES
    assert felt[0].p99_ms < 5_000
    assert_unharmed(broker)
