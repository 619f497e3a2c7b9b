"""Every bit of a 64 KiB segment, of its indexes and of the checkpoint, flipped one by one: found, located, the rest readable.

Three ways lead to a batch, and each must say what is wrong before anyone takes the bytes for records: the scan that `verify`,
recovery and the scrubber share; the broker's read and the client that checks what it was sent; and for every bit of every
header, which is what reading goes by, the whole of `verify` and a consumer that reads the segment from one end to the other.

Bits of the records are all alike to the code, which only sums them up, so for them the scan is given the batch they lie in. The
whole of `verify` for every bit of the segment takes minutes: that is the long test.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sortedcontainers import SortedDict

from logsvc.storage.checker import PartitionChecker
from logsvc.storage.checkpoint import FILE_NAME as CHECKPOINT
from logsvc.storage.disk import File
from logsvc.storage.log_reader import LogPoint, LogReader
from logsvc.storage.partition_log import PartitionState
from logsvc.storage.scan import BadBatch, walk_batches
from logsvc.storage.segment import Segment, SegmentCache, file_name
from logsvc.storage.verify import verify
from logsvc_client.fetcher import Fetcher, PartitionFetch
from logsvc_client.records import TopicPartition
from logsvc_common.batch import HEADER_BYTES, BatchHeader, Buffer, check_crc, decode, parse_header
from logsvc_common.errors import CorruptBatch
from logsvc_common.messages import FetchReply, FetchResult
from tests.crash.rotten import SEGMENT_BYTES, SETTINGS, Shelf, layout, partition
from tests.storage_support import FOLDER, append, new_disk, open_log, read_all

FIRST = file_name(0)
PARTS = 8
PART_BYTES = SEGMENT_BYTES // PARTS
STAMP_BYTES = {*range(8), *range(12, 16)}  # base offset and leader epoch lie outside the CRC
Place = tuple[int, BatchHeader]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of warnings of what each test has done itself."""
    caplog.set_level(logging.CRITICAL)


@dataclass
class Rotten:
    """A partition that reads from `segment`, whose bits the test flips."""

    shelf: Shelf
    segment: bytearray
    places: list[Place]
    reader: LogReader
    end: LogPoint

    def read(self, offset: int, max_bytes: int = 1) -> bytes:
        """As a fetch is answered. Raises BadBatch."""
        self.reader.forget_places()
        return self.reader.read(offset, max_bytes, self.end)

    def check(self) -> PartitionChecker:
        checker = PartitionChecker(self.shelf, FOLDER)  # type: ignore[arg-type]
        checker.run()
        return checker


def rotten() -> Rotten:
    disk, files = partition()
    segment = bytearray(files[FIRST])
    shelf = Shelf({**files, FIRST: segment})
    log = open_log(disk, **SETTINGS)
    segments = SortedDict({base: found for base, found in log._segments.items() if base == 0})
    first: Segment = segments[0]
    reader = LogReader(segments, SegmentCache(shelf), int(str(SETTINGS["index_interval_bytes"])))  # type: ignore[arg-type]
    return Rotten(shelf, segment, layout(bytes(segment)), reader, LogPoint(first.end_offset, 0, first.size))


def flips(segment: bytearray, position: int) -> Iterator[int]:
    """Each bit of a byte in turn, flipped; the byte is as it was in the end."""
    good = segment[position]
    for bit in range(8):
        segment[position] = good ^ (1 << bit)
        yield bit
    segment[position] = good


def places_within(places: list[Place], start: int, end: int) -> Iterator[tuple[int, Place]]:
    """(byte, the batch it lies in) from `start` up to `end`."""
    for position, header in places:
        for byte in range(max(position, start), min(position + header.size, end)):
            yield byte, (position, header)


def damage(file: File, position: int, end: int, offset: int) -> tuple[int, int] | None:
    """(position, offset) of what the scan finds wrong with one batch."""
    try:
        next(walk_batches(file, position, end, offset))
    except BadBatch as bad:
        return bad.position, bad.offset
    return None


def told(what: str, bits: int, started: float) -> None:
    seconds = time.perf_counter() - started
    print(f"{what}: {bits:,} bits flipped, each found, {bits / seconds:,.0f} a second, {seconds:.1f} s")


def received(reader: Rotten, offset: int, max_bytes: int) -> PartitionFetch:
    """What the client makes of the broker's answer to one fetch."""
    fetcher = Fetcher(
        reset="error",
        max_wait_ms=0,
        min_bytes=1,
        fetch_bytes_max=max_bytes,
        partition_bytes_max=max_bytes,
        buffer_bytes=10 * max_bytes,
        missing_is_error=True,
    )
    fetch = fetcher.add(TopicPartition("t", 0), offset)
    [sent] = fetcher.plan(0)
    result = FetchResult(topic="t", partition=0, high_watermark=reader.end.offset, start_offset=0)
    fetcher.received(sent, FetchReply([result]), [reader.read(offset, max_bytes)], 0)
    return fetch


