"""Every request and its answer, as msgspec structs: msgpack arrays on the wire, typed and validated on arrival.

A field is only ever added at the end, with a default: an older peer ignores it, a newer one fills it in. Anything else is a
new version of that api in `APIS`. Payload frames beside a message are raw record batches; the docstring of a message says
how many there are and what they hold. Offsets, times and counts are integers, times in milliseconds since the epoch.
Results inside an answer carry `error_code` (0 = fine) and `error_message`, because one partition may fail where others do not.
"""

from enum import IntEnum
from typing import ClassVar, NamedTuple

import msgspec

from logsvc_common.retry import RetryPolicy


class Api(IntEnum):
    """What a request asks for."""

    HELLO = 1
    METADATA = 2
    CREATE_TOPIC = 3
    ALTER_TOPIC = 4
    DELETE_TOPIC = 5
    TRIM_TOPIC = 6
    INIT_PRODUCER_ID = 10
    PRODUCE = 11
    FETCH = 12
    LIST_OFFSETS = 13
    GROUP_HEARTBEAT = 20
    COMMIT = 21
    FETCH_OFFSETS = 22
    FETCH_RETRIES = 23
    LIST_GROUPS = 24
    DESCRIBE_GROUP = 25


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of everything on the wire."""


class Request(Message, frozen=True):
    """Base of requests; `API` names the api of each."""

    API: ClassVar[Api]


class Result(Message, frozen=True, kw_only=True):
    """Base of the parts of an answer that can fail on their own."""

    error_code: int = 0
    error_message: str = ""


# Connection


class Hello(Request, frozen=True):
    """The first request of a connection; also a ping."""

    API: ClassVar[Api] = Api.HELLO
    client_id: str = ""
    software: str = ""


class HelloReply(Message, frozen=True):
    """`broker_id` changes with every start of the broker; `apis` lists (api, oldest version, newest version)."""

    broker_id: str
    software: str
    frame_bytes_max: int
    apis: list[tuple[int, int, int]]


# Topics


class Metadata(Request, frozen=True):
    """Describe the topics named, or all when `topics` is None; with `partitions`, each partition's offsets and size too."""

    API: ClassVar[Api] = Api.METADATA
    topics: list[str] | None = None
    partitions: bool = False


class PartitionDescription(Message, frozen=True):
    """`state` is `online`, `read_only` (corrupt) or `failed`; `end_offset` is one past the last record consumers may read."""

    partition: int
    start_offset: int
    end_offset: int
    size_bytes: int
    segments: int
    state: str


class TopicDescription(Result, frozen=True, kw_only=True):
    topic: str
    topic_id: str = ""
    partition_count: int = 0
    internal: bool = False
    config: dict[str, str] = {}
    partitions: list[PartitionDescription] = []


class MetadataReply(Message, frozen=True):
    topics: list[TopicDescription]


class CreateTopic(Request, frozen=True):
    """`config` holds settings other than the defaults, Kafka's names (`retention.ms`), values as text."""

    API: ClassVar[Api] = Api.CREATE_TOPIC
    topic: str
    partitions: int = 1
    config: dict[str, str] = {}


class AlterTopic(Request, frozen=True):
    """Grow to `partitions` (never shrink) and set `config`; a value of None goes back to the default."""

    API: ClassVar[Api] = Api.ALTER_TOPIC
    topic: str
    partitions: int | None = None
    config: dict[str, str | None] = {}


class DeleteTopic(Request, frozen=True):
    API: ClassVar[Api] = Api.DELETE_TOPIC
    topic: str


class TopicReply(Message, frozen=True):
    """The topic as it is afterwards (for a deletion: as it was)."""

    topic: TopicDescription


class TrimTopic(Request, frozen=True):
    """Forget the records below `offset`; -1 means all there are now."""

    API: ClassVar[Api] = Api.TRIM_TOPIC
    topic: str
    partition: int
    offset: int


class TrimTopicReply(Message, frozen=True):
    start_offset: int


# Records


class InitProducerId(Request, frozen=True):
    """A fresh producer id, or with one given: the same with the next epoch, after a loss that broke the sequence."""

    API: ClassVar[Api] = Api.INIT_PRODUCER_ID
    producer_id: int = -1
    producer_epoch: int = -1


class InitProducerIdReply(Message, frozen=True):
    producer_id: int
    producer_epoch: int


class ProducePartition(Message, frozen=True):
    topic: str
    partition: int


class Produce(Request, frozen=True):
    """Append one batch to each partition named. Payload: one frame a partition, in that order, each one whole batch.

    Answered when every batch is as durable as its topic's `flush` setting promises.
    """

    API: ClassVar[Api] = Api.PRODUCE
    partitions: list[ProducePartition]


class ProduceResult(Result, frozen=True, kw_only=True):
    """`base_offset` is the first record's; for a batch that was there already, the one it got then (`duplicate`)."""

    base_offset: int = -1
    duplicate: bool = False


