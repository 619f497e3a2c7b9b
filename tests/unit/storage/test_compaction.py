"""Compaction keeps the last record of each key, every offset, and everything through a crash at any operation."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc.storage import compaction
from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.storage.scrub import ScrubPoint
from logsvc.storage.verify import verify
from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.batch import RecordData
from logsvc_common.errors import DiskFull, PartitionCorrupt, StorageFailed
from tests.storage_support import FOLDER, new_disk, open_log

Keyed = tuple[bytes | None, bytes | None]
DAY_MS = 86_400_000


def compacted(disk: SimulatedDisk, **how: object) -> PartitionLog:
    return open_log(disk, **{"cleanup_policy": "compact", "segment_bytes": 1_024, **how})


def put(log: PartitionLog, *records: Keyed, now_ms: int = 0, codec: int = 0) -> None:
    raw = batches.encode([RecordData(value, key, timestamp_ms=5) for key, value in records], codec=codec)
    log.append(raw, batches.parse_header(raw), now_ms)


def compact(log: PartitionLog, now_ms: int = 0) -> int:
    log.sync()
    work = log.compaction(now_ms)
    if work is None:
        return 0
    work.run()
    return log.finish_compaction(work)


def contents(log: PartitionLog, max_bytes: int = 300) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of every record; offsets of batches must be dense."""
    found, offset = [], log.start_offset
    while data := log.read(offset, max_bytes):
        for header, view in batches.split(data):
            assert header.base_offset == offset or not found
            batches.check_crc(view, header)
            found += [(r.offset, r.key, r.value) for r in batches.decode(bytes(view)) if r.offset >= log.start_offset]
            offset = header.next_offset
    assert offset == log.high_watermark
    return found


def latest(records: list[tuple[int, bytes | None, bytes | None]], below: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """What compaction of everything below an offset leaves, tombstones kept."""
    last = {key: offset for offset, key, _ in records if offset < below}
    return [record for record in records if record[0] >= below or record[1] is None or last[record[1]] == record[0]]


def active_base(log: PartitionLog, disk: SimulatedDisk) -> int:
    return max(int(name.removesuffix(".log")) for name in disk.listdir(FOLDER) if name.endswith(".log"))


def test_the_last_record_of_each_key_stays_at_its_offset() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k%d" % (number % 7), b"v%d" % number))
    log.sync()
    before, base = contents(log), active_base(log, disk)
    assert compact(log) > 0
    assert contents(log) == latest(before, base)
    assert (log.start_offset, log.end_offset) == (0, 100)
    assert verify(disk.kill(), FOLDER).ok
    log.close()
    assert contents(compacted(disk)) == latest(before, base)


def test_nothing_happens_until_half_of_it_is_dirty() -> None:
    log = compacted(new_disk())
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    assert compact(log) > 0
    assert compact(log) == 0
    for number in range(100):
        put(log, (b"k", b"w%d" % number))
    assert compact(log) > 0


def test_topics_that_are_not_compacted_are_left_alone() -> None:
    log = compacted(new_disk(), cleanup_policy="delete")
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    assert log.compaction(0) is None


def test_records_without_a_key_stay() -> None:
    log = compacted(new_disk())
    for number in range(60):
        put(log, (None, b"v%d" % number), (b"k", b"x"))
    compact(log)
    assert len([record for record in contents(log) if record[1] is None]) == 60
    assert len([record for record in contents(log) if record[1] is not None]) < 20


def test_segments_that_have_become_small_are_merged() -> None:
    log = compacted(new_disk())
    for number in range(400):
        put(log, (b"k%d" % (number % 3), b"v%d" % number))
        if number % 100 == 99:
            compact(log)
    assert log.segment_count <= 12
    assert len(contents(log)) < 40


def test_a_tombstone_is_seen_for_a_while_and_then_goes_with_what_it_deletes() -> None:
    log = compacted(new_disk(), delete_retention_ms=DAY_MS)
    put(log, (b"gone", b"value"))
    put(log, (b"gone", None))
    for number in range(60):
        put(log, (b"k", b"v%d" % number))
    compact(log, now_ms=DAY_MS)
    assert contents(log)[0][1:] == (b"gone", None)
    for number in range(200):
        put(log, (b"k", b"w%d" % number), now_ms=DAY_MS)
    compact(log, now_ms=3 * DAY_MS)
    assert b"gone" not in {record[1] for record in contents(log)}


def test_a_tombstone_never_goes_before_the_value_it_deletes() -> None:
    """Whatever the crash, the deleted value must not come back."""
    number = 0
    while True:
        number += 1
        disk = new_disk()
        log = compacted(disk, delete_retention_ms=0)
        put(log, (b"gone", b"value"))
        for step in range(30):
            put(log, (b"k%d" % step, b"v"))
        put(log, (b"gone", None))
        for step in range(30):
            put(log, (b"l%d" % step, b"v"))
        log.sync()
        stop = disk.operations + number

        def hook(operation: Operation, stop: int = stop) -> None:
            if operation.number == stop:
                raise SimulatedCrash

        disk.hook = hook
        try:
            compact(log, now_ms=DAY_MS)
            break
        except SimulatedCrash:
            pass
        again = compacted(disk.crash(Random(number)), delete_retention_ms=0)
        values = [record[2] for record in contents(again) if record[1] == b"gone"]
        assert values in ([b"value", None], [None], [])
    assert number > 30


@pytest.mark.parametrize("codec", [0, 1])
def test_batches_of_many_records_keep_producer_codec_and_span(codec: int) -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(20):
        made = [RecordData(b"v%d" % number, b"k%d" % (key * number % 11), timestamp_ms=number) for key in range(8)]
        raw = batches.encode(made, codec=codec, producer_id=4, producer_epoch=1, base_sequence=8 * number)
        log.append(raw, batches.parse_header(raw), 0)
    log.sync()
    before, base = contents(log), active_base(log, disk)
    compact(log)
    assert contents(log) == latest(before, base)
    headers = [header for header, _ in batches.split(log.read(0, 1 << 20))]
    for header in headers:
        if header.record_count:
            assert (header.producer_id, header.codec) == (4, codec)
            assert header.base_sequence == header.base_offset
    disk.remove(f"{FOLDER}/checkpoint")
    assert contents(compacted(disk.kill())) == latest(before, base)


def test_lookups_by_time_and_lag_step_over_the_holes() -> None:
    log = compacted(new_disk())
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    compact(log)
    first = contents(log)[0][0]
    assert first > 50
    assert log.timestamp_at(0) == 5
    assert log.offset_for_time(0) == (first, 5)
    assert log.timestamp_at(100) is None


def test_more_keys_than_fit_are_cleaned_in_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "KEYS_MAX", 10)
    monkeypatch.setattr(compaction, "DIRTY_RATIO_MIN", 0)
    disk = new_disk()
    log = compacted(disk)
    for number in range(200):
        put(log, (b"k%d" % (number % 40), b"v%d" % number))
    log.sync()
    before, base = contents(log), active_base(log, disk)
    for _ in range(40):
        compact(log)
    assert contents(log) == latest(before, base)


