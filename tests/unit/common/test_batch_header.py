"""Headers that cannot be, batches that were cut or changed: found out, whatever byte it is."""

import struct

import pytest

from logsvc_common.batch import (
    BATCH_BYTES_LIMIT,
    CODECS,
    HEADER_BYTES,
    BatchHeader,
    Buffer,
    check_crc,
    decode,
    parse_header,
    split,
)
from logsvc_common.errors import CorruptBatch
from tests.golden.kafka_batches import by_kafka

NOT_COVERED_BY_THE_CRC = {*range(8), *range(12, 16)}  # base offset and leader epoch: the broker stamps them


def patched(batch: bytes, position: int, fmt: str, *values: int) -> bytes:
    changed = bytearray(batch)
    struct.pack_into(fmt, changed, position, *values)
    return bytes(changed)


def accepted(buffer: Buffer) -> BatchHeader:
    header = parse_header(buffer)
    check_crc(buffer, header)
    return header


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_cut_at_any_byte_is_refused(codec: str) -> None:
    batch = by_kafka(codec)
    for end in range(len(batch)):
        with pytest.raises(CorruptBatch):
            accepted(batch[:end])


@pytest.mark.parametrize("codec", CODECS)
def test_any_changed_byte_is_noticed_unless_it_is_one_the_broker_stamps(codec: str) -> None:
    batch = by_kafka(codec)
    original = parse_header(batch)
    for position in range(len(batch)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(batch)
            changed[position] ^= flip
            if position in NOT_COVERED_BY_THE_CRC:
                header = accepted(changed)
                assert header._replace(base_offset=42, leader_epoch=-1) == original
            else:
                with pytest.raises(CorruptBatch):
                    accepted(changed)


@pytest.mark.parametrize("zeros", [0, 1, 11, 12, 60, 61, 62, 4_096])
def test_a_run_of_zeros_is_no_batch_though_the_crc_of_nothing_is_zero(zeros: int) -> None:
    with pytest.raises(CorruptBatch):
        parse_header(bytes(zeros))
    if zeros >= HEADER_BYTES:
        with pytest.raises(CorruptBatch):
            list(split(bytes(zeros)))


@pytest.mark.parametrize("length", [-(1 << 31), -1, 0, HEADER_BYTES - 12 - 1, BATCH_BYTES_LIMIT + 1, (1 << 31) - 1])
def test_an_impossible_length_is_refused_before_it_is_used(length: int) -> None:
    with pytest.raises(CorruptBatch, match="length"):
        parse_header(patched(by_kafka("none"), 8, ">i", length))


@pytest.mark.parametrize("magic", [-1, 0, 1, 3, 127])
def test_another_magic_is_refused(magic: int) -> None:
    with pytest.raises(CorruptBatch, match="magic"):
        parse_header(patched(by_kafka("none"), 16, ">b", magic))


@pytest.mark.parametrize(("last_offset_delta", "records"), [(-1, 0), (2, -1), (0, 2), (1, 3), (-5, 1)])
def test_counts_that_contradict_each_other_are_refused(last_offset_delta: int, records: int) -> None:
    batch = patched(patched(by_kafka("none"), 23, ">i", last_offset_delta), 57, ">i", records)
    with pytest.raises(CorruptBatch, match="records"):
        parse_header(batch)


def test_compaction_may_leave_fewer_records_than_offsets() -> None:
    assert parse_header(patched(by_kafka("none"), 57, ">i", 1)).record_count == 1


def test_a_header_is_read_in_the_middle_of_a_buffer() -> None:
    batch = by_kafka("lz4")
    buffer = b"\xff" * 7 + batch + b"\xff" * 3
    header = parse_header(buffer, 7)
    check_crc(buffer, header, 7)
    assert header == parse_header(batch)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_read(kind: type) -> None:
    batch = kind(by_kafka("snappy"))
    header = accepted(batch)
    assert header.size == len(batch)
    assert len(decode(batch)) == 3


def test_sequences_wrap_at_two_to_the_thirty_first() -> None:
    assert parse_header(patched(by_kafka("none"), 53, ">i", (1 << 31) - 1)).last_sequence == 1


def test_split_fed_with_every_cut_leaves_out_the_batch_that_was_cut() -> None:
    # Given three batches, and the ends at which each is whole
    batches = [by_kafka("none"), by_kafka("gzip"), by_kafka("zstd")]
    segment = b"".join(batches)
    ends = [len(batches[0]), len(batches[0]) + len(batches[1]), len(segment)]
    for end in range(len(segment) + 1):
        # When it is cut there, then exactly the whole ones come out, unchanged.
        found = list(split(segment[:end]))
        assert [bytes(batch) for _, batch in found] == batches[: sum(end >= whole for whole in ends)]


def test_split_stops_with_an_error_at_a_header_that_cannot_be() -> None:
    batches = split(by_kafka("none") + b"\x00" * 100)
    assert next(batches)[0].base_offset == 42
    with pytest.raises(CorruptBatch):
        next(batches)
