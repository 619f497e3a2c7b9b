"""Groups as operators see them: the coordinator's state beside the logs' offsets, for requests and for metrics.

Lag in offsets is the high watermark less the committed offset, or less the log's start where that is higher: what retention
has removed is not waited for. Lag in time is the age of the first record not consumed, read from the log itself.
"""

from collections import Counter
from collections.abc import Callable

from logsvc.broker.exchange import Exchange
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Now
from logsvc.coordinator.views import GroupView, PartitionView
from logsvc.metrics import GroupPartitionSample, GroupSample
from logsvc.storage.log_directory import LogDirectory
from logsvc_common.errors import LogsvcError
from logsvc_common.messages import (
    DescribeGroup,
    DescribeGroupReply,
    GroupListing,
    GroupPartition,
    ListGroups,
    ListGroupsReply,
)
from logsvc_common.names import check_group


class GroupViews:
    """Reads; changes nothing."""

    def __init__(self, coordinator: Coordinator, logs: LogDirectory, now: Callable[[], Now]) -> None:
        self._coordinator = coordinator
        self._logs = logs
        self._now = now

    def list_groups(self, exchange: Exchange[ListGroups]) -> None:
        exchange.reply(ListGroupsReply([self._listing(view) for view in self._coordinator.groups(self._now())]))

    def describe_group(self, exchange: Exchange[DescribeGroup]) -> None:
        view = self._coordinator.describe(check_group(exchange.body.group), self._now())
        exchange.reply(
            DescribeGroupReply(
                group=view.group,
                state=view.state,
                epoch=view.epoch,
                assignor=view.assignor,
                members=view.members,
                partitions=[self._position(partition) for partition in view.partitions],
                breaker=view.breaker,
            )
        )

    def samples(self) -> list[GroupSample]:
        """Every group for the metrics."""
        return [
            GroupSample(
                group=view.group,
                state=view.state,
                members=len(view.members),
                breaker_open=view.breaker.state in ("open", "half_open"),
                partitions=[
                    GroupPartitionSample(
                        topic=found.topic,
                        partition=found.partition,
                        committed=found.committed,
                        lag=found.lag,
                        lag_ms=found.lag_ms,
                        failed=found.failed,
                    )
                    for found in map(self._position, view.partitions)
                ],
            )
            for view in self._coordinator.groups(self._now())
        ]

    def _listing(self, view: GroupView) -> GroupListing:
        found = [self._position(partition) for partition in view.partitions]
        failed: Counter[str] = Counter()
        for partition in found:
            failed.update(partition.failed)
        return GroupListing(
            group=view.group,
            state=view.state,
            members=len(view.members),
            topics=view.topics,
            lag=sum(partition.lag for partition in found),
            failed=view.failed,
            breaker=view.breaker.state,
            lag_ms=max((partition.lag_ms for partition in found), default=0),
            failed_states=dict(failed),
            position=sum(max(partition.committed, partition.start_offset) for partition in found),
        )

    def _position(self, view: PartitionView) -> GroupPartition:
        start_offset = end_offset = lag = lag_ms = 0
        try:
            log = self._logs.partition(view.topic, view.partition)
            start_offset, end_offset = log.start_offset, log.high_watermark
            first = max(view.committed, start_offset)
            lag = max(0, end_offset - first)
            if lag and (timestamp_ms := log.timestamp_at(first)) is not None:
                lag_ms = max(0, self._now().wall_ms - timestamp_ms)
        except LogsvcError:
            # The topic is gone or its partition failed: what the group has committed is still worth telling.
            lag_ms = 0
        return GroupPartition(
            topic=view.topic,
            partition=view.partition,
            committed=view.committed,
            start_offset=start_offset,
            end_offset=end_offset,
            lag=lag,
            lag_ms=lag_ms,
            member_id=view.member_id,
            failed=view.failed,
            deaths=view.deaths,
            isolated=view.isolated,
        )
