"""What an operator sees of a group: read-only copies for DescribeGroup, ListGroups and the metrics."""

from typing import NamedTuple

from logsvc.coordinator.events import TopicPartition
from logsvc.coordinator.group import Group, to_wire
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.suspects import is_isolated
from logsvc_common.messages import BreakerDescription, MemberDescription


class PartitionView(NamedTuple):
    """`committed` is -1 before the first commit; `member_id` is empty when nobody holds the partition; `failed` counts the
    unfinished failed offsets by state; `deaths` are those of its present suspicion."""

    topic: str
    partition: int
    committed: int
    member_id: str
    failed: dict[str, int]
    deaths: int = 0
    isolated: bool = False


class GroupView(NamedTuple):
    """`state` is `empty`, `reconciling` or `stable`; `topics` are those subscribed or committed to."""

    group: str
    state: str
    epoch: int
    assignor: str
    topics: list[str]
    members: list[MemberDescription]
    partitions: list[PartitionView]
    breaker: BreakerDescription

    @property
    def failed(self) -> int:
        """Unfinished failed offsets, all partitions and states together."""
        return sum(sum(partition.failed.values()) for partition in self.partitions)


def view(group: Group, now_ms: int, limits: CoordinatorLimits) -> GroupView:
    """The group at `now_ms`, monotonic."""
    partitions = sorted(group.progress.keys() | group.owners.keys())
    topics = {topic for member in group.members.values() for topic in member.topics}
    return GroupView(
        group=group.name,
        state=group.state,
        epoch=group.meta.epoch,
        assignor=group.meta.assignor,
        topics=sorted(topics | {topic for topic, _ in partitions}),
        members=[
            MemberDescription(
                member_id=member_id,
                client_id=member.client_id,
                member_epoch=member.epoch,
                instance_id=member.instance_id,
                owned=to_wire(member.assigned.keys() | member.revoking.keys()),
                target=to_wire(member.target),
                retry=member.retry,
            )
            for member_id, member in sorted(group.members.items())
        ],
        partitions=[_partition_view(group, partition, limits) for partition in partitions],
        breaker=group.flood.describe(now_ms),
    )


def _partition_view(group: Group, partition: TopicPartition, limits: CoordinatorLimits) -> PartitionView:
    progress = group.progress.get(partition)
    suspicion = None if progress is None else progress.suspicion
    return PartitionView(
        topic=partition[0],
        partition=partition[1],
        committed=-1 if progress is None else progress.failed.committed,
        member_id=group.owners.get(partition, ""),
        failed={} if progress is None else progress.failed.counts(),
        deaths=0 if suspicion is None else suspicion.deaths,
        isolated=is_isolated(progress, limits),
    )
