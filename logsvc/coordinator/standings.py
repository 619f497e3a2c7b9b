"""How groups stand, as columns: for the metrics and listings, which look at every group and must not take long about it.

A broker may have 50,000 positions, a group in a partition each. `views` makes an object of each, with all that is to be said
of it; here they are lists, filled a piece at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

from logsvc.coordinator.events import TopicPartition
from logsvc.coordinator.group import Group
from logsvc_common.breaker import BreakerState


class Standing(NamedTuple):
    """A group without its partitions and topics. `state` and `breaker` as in GroupListing."""

    group: str
    state: str
    members: int
    breaker: str

    @property
    def breaker_open(self) -> bool:
        """True while it pauses, or tries with single records."""
        return self.breaker in (BreakerState.OPEN, BreakerState.HALF_OPEN)


class Positions(NamedTuple):
    """Some partitions a group has committed in or holds. `committed` is -1 before the first commit; `failed` are counts of
    unfinished failed offsets: (topic, partition, state, count)."""

    where: list[TopicPartition]
    committed: list[int]
    failed: list[tuple[str, int, str, int]]


def standing(group: Group) -> Standing:
    breaker = group.flood.breaker
    return Standing(group.name, group.state, len(group.members), str(breaker.state) if breaker.config.enabled else "off")


def topics(group: Group) -> list[str]:
    """Those that it subscribes to, holds partitions of or has committed in, in order."""
    found = {topic for member in group.members.values() for topic in member.topics}
    found.update({topic for topic, _ in group.progress}, {topic for topic, _ in group.owners})
    return sorted(found)


def positions(group: Group, rows_max: int) -> Iterator[Positions]:
    """Each of its partitions once, `rows_max` at a time, each piece as of when it is asked for."""
    everywhere, every = list(group.progress), list(group.progress.values())
    for start in range(0, len(every), rows_max):
        where, failed = everywhere[start : start + rows_max], [found.failed for found in every[start : start + rows_max]]
        yield Positions(
            where,
            [offsets.committed for offsets in failed],
            [
                (*there, state, count)
                for there, offsets in zip(where, failed, strict=True)
                if len(offsets)
                for state, count in offsets.counts().items()
            ],
        )
    held = [where for where in group.owners if where not in group.progress]
    for start in range(0, len(held), rows_max):
        rest = held[start : start + rows_max]
        yield Positions(rest, [-1] * len(rest), [])
