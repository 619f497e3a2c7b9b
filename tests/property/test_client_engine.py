"""A group consumer under any sequence of events: every record is handled or dead-lettered, in order, with nothing lost.

Handlers fail, answers are lost, the member is expelled or crashes, the clock jumps, partitions are paused by the group's
breaker or isolated and no more so; see `client_world`.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.client_world import PARTITIONS, RECORDS, World

OFFSETS = st.tuples(st.integers(0, PARTITIONS - 1), st.integers(0, RECORDS - 1))
ACTIONS = st.one_of(
    st.tuples(st.just("step")),
    st.tuples(st.just("arrive")),
    st.tuples(st.just("answer"), st.integers(0, 5)),
    st.tuples(st.just("work"), st.integers(1, 6), st.integers(0, 5)),
    st.tuples(st.just("work"), st.integers(4, 20), st.just(0)),
    st.tuples(st.just("take"), st.integers(1, 6)),
    st.tuples(st.just("handle"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([20, 60, 200, 1_100])),
    st.tuples(st.just("disconnect")),
    st.tuples(st.just("lose answers")),
    st.tuples(st.just("pause"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("isolate"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("disturb"), st.sampled_from(["crash", "expel", "nothing", "nothing"])),
)


def play(world: World, actions: list[tuple[object, ...]]) -> None:
    for action in actions:
        match action:
            case ("step",):
                world.step()
            case ("arrive",):
                world.arrive()
            case ("answer", int(place)):
                world.answer(place)
            case ("work", int(count), int(place)):
                # The network does its part, then the user.
                world.step()
                for _ in range(8):
                    world.arrive()
                for _ in range(8):
                    world.answer(place)
                world.take(count)
                for _ in range(count):
                    world.handle(place)
            case ("take", int(count)):
                world.take(count)
            case ("handle", int(place)):
                world.handle(place)
            case ("wait", int(ms)):
                world.now_ms += ms
            case ("disconnect",):
                world.disconnect()
            case ("lose answers",):
                world.lose_answers()
            case ("pause", int(partition)):
                world.broker.paused ^= {partition}
            case ("isolate", int(partition)):
                world.broker.isolated ^= {partition}
            case ("disturb", "crash"):
                world.crash()
            case ("disturb", "expel"):
                world.expel()


@pytest.mark.parametrize("one_by_one", [True, False], ids=["run", "iteration"])
@pytest.mark.parametrize("ordering", ["key", "partition", "none"])
@settings(max_examples=100, deadline=None)
@given(
    actions=st.lists(ACTIONS, min_size=15, max_size=80),
    fails=st.dictionaries(OFFSETS, st.integers(1, 4), min_size=3, max_size=10),
)
def test_every_record_is_handled_or_dead_lettered_in_order(
    ordering: str, one_by_one: bool, actions: list[tuple[object, ...]], fails: dict[tuple[int, int], int]
) -> None:
    world = World(ordering, one_by_one, dict(fails))
    play(world, actions)
    world.settle()

    everything = {(partition, offset) for partition in range(PARTITIONS) for offset in range(RECORDS)}
    handled, dead = Counter(world.handled), Counter(world.broker.dead_letters)
    assert set(handled) | set(dead) == everything, "a record was lost"
    assert all(count == 1 for count in dead.values()), "two dead letters of one record"
    assert max(Counter(world.handled_in_epoch).values()) == 1, "a record was handled twice in one epoch"
    if not world.disturbed:
        assert all(count == 1 for count in handled.values()), "a record was handled twice although no member was lost"
        assert not set(handled) & set(dead), "a record was handled and dead-lettered"
        assert set(dead) == {where for where, times in fails.items() if times >= world.policy.max_attempts}
