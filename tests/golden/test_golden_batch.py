"""The bytes of a batch are Kafka's: what Kafka wrote is read here, and what is written here is what Kafka would write."""

import struct

import pytest

from logsvc_common.batch import CODECS, BatchHeader, RawRecord, check_crc, decode, encode, parse_header, split, stamp
from tests.golden.kafka_batches import BASE_OFFSET, BASE_SEQUENCE, PRODUCER_EPOCH, PRODUCER_ID, RECORDS, by_kafka


def ours(codec: str) -> bytes:
    return encode(
        RECORDS,
        codec=CODECS[codec],
        base_offset=BASE_OFFSET,
        producer_id=PRODUCER_ID,
        producer_epoch=PRODUCER_EPOCH,
        base_sequence=BASE_SEQUENCE,
    )


def in_our_words(records: list[RawRecord]) -> list[tuple[object, ...]]:
    return [(record.offset, record.timestamp, record.key, record.value, record.headers) for record in records]


EXPECTED = [
    (BASE_OFFSET + delta, record.timestamp_ms, record.key, record.value, list(record.headers))
    for delta, record in enumerate(RECORDS)
]


def test_an_uncompressed_batch_is_kafkas_byte_for_byte() -> None:
    assert ours("none").hex() == by_kafka("none").hex()


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_has_every_field_where_kafka_has_it(codec: str) -> None:
    written, kafkas = parse_header(ours(codec)), parse_header(by_kafka(codec))
    # Compressors may choose other bytes for the same records: then length and CRC differ, and nothing else.
    assert written._replace(length=0, crc=0) == kafkas._replace(length=0, crc=0)
    assert kafkas == BatchHeader(
        base_offset=42,
        length=len(by_kafka(codec)) - 12,
        leader_epoch=-1,
        magic=2,
        crc=struct.unpack(">I", by_kafka(codec)[17:21])[0],
        attributes=CODECS[codec],
        last_offset_delta=2,
        first_timestamp_ms=1_700_000_000_000,
        max_timestamp_ms=1_700_000_000_123,
        producer_id=7,
        producer_epoch=3,
        base_sequence=9,
        record_count=3,
    )
    assert (kafkas.last_offset, kafkas.next_offset, kafkas.last_sequence, kafkas.codec) == (44, 45, 11, CODECS[codec])


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_written_by_kafka_is_read(codec: str) -> None:
    batch = by_kafka(codec)
    check_crc(batch, parse_header(batch))
    assert in_our_words(decode(batch)) == EXPECTED


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_written_here_is_read_back(codec: str) -> None:
    batch = ours(codec)
    check_crc(batch, parse_header(batch))
    assert in_our_words(decode(batch)) == EXPECTED


def test_stamping_changes_the_base_offset_and_the_leader_epoch_and_leaves_the_crc_right() -> None:
    batch = by_kafka("zstd")
    stamped = b"".join(stamp(batch, parse_header(batch), 1_000, leader_epoch=5))
    header = parse_header(stamped)
    check_crc(stamped, header)
    assert (header.base_offset, header.leader_epoch) == (1_000, 5)
    assert stamped[16:] == batch[16:]
    assert [record.offset for record in decode(stamped)] == [1_000, 1_001, 1_002]


def test_batches_one_after_another_are_told_apart() -> None:
    segment = b"".join(by_kafka(codec) for codec in CODECS)
    assert [header.codec for header, _ in split(segment)] == list(CODECS.values())
    assert b"".join(bytes(batch) for _, batch in split(segment)) == segment


def test_records_stamped_by_the_broker_carry_the_append_time() -> None:
    # Given a batch whose attributes say that its time is the broker's (bit 3, LogAppendTime)
    batch = bytearray(by_kafka("none"))
    batch[22] |= 0x08
    # Then every record has the batch's largest timestamp, as Kafka's readers do it.
    assert {record.timestamp for record in decode(batch)} == {1_700_000_000_123}
