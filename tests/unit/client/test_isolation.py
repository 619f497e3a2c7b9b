"""Records that may not be begun now: deferred ones come back in order, isolated ones one at a time, each named before."""

import pytest

from logsvc_client.records import Record
from tests.property.client_world import RECORDS, World


def world() -> World:
    """A consumer by `run` with some records of both partitions in its hands."""
    made = World("key", True, {})
    turn(made)
    made.take(0)
    for _ in range(2):
        turn(made)
        made.take(20)
    assert min(len(offsets(made.hand, partition)) for partition in range(2)) > 3, made.hand
    return made


def turn(made: World) -> None:
    """The network does all it has to do."""
    for _ in range(3):
        made.now_ms += 40
        made.step()
        for _ in range(len(made.transport.in_flight)):
            made.arrive()
        for _ in range(len(made.transport.in_flight)):
            made.answer(0)


def offsets(records: list[Record], partition: int = 0) -> list[int]:
    return [record.offset for record in records if record.partition == partition]


def test_of_a_partition_that_is_full_nothing_taken_before_is_begun_until_it_is_full_no_more() -> None:
    made = world()
    held = offsets(made.hand)
    assert held
    made.broker.paused = {0}
    turn(made)
    while made.hand:
        made.handle(0)
    assert [where for where in made.handled if where[0] == 0] == []
    made.take(20)
    assert offsets(made.hand) == []

    made.broker.paused = set()
    turn(made)
    made.take(20)
    assert offsets(made.hand)[: len(held)] == held, "those deferred come first"
    made.settle()
    assert sorted(made.handled) == [(partition, offset) for partition in range(2) for offset in range(RECORDS)]


def test_a_record_waits_for_an_earlier_one_of_its_key_that_was_deferred() -> None:
    made = world()
    record, later = next(
        (first, second)
        for at, first in enumerate(made.hand)
        for second in made.hand[at + 1 :]
        if first.key is not None and (first.partition, first.key) == (second.partition, second.key)
    )
    made.broker.paused = {record.partition}
    turn(made)
    assert not made.handout.admit(record)
    made.broker.paused = set()
    turn(made)
    # The earlier one is on its way to its worker again, behind the later one, which has been there all the time.
    again = made.handout.take(1, one_by_one=True)
    assert again == [record]
    assert not made.handout.admit(later)
    assert made.handout.admit(record)
    made.handout.finish(record)
    assert later in made.handout.take(20, one_by_one=True)
    assert made.handout.admit(later)


def test_nothing_of_an_isolated_partition_goes_while_something_taken_before_is_in_the_handlers_hands() -> None:
    made = world()
    begun = next(record for record in made.hand if record.partition == 0)
    assert not made.handout.restless or made.handout.admit(begun)
    made.broker.isolated = {0}
    turn(made)
    for record in made.hand:
        if record is not begun and record.partition == 0:
            assert not made.handout.admit(record)
    for _ in range(3):
        assert offsets(made.handout.take(20, one_by_one=True)) == []
        turn(made)
    assert made.broker.attempting.get(0, -1) == -1

    made.handout.finish(begun)
    assert offsets(made.handout.take(20, one_by_one=True)) == []
    turn(made)
    assert made.broker.attempting[0] == begun.offset + 1
    assert [record.offset for record in made.handout.take(20, one_by_one=True)] == [begun.offset + 1]
    assert made.handout.take(20, one_by_one=True) == [], "one at a time, whatever else there is"


@pytest.mark.parametrize("outcome", ["finish", "fail"])
def test_when_a_record_is_over_the_next_is_named_by_the_commit_that_says_so(outcome: str) -> None:
    made = World("none", True, {})
    made.broker.isolated = {0}
    turn(made)
    made.take(1)
    made.hand.clear()
    turn(made)
    for _ in range(4):
        taken = [record for record in made.handout.take(20, one_by_one=True) if record.partition == 0]
        if taken:
            break
        turn(made)
    [record] = taken
    assert made.broker.attempting[0] == record.offset == 0
    if outcome == "finish":
        made.handout.finish(record)
    else:
        made.handout.fail(record, "no")
    made.handout.take(20, one_by_one=True)
    turn(made)
    assert made.broker.attempting[0] == 1
    assert made.broker.failed[0].committed == 1
