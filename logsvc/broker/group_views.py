"""Groups as operators see them: the coordinator's state beside the logs' offsets, for requests and for metrics.

Lag in offsets is the high watermark less the committed offset, or less the log's start where that is higher: what retention
has removed is not waited for. Lag in time is the age of the first record not consumed, read from the log itself: see
`lag_clock`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from logsvc.broker.exchange import Exchange
from logsvc.broker.lag_clock import NOTHING_READ, LagClock, Lags, Reading, Unread, timestamp_ms
from logsvc.broker.log_table import LogTable
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Now, TopicPartition
from logsvc.coordinator.views import PartitionView
from logsvc.metrics import ROWS_PER_SAMPLE_MAX, DeferredSample, GroupSample, PositionColumns, Sample
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
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


class _Piece(NamedTuple):
    """Some positions of a group: where it has committed, and where it holds a partition and has not."""

    committed: Lags
    uncommitted: Lags
    failed: list[tuple[str, int, str, int]]


class GroupViews:
    """Reads; changes nothing but what is remembered of the logs. `seconds` is a monotonic clock, to measure with."""

    def __init__(
        self, coordinator: Coordinator, logs: LogDirectory, now: Callable[[], Now], seconds: Callable[[], float]
    ) -> None:
        self._coordinator = coordinator
        self._logs = logs
        self._now = now
        self._table = LogTable(logs)
        self._clock = LagClock(self._table, seconds)

    def list_groups(self, exchange: Exchange[ListGroups]) -> None:
        self._table.refresh()
        found = [(name, list(self._pieces(name))) for name in self._coordinator.group_names()]
        every = [lags for _, pieces in found for piece in pieces for lags in (piece.committed, piece.uncommitted)]
        unread = [(lags, lags.unread()) for lags in every]
        for _ in self._clock.read(unread):
            pass
        exchange.reply(ListGroupsReply([self._listing(name, pieces) for name, pieces in found]))

    def describe_group(self, exchange: Exchange[DescribeGroup]) -> None:
        view = self._coordinator.describe(check_group(exchange.body.group), self._now())
        readings = self._clock.readings(view.group)
        exchange.reply(
            DescribeGroupReply(
                group=view.group,
                state=view.state,
                epoch=view.epoch,
                assignor=view.assignor,
                members=view.members,
                partitions=[self._position(partition, readings) for partition in view.partitions],
                breaker=view.breaker,
            )
        )

    def samples(self, read_seconds_max: float) -> Iterator[Sample | None]:
        """Every group, in short steps: first how far each has come, then the ages, as far as `read_seconds_max` reach."""
        names = self._coordinator.group_names()
        found: list[tuple[str, _Piece]] = []
        unread: list[Unread] = []
        self._table.refresh()
        for name in names:
            standing = self._coordinator.standing(name)
            if standing is None:
                continue
            yield GroupSample(name, standing.state, standing.members, standing.breaker_open)
            for piece in self._pieces(name):
                found.append((name, piece))
                unread.append((piece.committed, piece.committed.unread()))
                yield None
        self._clock.keep([key for name in names for key in (name, _uncommitted(name))])
        for _ in self._clock.read(unread, read_seconds_max):
            yield None
        yield DeferredSample(self._clock.deferred)
        for name, (lags, _, failed) in found:
            if lags.lags or failed:
                ages_ms = lags.ages_ms(self._now().wall_ms)
                yield PositionColumns(name, lags.run.where, lags.committed, lags.lags, ages_ms, failed)

    def _pieces(self, name: str) -> Iterator[_Piece]:
        pieces = 0
        for where, committed, failed in self._coordinator.positions(name, ROWS_PER_SAMPLE_MAX):
            nowhere: list[TopicPartition] = []
            if -1 in committed:
                nowhere = [there for there, at in zip(where, committed, strict=True) if at < 0]
                where = [there for there, at in zip(where, committed, strict=True) if at >= 0]
                committed = [at for at in committed if at >= 0]
            yield _Piece(
                self._clock.lags(name, pieces, where, committed),
                self._clock.lags(_uncommitted(name), pieces, nowhere, [-1] * len(nowhere)),
                failed,
            )
            pieces += 1
        self._clock.end_group(name, pieces)
        self._clock.end_group(_uncommitted(name), pieces)

    def _listing(self, name: str, pieces: list[_Piece]) -> GroupListing:
        standing = self._coordinator.standing(name)
        assert standing is not None, "groups do not change within a turn of the event loop"
        failed: Counter[str] = Counter()
        for piece in pieces:
            for _, _, state, count in piece.failed:
                failed[state] += count
        every = [lags for piece in pieces for lags in (piece.committed, piece.uncommitted)]
        now_ms = self._now().wall_ms
        return GroupListing(
            group=name,
            state=standing.state,
            members=standing.members,
            topics=self._coordinator.topics(name),
            lag=sum(sum(lags.lags) for lags in every),
            failed=failed.total(),
            breaker=standing.breaker,
            lag_ms=max((age_ms for lags in every for age_ms in lags.ages_ms(now_ms) if age_ms is not None), default=0),
            failed_states=dict(failed),
            position=sum(sum(lags.firsts) for lags in every),
        )

    def _position(self, view: PartitionView, readings: Mapping[PartitionLog, Reading]) -> GroupPartition:
        start_offset = end_offset = lag = lag_ms = 0
        try:
            log = self._logs.partition(view.topic, view.partition)
        except LogsvcError:
            pass  # the topic is gone: what the group has committed is still worth telling
        else:
            start_offset, end_offset = log.start_offset, log.high_watermark
            first = max(view.committed, start_offset)
            lag = max(0, end_offset - first)
            if lag:
                read_at, at_ms = readings.get(log, (NOTHING_READ, None))
                at_ms = at_ms if read_at == first else timestamp_ms(log, first)
                lag_ms = 0 if at_ms is None else max(0, self._now().wall_ms - at_ms)
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


def _uncommitted(group: str) -> str:
    """What the clock calls the partitions that a group holds and has not committed in. No group has such a name."""
    return f"{group}/"
