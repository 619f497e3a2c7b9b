"""Long polls: parked, woken, expired."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc.broker.parked import Parked


def test_wakes_when_enough_has_arrived_over_several_keys() -> None:
    parked: Parked[str, str] = Parked()
    parked.add("poll", ["a", "b"], deadline_ms=100, missing=10)

    assert parked.wake("a", 4) == []
    assert parked.wake("c", 100) == []
    assert parked.wake("b", 6) == ["poll"]
    assert len(parked) == 0
    assert parked.wake("a", 100) == []


def test_expires_in_the_order_of_deadlines_and_only_those_due() -> None:
    parked: Parked[str, str] = Parked()
    parked.add("late", ["a"], deadline_ms=300)
    parked.add("early", ["a"], deadline_ms=100)
    parked.add("middle", ["b"], deadline_ms=200)

    assert parked.next_deadline_ms() == 100
    assert parked.expire(99) == []
    assert parked.expire(200) == ["early", "middle"]
    assert parked.next_deadline_ms() == 300


def test_a_wake_without_amount_satisfies_all_that_wait_on_the_key() -> None:
    parked: Parked[str, int] = Parked()
    for number in range(3):
        parked.add(number, ["a"], deadline_ms=100, missing=1_000)

    assert parked.wake("a") == [0, 1, 2]


def test_a_key_named_twice_counts_once() -> None:
    parked: Parked[str, str] = Parked()
    parked.add("poll", ["a", "a"], deadline_ms=100, missing=10)

    assert parked.wake("a", 5) == []
    assert parked.wake("a", 5) == ["poll"]


def test_over_the_limit_nothing_is_parked() -> None:
    parked: Parked[str, str] = Parked(limit=1)

    assert parked.add("first", ["a"], deadline_ms=100)
    assert not parked.add("second", ["a"], deadline_ms=100)
    assert parked.drain() == ["first"]
    assert parked.add("second", ["a"], deadline_ms=100)


steps = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 50), st.integers(1, 20)),
    st.tuples(st.just("wake"), st.integers(0, 3), st.none() | st.integers(0, 10)),
    st.tuples(st.just("expire"), st.integers(0, 50)),
)


@given(st.lists(steps, max_size=60))
def test_every_item_leaves_exactly_once_and_never_while_it_still_misses_something(script: list[tuple]) -> None:
    parked: Parked[int, int] = Parked()
    model: dict[int, list] = {}  # item -> [keys, deadline, missing]
    for item, step in enumerate(script):
        if step[0] == "add":
            _, keys, deadline_ms, missing = step
            assert parked.add(item, keys, deadline_ms=deadline_ms, missing=missing)
            model[item] = [set(keys), deadline_ms, missing]
            continue
        if step[0] == "wake":
            _, key, amount = step
            expected = set()
            for number, entry in model.items():
                if key in entry[0]:
                    entry[2] = 0 if amount is None else entry[2] - amount
                    if entry[2] <= 0:
                        expected.add(number)
            left = parked.wake(key, amount)
        else:
            expected = {number for number, entry in model.items() if entry[1] <= step[1]}
            left = parked.expire(step[1])
        assert sorted(left) == sorted(expected)
        for number in expected:
            del model[number]
        assert len(parked) == len(model)
        assert parked.next_deadline_ms() == min((entry[1] for entry in model.values()), default=None)
    assert sorted(parked.drain()) == sorted(model)