class ProduceReply(Message, frozen=True):
    """In the order of the request."""

    results: list[ProduceResult]


class FetchPartition(Message, frozen=True):
    topic: str
    partition: int
    offset: int
    max_bytes: int = 1 << 20


class Fetch(Request, frozen=True):
    """Records from each `offset` on. Answered when `min_bytes` are there, a partition fails, or after `max_wait_ms`.

    At least one whole batch is returned from the first partition that has any, however large.
    """

    API: ClassVar[Api] = Api.FETCH
    partitions: list[FetchPartition]
    max_wait_ms: int = 500
    min_bytes: int = 1
    max_bytes: int = 16 << 20


class FetchResult(Result, frozen=True, kw_only=True):
    """`high_watermark` is one past the last durable record."""

    topic: str
    partition: int
    high_watermark: int = -1
    start_offset: int = -1


class FetchReply(Message, frozen=True):
    """Payload: one frame a result, in order: whole batches (the first may begin before the offset asked for), or empty
    for a result with an error. Partitions with neither data nor error are left out."""

    results: list[FetchResult]


EARLIEST = -2
LATEST = -1


class ListOffsetsPartition(Message, frozen=True):
    """`timestamp_ms`: EARLIEST, LATEST, or a time: then the first record at or after it is meant."""

    topic: str
    partition: int
    timestamp_ms: int