def test_long_keys_count_by_their_hash() -> None:
    log = compacted(new_disk(), segment_bytes=8_192)
    for number in range(100):
        put(log, (b"key" * 100 + b"%d" % (number % 3), b"v%d" % number))
    compact(log)
    assert len(contents(log)) < 30


def test_a_batch_that_does_not_decode_stays_as_it_is() -> None:
    disk = new_disk()
    log = compacted(disk)
    good = bytearray(batches.encode([RecordData(b"v" * 40, b"k")], codec=1))
    good[70:80] = bytes(10)
    header = batches.parse_header(good)
    good[17:21] = batches.crc32.iscsi(bytes(good[21:])).to_bytes(4, "big")
    log.append(bytes(good), header, 0)
    for number in range(60):
        put(log, (b"k", b"v%d" % number))
    compact(log)
    assert batches.parse_header(log.read(0, 1)).size == len(good)


def test_a_log_that_changed_meanwhile_is_left_as_it_is() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    log.sync()
    work = log.compaction(0)
    assert work is not None
    assert log.compaction(0) is None, "one at a time"
    work.run()
    log.trim(50)
    before = contents(log)
    assert log.finish_compaction(work) == 0
    assert contents(log) == before
    assert not [name for name in disk.listdir(FOLDER) if "cleaned" in name]
    assert log.compaction(0) is not None


def test_appends_and_reads_go_on_while_it_runs() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    log.sync()
    work = log.compaction(0)
    assert work is not None
    for number in range(50):
        put(log, (b"k", b"w%d" % number))
    work.run()
    log.sync()
    assert len(contents(log)) == 150
    assert log.finish_compaction(work) > 0
    assert contents(log)[-1] == (149, b"k", b"w49")


def test_rot_in_a_segment_is_found_and_not_written_anew() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    log.sync()
    disk._file(f"{FOLDER}/{0:020d}.log").content[300] ^= 1
    with pytest.raises(PartitionCorrupt):
        compact(log)
    assert log.state is PartitionState.READ_ONLY
    assert not [name for name in disk.listdir(FOLDER) if "cleaned" in name]


def test_a_full_disk_leaves_the_log_as_it_was() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k%d" % number, b"v%d" % number))
    log.sync()
    before = contents(log)
    disk.capacity_bytes = disk.used_bytes() + 500
    with pytest.raises(DiskFull):
        compact(log)
    assert log.state is PartitionState.ONLINE
    assert contents(log) == before
    disk.capacity_bytes *= 10
    assert log.compaction(0) is not None


def test_a_failing_disk_takes_the_partition_offline() -> None:
    disk = new_disk()
    log = compacted(disk)
    for number in range(100):
        put(log, (b"k", b"v%d" % number))
    log.sync()
    disk.fail("rename", path_part="cleaned")
    with pytest.raises(StorageFailed):
        compact(log)
    assert contents(compacted(disk.kill()))[-1] == (99, b"k", b"v99")


