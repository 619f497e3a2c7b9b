"""Assignors: who of the members should read which partition.

Pure functions of the subscriptions, the partition counts and the present target. Every partition of a subscribed topic gets
exactly one member, and the same input gives the same answer.

    range    per topic, consecutive partitions to members in the order of their ids (Kafka's RangeAssignor)
    uniform  every topic spread evenly over its subscribers (they differ by at most one), then the totals as evenly as that
             allows; a member keeps what it has where this permits. The default: no topic is left to one member.
    sticky   only the totals are evened out, to a difference of one where subscriptions permit, moving as little as possible
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappush, heapreplace
from typing import NamedTuple

from logsvc.coordinator.events import TopicPartition

DEFAULT_ASSIGNOR = "uniform"


class Subscriber(NamedTuple):
    """What a member wants, and what it is to have at present."""

    topics: frozenset[str]
    held: frozenset[TopicPartition]


Assignment = dict[str, frozenset[TopicPartition]]
Assignor = Callable[[Mapping[str, Subscriber], Mapping[str, int]], Assignment]


def _subscribers(members: Mapping[str, Subscriber], topics: Iterable[str]) -> dict[str, list[str]]:
    by_topic: dict[str, list[str]] = {topic: [] for topic in sorted(topics)}
    for member in sorted(members):
        for topic in members[member].topics:
            if topic in by_topic:
                by_topic[topic].append(member)
    return by_topic


def assign_range(members: Mapping[str, Subscriber], counts: Mapping[str, int]) -> Assignment:
    """Consecutive partitions; the first members get one more when they do not divide."""
    shares: dict[str, set[TopicPartition]] = {member: set() for member in members}
    for topic, subscribers in _subscribers(members, counts).items():
        if not subscribers:
            continue
        each, extra = divmod(counts[topic], len(subscribers))
        start = 0
        for rank, member in enumerate(subscribers):
            end = start + each + (rank < extra)
            shares[member].update((topic, partition) for partition in range(start, end))
            start = end
    return {member: frozenset(share) for member, share in shares.items()}


def assign_uniform(members: Mapping[str, Subscriber], counts: Mapping[str, int]) -> Assignment:
    """Topic by topic; what is left over when a topic does not divide goes to those who have least so far."""
    held: dict[tuple[str, str], list[int]] = {}
    for member, subscriber in members.items():
        for topic, partition in subscriber.held:
            if partition < counts.get(topic, 0):
                held.setdefault((topic, member), []).append(partition)
    shares: dict[str, set[TopicPartition]] = {member: set() for member in members}
    for topic, subscribers in _subscribers(members, counts).items():
        if not subscribers:
            continue
        each, extra = divmod(counts[topic], len(subscribers))
        # Among those with equally little, whoever has most of this topic keeps it, so that nothing moves without a reason.
        ranked = sorted(subscribers, key=lambda m: (len(shares[m]), -len(held.get((topic, m), ())), m))
        quotas = {member: each + (rank < extra) for rank, member in enumerate(ranked)}
        kept = {member: sorted(held.get((topic, member), ()))[: quotas[member]] for member in ranked}
        free = iter(sorted(set(range(counts[topic])).difference(*kept.values())))
        for member in ranked:
            taken = kept[member] + [next(free) for _ in range(quotas[member] - len(kept[member]))]
            shares[member].update((topic, partition) for partition in taken)
    return {member: frozenset(share) for member, share in shares.items()}


class _Loads:
    """Finds the least loaded subscriber of a topic. One heap per distinct set of subscribers, brought up to date on the way."""

    def __init__(self, shares: Mapping[str, set[TopicPartition]], subscribers: Mapping[str, list[str]]) -> None:
        self._shares = shares
        self._heaps: dict[tuple[str, ...], list[tuple[int, str]]] = {}
        self._of_topic: dict[str, list[tuple[int, str]]] = {}
        for topic, names in subscribers.items():
            heap = self._heaps.setdefault(tuple(names), [(len(shares[name]), name) for name in names])
            heapify(heap)
            self._of_topic[topic] = heap
        self._of_member: dict[str, list[list[tuple[int, str]]]] = {}
        for members, heap in self._heaps.items():
            for name in members:
                self._of_member.setdefault(name, []).append(heap)

    def least(self, topic: str) -> str:
        heap = self._of_topic[topic]
        while True:
            load, member = heap[0]
            if load == len(self._shares[member]):
                return member
            heapreplace(heap, (len(self._shares[member]), member))

    def fell(self, member: str) -> None:
        """A load that rose is found out when it comes to the top; one that fell would stay hidden below."""
        for heap in self._of_member[member]:
            heappush(heap, (len(self._shares[member]), member))


def assign_sticky(members: Mapping[str, Subscriber], counts: Mapping[str, int]) -> Assignment:
    """Keep all, give what is free to the least loaded, then move from the most to the least loaded while they differ by two."""
    subscribers = _subscribers(members, counts)
    shares = {
        member: {p for p in subscriber.held if p[0] in subscriber.topics and p[1] < counts.get(p[0], 0)}
        for member, subscriber in members.items()
    }
    loads = _Loads(shares, subscribers)
    everything = {(topic, partition) for topic, names in subscribers.items() if names for partition in range(counts[topic])}
    for partition in sorted(everything.difference(*shares.values())):
        shares[loads.least(partition[0])].add(partition)
    # One round evens out equal subscriptions. Unequal ones may need a chain of moves, one more member each round.
    for _ in range(len(members)):
        moved = False
        for donor in sorted(shares, key=lambda member: (-len(shares[member]), member)):
            for partition in sorted(shares[donor], reverse=True):
                receiver = loads.least(partition[0])
                if len(shares[donor]) - len(shares[receiver]) < 2:
                    continue
                shares[donor].remove(partition)
                shares[receiver].add(partition)
                loads.fell(donor)
                moved = True
        if not moved:
            break
    return {member: frozenset(share) for member, share in shares.items()}


ASSIGNORS: dict[str, Assignor] = {"uniform": assign_uniform, "range": assign_range, "sticky": assign_sticky}
