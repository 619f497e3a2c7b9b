"""Which records wait behind which: outstanding ones by key, and the one of a key that leads."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc_client.lanes import Lanes
from logsvc_client.records import Record
from logsvc_common.keys import murmur2


def record(offset: int, key: bytes | None = b"k") -> Record:
    return Record("t", 0, offset, 0, key, b"v")


def test_later_records_of_a_key_wait_until_the_outcome_of_all_before_is_certain() -> None:
    lanes = Lanes()
    lanes.add(3, murmur2(b"k"), b"k")
    lanes.add(5, murmur2(b"k"), b"k")
    assert lanes.waits(b"k")
    assert not lanes.waits(b"other")
    assert not lanes.waits(None)
    assert lanes.any_waits([record(6, b"other"), record(7, b"k")])
    assert not lanes.any_waits([record(6, b"other"), record(7, None)])
    lanes.remove(3)
    assert lanes.waits(b"k")
    lanes.remove(5)
    assert not lanes.waits(b"k")
    assert not lanes


def test_a_key_known_by_its_hash_alone_holds_its_records_too() -> None:
    lanes = Lanes()
    lanes.add(3, murmur2(b"k"))
    assert lanes.waits(b"k")
    assert lanes.any_waits([record(6, b"k")])
    assert not lanes.waits(b"other")
    lanes.remove(3)
    assert not lanes.waits(b"k")
    assert not lanes.any_waits([record(6, b"k")])


def test_records_without_a_key_wait_for_nothing() -> None:
    lanes = Lanes()
    lanes.add(3, None)
    assert lanes
    assert not lanes.waits(None)
    assert lanes.remove(3) is None
    assert lanes.remove(3) is None


def test_of_a_key_one_leads_and_the_next_when_it_is_done() -> None:
    lanes, key_hash = Lanes(), murmur2(b"k")
    for offset in (3, 5, 9):
        lanes.add(offset, key_hash, b"k")
    assert lanes.lead(3, key_hash)
    for offset in (5, 5, 9):
        assert not lanes.lead(offset, key_hash)
        lanes.follow(record(offset), key_hash)
    assert lanes.lead(3, key_hash), "it was handed out again, after it had failed"
    assert lanes.remove(3) == record(5)
    assert not lanes.lead(9, key_hash)
    assert lanes.remove(5) == record(9)
    assert lanes.remove(9) is None
    assert lanes.lead(4, key_hash), "nobody leads: the next that comes does"


def test_a_redriven_record_before_the_leader_goes_by_itself() -> None:
    lanes, key_hash = Lanes(), murmur2(b"k")
    for offset in (2, 5, 6):
        lanes.add(offset, key_hash, b"k")
    assert lanes.lead(5, key_hash)
    lanes.follow(record(6), key_hash)
    assert lanes.lead(2, key_hash)
    assert lanes.remove(2) is None
    assert lanes.remove(5) == record(6)


def test_a_redriven_record_takes_its_place_among_those_that_wait() -> None:
    # Given one that leads and two that wait, of which a redriven one was handed out before
    lanes, key_hash = Lanes(), murmur2(b"k")
    for offset in (2, 9, 11):
        lanes.add(offset, key_hash, b"k")
    assert lanes.lead(2, key_hash)
    for offset in (9, 11, 9):
        lanes.follow(record(offset), key_hash)
    # When older dead letters are redriven
    for offset in (5, 10, 5):
        lanes.add(offset, key_hash, b"k")
        assert not lanes.lead(offset, key_hash)
        lanes.follow(record(offset), key_hash)
    # Then each has its turn, once
    for done, following in ((2, 5), (5, 9), (9, 10), (10, 11)):
        assert lanes.remove(done) == record(following)
    assert lanes.remove(11) is None


@given(st.lists(st.tuples(st.sampled_from(["add", "known", "remove"]), st.integers(0, 7)), max_size=40))
def test_a_key_waits_exactly_while_one_of_its_records_is_outstanding(steps: list[tuple[str, int]]) -> None:
    lanes = Lanes()
    outstanding: set[int] = set()

    def key_of(offset: int) -> bytes:
        return b"%d" % (offset % 3)

    for step, offset in steps:
        if step == "remove":
            lanes.remove(offset)
            outstanding.discard(offset)
        else:
            lanes.add(offset, murmur2(key_of(offset)), key_of(offset) if step == "known" else None)
            outstanding.add(offset)
        for key in (b"0", b"1", b"2"):
            waits = any(key_of(each) == key for each in outstanding)
            assert lanes.waits(key) == waits
            assert lanes.any_waits([record(99, key)]) or not waits
    assert bool(lanes) == bool(outstanding)
