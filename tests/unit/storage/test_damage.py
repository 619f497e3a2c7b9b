"""Files cut, zeroed, flipped, scrambled and swapped behind the broker's back.

A torn tail is cut and everything acknowledged stays. Anything else is found, named by its offset, and never skipped silently.
"""

import random
from collections.abc import Iterator

import pytest

from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.storage.verify import verify
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.errors import CorruptBatch, OffsetOutOfRange, PartitionCorrupt
from tests.storage_support import (
    FOLDER,
    Stored,
    append,
    append_numbered,
    config,
    filled,
    new_disk,
    numbered,
    open_log,
    read_all,
)

FIRST = f"{FOLDER}/{0:020d}.log"
CHECKPOINT = f"{FOLDER}/checkpoint"


def one_segment(count: int = 8) -> tuple[bytes, list[int]]:
    """A segment of `count` batches of two records, and the positions where its batches end."""
    disk = new_disk()
    filled(disk, count, segment_bytes=1 << 20)
    content = disk.content(FIRST)
    ends, end = [], 0
    for header, _ in batches.split(content):
        end += header.size
        ends.append(end)
    return content, ends


def disk_with(content: bytes) -> SimulatedDisk:
    disk = new_disk()
    disk.set_content(FIRST, content)
    return disk


def whole_batches(ends: list[int], size: int) -> int:
    return sum(end <= size for end in ends)


def test_a_file_cut_at_any_byte_keeps_its_whole_batches_and_sets_the_rest_aside() -> None:
    content, ends = one_segment()
    for size in range(len(content) + 1):
        disk = disk_with(content[:size])
        log = open_log(disk, segment_bytes=1 << 20)
        whole = whole_batches(ends, size)
        assert log.state is PartitionState.ONLINE
        assert (log.end_offset, log.high_watermark) == (2 * whole, 2 * whole)
        assert read_all(log) == numbered(0, 2 * whole)
        torn = size - (ends[whole - 1] if whole else 0)
        path = f"{FOLDER}/{2 * whole:020d}.torn"
        assert disk.exists(path) == bool(torn)
        if torn:
            assert disk.content(path) == content[size - torn : size]
        assert append(log, [b"next"]).base_offset == 2 * whole


def test_a_file_zeroed_from_any_byte_is_torn_there() -> None:
    content, ends = one_segment()
    for size in range(len(content)):
        disk = disk_with(content[:size] + bytes(len(content) - size))
        log = open_log(disk, segment_bytes=1 << 20)
        # A batch that ends in zeros anyway is whole although the cut lies inside it.
        intact = sum(content[:end] == (content[:size] + bytes(len(content)))[:end] for end in ends)
        assert log.state is PartitionState.ONLINE
        assert read_all(log) == numbered(0, 2 * intact)


def test_a_file_grown_by_zeros_loses_nothing() -> None:
    content, _ = one_segment()
    for extra in (1, 11, 12, 60, 61, 62, 4_096, 100_000):
        log = open_log(disk_with(content + bytes(extra)), segment_bytes=1 << 20)
        assert log.state is PartitionState.ONLINE
        assert read_all(log) == numbered(0, 16)


