"""Retention by time and by bytes, trim, and compaction with tombstones, stopped at every disk operation: killed, and cut off.

After each stop the partition is opened again, and what may be gone is gone whole or not at all: the log begins at a batch
between the old start and the new one, holds everything from there, and `verify` finds nothing wrong. Recovery is stopped at its
own operations too. A reader that goes on through all of it sees the next record or is told that it was removed.
"""

import time
from collections.abc import Callable, Iterator
from random import Random

import pytest

from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.storage.verify import verify
from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.batch import RecordData
from logsvc_common.errors import OffsetOutOfRange
from logsvc_common.messages import CreateTopic, Fetch, FetchPartition, FetchReply, Produce, ProducePartition, TrimTopic
from tests.simulation.service import SimulatedService
from tests.storage_support import FOLDER, append_numbered, consume, new_disk, numbered, open_log, read_all

OPERATIONS_MAX = 400
LUCKS = 2  # what a power cut leaves, tried so often each way
NOW_MS = 1_000_000
Stopped = tuple[int, bool, SimulatedDisk]  # at which operation, whether the work was done, what a reboot finds

REMOVALS: dict[str, tuple[dict[str, object], Callable[[PartitionLog], object]]] = {
    "time": ({"retention_ms": NOW_MS - 60}, lambda log: log.apply_retention(NOW_MS)),
    "bytes": ({"retention_bytes": 2_500}, lambda log: log.apply_retention(NOW_MS)),
    "trim": ({}, lambda log: log.trim(41)),
    "all of it": ({}, lambda log: log.trim(log.high_watermark)),
}


def stops(base: SimulatedDisk, work: Callable[[SimulatedDisk], None]) -> Iterator[Stopped]:
    """`work` on a copy of `base`, stopped before its first operation, its second, and so on until it gets through."""
    done, number = False, 0
    while not done:
        number += 1
        assert number < OPERATIONS_MAX
        disk = base.crash(Random(0))  # everything on it is durable: a copy
        disk.hook = stop_at(number)
        try:
            work(disk)
            done = True
        except SimulatedCrash:
            pass
        for seed in range(LUCKS):
            yield number, done, disk.crash(Random(number * 100 + seed), ordered=True)
            yield number, done, disk.crash(Random(number * 100 + seed))
        yield number, done, disk.kill()


def stop_at(number: int) -> Callable[[Operation], None]:
    def hook(operation: Operation) -> None:
        if operation.number >= number:
            raise SimulatedCrash(f"at {operation}")

    return hook


def opened(disk: SimulatedDisk, **settings: object) -> PartitionLog:
    """After a crash, sound to the last byte; indexes are derived, and a power cut may take them."""
    log = open_log(disk, **settings)
    assert log.state is PartitionState.ONLINE, log.state_reason
    faults = verify(disk, FOLDER).partitions[0].faults
    assert [fault for fault in faults if not fault.kind.endswith("_index")] == []
    return log


@pytest.mark.parametrize("kind", REMOVALS)
def test_what_retention_removes_is_gone_whole_or_not_at_all_wherever_it_is_stopped(kind: str) -> None:
    settings, remove = REMOVALS[kind]
    base, started, cuts, recoveries = new_disk(), time.perf_counter(), 0, 0
    log = open_log(base, **settings)
    for _ in range(45):
        append_numbered(log)
    log.close()
    log = open_log(base.crash(Random(0)), **settings)
    remove(log)
    assert log.start_offset > 0
    after, end_offset = log.start_offset, log.end_offset

    def work(disk: SimulatedDisk) -> None:
        remove(open_log(disk, **settings))

    for number, done, disk in stops(base, work):
        if cuts % 23 == 3:
            recoveries += crash_recovery(disk, settings)
        log = opened(disk, **settings)
        assert log.start_offset in (0, after), f"at operation {number}"
        assert log.start_offset == after or not done
        assert read_all(log) == numbered(log.start_offset, end_offset)
        assert not [name for name in disk.listdir(FOLDER) if name.endswith(".deleted")]
        remove(log)
        assert (log.start_offset, log.end_offset) == (after, end_offset)
        append_numbered(log)
        cuts += 1
    print(f"{kind}: {cuts} crashes and {recoveries} of recovery in {time.perf_counter() - started:.1f} s")


def crash_recovery(disk: SimulatedDisk, settings: dict[str, object]) -> int:
    """Stop recovery of a copy of `disk` at each of its operations, and recover; how many there were."""
    found = 0
    for number, _, again in stops(disk.crash(Random(number_of(disk))), lambda copy: open_log(copy, **settings).abandon()):
        log = opened(again, **settings)
        assert read_all(log)[-1][0] == log.end_offset - 1 if log.end_offset > log.start_offset else number > 0
        log.abandon()
        found += 1
    return found