def consumed(reader: Rotten, max_bytes: int) -> tuple[list[tuple[int, Buffer | None]], int | None]:
    """Records of the segment as a consumer takes them, up to the first error; the offset it is at then, None without one."""
    found: list[tuple[int, Buffer | None]] = []
    offset = 0
    while offset < reader.end.offset:
        try:
            fetch = received(reader, offset, max_bytes)
            for header, data in fetch.chunks:
                check_crc(data, header)
                found += [(record.offset, record.value) for record in decode(bytes(data))]
                offset = header.next_offset
        except CorruptBatch:
            return found, offset
        if fetch.error is not None:
            return found, offset
        assert offset == fetch.fetch_offset
    return found, None


@pytest.mark.parametrize("part", range(PARTS))
def test_every_bit_of_a_segment_is_found_by_the_scan_and_by_whoever_reads(part: int) -> None:
    made, bits, started = rotten(), 0, time.perf_counter()
    segment, shelf = made.segment, made.shelf
    file = shelf.open(FIRST)
    for byte, (position, header) in places_within(made.places, part * PART_BYTES, (part + 1) * PART_BYTES):
        end, offset = position + header.size, header.base_offset
        for bit in flips(segment, byte):
            # The scan: at this batch, and it says so.
            assert damage(file, position, end, offset) == (position, offset)
            bits += 1
            if byte - position >= HEADER_BYTES and bit:
                continue  # a read does not look at records, and a CRC has been computed
            # The reader: refused by the broker, or by the CRC that the client checks, or the records are whole all the same.
            try:
                data = made.read(offset)
                check_crc(data, parse_header(data))
            except CorruptBatch:
                pass
            else:
                assert byte - position in STAMP_BYTES
    told(f"part {part + 1} of {PARTS} of a 64 KiB segment", bits, started)
    assert bits == PART_BYTES * 8


@pytest.mark.parametrize("part", range(PARTS))
def test_every_bit_of_every_header_is_located_and_all_other_batches_are_read(part: int) -> None:
    """What the length and the offsets in a header say decides where everything after it is looked for."""
    made, bits, started = rotten(), 0, time.perf_counter()
    whole, _ = consumed(made, 1 << 20)
    for number in range(part, len(made.places), PARTS):
        position, header = made.places[number]
        lost = range(header.base_offset, header.next_offset)
        for byte in range(position, position + HEADER_BYTES):
            for bit in flips(made.segment, byte):
                assert_located(made, position, header, stamp=byte - position in STAMP_BYTES)
                records, at = consumed(made, max_bytes=1 if bit % 4 == 0 else 10_000)
                assert (records, at) in ((whole, None), (whole[: lost.start], lost.start))
                assert (
                    made.read(lost.stop, 1 << 20)[:8] == lost.stop.to_bytes(8, "big") if lost.stop < made.end.offset else True
                )
                bits += 1
    told("headers, with the whole of verify and a consumer", bits, started)


def assert_located(made: Rotten, position: int, header: BatchHeader, *, stamp: bool) -> None:
    """`verify` names file, byte and offset of the one batch, and finds all the others."""
    report = made.check().report
    [first] = report.faults
    assert not report.ok
    assert (first.file, first.position, first.offset) == (FIRST, position, header.base_offset)
    assert report.lost_offsets == ([] if stamp else [(header.base_offset, header.last_offset)])
    assert first.kind == ("stamp" if stamp else "batch")
    assert report.bad_bytes == (0 if stamp else header.size)


def test_a_bit_in_every_few_bytes_of_the_records_is_located_by_the_whole_of_verify() -> None:
    made, bits, started = rotten(), 0, time.perf_counter()
    for byte, (position, header) in list(places_within(made.places, 0, SEGMENT_BYTES))[::61]:
        made.segment[byte] ^= 1 << byte % 8
        assert_located(made, position, header, stamp=byte - position in STAMP_BYTES)
        made.segment[byte] ^= 1 << byte % 8
        bits += 1
    told("records, with the whole of verify", bits, started)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_bit_of_a_segment_is_located_by_the_whole_of_verify(part: int) -> None:
    made, bits, started = rotten(), 0, time.perf_counter()
    for byte, (position, header) in places_within(made.places, part * PART_BYTES, (part + 1) * PART_BYTES):
        for _ in flips(made.segment, byte):
            assert_located(made, position, header, stamp=byte - position in STAMP_BYTES)
            bits += 1
    told("the whole of verify", bits, started)


