"""What retention deletes, and what it must not."""

from logsvc.config import TopicConfig
from logsvc.storage.retention import SegmentAge, expired
from tests.storage_support import append, new_disk, numbered, open_log, read_all

DAY_MS = 86_400_000


def config(**settings: object) -> TopicConfig:
    return TopicConfig(**{"retention_ms": -1, "retention_bytes": -1, **settings})  # type: ignore[arg-type]


def test_nothing_goes_without_a_limit() -> None:
    assert expired([SegmentAge(100, 0, 0)] * 3, 100, config(), now_ms=10**15) == 0


def test_by_time_the_oldest_go_until_one_is_young_enough() -> None:
    ages = [SegmentAge(1, at, at) for at in (0, 100, 900, 200)]
    assert expired(ages, 1, config(retention_ms=500), now_ms=1_000) == 2


def test_a_timestamp_from_the_future_pins_its_segment_only_as_long_as_its_last_write() -> None:
    ages = [SegmentAge(1, 10**15, 100)]
    assert expired(ages, 1, config(retention_ms=500), now_ms=600) == 0
    assert expired(ages, 1, config(retention_ms=500), now_ms=601) == 1


def test_a_file_time_from_the_future_counts_as_now() -> None:
    assert expired([SegmentAge(1, 10**15, 10**15)], 1, config(retention_ms=0), now_ms=1_000) == 0


def test_records_without_timestamps_age_by_their_last_write() -> None:
    assert expired([SegmentAge(1, -1, 100)], 1, config(retention_ms=500), now_ms=601) == 1


def test_by_size_the_log_never_falls_below_what_is_to_be_kept() -> None:
    ages = [SegmentAge(100, 0, 0)] * 5
    assert expired(ages, 50, config(retention_bytes=250), now_ms=0) == 3
    assert expired(ages, 50, config(retention_bytes=251), now_ms=0) == 2
    assert expired(ages, 50, config(retention_bytes=0), now_ms=0) == 5


def test_a_compacted_topic_keeps_everything() -> None:
    assert expired([SegmentAge(100, 0, 0)], 1, config(retention_ms=0, cleanup_policy="compact"), now_ms=DAY_MS) == 0


def test_the_log_start_moves_durably_with_retention() -> None:
    disk = new_disk()
    log = open_log(disk, retention_ms=1_000)
    for number in range(60):
        append(log, [b"value %d" % number], timestamp_ms=number, now_ms=number)
    log.sync()
    deleted = log.apply_retention(1_030)
    assert deleted
    assert 0 < log.start_offset <= 31
    start = log.start_offset
    assert read_all(log) == numbered(start, 60)
    log = open_log(disk.kill(), retention_ms=1_000)
    assert log.start_offset == start
    assert read_all(log) == numbered(start, 60)


def test_the_active_segment_goes_only_after_it_has_rolled_by_age() -> None:
    log = open_log(new_disk(), retention_ms=1_000, segment_ms=5_000)
    append(log, [b"x"], timestamp_ms=0, now_ms=0)
    log.sync()
    assert log.apply_retention(4_999) == 0
    assert log.apply_retention(5_000) == 1
    assert (log.start_offset, log.end_offset, log.size_bytes) == (1, 1, 0)
    assert append(log, [b"y"]).base_offset == 1


def test_retention_makes_durable_what_it_rolls() -> None:
    log = open_log(new_disk(), retention_ms=1_000, segment_ms=5_000)
    append(log, [b"x"], timestamp_ms=0, now_ms=0)
    log.apply_retention(6_000)
    assert log.durable_offset == log.end_offset == 1
