"""The records inside: decoding is bounded in memory and fails in one way only."""

import struct
import tracemalloc

import cramjam
import pytest
from fastcrc import crc32

from logsvc_common import batch as batch_module
from logsvc_common.batch import CODECS, HEADER_BYTES, RecordData, builder, check_crc, codec_number, decode, encode, parse_header
from logsvc_common.errors import CorruptBatch, InvalidConfig, InvalidRequest
from tests.golden.kafka_batches import by_kafka


def sealed(header: bytes, records: bytes, codec: int = 0, count: int | None = None) -> bytes:
    """A batch with these bytes for records, its length and CRC right: what only a hostile or broken producer sends."""
    made = bytearray(header[:HEADER_BYTES] + records)
    struct.pack_into(">i", made, 8, len(made) - 12)
    made[22] = codec
    if count is not None:
        struct.pack_into(">i", made, 23, max(count - 1, 0))
        struct.pack_into(">i", made, 57, count)
    struct.pack_into(">I", made, 17, crc32.iscsi(bytes(made[21:])))
    check_crc(made, parse_header(made))
    return bytes(made)


PLAIN = by_kafka("none")
PLAIN_RECORDS = PLAIN[HEADER_BYTES:]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_small_batch_that_would_inflate_enormously_is_refused_within_bounded_memory(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a limit of 4 MiB, and a batch of a few KiB that holds 64 MiB of zeros
    monkeypatch.setattr(batch_module, "DECODED_BYTES_MAX", 4 << 20)
    bomb = sealed(PLAIN, bytes(getattr(cramjam, codec).compress(bytes(64 << 20))), CODECS[codec])
    # When it is decoded, then it is refused without the memory it asks for.
    tracemalloc.start()
    with pytest.raises(CorruptBatch):
        decode(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_snappy_batch_of_many_blocks_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "DECODED_BYTES_MAX", 4 << 20)
    block = bytes(cramjam.snappy.compress_raw(bytes(1 << 20)))
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + (struct.pack(">i", len(block)) + block) * 8
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, framed, CODECS["snappy"]))


@pytest.mark.parametrize("length", [-(1 << 31), -4, -1, 0, 1 << 30])
def test_a_snappy_block_that_lies_about_its_length_does_not_hang_the_reader(length: int) -> None:
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + struct.pack(">i", length) + b"\x00" * 20
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, framed, CODECS["snappy"]))


def test_snappy_without_blocks_is_read_too() -> None:
    batch = sealed(PLAIN, bytes(cramjam.snappy.compress_raw(PLAIN_RECORDS)), CODECS["snappy"])
    assert [record.value for record in decode(batch)] == [record.value for record in decode(PLAIN)]


def test_a_snappy_length_of_four_gibibytes_allocates_nothing() -> None:
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, b"\xff\xff\xff\xff\x0f" + PLAIN_RECORDS, CODECS["snappy"]))


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_an_unknown_codec_is_refused(codec: int) -> None:
    with pytest.raises(CorruptBatch, match="codec"):
        decode(sealed(PLAIN, PLAIN_RECORDS, codec))


@pytest.mark.parametrize("count", [0, 1, 2, 4, 1_000, (1 << 31) - 1])
def test_a_record_count_that_lies_is_found_out(count: int) -> None:
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, PLAIN_RECORDS, count=count))


@pytest.mark.parametrize(
    "lie",
    [
        b"\xff" * 9,  # a number without an end
        b"\xff" * 20,
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a key of 2**63 - 1 bytes
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xfe\xff\xff\xff\x0f",  # a key of 2**31 - 1 bytes
        b"\x7e",
    ],
    ids=["endless", "long-endless", "int64", "int56", "int32", "short"],
)
def test_a_key_that_lies_about_its_length_is_found_out(lie: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, b"\x14\x00\x00\x00" + lie, count=1))


@pytest.mark.parametrize("records", [b"", b"\x00", b"\x80", b"\xff"])
def test_records_that_end_at_once_are_found_out(records: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decode(sealed(PLAIN, records, count=1))


def test_header_names_that_are_not_unicode_are_found_out() -> None:
    # Given one record with one header of the name 0xff
    body = b"\x00\x00\x00\x01\x01" + b"\x02" + b"\x02\xff" + b"\x01"
    with pytest.raises(CorruptBatch, match="UnicodeDecodeError"):
        decode(sealed(PLAIN, bytes([len(body) * 2]) + body, count=1))


@pytest.mark.parametrize("delta", [-1, 3, 1_000])
def test_a_record_outside_the_offsets_of_its_batch_is_found_out(delta: int) -> None:
    body = b"\x00\x00" + _zigzag(delta) + b"\x01\x01\x00"
    batch = bytearray(sealed(PLAIN, bytes([len(body) * 2]) + body, count=1))
    struct.pack_into(">i", batch, 23, 2)
    with pytest.raises(CorruptBatch):
        decode(batch)


def _zigzag(number: int) -> bytes:
    value, out = (number << 1) ^ (number >> 63), bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("size", [0, 1, 12, 60])
def test_fewer_bytes_than_a_header_are_refused(size: int) -> None:
    with pytest.raises(CorruptBatch):
        decode(PLAIN[:size])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_batch_with_bytes_missing_or_left_over_is_refused(change: int) -> None:
    with pytest.raises(CorruptBatch):
        decode(PLAIN[:change] if change < 0 else PLAIN + b"\x00")


def test_a_view_into_memory_that_is_not_pythons_is_read() -> None:
    # Given a batch at the very end of a mapped page: reading past it would end the process
    import mmap

    page = mmap.mmap(-1, mmap.PAGESIZE)
    lying = sealed(PLAIN, b"\x14\x00\x00\x00" + b"\xff" * 9, count=1)
    page[mmap.PAGESIZE - len(lying) :] = lying
    with pytest.raises(CorruptBatch):
        decode(memoryview(page)[mmap.PAGESIZE - len(lying) :])


def test_a_batch_emptied_by_compaction_has_no_records() -> None:
    batch = bytearray(sealed(PLAIN, b"", count=0))
    assert decode(batch) == []


def test_a_batch_needs_a_record() -> None:
    with pytest.raises(InvalidRequest):
        encode([])


def test_a_full_builder_says_so_but_takes_the_first_record_however_large() -> None:
    made = builder(batch_bytes=1_000)
    assert made.append(0, 0, None, b"x" * 5_000, []) is not None
    assert made.append(1, 0, None, b"x", []) is None
    assert len(decode(bytes(made.build()))) == 1


def test_codecs_go_by_name() -> None:
    assert [codec_number(name) for name in ("none", "gzip", "snappy", "lz4", "zstd")] == [0, 1, 2, 3, 4]
    with pytest.raises(InvalidConfig, match="zstd"):
        codec_number("brotli")


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_larger_than_the_room_tried_first_is_inflated_whole(codec: str) -> None:
    value = bytes(range(256)) * 1_024
    batch = encode([RecordData(value, timestamp_ms=i) for i in range(12)], codec=CODECS[codec])
    assert [record.value for record in decode(batch)] == [value] * 12


@pytest.mark.parametrize("codec", CODECS)
def test_the_most_compressible_batch_is_inflated_whole(codec: str) -> None:
    # The room given to a decompressor follows from the most its format can inflate to: it must be enough for the extreme.
    value = bytes(8 << 20)
    assert decode(encode([RecordData(value)], codec=CODECS[codec]))[0].value == value
