"""Topics: describe, create, alter, delete, trim; offsets by time; producer ids."""

from collections.abc import Callable

from logsvc.broker.dispatcher import guarded
from logsvc.broker.exchange import Exchange
from logsvc.broker.group_commit import Done
from logsvc.storage.log_directory import LogDirectory, Topic
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import InternalTopic, InvalidPartitions, LogsvcError, UnknownTopic
from logsvc_common.messages import (
    EARLIEST,
    LAST_RECORD,
    LATEST,
    AlterTopic,
    CreateTopic,
    DeleteTopic,
    InitProducerId,
    InitProducerIdReply,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
    ListOffsetsResult,
    Metadata,
    MetadataReply,
    PartitionDescription,
    TopicDescription,
    TopicReply,
    TrimTopic,
    TrimTopicReply,
)
from logsvc_common.names import check_topic, is_internal

PARTITIONS_PER_TOPIC_MAX = 10_000
PRODUCER_EPOCH_MAX = (1 << 15) - 1


def describe(topic: Topic, *, partitions: bool = False) -> TopicDescription:
    """`topic` as clients see it."""
    return TopicDescription(
        topic=topic.name,
        topic_id=topic.topic_id,
        partition_count=len(topic.partitions),
        internal=topic.internal,
        config=topic.config.to_mapping(),
        partitions=[_describe_partition(log) for log in topic.partitions] if partitions else [],
    )


def _describe_partition(log: PartitionLog) -> PartitionDescription:
    return PartitionDescription(
        partition=log.partition,
        start_offset=log.start_offset,
        end_offset=log.high_watermark,
        size_bytes=log.size_bytes,
        segments=log.segment_count,
        state=str(log.state),
        reason=log.state_reason,
    )


def _time_or_none(timestamp_ms: int | None) -> int:
    return -1 if timestamp_ms is None else timestamp_ms


