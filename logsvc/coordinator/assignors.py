"""Assignors: who of the members should read which partition.

Pure functions of the subscriptions, the partition counts and the present target. Every partition of a subscribed topic gets
exactly one member, and the same input gives the same answer.

    range    per topic, consecutive partitions to members in the order of their ids (Kafka's RangeAssignor)
    uniform  every topic spread evenly over its subscribers (they differ by at most one), then the totals as evenly as that
             allows; a member keeps what it has where this permits. The default: no topic is left to one member.
    sticky   only the totals are evened out, until no single move would make them more even, moving as little as possible
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
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


class _Shares:
    """The shares while they are evened out: who has how much, what of which topic, and who of a topic's subscribers has least.

    The least loaded is found through one heap for each distinct set of subscribers. An entry whose load has risen is brought
    up to date when it comes to the top; one whose load fell is added anew, because it would stay hidden below.
    """

    def __init__(self, members: Mapping[str, Subscriber], counts: Mapping[str, int]) -> None:
        self.subscribers = _subscribers(members, counts)
        self.load = dict.fromkeys(members, 0)
        self.of: dict[str, dict[str, list[int]]] = {member: {} for member in members}
        for member, subscriber in members.items():
            for topic, partition in sorted(subscriber.held):
                if topic in subscriber.topics and partition < counts.get(topic, 0):
                    self.add(member, topic, partition)
        heaps = {tuple(names): [(self.load[name], name) for name in names] for names in self.subscribers.values()}
        self._heap_of_topic = {topic: heaps[tuple(names)] for topic, names in self.subscribers.items()}
        self._heaps_of_member: dict[str, list[list[tuple[int, str]]]] = {member: [] for member in members}
        for group, heap in heaps.items():
            heapify(heap)
            for member in group:
                self._heaps_of_member[member].append(heap)

    def add(self, member: str, topic: str, partition: int) -> None:
        self.of[member].setdefault(topic, []).append(partition)
        self.load[member] += 1

    def take(self, member: str, topic: str) -> int:
        partitions = self.of[member][topic]
        partition = partitions.pop()
        if not partitions:
            del self.of[member][topic]
        self.load[member] -= 1
        for heap in self._heaps_of_member[member]:
            heappush(heap, (self.load[member], member))
        return partition

    def least(self, topic: str) -> str:
        heap = self._heap_of_topic[topic]
        while True:
            load, member = heap[0]
            if load == self.load[member]:
                return member
            heapreplace(heap, (self.load[member], member))


def assign_sticky(members: Mapping[str, Subscriber], counts: Mapping[str, int]) -> Assignment:
    """Keep all, give what is free to the least loaded, then move one at a time from the most loaded to the least loaded."""
    shares = _Shares(members, counts)
    held = {(topic, partition) for share in shares.of.values() for topic, numbers in share.items() for partition in numbers}
    for topic, names in shares.subscribers.items():
        for partition in range(counts[topic]) if names else ():
            if (topic, partition) not in held:
                shares.add(shares.least(topic), topic, partition)
    donors = [(-load, member) for member, load in shares.load.items()]
    stuck: list[tuple[int, str]] = []
    heapify(donors)
    while donors:
        load, donor = heappop(donors)
        if -load != shares.load[donor]:
            heappush(donors, (-shares.load[donor], donor))
            continue
        receivers = sorted((shares.load[shares.least(topic)], topic) for topic in shares.of[donor])
        if not receivers or shares.load[donor] - receivers[0][0] < 2:
            stuck.append((load, donor))
            continue
        topic = receivers[0][1]
        shares.add(shares.least(topic), topic, shares.take(donor, topic))
        # With unequal subscriptions, one that was stuck may now give to this one. Every move evens out, so this ends.
        for entry in ((-shares.load[donor], donor), *stuck):
            heappush(donors, entry)
        stuck.clear()
    return {
        member: frozenset((topic, partition) for topic, numbers in share.items() for partition in numbers)
        for member, share in shares.of.items()
    }


ASSIGNORS: dict[str, Assignor] = {"uniform": assign_uniform, "range": assign_range, "sticky": assign_sticky}
