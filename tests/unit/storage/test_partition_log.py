"""Append, read, trim and time lookups of one partition, on the simulated disk."""

import pytest

from logsvc.storage import log_reader
from logsvc.storage.partition_log import PartitionState
from logsvc_common import batch as batches
from logsvc_common.batch import RecordData
from logsvc_common.errors import CorruptBatch, OffsetOutOfRange, RecordTooLarge
from tests.storage_support import (
    FOLDER,
    append,
    append_numbered,
    config,
    encode,
    filled,
    header_of,
    new_disk,
    numbered,
    open_log,
    read_all,
)


def test_offsets_are_dense_and_the_broker_stamps_them() -> None:
    log = open_log(new_disk())
    first = append(log, [b"a", b"b"])
    second = append(log, [b"c"])
    assert (first.base_offset, first.last_offset) == (0, 1)
    assert (second.base_offset, second.last_offset) == (2, 2)
    log.sync()
    assert [record[:2] for record in read_all(log)] == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_consumers_see_only_what_is_durable_when_an_ack_means_fsynced() -> None:
    log = open_log(new_disk())
    append_numbered(log)
    assert (log.end_offset, log.high_watermark, log.durable_offset) == (2, 0, 0)
    assert log.read(0, 1_000) == b""
    assert read_all(log, up_to=2) == numbered(0, 2)
    assert log.sync() == 2
    assert log.high_watermark == 2
    assert read_all(log) == numbered(0, 2)


@pytest.mark.parametrize("flush", ["interval", "os"])
def test_with_other_flush_settings_consumers_see_what_is_written(flush: str) -> None:
    log = open_log(new_disk(), flush=flush)
    append_numbered(log)
    assert (log.high_watermark, log.durable_offset) == (2, 0)
    assert read_all(log) == numbered(0, 2)


def test_making_flush_stricter_takes_nothing_back_from_readers() -> None:
    log = open_log(new_disk(), flush="os")
    append_numbered(log)
    log.config = config(flush="always")
    assert log.high_watermark == 2


@pytest.mark.parametrize("max_bytes", [1, 61, 100, 300, 1_000, 10_000])
def test_every_offset_is_readable_whatever_the_size_asked_for(max_bytes: int) -> None:
    log = filled(new_disk(), 60, records=3)
    assert log.segment_count > 4
    for offset in range(180):
        data = log.read(offset, max_bytes)
        headers = [header for header, _ in batches.split(data)]
        assert headers[0].base_offset <= offset <= headers[0].last_offset
        assert len(headers) == 1 or len(data) <= max_bytes
        assert sum(header.size for header in headers) == len(data)
    assert read_all(log, max_bytes=max_bytes) == numbered(0, 180)


def test_a_batch_larger_than_asked_for_comes_whole() -> None:
    log = open_log(new_disk(), segment_bytes=100_000)
    append(log, [b"x" * 50_000])
    append(log, [b"y"])
    log.sync()
    data = log.read(0, 100)
    assert [header.last_offset for header, _ in batches.split(data)] == [0]
    assert len(data) > 50_000


def test_reading_outside_the_log_is_refused_and_at_its_end_gives_nothing() -> None:
    log = filled(new_disk(), 30)
    log.trim(10)
    assert log.read(60, 100) == b""
    for offset in (9, 61, -1):
        with pytest.raises(OffsetOutOfRange, match=f"offset {offset} of t-0; there are 10 to 60"):
            log.read(offset, 100)


def test_a_read_may_end_before_any_offset_at_a_batch_boundary() -> None:
    log = filled(new_disk(), 20)
    assert read_all(log, up_to=21, max_bytes=10_000) == numbered(0, 20)
    assert log.read(20, 10_000, up_to=21) == b""


def test_segments_roll_by_size() -> None:
    disk = new_disk()
    log = filled(disk, 40)
    names = [name for name in disk.listdir(FOLDER) if name.endswith(".log")]
    assert log.segment_count == len(names) > 3
    assert names[0] == "0" * 20 + ".log"
    assert all(disk.file_size(f"{FOLDER}/{name}") <= 1_024 for name in names)


def test_segments_roll_by_age() -> None:
    log = open_log(new_disk(), segment_ms=1_000)
    append(log, [b"a"], now_ms=5_000)
    append(log, [b"b"], now_ms=5_999)
    assert log.segment_count == 1
    append(log, [b"c"], now_ms=6_000)
    assert log.segment_count == 2


def test_a_batch_above_the_limit_is_refused_and_leaves_nothing() -> None:
    log = open_log(new_disk(), max_message_bytes=200)
    with pytest.raises(RecordTooLarge, match="200"):
        append(log, [b"x" * 200])
    assert log.end_offset == 0


def test_a_batch_whose_counts_contradict_its_bytes_is_refused() -> None:
    log = open_log(new_disk())
    raw = encode([b"a", b"b"])
    with pytest.raises(CorruptBatch):
        log.append(raw, header_of(raw)._replace(record_count=1), 0)
    with pytest.raises(CorruptBatch):
        log.append(raw + b"x", header_of(raw), 0)
    assert log.end_offset == 0


