"""Batches under hypothesis: records come back as they went in; noise ends in CorruptBatch and in nothing else."""

import struct

from fastcrc import crc32
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logsvc_common.batch import CODECS, HEADER_BYTES, RecordData, check_crc, decode, encode, parse_header, split, stamp
from logsvc_common.errors import CorruptBatch

OPTIONAL_BYTES = st.none() | st.binary(max_size=200)
HEADERS = st.lists(st.tuples(st.text(max_size=10), OPTIONAL_BYTES), max_size=4)
# Kafka's timestamps are milliseconds since the epoch; deltas between them must fit 64 bits.
TIMESTAMPS = st.integers(0, (1 << 62) - 1)
RECORDS = st.lists(st.builds(RecordData, OPTIONAL_BYTES, OPTIONAL_BYTES, TIMESTAMPS, HEADERS), min_size=1, max_size=20)
CODEC_NUMBERS = st.sampled_from(sorted(CODECS.values()))


def resealed(batch: bytearray) -> bytes:
    """Length and CRC made right again: a batch that is wrong only inside."""
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">I", batch, 17, crc32.iscsi(bytes(batch[21:])))
    return bytes(batch)


@given(RECORDS, CODEC_NUMBERS, st.integers(0, 1 << 62), st.integers(-1, (1 << 63) - 1), st.integers(-1, 32_767))
@settings(max_examples=500, deadline=None)
@example([RecordData(None)], 0, 0, -1, -1)
@example([RecordData(b"", b"", 0, [("", None)])], 4, 1 << 62, 0, 0)
def test_records_come_back_as_they_went_in(
    records: list[RecordData], codec: int, base_offset: int, producer_id: int, producer_epoch: int
) -> None:
    batch = encode(records, codec=codec, base_offset=base_offset, producer_id=producer_id, producer_epoch=producer_epoch)
    header = parse_header(batch)
    check_crc(batch, header)
    assert (header.base_offset, header.record_count, header.last_offset_delta) == (base_offset, len(records), len(records) - 1)
    assert (header.codec, header.producer_id, header.producer_epoch) == (codec, producer_id, producer_epoch)
    assert header.max_timestamp_ms == max(record.timestamp_ms for record in records)
    decoded = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in decode(batch)]
    assert decoded == [(base_offset + i, r.timestamp_ms, r.key, r.value, list(r.headers)) for i, r in enumerate(records)]


@given(RECORDS, CODEC_NUMBERS, st.integers(0, 1 << 62), st.integers(0, (1 << 31) - 1))
@settings(max_examples=200, deadline=None)
def test_stamping_moves_the_offsets_and_nothing_else(records: list[RecordData], codec: int, base: int, epoch: int) -> None:
    batch = encode(records, codec=codec)
    stamped = b"".join(stamp(batch, parse_header(batch), base, epoch))
    header = parse_header(stamped)
    check_crc(stamped, header)
    assert header == parse_header(batch)._replace(base_offset=base, leader_epoch=epoch)
    assert [r.offset - base for r in decode(stamped)] == [r.offset for r in decode(batch)]


@given(st.binary(max_size=300))
@settings(max_examples=800, deadline=None)
def test_random_bytes_are_no_batch(noise: bytes) -> None:
    for read in (lambda: decode(noise), lambda: list(split(noise)), lambda: check_crc(noise, parse_header(noise))):
        try:
            read()
        except CorruptBatch:
            continue


@given(RECORDS, CODEC_NUMBERS, st.binary(max_size=100), st.data())
@settings(max_examples=800, deadline=None)
def test_records_changed_by_someone_who_knows_the_crc_decode_or_end_in_corrupt_batch(
    records: list[RecordData], codec: int, noise: bytes, data: st.DataObject
) -> None:
    batch = bytearray(encode(records, codec=codec))
    position = data.draw(st.integers(HEADER_BYTES, len(batch) - 1))
    match data.draw(st.sampled_from(["replace", "cut", "insert", "all"])):
        case "replace":
            batch[position : position + len(noise)] = noise
        case "cut":
            del batch[position:]
        case "insert":
            batch[position:position] = noise
        case _:
            batch[HEADER_BYTES:] = noise
    hostile = resealed(batch)
    check_crc(hostile, parse_header(hostile))
    try:
        decoded = decode(hostile)
    except CorruptBatch:
        return
    # If it decodes, then it is as many records as the header says, within its offsets.
    assert len(decoded) == len(records)
    assert 0 <= decoded[0].offset <= decoded[-1].offset < len(records)


@given(st.binary(min_size=HEADER_BYTES, max_size=120), CODEC_NUMBERS)
@settings(max_examples=800, deadline=None)
def test_noise_behind_a_plausible_header_ends_in_corrupt_batch_or_records(noise: bytes, codec: int) -> None:
    batch = bytearray(noise)
    batch[16] = 2
    batch[22] = batch[22] & 0xF8 | codec
    struct.pack_into(">i", batch, 23, 3)
    struct.pack_into(">i", batch, 57, noise[60] % 5)
    try:
        decode(resealed(batch))
    except CorruptBatch:
        return


@given(st.lists(RECORDS, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_split_gives_the_whole_batches_of_any_beginning(runs: list[list[RecordData]], data: st.DataObject) -> None:
    batches = [encode(records, codec=i % 5) for i, records in enumerate(runs)]
    joined = b"".join(batches)
    cut = data.draw(st.integers(0, len(joined)))
    found = [bytes(batch) for _, batch in split(joined[:cut])]
    assert found == batches[: len(found)]
    left = cut - sum(map(len, found))
    assert left < len(batches[len(found)]) if len(found) < len(batches) else left == 0
