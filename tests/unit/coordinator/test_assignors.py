"""Assignors: what each spreads how, and how little the ones that keep things move."""

import pytest

from logsvc.coordinator.assignors import (
    ASSIGNORS,
    Assignment,
    Assignor,
    Subscriber,
    assign_range,
    assign_sticky,
    assign_uniform,
)

NOTHING: frozenset[tuple[str, int]] = frozenset()


def members(**topics: str) -> dict[str, Subscriber]:
    """`a="t u"` is a member that wants both topics and has nothing."""
    return {name: Subscriber(frozenset(wanted.split()), NOTHING) for name, wanted in topics.items()}


def holding(assignment: Assignment, **topics: str) -> dict[str, Subscriber]:
    return {name: subscriber._replace(held=assignment.get(name, NOTHING)) for name, subscriber in members(**topics).items()}


def numbers(assignment: Assignment, topic: str = "t") -> dict[str, list[int]]:
    return {
        member: sorted(partition for of_topic, partition in share if of_topic == topic) for member, share in assignment.items()
    }


def moved(before: Assignment, after: Assignment) -> int:
    return sum(len(share - before.get(member, NOTHING)) for member, share in after.items())


def test_range_gives_consecutive_partitions_and_the_first_members_one_more() -> None:
    assert numbers(assign_range(members(b="t", a="t", c="t"), {"t": 7})) == {"a": [0, 1, 2], "b": [3, 4], "c": [5, 6]}


def test_uniform_spreads_single_partition_topics_over_all_members() -> None:
    shares = assign_uniform(members(a="t u v w", b="t u v w"), {"t": 1, "u": 1, "v": 1, "w": 1})
    assert sorted(map(len, shares.values())) == [2, 2]


def test_uniform_spreads_each_topic_where_sticky_looks_at_totals_only() -> None:
    before = assign_sticky(members(a="t u", b="t u"), {"t": 2, "u": 2})
    lopsided = {"a": frozenset({("t", 0), ("t", 1)}), "b": frozenset({("u", 0), ("u", 1)})}
    assert assign_sticky(holding(lopsided, a="t u", b="t u"), {"t": 2, "u": 2}) == lopsided
    assert assign_uniform(holding(lopsided, a="t u", b="t u"), {"t": 2, "u": 2}) != lopsided
    assert sorted(map(len, before.values())) == [2, 2]


@pytest.mark.parametrize("assign", [assign_uniform, assign_sticky])
def test_a_newcomer_takes_its_share_and_nothing_else_moves(assign: Assignor) -> None:
    before = assign(members(a="t", b="t"), {"t": 12})
    after = assign(holding(before, a="t", b="t", c="t"), {"t": 12})
    assert sorted(map(len, after.values())) == [4, 4, 4]
    assert moved(before, after) == 4


@pytest.mark.parametrize("assign", [assign_uniform, assign_sticky])
def test_only_the_partitions_of_one_that_left_move(assign: Assignor) -> None:
    before = assign(members(a="t", b="t", c="t"), {"t": 12})
    after = assign(holding(before, a="t", b="t"), {"t": 12})
    assert sorted(map(len, after.values())) == [6, 6]
    assert moved(before, after) == 4


@pytest.mark.parametrize("assign", ASSIGNORS.values(), ids=ASSIGNORS)
def test_more_members_than_partitions_leaves_some_without(assign: Assignor) -> None:
    shares = assign(members(a="t", b="t", c="t"), {"t": 2})
    assert sorted(map(len, shares.values())) == [0, 1, 1]


@pytest.mark.parametrize("assign", ASSIGNORS.values(), ids=ASSIGNORS)
def test_nobody_gets_a_topic_it_did_not_ask_for(assign: Assignor) -> None:
    shares = assign(members(a="t", b="u", c="missing"), {"t": 3, "u": 2, "unread": 4})
    assert shares == {
        "a": frozenset(("t", partition) for partition in range(3)),
        "b": frozenset(("u", partition) for partition in range(2)),
        "c": NOTHING,
    }


@pytest.mark.parametrize("assign", ASSIGNORS.values(), ids=ASSIGNORS)
def test_what_was_held_of_a_topic_that_is_gone_is_forgotten(assign: Assignor) -> None:
    before = {"a": frozenset({("gone", 0), ("t", 5)})}
    assert assign(holding(before, a="t gone"), {"t": 1}) == {"a": frozenset({("t", 0)})}


@pytest.mark.parametrize("assign", ASSIGNORS.values(), ids=ASSIGNORS)
def test_no_members_no_shares(assign: Assignor) -> None:
    assert assign({}, {"t": 3}) == {}


def test_sticky_passes_on_through_unequal_subscriptions() -> None:
    held = {"a": frozenset(("t", partition) for partition in range(6)), "b": frozenset({("u", 0), ("u", 1)})}
    after = assign_sticky(holding(held, a="t", b="t u", c="u"), {"t": 6, "u": 2})
    assert {member: len(share) for member, share in after.items()} == {"a": 3, "b": 3, "c": 2}