def test_trim_moves_the_start_and_deletes_segments_wholly_below() -> None:
    disk = new_disk()
    log = filled(disk, 40)
    segments = log.segment_count
    assert log.trim(33) == 33
    assert log.segment_count < segments
    assert read_all(log) == numbered(33, 80)
    assert log.trim(20) == 33
    log.close()
    log = open_log(disk)
    assert (log.start_offset, log.end_offset) == (33, 80)
    assert read_all(log) == numbered(33, 80)


def test_trim_to_the_end_empties_the_log_and_offsets_go_on() -> None:
    disk = new_disk()
    log = filled(disk, 10)
    log.trim(20)
    assert (log.segment_count, log.size_bytes, log.start_offset) == (1, 0, 20)
    assert log.read(20, 100) == b""
    disk = disk.kill()
    log = open_log(disk)
    assert append(log, [b"next"]).base_offset == 20


def test_trim_beyond_the_high_watermark_is_refused() -> None:
    log = filled(new_disk(), 5)
    append_numbered(log)
    with pytest.raises(OffsetOutOfRange):
        log.trim(11)


def test_the_first_record_not_older_than_a_time_is_found_to_the_record() -> None:
    log = filled(new_disk(), 60, records=5)
    for time in (0, 1, 4, 5, 77, 298, 299):
        assert log.offset_for_time(time) == (time, time)
    assert log.offset_for_time(-5) == (0, 0)
    assert log.offset_for_time(300) is None
    log.trim(101)
    assert log.offset_for_time(50) == (101, 101)


def test_times_that_go_backwards_give_the_first_record_in_offset_order() -> None:
    log = open_log(new_disk())
    times = [100, 900, 200, 800, 300, 950, 10, 1_000, 5]
    for time in times * 5:
        append(log, [b"x" * 50], timestamp_ms=time)
    log.sync()
    for wanted in (1, 150, 899, 901, 999, 1_000):
        first = next(offset for offset, time in enumerate(times) if time >= wanted)
        assert log.offset_for_time(wanted) == (first, times[first])
    assert log.offset_for_time(1_001) is None


def test_the_timestamp_at_an_offset_comes_from_its_batch() -> None:
    log = filled(new_disk(), 30)
    assert log.timestamp_at(0) == 0
    assert log.timestamp_at(14) == 14
    assert log.timestamp_at(15) == 14  # of one batch with it, and within SAME_TIME_MS
    assert log.timestamp_at(60) is None
    with pytest.raises(OffsetOutOfRange):
        log.timestamp_at(61)


@pytest.mark.parametrize("codec", batches.CODECS.values())
def test_within_a_batch_that_took_long_every_record_has_its_own_timestamp(codec: int) -> None:
    log = open_log(new_disk())
    times = [100_000, 200_000, 150_000, 900_000, 4_000_000_000_000, 7]
    raw = batches.encode((RecordData(b"value", timestamp_ms=time) for time in times), codec=codec)
    for _ in range(3):
        log.append(raw, batches.parse_header(raw), 0)
    log.sync()
    assert [log.timestamp_at(offset) for offset in range(18)] == times * 3


def test_within_a_batch_too_large_to_decode_timestamps_are_between_its_first_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "TIMED_BATCH_BYTES_MAX", 1_000)
    log = open_log(new_disk(), segment_bytes=1 << 20)
    append(log, [b"x" * 500] * 5, timestamp_ms=1_000_000, step_ms=60_000)
    append(log, [b"x" * 500], timestamp_ms=5_000_000)
    log.sync()
    assert [log.timestamp_at(offset) for offset in range(6)] == [1_000_000 + 60_000 * n for n in range(5)] + [5_000_000]


def test_a_clean_close_leaves_nothing_to_scan_or_write_at_the_next_start() -> None:
    disk = new_disk()
    filled(disk, 40).close()
    kinds = []
    disk.hook = lambda operation: kinds.append(operation.kind)
    log = open_log(disk)
    assert not {"write", "datasync", "sync_dir", "rename"} & set(kinds)
    assert kinds.count("read") == 3  # the checkpoint and the two indexes of the active segment
    assert read_all(log) == numbered(0, 80)


def test_few_files_stay_open() -> None:
    disk = new_disk()
    log = filled(disk, 200, sync=False)
    log.sync()
    append_numbered(log)
    for _ in range(10):
        append_numbered(log)
    log.sync()
    assert log.segment_count > 15
    assert disk.open_files <= 3
    log.close()
    assert disk.open_files == 0


def test_a_sync_with_nothing_new_touches_no_disk() -> None:
    disk = new_disk()
    log = filled(disk, 3)
    before = disk.operations
    assert log.sync() == 6
    assert disk.operations == before


def test_without_any_sync_sealed_segments_do_not_pile_up() -> None:
    disk = new_disk()
    filled(disk, 300, sync=False, flush="os")
    assert disk.open_files <= 7


def test_state_starts_online() -> None:
    log = open_log(new_disk())
    assert log.state is PartitionState.ONLINE
    assert log.state_reason == ""