def number_of(disk: SimulatedDisk) -> int:
    return disk.operations


KEYS = 6
COMPACTED: dict[str, object] = {"cleanup_policy": "compact", "segment_bytes": 700, "delete_retention_ms": 10}
Entry = tuple[int, bytes | None, bytes | None]


def entries(log: PartitionLog) -> list[Entry]:
    found: list[Entry] = []
    offset = log.start_offset
    while data := log.read(offset, 1 << 20):
        for header, view in batches.split(data, offset):
            batches.check_crc(view, header)
            found += [(record.offset, record.key, record.value) for record in batches.decode(bytes(view))]
            offset = header.next_offset
    return found


def compact(log: PartitionLog) -> None:
    log.sync()
    work = log.compaction(NOW_MS)
    if work is not None:
        work.run()
        log.finish_compaction(work)


def test_compaction_keeps_the_last_record_of_every_key_and_brings_none_back_wherever_it_is_stopped() -> None:
    base, started, cuts = new_disk(), time.perf_counter(), 0
    log = open_log(base, **COMPACTED)
    written: list[Entry] = []
    for number in range(70):
        value = None if number % 11 == 5 else b"v%d" % number
        key = b"k%d" % (number % KEYS)
        raw = batches.encode([RecordData(value, key, timestamp_ms=5)])
        written.append((log.append(raw, batches.parse_header(raw), 5).base_offset, key, value))
        if number == 35:
            compact(log)
    log.close()
    newest = {key: (offset, value) for offset, key, value in written}

    def work(disk: SimulatedDisk) -> None:
        log = open_log(disk, **COMPACTED)
        compact(log)
        log.close()

    for number, done, disk in stops(base, work):
        log = opened(disk, **COMPACTED)
        found = entries(log)
        assert set(found) <= set(written)
        assert [offset for offset, _, _ in found] == sorted({offset for offset, _, _ in found})
        assert (log.start_offset, log.end_offset) == (0, len(written))
        for key, (offset, value) in newest.items():
            kept = [entry for entry in found if entry[1] == key]
            assert (kept and kept[-1] == (offset, key, value)) or (value is None and not kept), f"{key!r} at {number}"
        assert not done or len(found) < len(written) // 2
        for _ in range(3):
            compact(log)
        assert {key for _, key, _ in entries(log)} >= {key for key, (_, value) in newest.items() if value is not None}
        cuts += 1
    print(f"compaction: {cuts} crashes in {time.perf_counter() - started:.1f} s")


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_goes_on_while_segments_are_trimmed_deleted_and_rewritten_under_it(seed: int) -> None:
    rng, disk = Random(seed), new_disk()
    log = open_log(disk, retention_bytes=6_000)
    position, seen, told = 0, 0, 0
    for step in range(300):
        append_numbered(log, rng.randrange(1, 4))
        if step % 3 == 0:
            log.sync()
        if rng.random() < 0.05:
            log.trim(rng.randint(log.start_offset, log.high_watermark))
        if rng.random() < 0.1:
            log.apply_retention(NOW_MS)
        if rng.random() < 0.7:
            try:
                data = log.read(position, rng.choice((1, 300, 5_000)))
            except OffsetOutOfRange:
                assert position < log.start_offset
                position = log.start_offset
                told += 1
                continue
            records, following = consume(data, position) if data else ([], position)
            assert [record for record in records if record[0] >= position] == numbered(position, following)
            seen += following - position
            position = following
    assert seen > 100
    assert disk.open_files < 10


def test_polls_that_wait_while_their_segments_are_removed_get_the_next_record_or_are_told() -> None:
    service = SimulatedService(1)
    service.ask(CreateTopic("orders", 1, {"segment.bytes": "1024"}))
    batch = batches.encode([RecordData(b"x" * 300, None, 1_000)])
    for _ in range(20):
        service.ask(Produce([ProducePartition("orders", 0)]), [batch])
    at_end = service.send(Fetch([FetchPartition("orders", 0, 20)], max_wait_ms=30_000))
    behind = service.send(Fetch([FetchPartition("orders", 0, 3)], max_wait_ms=30_000, min_bytes=1 << 20))
    service.ask(TrimTopic("orders", 0, 20))
    assert service.logs.partition("orders", 0).segment_count == 1
    service.ask(Produce([ProducePartition("orders", 0)]), [batch])
    service.time.run(lambda: at_end in service.answers)
    [data] = service.answers.pop(at_end).payload
    assert [record.offset for record in batches.decode(bytes(data))] == [20]
    service.time.run(lambda: behind in service.answers)
    reply, _ = service.ask(Fetch([FetchPartition("orders", 0, 3)], max_wait_ms=0))
    assert isinstance(reply, FetchReply)
    assert reply.results[0].error_code == OffsetOutOfRange("").code
