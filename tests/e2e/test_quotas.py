"""Quotas on a real broker: clients keep to their rate by themselves, floods harm nobody, the command line sets them."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import zmq

from logsvc.cli.quota import set_quota
from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, AsyncAdmin, Consumer, Producer
from logsvc_common import messages as m
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import InvalidConfig
from logsvc_common.frames import decode_body, decode_response, encode_request
from tests.e2e.cli_runner import Logsvc
from tests.e2e.crowd import Felt, good_client
from tests.e2e.raw_peer import RawPeer
from tests.e2e.unharmed import ensure_good_topic

MIB = 1 << 20
RATE = 4 * MIB
SECONDS = 5.0


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--log-level", "warning") as running:
        ensure_good_topic(running)
        with Admin(running.server) as admin:
            admin.create_topic("t", partitions=4)
            admin.create_topic("flood", config={"retention.bytes": str(64 * MIB)})
        yield running


def test_a_producer_and_a_consumer_keep_to_their_rate(broker: BrokerProcess) -> None:
    with Admin(broker.server) as admin:
        admin.alter_quota("slow", {"producer_byte_rate": RATE, "consumer_byte_rate": RATE})
    # Given a producer that would send far more than its quota, in as many requests as it likes
    size = round(RATE * SECONDS)
    started = time.monotonic()
    with Producer(broker.server, client_id="slow", buffer_bytes=2 * MIB) as producer:
        for _ in range(size // 10_000):
            producer.send("t", b"x" * 10_000)
    wrote_s = time.monotonic() - started
    # Then it takes as long as the quota says, less the second saved up and what is still owed; it is not starved either.
    assert SECONDS - 1.75 < wrote_s < SECONDS * 3
    # And a consumer reads at its rate, every record once.
    got: list[tuple[int, int]] = []
    started = time.monotonic()
    with Consumer("t", server=broker.server, client_id="slow", auto_offset_reset="earliest") as consumer:
        while len(got) < size // 10_000 and time.monotonic() - started < SECONDS * 6:
            got += [(record.partition, record.offset) for record in consumer.poll(timeout_ms=500)]
    read_s = time.monotonic() - started
    print(f"{RATE / MIB:.0f} MiB/s allowed: wrote {size / MIB / wrote_s:.1f} MiB/s, read {size / MIB / read_s:.1f} MiB/s")
    assert len(set(got)) == len(got) == size // 10_000
    assert SECONDS - 2.25 < read_s < SECONDS * 3
    assert broker.http_url is not None
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert 'logsvc_throttled_requests_total{api="produce"}' in metrics
    assert 'logsvc_throttle_seconds_total{api="fetch"}' in metrics
    assert 'code="QuotaExceeded"' not in metrics  # clients that wait as told are never refused


def test_batches_refused_for_bytes_in_flight_are_sent_again_each_once_in_order(broker: BrokerProcess) -> None:
    # Given a client that may have next to nothing in flight, and two idempotent producers of it that send much at once
    with Admin(broker.server) as admin:
        admin.create_topic("narrow", partitions=4)
        admin.alter_quota("narrow", {"in_flight_bytes": 40_000})
    producers = [Producer(broker.server, client_id="narrow", batch_bytes=8_000, linger_ms=0) for _ in range(2)]
    for number in range(400):
        for name, producer in enumerate(producers):
            producer.send("narrow", b"%d %d" % (name, number) + b" " * 500, partition=number % 4)
    for producer in producers:
        producer.close()
    # Then every record is there once, in each producer's order.
    with RawPeer(broker.server) as peer:
        for partition in range(4):
            found = [tuple(map(int, record.value.split())) for record in peer.read_all("narrow", partition) if record.value]
            for name in range(2):
                assert [number for by, number in found if by == name] == list(range(partition, 400, 4))
    assert broker.http_url is not None
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
        refused = [line for line in answer.read().decode().splitlines() if 'code="QuotaExceeded"' in line]
    print(f"refused and sent again: {refused}")


class Flood:
    """A peer that sends batches of a MiB as fast as it can and waits for nothing, with `window` unanswered."""

    def __init__(self, server: str, window: int = 32) -> None:
        self.taken = self.refused = 0
        self._server = server
        self._window = window
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Flood":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        batch = encode([RecordData(b"x" * (MIB - 100), timestamp_ms=1)])
        body = m.Produce([m.ProducePartition("flood", 0)])
        with RawPeer(self._server) as peer:
            peer.call(m.Hello("flood", "tests"))
            number = open_requests = 0
            while not self._stop.is_set():
                if open_requests < self._window:
                    number += 1
                    open_requests += 1
                    peer.socket.send_multipart(encode_request(number, body, [batch]))
                elif peer.socket.poll(100):
                    open_requests -= 1
                    answer = decode_response(peer.socket.recv_multipart(zmq.DONTWAIT))
                    (result,) = decode_body(answer, m.ProduceReply).results
                    self.taken += not result.error_code
                    self.refused += bool(result.error_code)


def test_a_flood_leaves_others_their_latency(broker: BrokerProcess) -> None:
    felt: list[Felt] = []
    with good_client(broker.server, felt.append):
        time.sleep(SECONDS / 2)
    # Given a peer that floods and heeds nothing, first with no quota, then with one
    with good_client(broker.server, felt.append), Flood(broker.server) as free:
        time.sleep(SECONDS)
    with Admin(broker.server) as admin:
        admin.alter_quota("flood", {"producer_byte_rate": RATE, "in_flight_bytes": 2 * MIB})
    with good_client(broker.server, felt.append), Flood(broker.server) as held:
        time.sleep(SECONDS)
    alone, beside_free, beside_held = felt
    print(f"good client alone {alone}\n  beside a flood of {free.taken / SECONDS:.0f} MiB/s {beside_free}")
    print(f"  beside a flood held to {RATE / MIB:.0f} MiB/s ({held.taken} MiB taken, {held.refused} refused) {beside_held}")
    # Then the flood gets its rate, and what may be owed, no more; and others hardly notice it.
    assert held.taken <= RATE / MIB * (SECONDS + 1 + 10 + 2)
    assert beside_held.p50_ms < beside_free.p50_ms
    assert beside_held.p99_ms < max(1_000.0, 3 * alone.p99_ms)


def test_the_command_line_sets_lists_and_removes(broker: BrokerProcess) -> None:
    logsvc = Logsvc(broker.server)
    assert logsvc("quota", "set", "importer", "--produce", "10MiB", "--in-flight", "500000").code == 0
    assert logsvc.json("quota", "set", "importer", "--produce", "unlimited")["quotas"]["producer_byte_rate"] == -1
    listed = logsvc.json("quota", "list")
    found = {client["client_id"]: client["quotas"] for client in listed["clients"]}
    assert found["importer"] == {"producer_byte_rate": -1, "in_flight_bytes": 500_000}
    assert listed["defaults"]["consumer_byte_rate"] == -1
    assert b"importer" in logsvc("quota", "list").out
    assert logsvc("quota", "remove", "importer").code == 0
    assert b"importer" not in logsvc("quota", "list").out


@pytest.mark.parametrize("text", ["10MB", "1.5MiB", "", "many"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="10MiB"):
        set_quota("a", produce=text)


def test_a_quota_that_cannot_be_is_a_typed_error(broker: BrokerProcess) -> None:
    with Admin(broker.server) as admin, pytest.raises(InvalidConfig):
        admin.alter_quota("a", {"producer_byte_rate": 0})


def test_the_asynchronous_admin_has_the_same_verbs(broker: BrokerProcess) -> None:
    async def scenario() -> None:
        async with AsyncAdmin(broker.server) as admin:
            assert await admin.alter_quota("b", {"consumer_byte_rate": 7}) == {"consumer_byte_rate": 7}
            assert m.ClientQuota("b", {"consumer_byte_rate": 7}) in (await admin.quotas()).clients

    asyncio.run(scenario())


def test_verify_is_content_with_a_folder_that_holds_quotas(tmp_path: Path) -> None:
    with broker_process(tmp_path / "data") as running, Admin(running.server) as admin:
        admin.alter_quota("a", {"producer_byte_rate": 1_000})
    assert (tmp_path / "data" / "quotas.json").exists()
    assert Logsvc()("verify", str(tmp_path / "data")).code == 0
