"""Samples of brokers that never ran, for tests of `logsvc top`."""

from collections.abc import Sequence

from logsvc.cli.top_model import Sample
from logsvc_common.messages import GroupListing, HelloReply, PartitionDescription, TopicDescription

WALL_MS = 1_764_000_000_000


def group(
    name: str = "billing",
    *,
    lag: int = 0,
    lag_ms: int = 0,
    position: int = 0,
    members: int = 1,
    failed: dict[str, int] | None = None,
    breaker: str = "closed",
    topics: Sequence[str] = ("orders",),
) -> GroupListing:
    failed = failed or {}
    state = "stable" if members else "empty"
    return GroupListing(name, state, members, list(topics), lag, sum(failed.values()), breaker, lag_ms, failed, position)


def topic(
    name: str = "orders", *ends: int, start: int = 0, state: str = "online", topic_id: str = "1", internal: bool = False
) -> TopicDescription:
    partitions = [PartitionDescription(number, start, end, 100 * end, 1, state) for number, end in enumerate(ends)]
    return TopicDescription(topic=name, topic_id=topic_id, partition_count=len(ends), internal=internal, partitions=partitions)


def sample(
    at_s: float, groups: Sequence[GroupListing] = (), topics: Sequence[TopicDescription] = (), *, broker_id: str = "b"
) -> Sample:
    hello = HelloReply(broker_id, "logsvc/0.1.0", 1, [])
    return Sample(at_s=at_s, wall_ms=WALL_MS + int(at_s * 1_000), hello=hello, groups=groups, topics=topics)
