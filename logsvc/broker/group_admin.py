"""Requests that change a group by hand. Here a reset finds out which offset is meant; the coordinator decides the rest.

Offsets by time need the log, which the coordinator does not read: they are looked up first, in one turn of the event loop with
the decision, so nothing changes between.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from logsvc.broker.exchange import Exchange
from logsvc.clock import Clock
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Event, Now, Outcome, ResetOffsets, TopicPartition
from logsvc.metrics import BrokerMetrics
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import InvalidRequest, LogsvcError, UnknownGroup, UnknownPartition, UnknownTopic
from logsvc_common.messages import (
    AT_OFFSET,
    AT_TIME,
    BY_DURATION,
    BY_SHIFT,
    EARLIEST_OFFSET,
    LATEST_OFFSET,
    ConfigureGroup,
    DeleteGroup,
    ResetGroup,
    ResumeGroup,
)
from logsvc_common.names import check_group

Done = Callable[[Outcome, LogsvcError | None], None]


class GroupAdmin:
    """`handle` carries an event through the coordinator and makes its outcome durable."""

    def __init__(
        self,
        coordinator: Coordinator,
        logs: LogDirectory,
        clock: Clock,
        metrics: BrokerMetrics,
        handle: Callable[[Event, Done], None],
    ) -> None:
        self._coordinator = coordinator
        self._logs = logs
        self._clock = clock
        self._metrics = metrics
        self._handle = handle

    def configure(self, exchange: Exchange[ConfigureGroup]) -> None:
        self._handle(exchange.body, partial(answer, exchange))

    def resume(self, exchange: Exchange[ResumeGroup]) -> None:
        self._handle(exchange.body, partial(answer, exchange))

    def delete(self, exchange: Exchange[DeleteGroup]) -> None:
        def done(outcome: Outcome, error: LogsvcError | None) -> None:
            if error is None:
                self._metrics.drop_group(exchange.body.group)
            answer(exchange, outcome, error)

        self._handle(exchange.body, done)

    def reset(self, exchange: Exchange[ResetGroup]) -> None:
        body = exchange.body
        committed = self._committed(body)
        offsets = [
            (where, self._resolve(body, self._logs.partition(*where), committed.get(where, -1)))
            for where in self._wanted(body, committed)
        ]
        event = ResetOffsets(body.group, offsets, body.dry_run, body.drop_failed)
        self._handle(event, partial(answer, exchange))

    def _committed(self, body: ResetGroup) -> dict[TopicPartition, int]:
        """The group's offsets. One that is not known has none, and may be given some where a topic is named."""
        try:
            view = self._coordinator.describe(check_group(body.group), Now(self._clock.wall_ms(), self._clock.monotonic_ms()))
        except UnknownGroup:
            if body.topic is None:
                raise
            return {}
        return {(found.topic, found.partition): found.committed for found in view.partitions}

    def _wanted(self, body: ResetGroup, committed: Iterable[TopicPartition]) -> list[TopicPartition]:
        if body.topic is None:
            if body.partitions is not None:
                raise InvalidRequest("partitions are those of a topic: name it")
            topics = sorted({topic for topic, _ in committed if topic in self._logs.topics})
            return [(topic, log.partition) for topic in topics for log in self._logs.topics[topic].partitions]
        topic = self._logs.topics.get(body.topic)
        if topic is None:
            raise UnknownTopic(f"no topic {body.topic}")
        if body.partitions is None:
            return [(topic.name, log.partition) for log in topic.partitions]
        for number in body.partitions:
            if not 0 <= number < len(topic.partitions):
                raise UnknownPartition(f"topic {topic.name} has {len(topic.partitions)} partitions, no {number}")
        return [(topic.name, number) for number in sorted(set(body.partitions))]

    def _resolve(self, body: ResetGroup, log: PartitionLog, committed: int) -> int:
        """The offset meant in one partition, within what its log holds."""
        start, end = log.start_offset, log.high_watermark
        match body.to:
            case kind if kind == EARLIEST_OFFSET:
                offset = start
            case kind if kind == LATEST_OFFSET:
                offset = end
            case kind if kind == AT_OFFSET:
                offset = body.value
            case kind if kind == BY_SHIFT:
                offset = (committed if committed >= 0 else start) + body.value
            case kind if kind in (AT_TIME, BY_DURATION):
                time_ms = body.value if kind == AT_TIME else self._clock.wall_ms() - body.value
                found = log.offset_for_time(time_ms)
                offset = end if found is None else found[0]
            case unknown:
                raise InvalidRequest(
                    f"a group is reset to earliest, latest, offset, time, duration or shift, not {unknown[:40]!r}"
                )
        return min(max(offset, start), end)


def answer(exchange: Exchange[Any], outcome: Outcome, error: LogsvcError | None) -> None:
    """Send the reply of an outcome that is durable, or the reason why it is not."""
    if error is not None:
        exchange.refuse(error)
    else:
        assert outcome.reply is not None, f"{exchange.api.name} has no reply"
        exchange.reply(outcome.reply)