class ListOffsets(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_OFFSETS
    partitions: list[ListOffsetsPartition]


class ListOffsetsResult(Result, frozen=True, kw_only=True):
    """`offset` is -1 when no record is at or after the time asked for; `timestamp_ms` -1 when there is no record there."""

    topic: str
    partition: int
    offset: int = -1
    timestamp_ms: int = -1


class ListOffsetsReply(Message, frozen=True):
    results: list[ListOffsetsResult]


# Groups


class TopicPartitions(Message, frozen=True):
    topic: str
    partitions: list[int]


JOIN_EPOCH = 0
LEAVE_EPOCH = -1
NO_MEMBER_EPOCH = -1


class GroupHeartbeat(Request, frozen=True):
    """KIP-848's ConsumerGroupHeartbeat. `member_epoch` JOIN_EPOCH joins, LEAVE_EPOCH leaves.

    `member_id` is made by the client, random. `topics`, `assignor` and `session_timeout_ms` are sent when joining or when
    they change, else None. `owned` is what the member holds now; None when unchanged since the last heartbeat.
    """

    API: ClassVar[Api] = Api.GROUP_HEARTBEAT
    group: str
    member_id: str
    member_epoch: int
    instance_id: str | None = None
    client_id: str = ""
    topics: list[str] | None = None
    assignor: str | None = None
    session_timeout_ms: int | None = None
    owned: list[TopicPartitions] | None = None


class GroupHeartbeatReply(Message, frozen=True):
    """`assignment` is what the member may hold now, whole; None when unchanged. What it holds beyond that it gives up and
    reports by the next `owned`."""

    member_id: str
    member_epoch: int
    heartbeat_interval_ms: int
    assignment: list[TopicPartitions] | None = None


class Failure(Message, frozen=True):
    """One failed record. `key_hash` groups records that must keep their order (None: no key)."""

    offset: int
    error: str
    exception_class: str = ""
    stacktrace: str = ""
    key_hash: int | None = None


class Parked(Message, frozen=True):
    """A record not handled because an earlier one of its key has failed: it waits behind it."""

    offset: int
    key_hash: int


class CommitPartition(Message, frozen=True):
    """All below `offset` is done, failed or parked; -1 leaves the committed offset as it is. `done` lists retried or
    unparked records that are handled now."""

    topic: str
    partition: int
    offset: int = -1
    failed: list[Failure] = []
    parked: list[Parked] = []
    done: list[int] = []


class Commit(Request, frozen=True):
    """Progress and the failures it passes, in one message. A consumer outside the group's membership sends an empty
    `member_id` and NO_MEMBER_EPOCH; that is refused while the group has members. `retry` goes with failures."""

    API: ClassVar[Api] = Api.COMMIT
    group: str
    member_id: str
    member_epoch: int
    partitions: list[CommitPartition]
    retry: RetryPolicy | None = None


class Verdict(Message, frozen=True):
    """What became of a failure: `state` is `waiting`, `parked`, `dead_lettered`, `discarded` or `paused`."""

    offset: int
    state: str
    attempts: int
    due_in_ms: int = 0


class CommitResult(Result, frozen=True, kw_only=True):
    """`full`: failed and parked records are at their cap; fetch no new ones here until some are done."""

    topic: str
    partition: int
    committed: int = -1
    verdicts: list[Verdict] = []
    full: bool = False


class CommitReply(Message, frozen=True):
    """In the order of the request."""

    results: list[CommitResult]


class FetchOffsetsPartition(Message, frozen=True):
    topic: str
    partition: int


class FetchOffsets(Request, frozen=True):
    """Where a group stands; all it has committed when `partitions` is None."""

    API: ClassVar[Api] = Api.FETCH_OFFSETS
    group: str
    partitions: list[FetchOffsetsPartition] | None = None


class Outstanding(Message, frozen=True):
    """A failed or parked record that is not done yet; later records of its key wait behind it."""

    offset: int
    key_hash: int | None
    state: str


class FetchOffsetsResult(Result, frozen=True, kw_only=True):
    """`committed` is -1 when the group has committed nothing here."""

    topic: str
    partition: int
    committed: int = -1
    outstanding: list[Outstanding] = []


class FetchOffsetsReply(Message, frozen=True):
    results: list[FetchOffsetsResult]


class FetchRetries(Request, frozen=True):
    """The failed and parked records that are due in these partitions of a member. Waits up to `max_wait_ms` for one."""

    API: ClassVar[Api] = Api.FETCH_RETRIES
    group: str
    member_id: str
    member_epoch: int
    partitions: list[FetchOffsetsPartition]
    max_wait_ms: int = 500
    max_records: int = 500


class DueRecord(Message, frozen=True):
    """`attempt` is the number this try has: 2 for the first retry, 1 for a record that was only parked."""

    offset: int
    attempt: int
    key_hash: int | None = None


class RetriesResult(Result, frozen=True, kw_only=True):
    topic: str
    partition: int
    records: list[DueRecord] = []


class FetchRetriesReply(Message, frozen=True):
    """Payload: one frame a result: the whole batches that hold its records, ascending. A record that retention has
    removed is not in them: the member reports it failed."""

    results: list[RetriesResult]


class ListGroups(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_GROUPS


class GroupListing(Message, frozen=True):
    """`state` is `empty`, `assigning`, `reconciling` or `stable`; `lag` in records, over all its partitions."""

    group: str
    state: str
    members: int
    topics: list[str]
    lag: int
    failed: int = 0


class ListGroupsReply(Message, frozen=True):
    groups: list[GroupListing]


class DescribeGroup(Request, frozen=True):
    API: ClassVar[Api] = Api.DESCRIBE_GROUP
    group: str


class MemberDescription(Message, frozen=True):
    member_id: str
    client_id: str
    member_epoch: int
    instance_id: str | None
    owned: list[TopicPartitions]
    target: list[TopicPartitions]


class GroupPartition(Message, frozen=True):
    """`committed` -1: nothing yet. `lag_ms`: age of the first record not consumed, 0 when caught up. `failed` counts the
    failed offsets by state. `member_id` is empty when nobody holds the partition."""

    topic: str
    partition: int
    committed: int
    start_offset: int
    end_offset: int
    lag: int
    lag_ms: int
    member_id: str
    failed: dict[str, int] = {}


class DescribeGroupReply(Message, frozen=True):
    group: str
    state: str
    epoch: int
    assignor: str
    members: list[MemberDescription]
    partitions: list[GroupPartition]


class ApiEntry(NamedTuple):
    """What an api takes and gives, and the versions of it spoken here."""

    request: type[Request]
    response: type[Message]
    version_min: int = 1
    version_max: int = 1


APIS: dict[Api, ApiEntry] = {
    Api.HELLO: ApiEntry(Hello, HelloReply),
    Api.METADATA: ApiEntry(Metadata, MetadataReply),
    Api.CREATE_TOPIC: ApiEntry(CreateTopic, TopicReply),
    Api.ALTER_TOPIC: ApiEntry(AlterTopic, TopicReply),
    Api.DELETE_TOPIC: ApiEntry(DeleteTopic, TopicReply),
    Api.TRIM_TOPIC: ApiEntry(TrimTopic, TrimTopicReply),
    Api.INIT_PRODUCER_ID: ApiEntry(InitProducerId, InitProducerIdReply),
    Api.PRODUCE: ApiEntry(Produce, ProduceReply),
    Api.FETCH: ApiEntry(Fetch, FetchReply),
    Api.LIST_OFFSETS: ApiEntry(ListOffsets, ListOffsetsReply),
    Api.GROUP_HEARTBEAT: ApiEntry(GroupHeartbeat, GroupHeartbeatReply),
    Api.COMMIT: ApiEntry(Commit, CommitReply),
    Api.FETCH_OFFSETS: ApiEntry(FetchOffsets, FetchOffsetsReply),
    Api.FETCH_RETRIES: ApiEntry(FetchRetries, FetchRetriesReply),
    Api.LIST_GROUPS: ApiEntry(ListGroups, ListGroupsReply),
    Api.DESCRIBE_GROUP: ApiEntry(DescribeGroup, DescribeGroupReply),
}
