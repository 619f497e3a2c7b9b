"""Topics: what there is, how large, how fast, how well; one with its partitions; deleting one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from logsvc.listeners.api.backend import Backend, checked
from logsvc.listeners.api.history import TopicHistory, topic_history
from logsvc.listeners.api.operations import Given, Operation
from logsvc.listeners.api.security import Confirm, check_confirm
from logsvc_common.errors import BrokerError
from logsvc_common.messages import (
    LAST_RECORD,
    DeleteTopic,
    GroupListing,
    ListGroups,
    ListGroupsReply,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
    Metadata,
    MetadataReply,
    PartitionDescription,
    TopicDescription,
    TopicReply,
)
from logsvc_common.names import is_dead_letter

logger = logging.getLogger(__name__)

PARTITIONS_AT_ONCE = 200  # that are looked at before the event loop gets a turn
WORST_STATE_FIRST = ("failed", "read_only", "online")
_FIRST_RECORD_MS = 0  # the first record at or after the epoch


class Topic(msgspec.Struct, forbid_unknown_fields=True):
    """A topic. `records` is the sum of end less start offset, `state` the worst of its partitions'; a rate is null until two
    moments are known to take it from."""

    name: str
    internal: bool
    dead_letters: bool
    partitions: int
    records: int
    size_bytes: int
    appended_records_per_s: float | None
    appended_bytes_per_s: float | None
    fetched_bytes_per_s: float | None
    state: str


class Topics(msgspec.Struct, forbid_unknown_fields=True):
    """Every topic, by name."""

    topics: list[Topic]


class Partition(msgspec.Struct, forbid_unknown_fields=True):
    """A partition: it holds `start_offset` up to, not including, `end_offset`. The times are those of its first and its
    last record; null when it is empty or cannot be read. `reason` says why it is not online."""

    partition: int
    start_offset: int
    end_offset: int
    size_bytes: int
    state: str
    reason: str
    segments: int
    first_timestamp_ms: int | None
    last_timestamp_ms: int | None


class TopicDetail(Topic, forbid_unknown_fields=True):
    """A topic with its settings, its partitions, and the names of the groups that read it, as far as groups can be served."""

    config: dict[str, str]
    partition_list: list[Partition]
    groups: list[str]
    history: TopicHistory


class TopicDeleted(msgspec.Struct, forbid_unknown_fields=True):
    """The topic that is gone, with as many records."""

    topic: str
    records: int


async def describe(backend: Backend, name: str) -> TopicDescription:
    """A topic with its partitions. Raises UnknownTopic, InvalidTopicName."""
    (found,) = (await backend.ask(Metadata([name], True), MetadataReply)).topics
    return checked(found)


def record_count(partitions: Sequence[PartitionDescription]) -> int:
    """How many offsets they hold; compaction may have left fewer records."""
    return sum(part.end_offset - part.start_offset for part in partitions)


def _topic(backend: Backend, topic: TopicDescription) -> Topic:
    states = {part.state for part in topic.partitions}
    rates = backend.history.topic_rates(topic.topic)
    return Topic(
        name=topic.topic,
        internal=topic.internal,
        dead_letters=is_dead_letter(topic.topic),
        partitions=topic.partition_count,
        records=record_count(topic.partitions),
        size_bytes=sum(part.size_bytes for part in topic.partitions),
        appended_records_per_s=rates.appended_records_per_s,
        appended_bytes_per_s=rates.appended_bytes_per_s,
        fetched_bytes_per_s=rates.fetched_bytes_per_s,
        state=next((state for state in WORST_STATE_FIRST if state in states), "online"),
    )


async def every_topic(backend: Backend, wanted: Callable[[str], bool] = bool) -> AsyncIterator[TopicDescription]:
    """The topics with a name that is `wanted`, with their partitions; a few at a time, other work in between."""
    listed = (await backend.ask(Metadata(), MetadataReply)).topics
    names: list[str] = []
    partitions = 0
    for topic in [*(topic for topic in listed if wanted(topic.topic)), None]:
        if topic is not None:
            names.append(topic.topic)
            partitions += topic.partition_count
        if topic is None or partitions >= PARTITIONS_AT_ONCE:
            for found in (await backend.ask(Metadata(names, True), MetadataReply)).topics:
                if not found.error_code:  # else it went meanwhile
                    yield found
            await asyncio.sleep(0)
            names, partitions = [], 0


async def list_topics(backend: Backend, given: Given) -> Topics:
    """List the topics

    The broker's own, whose names begin with `__`, and dead-letter topics are among them.
    """
    return Topics([_topic(backend, topic) async for topic in every_topic(backend)])


async def get_topic(backend: Backend, given: Given) -> TopicDetail:
    """Describe a topic"""
    found = await describe(backend, given.path["topic"])
    groups, _ = await group_listings(backend)
    return TopicDetail(
        **msgspec.structs.asdict(_topic(backend, found)),
        config=found.config,
        partition_list=await _partitions(backend, found),
        groups=sorted(group.group for group in groups if found.topic in group.topics),
        history=topic_history(backend.history, found.topic),
    )


async def group_listings(backend: Backend) -> tuple[list[GroupListing], str | None]:
    """Every group; none, and why, when their log cannot be read: topics are served all the same."""
    try:
        return (await backend.ask(ListGroups(), ListGroupsReply)).groups, None
    except BrokerError as error:
        return [], error.message


async def _partitions(backend: Backend, topic: TopicDescription) -> list[Partition]:
    made: list[Partition] = []
    for begin in range(0, len(topic.partitions), PARTITIONS_AT_ONCE):
        parts = topic.partitions[begin : begin + PARTITIONS_AT_ONCE]
        asked = [(part.partition, time_ms) for part in parts for time_ms in (_FIRST_RECORD_MS, LAST_RECORD)]
        wanted = [ListOffsetsPartition(topic.topic, partition, time_ms) for partition, time_ms in asked]
        results = (await backend.ask(ListOffsets(wanted), ListOffsetsReply)).results
        times = [result.timestamp_ms if result.timestamp_ms >= 0 else None for result in results]
        made += [
            Partition(
                partition=part.partition,
                start_offset=part.start_offset,
                end_offset=part.end_offset,
                size_bytes=part.size_bytes,
                state=part.state,
                reason=part.reason,
                segments=part.segments,
                first_timestamp_ms=first_ms,
                last_timestamp_ms=last_ms,
            )
            for part, first_ms, last_ms in zip(parts, times[::2], times[1::2], strict=True)
        ]
        await asyncio.sleep(0)
    return made


async def delete_topic(backend: Backend, given: Given) -> TopicDeleted:
    """Delete a topic with all its records

    There is no way back; `confirm` repeats the topic's name.
    """
    check_confirm(given.body, given.path["topic"])
    found = await describe(backend, given.path["topic"])
    gone = (await backend.ask(DeleteTopic(found.topic), TopicReply)).topic
    logger.info("topic %s deleted over HTTP by %s", gone.topic, given.peer)
    return TopicDeleted(gone.topic, record_count(found.partitions))


OPERATIONS = (
    Operation("GET", "/topics", list_topics, Topics, tag="topics"),
    Operation("GET", "/topics/{topic}", get_topic, TopicDetail, tag="topics"),
    Operation("POST", "/topics/{topic}/delete", delete_topic, TopicDeleted, body=Confirm, tag="topics"),
)