def test_every_bit_of_an_index_is_located_and_harms_nobody() -> None:
    """Indexes are derived: one that is not what was written is built anew, so every read is answered as before."""
    disk, files = partition()
    bits, started = 0, time.perf_counter()
    expected = served(disk)
    for name, content in files.items():
        if not name.endswith("index"):
            continue
        entry_bytes = 8 if name.endswith(".index") else 12
        rot = bytearray(content)
        for byte in range(len(content)):
            for _ in flips(rot, byte):
                disk.set_content(f"{FOLDER}/{name}", bytes(rot))
                [fault] = verify(disk, FOLDER).partitions[0].faults
                assert (fault.file, fault.position // entry_bytes) == (name, byte // entry_bytes)
                assert fault.kind in ("offset_index", "time_index")
                assert fault.offset == int(name.partition(".")[0])
                assert served(disk) == expected
                disk.set_content(f"{FOLDER}/{CHECKPOINT}", files[CHECKPOINT])
                bits += 1
        if name.startswith(file_name(0, "")):
            assert disk.content(f"{FOLDER}/{name}") == content, "the index of the sealed segment was written anew"
        disk.set_content(f"{FOLDER}/{name}", content)
    told("both indexes", bits, started)


def served(disk: object) -> list[object]:
    """Everything a partition answers, opened on these files: records from the start, and from times."""
    log = open_log(disk, **SETTINGS)  # type: ignore[arg-type]
    assert log.state is PartitionState.ONLINE
    answers: list[object] = [log.start_offset, log.end_offset, read_all(log, max_bytes=20_000)]
    answers += [log.offset_for_time(1_000_000 + offset) for offset in range(0, log.end_offset, 5)]
    answers += [log.read(offset, 1) for offset in range(0, log.end_offset, 7)]
    log.abandon()
    return answers


def test_every_bit_of_the_checkpoint_is_found_and_costs_only_a_longer_scan() -> None:
    disk, files = partition()
    bits, started = 0, time.perf_counter()
    expected = served(disk)
    rot = bytearray(files[CHECKPOINT])
    for byte in range(len(rot)):
        for _ in flips(rot, byte):
            disk.set_content(f"{FOLDER}/{CHECKPOINT}", bytes(rot))
            [fault] = verify(disk, FOLDER).partitions[0].faults
            assert (fault.kind, fault.file) == ("checkpoint", CHECKPOINT)
            assert fault.position == (byte if byte < 8 else 8)
            assert served(disk) == expected
            bits += 1
    told("the checkpoint", bits, started)


def test_a_bit_in_each_byte_of_a_batch_is_mended_with_every_byte_kept_and_the_partition_serves_again() -> None:
    disk, files = partition()
    places = layout(files[FIRST])
    position, header = places[5]
    started, bits = time.perf_counter(), 0
    for byte in [*range(position, position + HEADER_BYTES), position + 100, position + header.size - 1]:
        rot = bytearray(files[FIRST])
        rot[byte] ^= 1 << byte % 8
        for name in disk.listdir(FOLDER):
            disk.remove(f"{FOLDER}/{name}")
        for name, content in files.items():
            disk.set_content(f"{FOLDER}/{name}", bytes(rot) if name == FIRST else content)
        report = verify(disk, FOLDER, repair=True).partitions[0]
        if byte - position in STAMP_BYTES:
            assert disk.content(f"{FOLDER}/{FIRST}") == files[FIRST]
        else:
            [aside] = report.quarantined
            assert disk.content(f"{FOLDER}/{aside}") == rot[position : position + header.size]
            assert report.lost_offsets == [(header.base_offset, header.last_offset)]
            assert report.bad_bytes == header.size
        assert verify(disk, FOLDER).ok
        log = open_log(disk, **SETTINGS)
        assert log.state is PartitionState.ONLINE
        gone = {} if byte - position in STAMP_BYTES else set(range(header.base_offset, header.next_offset))
        assert [offset for offset, _, _ in read_all(log)] == [offset for offset in range(log.end_offset) if offset not in gone]
        end_offset = log.end_offset
        assert append(log, [b"next"]).base_offset == end_offset
        log.abandon()
        bits += 1
    told("mended", bits, started)


def test_in_a_segment_no_checkpoint_vouches_for_only_the_very_last_batch_can_be_taken_for_a_torn_one() -> None:
    """After a crash the durable offset is that of the last checkpoint. What is bad at the very end may never have been
    acknowledged, so it is cut off, but told and kept; anything before it is corruption."""
    disk = new_disk()
    log = open_log(disk, **{**SETTINGS, "segment_bytes": 1 << 20})
    while log.size_bytes < SEGMENT_BYTES:
        append(log, [b"x" * 1_300] * 3)
    log.sync()
    good, end_offset, started, bits = disk.content(f"{FOLDER}/{FIRST}"), log.end_offset, time.perf_counter(), 0
    disk.kill()
    places = layout(good)
    for position, header in places:
        last = position == places[-1][0]
        for byte in (*range(position, position + HEADER_BYTES), position + header.size - 1):
            rot = bytearray(good)
            rot[byte] ^= 1 << byte % 8
            for name in disk.listdir(FOLDER):
                disk.remove(f"{FOLDER}/{name}")
            disk.set_content(f"{FOLDER}/{FIRST}", bytes(rot))
            log = open_log(disk, **{**SETTINGS, "segment_bytes": 1 << 20})
            if last:
                assert (log.state, log.end_offset) == (PartitionState.ONLINE, header.base_offset)
                torn = f"{FOLDER}/{file_name(header.base_offset, '.torn')}"
                assert disk.content(torn) == rot[position:]
            else:
                assert log.state is PartitionState.READ_ONLY
                assert f"{FIRST} at byte {position}" in log.state_reason
                assert log.end_offset == end_offset
                assert disk.content(f"{FOLDER}/{FIRST}") == rot
            log.abandon()
            bits += 1
    told("an active segment after a crash", bits, started)
