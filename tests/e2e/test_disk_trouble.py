"""A real broker on a disk that fails: full, failing fsyncs, failing reads, changed bytes.

A full disk is RLIMIT_FSIZE, set on the running broker and lifted again (setrlimit(2): the write ends in EFBIG). Failing calls
are injected by strace into the running broker, for the files of one partition only. The simulated disk tries every order of
such events; here a few meet the operating system.
"""

import contextlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_common import errors
from logsvc_common import messages as m
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import LogsvcError
from tests.crash.strace_kill import skip_without_strace
from tests.e2e.raw_peer import RawPeer
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic

TRACED_WITHIN_S = 10.0
CHECK_FAILED = 1  # exit code


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path / "data", "--log-level", "warning") as running:
        ensure_good_topic(running)
        with RawPeer(running.server) as peer:
            peer.create_topic("orders", 2)
        yield running


def values(peer: RawPeer, partition: int) -> list[bytes | None]:
    return [record.value for record in peer.read_all("orders", partition)]


def test_a_full_disk_refuses_writes_and_nothing_else_and_takes_them_again(broker: BrokerProcess) -> None:
    with RawPeer(broker.server) as peer:
        acked = []
        peer.call(m.GroupHeartbeat("billing", "member", m.JOIN_EPOCH, topics=["orders"], session_timeout_ms=60_000))
        # Given a disk that takes no file above 200 kB
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        for number in range(100):
            value = b"%d" % number + b"x" * 9_000
            try:
                peer.produce_values("orders", 0, value)
            except errors.DiskFull:
                break
            acked.append(value)
        # Then what was acknowledged is there, and nothing of what was not; reads, commits and other partitions go on.
        assert 10 < len(acked) < 30
        assert values(peer, 0) == acked
        assert (
            type(peer.refusal(m.Produce([m.ProducePartition("orders", 0)]), [encode([RecordData(b"x" * 9_000)])]))
            is errors.DiskFull
        )
        progress = [m.CommitPartition("orders", 0, 5)]
        reply, _ = peer.call(m.Commit("loners", "", m.NO_MEMBER_EPOCH, progress))
        assert [(result.error_code, result.committed) for result in reply.results] == [(0, 5)]
        peer.produce_values("orders", 1, b"other partition")
        assert_unharmed(broker)
        # When there is room again, then writes are taken again, without a restart.
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        offset = peer.produce_values("orders", 0, b"room again")
        assert offset == len(acked)
    # And a crash right then loses nothing of it.
    broker.kill()
    broker.start()
    with RawPeer(broker.server) as peer:
        assert values(peer, 0) == [*acked, b"room again"]


@contextlib.contextmanager
def failing(broker: BrokerProcess, call: str, path: Path) -> Iterator[None]:
    """While the block runs, every `call` of the broker on `path` ends in EIO."""
    command = ["strace", "-f", "-qq", "-p", str(broker.pid), "-o", "/dev/null", "-P", str(path)]
    tracing = subprocess.Popen(
        [*command, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + TRACED_WITHIN_S
        status = Path(f"/proc/{broker.pid}/status")
        while "TracerPid:\t0" in status.read_text():
            if tracing.poll() is not None or time.monotonic() > deadline:
                pytest.skip("strace may not attach to a running process here")
            time.sleep(0.01)
        time.sleep(0.2)  # its threads are attached to one after another
        yield
    finally:
        tracing.send_signal(signal.SIGINT)  # strace detaches and lets the broker run on
        tracing.communicate(timeout=10)


def segment_of(broker: BrokerProcess, partition: int) -> Path:
    (segment,) = broker.data_dir.glob(f"orders-{partition}/*.log")
    return segment


def test_a_failed_fsync_takes_its_partition_offline_and_is_not_tried_again(broker: BrokerProcess) -> None:
    skip_without_strace()
    produce = m.Produce([m.ProducePartition("orders", 0)])
    with RawPeer(broker.server) as peer:
        peer.produce_values("orders", 0, b"acked")
        with failing(broker, "fdatasync", segment_of(broker, 0)):
            assert type(peer.refusal(produce, [encode([RecordData(b"in doubt")])])) is errors.StorageFailed
            peer.produce_values("orders", 1, b"other partition")
        # Given a disk that is well again: the partition stays offline, since what the page cache holds cannot be trusted.
        assert type(peer.refusal(produce, [encode([RecordData(b"later")])])) is errors.StorageFailed
        (topic,) = peer.call(m.Metadata(["orders"], True))[0].topics
        assert [partition.state for partition in topic.partitions] == ["failed", "online"]
    assert_unharmed(broker)
    # When it is opened through recovery, then what was acknowledged is there, and it takes writes.
    broker.kill()
    broker.start()
    with RawPeer(broker.server) as peer:
        found = values(peer, 0)
        assert found[0] == b"acked"
        assert found[1:] in ([], [b"in doubt"])
        assert peer.produce_values("orders", 0, b"after") == len(found)


def test_a_failed_read_takes_its_partition_offline_and_the_others_serve(broker: BrokerProcess) -> None:
    skip_without_strace()
    with RawPeer(broker.server) as peer:
        peer.produce_values("orders", 0, b"acked")
        peer.produce_values("orders", 1, b"other partition")
        with failing(broker, "pread64", segment_of(broker, 0)):
            assert type(peer.refusal(m.Fetch([m.FetchPartition("orders", 0, 0)]))) is errors.StorageFailed
            assert values(peer, 1) == [b"other partition"]
    assert_unharmed(broker)
    broker.kill()
    broker.start()
    with RawPeer(broker.server) as peer:
        assert values(peer, 0) == [b"acked"]


def test_a_changed_byte_below_what_was_durable_is_never_served_as_good(broker: BrokerProcess) -> None:
    with RawPeer(broker.server) as peer:
        for number in range(20):
            peer.produce_values("orders", 0, b"record %d" % number)
    broker.stop()
    # Given one bit of record 7 turned while the broker was down, its files in order otherwise
    segment = segment_of(broker, 0)
    content = bytearray(segment.read_bytes())
    content[content.index(b"record 7")] ^= 1
    segment.write_bytes(content)
    broker.start()
    # Then the records before it are read, and it is not: a typed error, here or where its CRC is checked.
    with RawPeer(broker.server) as peer:
        read: list[bytes | None] = []
        with pytest.raises(LogsvcError) as caught:
            read.extend(record.value for record in peer.read_all("orders", 0))
        assert type(caught.value) in (errors.CorruptBatch, errors.PartitionCorrupt)
        assert [record.value for record in peer.read_all("orders", 0, 8)] == [b"record %d" % n for n in range(8, 20)]
    assert_unharmed(broker)
    # And `logsvc verify` names it.
    broker.stop()
    command = [sys.executable, "-m", "logsvc.cli.main", "verify", str(broker.data_dir)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
    assert verified.returncode == CHECK_FAILED
    assert "orders-0" in verified.stdout + verified.stderr
