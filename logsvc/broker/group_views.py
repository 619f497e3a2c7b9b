"""Groups as operators see them: the coordinator's state beside the logs' offsets, for requests and for metrics.

Lag in offsets is the high watermark less the committed offset, or less the log's start where that is higher: what retention
has removed is not waited for. Lag in time is the age of the first record not consumed, read from the log itself: see
`lag_clock`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from logsvc.broker.exchange import Exchange
from logsvc.broker.lag_clock import LagClock, Unread
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Now, TopicPartition
from logsvc.coordinator.standings import Positions, Standing
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


class _Columns(NamedTuple):
    """Positions beside their logs; those whose topic is gone are left out. `firsts` is where each group reads on."""

    where: list[TopicPartition]
    logs: list[PartitionLog]
    committed: list[int]
    firsts: list[int]
    lags: list[int]


class GroupViews:
    """Reads; changes nothing but what is remembered of the logs. `seconds` is a monotonic clock, to measure with."""

    def __init__(
        self, coordinator: Coordinator, logs: LogDirectory, now: Callable[[], Now], seconds: Callable[[], float]
    ) -> None:
        self._coordinator = coordinator
        self._logs = logs
        self._now = now
        self._clock = LagClock(seconds)

    def list_groups(self, exchange: Exchange[ListGroups]) -> None:
        names = self._coordinator.group_names()
        found = [(name, list(self._coordinator.positions(name, ROWS_PER_SAMPLE_MAX))) for name in names]
        columns = {name: [self._columns(piece, kept=False) for piece in pieces] for name, pieces in found}
        unknown = [unread for name, pieces in columns.items() for piece in pieces for unread in self._unknown(name, piece)]
        for _ in self._clock.read(unknown):
            pass
        listings = []
        for name, pieces in found:
            standing = self._coordinator.standing(name)
            assert standing is not None, "groups do not change within a turn of the event loop"
            listings.append(self._listing(standing, pieces, columns[name]))
        exchange.reply(ListGroupsReply(listings))

    def describe_group(self, exchange: Exchange[DescribeGroup]) -> None:
        view = self._coordinator.describe(check_group(exchange.body.group), self._now())
        exchange.reply(
            DescribeGroupReply(
                group=view.group,
                state=view.state,
                epoch=view.epoch,
                assignor=view.assignor,
                members=view.members,
                partitions=[self._position(view.group, partition) for partition in view.partitions],
                breaker=view.breaker,
            )
        )

    def samples(self) -> Iterator[Sample | None]:
        """Every group, in short steps: first how far each has come, then the ages, as far as the pass has time to read them."""
        names = self._coordinator.group_names()
        found: list[tuple[str, _Columns, Positions]] = []
        unknown: list[Unread] = []
        for name in names:
            standing = self._coordinator.standing(name)
            if standing is None:
                continue
            yield GroupSample(name, standing.state, standing.members, standing.breaker_open)
            everywhere: list[TopicPartition] = []
            for positions in self._coordinator.positions(name, ROWS_PER_SAMPLE_MAX):
                columns = self._columns(positions, kept=True)
                found.append((name, columns, positions))
                unknown += self._unknown(name, columns)
                everywhere += columns.where
                yield None
            self._clock.keep_of(name, everywhere)
        self._clock.keep(names)
        for _ in self._clock.read(unknown):
            yield None
        yield DeferredSample(self._clock.deferred)
        for name, columns, positions in found:
            if columns.where or positions.failed:
                ages = self._ages(name, columns)
                yield PositionColumns(name, columns.where, columns.committed, columns.lags, ages, positions.failed)

    def _unknown(self, group: str, columns: _Columns) -> list[Unread]:
        return self._clock.unknown(group, columns.where, columns.logs, columns.firsts, columns.lags)

    def _ages(self, group: str, columns: _Columns) -> list[int | None]:
        now_ms = self._now().wall_ms
        known = self._clock.known_lag_ms
        return [known(group, where, now_ms) if lag else 0 for where, lag in zip(columns.where, columns.lags, strict=True)]

    def _columns(self, positions: Positions, *, kept: bool) -> _Columns:
        """`kept`: leave out where nothing is committed. Else such a position reads on at the log's start."""
        topics = self._logs.topics
        rows = [
            (where, topic.partitions[where[1]], committed)
            for where, committed in zip(positions.where, positions.committed, strict=True)
            if (committed >= 0 or not kept) and (topic := topics.get(where[0])) is not None and where[1] < len(topic.partitions)
        ]
        firsts = [max(committed, log.start_offset) for _, log, committed in rows]
        return _Columns(
            [where for where, _, _ in rows],
            [log for _, log, _ in rows],
            [committed for _, _, committed in rows],
            firsts,
            [max(0, log.high_watermark - first) for (_, log, _), first in zip(rows, firsts, strict=True)],
        )

    def _listing(self, standing: Standing, positions: list[Positions], pieces: list[_Columns]) -> GroupListing:
        failed: Counter[str] = Counter()
        for piece in positions:
            for _, _, state, count in piece.failed:
                failed[state] += count
        ages = [age for columns in pieces for age in self._ages(standing.group, columns)]
        return GroupListing(
            group=standing.group,
            state=standing.state,
            members=standing.members,
            topics=standing.topics,
            lag=sum(sum(columns.lags) for columns in pieces),
            failed=failed.total(),
            breaker=standing.breaker,
            lag_ms=max((age for age in ages if age is not None), default=0),
            failed_states=dict(failed),
            position=sum(sum(columns.firsts) for columns in pieces),
        )

    def _position(self, group: str, view: PartitionView) -> GroupPartition:
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
                lag_ms = self._clock.lag_ms(Unread(group, (view.topic, view.partition), log, first), self._now().wall_ms) or 0
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
