"""What every assignor must hold, whatever the subscriptions and whatever was held before."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.coordinator.assignors import ASSIGNORS, Assignment, Assignor, Subscriber

TOPICS = ("t", "u", "v")
EVERY = pytest.mark.parametrize("assign", ASSIGNORS.values(), ids=ASSIGNORS)
counts_of_topics = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9))
subscriptions = st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.sampled_from(TOPICS)), max_size=7)


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, Subscriber], dict[str, int]]:
    """Members with what they hold now: disjoint, and perhaps of topics that are gone, have shrunk or are not wanted."""
    wanted = draw(subscriptions)
    held: dict[str, set[tuple[str, int]]] = {member: set() for member in wanted}
    if wanted:
        for topic in TOPICS:
            for partition in range(10):
                owner = draw(st.sampled_from([None, *sorted(wanted)]))
                if owner is not None:
                    held[owner].add((topic, partition))
    members = {member: Subscriber(topics, frozenset(held[member])) for member, topics in wanted.items()}
    return members, draw(counts_of_topics)


def settled(assign: Assignor, members: dict[str, Subscriber], counts: dict[str, int]) -> dict[str, Subscriber]:
    shares = assign(members, counts)
    return {member: subscriber._replace(held=shares[member]) for member, subscriber in members.items()}


def moved(members: dict[str, Subscriber], after: Assignment) -> int:
    return sum(len(members[member].held - share) for member, share in after.items())


@EVERY
@given(situation=situations())
def test_each_partition_goes_to_one_member_that_wants_it(
    assign: Assignor, situation: tuple[dict[str, Subscriber], dict[str, int]]
) -> None:
    members, counts = situation
    shares = assign(members, counts)
    assert shares.keys() == members.keys()
    given_out = [partition for share in shares.values() for partition in share]
    wanted = {topic for subscriber in members.values() for topic in subscriber.topics}
    assert sorted(given_out) == sorted((topic, p) for topic, count in counts.items() if topic in wanted for p in range(count))
    assert all(topic in members[member].topics for member, share in shares.items() for topic, _ in share)


@EVERY
@given(situation=situations())
def test_the_same_situation_gives_the_same_answer(
    assign: Assignor, situation: tuple[dict[str, Subscriber], dict[str, int]]
) -> None:
    members, counts = situation
    assert assign(members, counts) == assign(dict(reversed(members.items())), dict(reversed(counts.items())))


@EVERY
@given(situation=situations())
def test_what_is_settled_stays(assign: Assignor, situation: tuple[dict[str, Subscriber], dict[str, int]]) -> None:
    members, counts = situation
    members = settled(assign, members, counts)
    assert moved(members, assign(members, counts)) == 0


@EVERY
@given(members=st.integers(1, 7), counts=counts_of_topics, leaves=st.booleans())
def test_equal_subscriptions_get_equal_shares_after_any_change(
    assign: Assignor, members: int, counts: dict[str, int], leaves: bool
) -> None:
    group = {name: Subscriber(frozenset(TOPICS), frozenset()) for name in "abcdefg"[:members]}
    group = settled(assign, group, counts)
    if leaves and members > 1:
        del group["a"]
    else:
        group["z"] = Subscriber(frozenset(TOPICS), frozenset())
    after = assign(group, counts)
    sizes = sorted(len(share) for share in after.values())
    spread = 1 if assign is not ASSIGNORS["range"] else len(counts)
    assert sizes[-1] - sizes[0] <= spread
    for topic, count in counts.items():
        of_topic = sorted(sum(of == topic for of, _ in share) for share in after.values())
        assert of_topic[-1] - of_topic[0] <= 1 or assign is ASSIGNORS["sticky"]
        assert sum(of_topic) == count


@given(situation=situations())
def test_sticky_ends_where_no_single_move_would_even_out(situation: tuple[dict[str, Subscriber], dict[str, int]]) -> None:
    members, counts = situation
    after = ASSIGNORS["sticky"](members, counts)
    for donor, share in after.items():
        for topic in {topic for topic, _ in share}:
            receivers = [len(after[member]) for member, subscriber in members.items() if topic in subscriber.topics]
            assert len(after[donor]) - min(receivers) < 2


@given(members=st.integers(1, 6), partitions=st.integers(0, 30))
def test_sticky_moves_to_a_newcomer_no_more_than_its_share(members: int, partitions: int) -> None:
    sticky = ASSIGNORS["sticky"]
    group = {name: Subscriber(frozenset("t"), frozenset()) for name in "abcdef"[:members]}
    group = settled(sticky, group, {"t": partitions})
    group["z"] = Subscriber(frozenset("t"), frozenset())
    after = sticky(group, {"t": partitions})
    assert moved(group, after) == len(after["z"]) == partitions // (members + 1)


@given(situation=situations())
def test_range_gives_runs(situation: tuple[dict[str, Subscriber], dict[str, int]]) -> None:
    members, counts = situation
    for share in ASSIGNORS["range"](members, counts).values():
        for topic in TOPICS:
            numbers = sorted(partition for of, partition in share if of == topic)
            assert all(after == before + 1 for before, after in pairwise(numbers))