def test_what_the_checkpoint_calls_durable_is_corrupt_and_not_torn_when_it_is_cut() -> None:
    disk = new_disk()
    filled(disk, 8, segment_bytes=1 << 20).close()
    content = disk.content(FIRST)
    checkpoint = disk.content(CHECKPOINT)
    for size in (0, 1, 70, len(content) // 2, len(content) - 1):
        disk = disk_with(content[:size])
        disk.set_content(CHECKPOINT, checkpoint)
        log = open_log(disk, segment_bytes=1 << 20)
        assert log.state is PartitionState.READ_ONLY
        assert log.end_offset == 16
        assert disk.content(FIRST) == content[:size], "nothing may be cut"
        with pytest.raises(PartitionCorrupt, match="offset 15"):
            log.read(15, 1_000)
        with pytest.raises(PartitionCorrupt, match="verify --repair"):
            append(log, [b"more"])


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Every bit of the first and of a middle batch header and record, and one bit of every other byte."""
    for position in range(len(content)):
        bits = range(8) if position < 130 else [position % 8]
        for bit in bits:
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            yield position, bytes(flipped)


def consumed(log: PartitionLog, offset: int, following: int) -> list[Stored] | None:
    """What a checking consumer gets; None for a typed error."""
    try:
        return read_all(log, offset, max_bytes=1, up_to=following)
    except (PartitionCorrupt, CorruptBatch):
        return None


def check_flip(log: PartitionLog, bad_offset: int, end: int) -> None:
    """A consumer that checks gets an error for the bad batch, never wrong records, and everything else."""
    for offset in range(end):
        following = offset + 2 - offset % 2
        found = consumed(log, offset, following)
        assert found == numbered(offset, following) or (found is None and offset // 2 == bad_offset // 2)


def test_every_flipped_bit_below_the_durable_offset_is_found_by_verify_and_never_served() -> None:
    disk = new_disk()
    filled(disk, 5, segment_bytes=1 << 20).close()
    content = disk.content(FIRST)
    ends = one_segment(5)[1]
    tried = 0
    checkpoint = disk.content(CHECKPOINT)
    for position, flipped in flips(content):
        disk.set_content(FIRST, flipped)
        disk.set_content(CHECKPOINT, checkpoint)
        bad_offset = 2 * whole_batches(ends, position)
        report = verify(disk, FOLDER)
        faults = report.partitions[0].faults
        assert not report.ok, f"flip at byte {position} was not found"
        assert faults[0].lost_first == bad_offset or faults[0].kind == "stamp"
        log = open_log(disk, segment_bytes=1 << 20)
        check_flip(log, bad_offset, 10)
        log.abandon()
        tried += 1
    assert tried > 1_300


def test_a_flip_above_the_checkpoint_with_good_batches_after_it_makes_the_partition_read_only() -> None:
    content, ends = one_segment(5)
    for position, flipped in flips(content):
        if position >= ends[-2]:
            break
        disk = disk_with(flipped)
        log = open_log(disk, segment_bytes=1 << 20)
        bad_offset = 2 * whole_batches(ends, position)
        assert log.state is PartitionState.READ_ONLY, f"flip at byte {position}"
        assert f"offset {bad_offset} " in log.state_reason
        assert disk.content(FIRST) == flipped
        with pytest.raises(PartitionCorrupt, match=f"corrupt at offset {bad_offset}"):
            log.read(bad_offset, 10_000)
        check_flip(log, bad_offset, 10)


def test_corruption_that_a_read_comes_upon_makes_the_partition_read_only_for_good() -> None:
    disk = new_disk()
    log = filled(disk, 5, segment_bytes=1 << 20)
    _, ends = one_segment(5)
    content = bytearray(disk.content(FIRST))
    content[ends[1] + 16] = 1  # the magic of the third batch
    disk._file(FIRST).content[:] = content
    assert read_all(log, 0, up_to=4) == numbered(0, 4)
    with pytest.raises(PartitionCorrupt, match="offset 4"):
        log.read(4, 1_000)
    assert log.state is PartitionState.READ_ONLY
    with pytest.raises(PartitionCorrupt):
        append_numbered(log)
    assert read_all(log, 6) == numbered(6, 10)
    log.close()
    assert open_log(disk.kill(), segment_bytes=1 << 20).state is PartitionState.READ_ONLY


def spoilt_indexes(rng: random.Random, good: bytes, other: bytes) -> Iterator[bytes | None]:
    yield None
    yield b""
    yield good[:-1]
    yield good[: len(good) // 2]
    yield good + bytes(8)
    yield good + bytes(12)
    yield good + rng.randbytes(240)
    yield rng.randbytes(len(good))
    yield bytes(len(good))
    yield other
    for _ in range(20):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize("which", ["sealed", "active"])
def test_an_index_that_is_missing_or_wrong_is_rebuilt_and_reads_are_right(suffix: str, which: str) -> None:
    disk = new_disk()
    log = filled(disk, 100, segment_bytes=4_096)
    log.close()
    names = [name for name in disk.listdir(FOLDER) if name.endswith(f".{suffix}")]
    victim, other = (names[0], names[1]) if which == "sealed" else (names[-1], names[0])
    good = disk.content(f"{FOLDER}/{victim}")
    assert good
    for spoilt in spoilt_indexes(random.Random(1), good, disk.content(f"{FOLDER}/{other}")):
        if spoilt is None:
            disk.remove(f"{FOLDER}/{victim}")
        else:
            disk.set_content(f"{FOLDER}/{victim}", spoilt)
        log = open_log(disk, segment_bytes=4_096)
        assert read_all(log, max_bytes=300) == numbered(0, 200)
        for offset in range(0, 200, 7):
            assert read_all(log, offset, up_to=offset + 1 + offset % 2)[:1] in ([], numbered(offset, offset + 1))
            assert log.offset_for_time(offset) == (offset, offset)
        log.close()
        assert disk.content(f"{FOLDER}/{victim}") == good
        assert verify(disk, FOLDER).ok


def test_verify_notices_each_spoilt_index() -> None:
    disk = new_disk()
    filled(disk, 100, segment_bytes=4_096).close()
    for suffix in ("index", "timeindex"):
        names = [name for name in disk.listdir(FOLDER) if name.endswith(f".{suffix}")]
        good, other = disk.content(f"{FOLDER}/{names[0]}"), disk.content(f"{FOLDER}/{names[1]}")
        for spoilt in spoilt_indexes(random.Random(2), good, other):
            if spoilt is None:
                disk.remove(f"{FOLDER}/{names[0]}")
            else:
                disk.set_content(f"{FOLDER}/{names[0]}", spoilt)
            kind = "offset_index" if suffix == "index" else "time_index"
            assert [fault.kind for fault in verify(disk, FOLDER).partitions[0].faults] == [kind]
        disk.set_content(f"{FOLDER}/{names[0]}", good)


def test_a_checkpoint_with_any_bit_flipped_costs_a_scan_and_nothing_else() -> None:
    disk = new_disk()
    filled(disk, 12)
    log = open_log(disk.kill())
    log.close()
    good = disk.content(CHECKPOINT)
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1 << (position % 8)
        disk.set_content(CHECKPOINT, bytes(flipped))
        log = open_log(disk)
        assert (log.state, log.end_offset) == (PartitionState.ONLINE, 24)
        assert read_all(log) == numbered(0, 24)
        log.abandon()
    for content in (b"", good[:20], bytes(len(good)), good + b"x"):
        disk.set_content(CHECKPOINT, content)
        assert read_all(open_log(disk)) == numbered(0, 24)


def test_a_stale_checkpoint_costs_a_scan_and_nothing_else() -> None:
    disk = new_disk()
    log = filled(disk, 10)
    stale = [b""]
    for step in range(6):
        log.write_checkpoint()
        stale.append(disk.content(CHECKPOINT))
        for _ in range(9):
            append_numbered(log)
        log.sync()
        if step == 3:
            log.trim(30)
    log.close()
    for content in stale:
        disk.set_content(CHECKPOINT, content)
        log = open_log(disk)
        assert log.state is PartitionState.ONLINE
        assert log.end_offset == 128
        assert read_all(log, 30) == numbered(30, 128)
        log.abandon()


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_segment_file_that_is_gone_is_corruption_unless_it_is_the_oldest(number: int) -> None:
    disk = new_disk()
    filled(disk, 80).close()
    names = [name for name in disk.listdir(FOLDER) if name.endswith(".log")]
    first = int(names[number].removesuffix(".log"))
    disk.remove(f"{FOLDER}/{names[number]}")
    log = open_log(disk)
    assert log.end_offset == 160
    if number == 0:
        assert log.state is PartitionState.ONLINE
        assert log.start_offset > 0
        with pytest.raises(OffsetOutOfRange):
            log.read(0, 100)
        return
    assert log.state is PartitionState.READ_ONLY
    with pytest.raises(PartitionCorrupt, match=f"offset {first}"):
        log.read(first, 100)
    assert read_all(log, 0, up_to=first) == numbered(0, first)


def test_a_sealed_segment_that_is_cut_is_corruption() -> None:
    disk = new_disk()
    filled(disk, 80).close()
    content = disk.content(FIRST)
    disk.set_content(FIRST, content[:-30])
    log = open_log(disk)
    assert log.state is PartitionState.READ_ONLY
    second = int(sorted(name for name in disk.listdir(FOLDER) if name.endswith(".log"))[1].removesuffix(".log"))
    assert read_all(log, second) == numbered(second, 160)
    with pytest.raises(PartitionCorrupt):
        log.read(second - 1, 100)


def test_the_settings_may_change_between_runs() -> None:
    disk = new_disk()
    filled(disk, 50, index_interval_bytes=0).close()
    log = open_log(disk, index_interval_bytes=1 << 20, segment_bytes=1 << 20)
    assert read_all(log) == numbered(0, 100)
    assert log.config == config(index_interval_bytes=1 << 20, segment_bytes=1 << 20)