class AdminHandler:
    """`changed(topic)` is called after a topic came, grew or was altered, `deleted(topic, its logs)` after it went;
    `forget(topic, done)` before, and it goes when groups have durably forgotten it."""

    def __init__(
        self,
        logs: LogDirectory,
        *,
        partitions_max: int,
        new_producer_id: Callable[[], int],
        changed: Callable[[str], None],
        forget: Callable[[str, Done], None],
        deleted: Callable[[str, list[PartitionLog]], None],
    ) -> None:
        self._logs = logs
        self._partitions_max = partitions_max
        self._new_producer_id = new_producer_id
        self._changed = changed
        self._forget = forget
        self._deleted = deleted

    def metadata(self, exchange: Exchange[Metadata]) -> None:
        wanted = exchange.body.topics
        names = sorted(self._logs.topics) if wanted is None else dict.fromkeys(wanted)
        exchange.reply(MetadataReply([self._describe_or_error(name, exchange.body.partitions) for name in names]))

    def create(self, exchange: Exchange[CreateTopic]) -> None:
        body = exchange.body
        check_topic(body.topic)
        self._refuse_internal(body.topic)
        self._check_partitions(body.partitions, there=0)
        topic = self._logs.create_topic(body.topic, body.partitions, body.config)
        self._changed(topic.name)
        exchange.reply(TopicReply(describe(topic)))

    def alter(self, exchange: Exchange[AlterTopic]) -> None:
        body = exchange.body
        topic = self._topic(body.topic)
        self._refuse_internal(body.topic)
        if body.partitions is not None:
            if body.partitions < len(topic.partitions):
                raise InvalidPartitions(
                    f"topic {topic.name!r} has {len(topic.partitions)} partitions and cannot shrink to {body.partitions}"
                )
            self._check_partitions(body.partitions, there=len(topic.partitions))
        # Settings first: they are what can be refused.
        if body.config:
            topic = self._logs.alter_topic(topic.name, body.config)
        if body.partitions is not None and body.partitions > len(topic.partitions):
            topic = self._logs.add_partitions(topic.name, body.partitions)
        self._changed(topic.name)
        exchange.reply(TopicReply(describe(topic)))

    def delete(self, exchange: Exchange[DeleteTopic]) -> None:
        """First the groups forget the topic: what they had read of it must not count for the next one of that name, and a disk
        that fails in between must not leave it so."""
        topic = self._topic(exchange.body.topic)
        self._refuse_internal(topic.name)

        def forgotten(error: LogsvcError | None) -> None:
            if error is not None:
                exchange.refuse(error)
            else:
                guarded(self._delete, exchange)

        self._forget(topic.name, forgotten)

    def _delete(self, exchange: Exchange[DeleteTopic]) -> None:
        topic = self._topic(exchange.body.topic)
        description = describe(topic)
        partitions = list(topic.partitions)
        try:
            self._logs.delete_topic(topic.name)
        finally:
            if topic.name not in self._logs.topics:  # it is gone, even if the disk has stopped half way
                self._deleted(topic.name, partitions)
        exchange.reply(TopicReply(description))

    def trim(self, exchange: Exchange[TrimTopic]) -> None:
        body = exchange.body
        self._refuse_internal(body.topic)
        log = self._logs.partition(body.topic, body.partition)
        exchange.reply(TrimTopicReply(log.trim(log.high_watermark if body.offset == -1 else body.offset)))

    def list_offsets(self, exchange: Exchange[ListOffsets]) -> None:
        exchange.reply(ListOffsetsReply([self._offset_or_error(wanted) for wanted in exchange.body.partitions]))

    def init_producer_id(self, exchange: Exchange[InitProducerId]) -> None:
        body = exchange.body
        if body.producer_id >= 0 and 0 <= body.producer_epoch < PRODUCER_EPOCH_MAX:
            exchange.reply(InitProducerIdReply(body.producer_id, body.producer_epoch + 1))
        else:
            exchange.reply(InitProducerIdReply(self._new_producer_id(), 0))

    def _topic(self, name: str) -> Topic:
        topic = self._logs.topics.get(name)
        if topic is None:
            check_topic(name)
            raise UnknownTopic(f"no topic {name!r}; create it with: logsvc topic create {name}")
        return topic

    def _describe_or_error(self, name: str, partitions: bool) -> TopicDescription:
        try:
            return describe(self._topic(name), partitions=partitions)
        except LogsvcError as error:
            return TopicDescription(topic=name[:300], error_code=error.code, error_message=error.message)

    def _offset_or_error(self, wanted: ListOffsetsPartition) -> ListOffsetsResult:
        offset = timestamp_ms = -1
        try:
            log = self._logs.partition(wanted.topic, wanted.partition)
            if wanted.timestamp_ms == EARLIEST:
                offset = log.start_offset
            elif wanted.timestamp_ms == LATEST:
                offset = log.high_watermark
            elif wanted.timestamp_ms == LAST_RECORD:
                if log.high_watermark > log.start_offset:
                    offset = log.high_watermark - 1
                    timestamp_ms = _time_or_none(log.timestamp_at(offset))
            elif (found := log.offset_for_time(wanted.timestamp_ms)) is not None:
                offset, timestamp_ms = found
        except LogsvcError as error:
            return ListOffsetsResult(
                topic=wanted.topic, partition=wanted.partition, error_code=error.code, error_message=error.message
            )
        return ListOffsetsResult(topic=wanted.topic, partition=wanted.partition, offset=offset, timestamp_ms=timestamp_ms)

    def _check_partitions(self, count: int, *, there: int) -> None:
        if not 1 <= count <= PARTITIONS_PER_TOPIC_MAX:
            raise InvalidPartitions(f"{count} partitions; a topic has 1 to {PARTITIONS_PER_TOPIC_MAX}")
        total = sum(len(topic.partitions) for topic in self._logs.topics.values()) + count - there
        if total > self._partitions_max:
            raise InvalidPartitions(f"{total} partitions in all would exceed this broker's {self._partitions_max}")

    def _refuse_internal(self, name: str) -> None:
        if is_internal(name):
            raise InternalTopic(f"topic {name!r} is the broker's own; clients cannot make, change or delete it")
