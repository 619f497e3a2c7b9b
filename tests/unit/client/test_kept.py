"""What a member keeps of failed and parked records until they are due again."""

from logsvc_client.kept import RECORD_BYTES, KeptRecords
from logsvc_client.records import Record, TopicPartition
from logsvc_common.keys import murmur2
from logsvc_common.messages import DueRecord

TP = TopicPartition("t", 0)


def record(offset: int, key: bytes | None = None, value: bytes = b"v") -> Record:
    return Record("t", 0, offset, 0, key, value)


def due(offset: int, key: bytes | None = None, letter: int = -1) -> DueRecord:
    return DueRecord(offset, 2, None if key is None else murmur2(key), letter)


def test_what_was_kept_is_found_in_the_order_it_is_due() -> None:
    kept = KeptRecords()
    for offset in (7, 3):
        kept.keep(TP, record(offset, b"k"))
    found = kept.find(TP, [due(3, b"k"), due(7, b"k")])
    assert found is not None
    assert [each.offset for each in found] == [3, 7]


def test_one_that_is_missing_means_that_all_are_asked_for() -> None:
    kept = KeptRecords()
    kept.keep(TP, record(3))
    assert kept.find(TP, [due(3), due(4)]) is None
    assert kept.find(TopicPartition("t", 1), [due(3)]) is None


def test_a_redriven_record_is_read_from_its_letter_whatever_is_kept() -> None:
    kept = KeptRecords()
    kept.keep(TP, record(3))
    assert kept.find(TP, [due(3, letter=0)]) is None


def test_a_record_of_another_key_at_the_same_offset_is_not_the_one_that_is_due() -> None:
    kept = KeptRecords()
    kept.keep(TP, record(3, b"old"))
    assert kept.find(TP, [due(3, b"new")]) is None


def test_what_does_not_fit_is_not_kept_and_room_comes_back() -> None:
    size = RECORD_BYTES + 1
    kept = KeptRecords(bytes_max=2 * size)
    for offset in range(3):
        kept.keep(TP, record(offset))
    assert kept.bytes == 2 * size
    assert kept.find(TP, [due(2)]) is None
    kept.drop(TP, 0)
    kept.drop(TP, 0)
    kept.keep(TP, record(2))
    assert kept.find(TP, [due(2)]) is not None
    kept.keep(TP, record(2))
    assert kept.bytes == 2 * size, "kept twice, counted once"
    kept.drop_partition(TP)
    assert kept.bytes == 0
    assert kept.find(TP, [due(1)]) is None


def test_records_that_wait_for_others_count_and_stop_more_of_them_from_coming() -> None:
    size = RECORD_BYTES + 1
    kept = KeptRecords(bytes_max=4 * size)
    assert kept.behind_max > 0
    for offset in range(6):
        kept.hold(TP, record(offset))
    assert kept.bytes == 6 * size
    assert kept.behind_max == 0
    for offset in range(4):
        kept.drop(TP, offset)
    assert kept.behind_max > 0
