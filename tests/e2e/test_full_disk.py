"""A real broker on a disk that is really full: a tmpfs of a few megabytes, with real producers, consumers and commands.

Twice: the reserve is reached (writes are refused, reads and commits go on), and somebody else has eaten the reserve too (each
write ends in ENOSPC, partial ones are taken back).
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, LogsvcError, Producer, RecordMetadata
from logsvc_common.errors import DiskFull
from tests.crash.mounts import tmpfs
from tests.e2e.cli_runner import Logsvc
from tests.e2e.raw_peer import RawPeer

MIB = 1 << 20
DISK_BYTES = 24 * MIB
RESERVE_BYTES = 8 * MIB
TOLD_WITHIN_S = 25.0  # 5 s of trying, and a machine that has other things to do
FAILED = 1  # exit code
WAIT_S = 30.0


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerProcess]:
    monkeypatch.setenv("LOGSVC_DISK_RESERVE_BYTES", str(RESERVE_BYTES))
    with (
        tmpfs(tmp_path / "small", DISK_BYTES) as disk,
        broker_process(disk / "data", "--log-level", "warning", "--http-port", "-1") as running,
    ):
        with Admin(running.server) as admin:
            admin.create_topic("orders", partitions=2, config={"segment.bytes": str(MIB)})
        yield running


def filled(broker: BrokerProcess) -> dict[int, RecordMetadata]:
    """Send until the disk is full; where each acknowledged record is. The last ones must end in DiskFull, none in silence."""
    acked: dict[int, RecordMetadata] = {}
    failed: list[LogsvcError] = []

    def told(number: int, where: RecordMetadata | None, error: LogsvcError | None) -> None:
        if where is not None:
            acked[number] = where
        if error is not None:
            failed.append(error)

    sent = 0
    with Producer(broker.server, batch_bytes=64 << 10, buffer_bytes=MIB) as producer:
        deadline = time.monotonic() + WAIT_S
        while not failed:
            assert time.monotonic() < deadline, f"{len(acked)} acknowledged, none refused"
            number = sent
            sent += 1
            producer.send(
                "orders", b"%d " % number + b"x" * 8_000, key=b"%d" % number, on_delivery=lambda w, e, n=number: told(n, w, e)
            )
        producer.flush(WAIT_S)
    assert {type(error) for error in failed} == {DiskFull}, failed[:3]
    assert len(acked) + len(failed) == sent
    return acked


def number_of(value: bytes | None) -> int:
    return int((value or b"").split(b" ", 1)[0])


def stored(broker: BrokerProcess) -> dict[int, tuple[int, int]]:
    with RawPeer(broker.server) as peer:
        return {
            number_of(record.value): (partition, record.offset)
            for partition in (0, 1)
            for record in peer.read_all("orders", partition)
        }


def assert_all_there(broker: BrokerProcess, acked: dict[int, RecordMetadata]) -> None:
    found = stored(broker)
    assert {number: found.get(number) for number in acked} == {n: (w.partition, w.offset) for n, w in acked.items()}


@pytest.mark.timeout(180)
def test_a_full_disk_is_told_soon_and_by_its_name_while_reading_and_committing_go_on(broker: BrokerProcess) -> None:
    acked = filled(broker)
    assert len(acked) > 500
    # Then the commands say what is wrong, and the exit code is not that of a broker that is away.
    logsvc = Logsvc(broker.server)
    for command, line in ((("produce", "orders"), b"one more"), (("topic", "create", "another"), b"")):
        began = time.monotonic()
        outcome = logsvc(*command, input=line)
        assert outcome.code == FAILED, outcome
        assert "are kept in reserve: writes are refused" in outcome.err
        assert time.monotonic() - began < TOLD_WITHIN_S
    # And a group reads all of it, and commits.
    read = set()
    with Consumer("orders", group_id="billing", server=broker.server) as consumer:
        deadline = time.monotonic() + WAIT_S
        while len(read) < len(acked):
            assert time.monotonic() < deadline, f"{len(read)} of {len(acked)} read"
            read |= {number_of(record.value) for record in consumer.poll(500)}
        consumer.commit()
    assert acked.keys() <= read
    # A crash now loses nothing, and the broker starts on the full disk.
    broker.kill()
    broker.start()
    assert_all_there(broker, acked)
    with Admin(broker.server) as admin:
        assert sum(part.lag for part in admin.describe_group("billing").partitions) == 0
        # When there is room, then writes are taken again, without a restart.
        for partition in (0, 1):
            admin.trim("orders", partition)
        with Producer(broker.server) as producer:
            assert producer.send("orders", b"room again", partition=0).result(WAIT_S).offset > 0


@pytest.mark.timeout(180)
def test_with_the_reserve_eaten_by_others_every_request_ends_and_nothing_acknowledged_is_lost(broker: BrokerProcess) -> None:
    # Given a file of somebody else that leaves less than 64 KiB
    with Producer(broker.server) as producer:
        acked = {number: producer.send("orders", b"%d " % number, partition=0).result(WAIT_S) for number in range(10)}
    eaten = broker.data_dir.parent / "eaten"
    with eaten.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            pass  # That was the point: no byte is left.
    # When more comes than a page begun already has room for, then it ends in DiskFull: nothing hangs, and the broker lives.
    logsvc = Logsvc(broker.server)
    outcome = logsvc("produce", "orders", "--partition", "0", input=b"10 " + b"x" * 200_000)
    assert outcome.code == FAILED, outcome
    outcome = logsvc("topic", "create", "another")
    assert outcome.code == FAILED, outcome
    assert_all_there(broker, acked)
    broker.kill()
    # And when room is made, then the broker starts, has what it acknowledged, and takes more.
    eaten.unlink()
    broker.start()
    assert_all_there(broker, acked)
    with Producer(broker.server) as producer:
        assert producer.send("orders", b"10 ", partition=0).result(WAIT_S).offset == len(acked)