def test_a_crash_at_any_operation_leaves_the_log_before_or_after_and_verify_agrees() -> None:
    number = 0
    while True:
        number += 1
        disk = new_disk()
        log = compacted(disk)
        for step in range(90):
            put(log, (b"k%d" % (step % 5), b"v%d" % step))
        log.sync()
        before, base = contents(log), active_base(log, disk)
        stop = disk.operations + number

        def hook(operation: Operation, stop: int = stop) -> None:
            if operation.number == stop:
                raise SimulatedCrash

        disk.hook = hook
        finished = False
        try:
            compact(log)
            finished = True
        except SimulatedCrash:
            pass
        for seed in range(3):
            survivor = disk.crash(Random(seed * 1_000 + number))
            mended = survivor.crash(Random(0))
            verify(mended, FOLDER, repair=True)
            assert verify(mended, FOLDER).ok
            for candidate in (survivor, mended):
                reopened = compacted(candidate)
                assert reopened.state is PartitionState.ONLINE, reopened.state_reason
                found = contents(reopened)
                assert set(latest(before, base)) <= set(found) <= set(before)
                assert not [name for name in candidate.listdir(FOLDER) if "cleaned" in name or "swap" in name]
        if finished:
            break
    assert number > 40


def fill(log: PartitionLog) -> None:
    for step in range(60):
        put(log, (b"k%d" % (step % 5), b"v%d" % step))
    log.sync()


def test_segments_being_merged_survive_a_power_cut_at_any_operation() -> None:
    # Several files make way for one: their names may go only when the name of that one is durable.
    number, finished = 0, False
    while not finished:
        number += 1
        disk = new_disk()
        log = compacted(disk)
        fill(log)
        compact(log)
        fill(log)
        before, base = contents(log), active_base(log, disk)
        stop = disk.operations + number

        def hook(operation: Operation, stop: int = stop) -> None:
            if operation.number == stop:
                raise SimulatedCrash

        segments = log.segment_count
        disk.hook = hook
        try:
            compact(log)
            finished = True
            assert log.segment_count < segments - 1, "nothing was merged"
        except SimulatedCrash:
            pass
        for seed in range(8):
            reopened = compacted(disk.crash(Random(seed * 1_000 + number)))
            assert reopened.state is PartitionState.ONLINE, reopened.state_reason
            assert set(latest(before, base)) <= set(contents(reopened)) <= set(before)


keyed = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from([b"a", b"b", b"c"])), st.one_of(st.none(), st.binary(max_size=30))),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(keyed, st.just("compact"), st.just("restart")), max_size=60))
def test_compaction_against_a_plain_model(steps: list[object]) -> None:
    """Whatever is sent and whenever it is compacted: the last value of each key is the same, and nothing is made up."""
    disk = new_disk()
    log = compacted(disk, delete_retention_ms=0)
    written: list[tuple[int, bytes | None, bytes | None]] = []
    for step in steps:
        if step == "compact":
            compact(log, now_ms=10)
        elif step == "restart":
            log.close()
            log = compacted(disk.kill(), delete_retention_ms=0)
        else:
            assert isinstance(step, list)
            for key, value in step:
                written.append((len(written), key, value))
            put(log, *step)
    log.sync()
    found = contents(log)
    assert set(found) <= set(written)
    assert [record for record in found if record[1] is None] == [record for record in written if record[1] is None]
    state = {key: value for _, key, value in written if key is not None}
    left = {key: value for _, key, value in found if key is not None}
    assert {key: left.get(key) for key in state} == state


def test_large_segments_are_held_open_while_they_are_replaced_so_that_a_thread_frees_their_room() -> None:
    disk = new_disk()
    log = compacted(disk, segment_bytes=2 << 20)
    jobs: list[Callable[[], None]] = []
    log._removals.run_in_thread = jobs.append
    for number in range(5):
        put(log, (b"k", b"%d" % number * (1_200 << 10)))
    before = disk.open_files
    assert compact(log) > 0
    assert disk.open_files > before
    while jobs:
        jobs.pop(0)()
    assert disk.open_files <= before
    assert contents(log)[-1][0] == 4


def test_a_roll_that_nothing_follows_leaves_no_position_in_the_segment_that_is_compacted() -> None:
    for extra in range(20):  # so that the last sealed segment is the first of those that are merged, some time
        disk = new_disk()
        log = compacted(disk)
        fill(log)
        for step in range(extra):
            put(log, (b"k%d" % (step % 5), b"more"))
        log.sync()
        segments = log.segment_count
        log.apply_retention(8 * 86_400_000)
        assert log.segment_count == segments + 1
        before = contents(log)
        compact(log)
        point = ScrubPoint()
        while (work := log.scrub(point)) is not None:
            work.run()
            log.finish_scrub(work)
            point = work.next
        assert log.state is PartitionState.ONLINE, log.state_reason
        assert set(contents(log)) <= set(before)
