"""Single records out of batches: what is found, what is gone, and what is kept decoded."""

import pytest

from logsvc.broker import record_reader
from logsvc.broker.record_reader import RecordReader, batches_of
from logsvc.config import TopicConfig
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import RecordData, decode, encode, parse_header, split
from logsvc_common.errors import OffsetOutOfRange

NOW_MS = 1_000


def make_log(batches: int, records: int = 4, codec: int = 0) -> PartitionLog:
    logs = LogDirectory.open(SimulatedDisk(), "data", now_ms=NOW_MS, reserve_bytes=0)
    logs.create_topic("t", 1, TopicConfig().to_mapping())
    log = logs.partition("t", 0)
    for number in range(batches):
        batch = encode(
            [RecordData(b"v%d" % (number * records + at), b"k", NOW_MS + at, [("h", b"x")]) for at in range(records)],
            codec=codec,
        )
        log.append(batch, parse_header(batch), NOW_MS)
    log.sync()
    return log


def batches_at(reader: RecordReader, log: PartitionLog, *offsets: int) -> list[bytes]:
    return batches_of([found for offset in offsets if (found := reader.get(log, offset)) is not None])


@pytest.mark.parametrize("codec", [0, 1])
def test_only_the_records_asked_for_travel_as_they_were_produced(codec: int) -> None:
    log = make_log(3, codec=codec)
    found = batches_at(RecordReader(), log, 1, 3, 9)
    records = [record for batch in found for _, each in split(batch) for record in decode(each)]
    assert [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records] == [
        (offset, NOW_MS + offset % 4, b"k", b"v%d" % offset, [("h", b"x")]) for offset in (1, 3, 9)
    ]
    assert len(found) == 2, "one batch for those that lay in one"


def test_a_record_names_the_codec_it_was_stored_with() -> None:
    record, header = RecordReader().find(make_log(1, codec=1), 2)
    assert record is not None
    assert (record.value, header.codec) == (b"v2", 1)


def test_what_was_trimmed_is_gone_although_its_batch_is_still_decoded() -> None:
    log, reader = make_log(2), RecordReader()
    assert reader.find(log, 1)[0] is not None
    log.trim(4)
    with pytest.raises(OffsetOutOfRange):
        reader.find(log, 1)
    assert [parse_header(batch).base_offset for batch in batches_at(reader, log, 1, 5)] == [4]


def test_an_offset_that_is_not_there_yet_is_out_of_range() -> None:
    with pytest.raises(OffsetOutOfRange):
        RecordReader().find(make_log(1), 4)


def test_a_batch_is_decoded_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counting(batch: bytes) -> object:
        decoded.append(parse_header(batch).base_offset)
        return decode(batch)

    monkeypatch.setattr(record_reader, "decode", counting)
    monkeypatch.setattr(record_reader, "BATCHES_MAX", 2)
    log, reader = make_log(3), RecordReader()
    for offset in (0, 3, 4, 1, 2):
        reader.find(log, offset)
    assert decoded == [0, 4]
    reader.find(log, 8)
    reader.find(log, 0)
    assert decoded == [0, 4, 8], "the batch used longest ago went"
    reader.find(log, 5)
    assert decoded == [0, 4, 8, 4]


def test_batches_that_are_large_together_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    log, reader = make_log(3), RecordReader()
    size = parse_header(log.read(0, 1)).size
    monkeypatch.setattr(record_reader, "BATCHES_BYTES_MAX", size - 1)
    for offset in (0, 4, 8):
        reader.find(log, offset)
    assert len(reader._batches) == 1


def test_what_is_kept_of_compressed_batches_is_counted_as_it_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counting(batch: bytes) -> object:
        decoded.append(parse_header(batch).base_offset)
        return decode(batch)

    logs = LogDirectory.open(SimulatedDisk(), "data", now_ms=NOW_MS, reserve_bytes=0)
    logs.create_topic("t", 1, TopicConfig().to_mapping())
    log = logs.partition("t", 0)
    for _ in range(3):
        batch = encode([RecordData(bytes(1 << 20), b"k", NOW_MS)], codec=1)
        assert len(batch) < 1 << 13
        log.append(batch, parse_header(batch), NOW_MS)
    log.sync()
    monkeypatch.setattr(record_reader, "decode", counting)
    monkeypatch.setattr(record_reader, "BATCHES_BYTES_MAX", 3 << 19)
    reader = RecordReader()
    for offset in (0, 1, 2, 1, 0):
        reader.find(log, offset)
    assert decoded == [0, 1, 2, 0], "the one used last, and one more of a megabyte"
