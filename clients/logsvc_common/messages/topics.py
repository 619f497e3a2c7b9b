"""Making a connection, and what topics there are."""

from typing import ClassVar

from logsvc_common.messages.base import Api, Entries, Int64, Message, Request, Result, Settings


class Hello(Request, frozen=True):
    """The first request of a connection; also a ping."""

    API: ClassVar[Api] = Api.HELLO
    client_id: str = ""
    software: str = ""


class HelloReply(Message, frozen=True):
    """`broker_id` changes with every start of the broker; `apis` lists (api, oldest version, newest version)."""

    broker_id: str
    software: str
    frame_bytes_max: Int64
    apis: list[tuple[Int64, Int64, Int64]]


class Metadata(Request, frozen=True):
    """Describe the topics named, or all when `topics` is None; with `partitions`, each partition's offsets and size too."""

    API: ClassVar[Api] = Api.METADATA
    topics: Entries[str] | None = None
    partitions: bool = False


class PartitionDescription(Message, frozen=True):
    """`state` is `online`, `read_only` (corrupt) or `failed`; `end_offset` is one past the last record consumers may read.
    `reason` says why it is not online."""

    partition: Int64
    start_offset: Int64
    end_offset: Int64
    size_bytes: Int64
    segments: Int64
    state: str
    reason: str = ""


class TopicDescription(Result, frozen=True, kw_only=True):
    topic: str
    topic_id: str = ""
    partition_count: Int64 = 0
    internal: bool = False
    config: dict[str, str] = {}
    partitions: list[PartitionDescription] = []


class MetadataReply(Message, frozen=True):
    topics: list[TopicDescription]


class CreateTopic(Request, frozen=True):
    """`config` holds settings other than the defaults, Kafka's names (`retention.ms`), values as text."""

    API: ClassVar[Api] = Api.CREATE_TOPIC
    topic: str
    partitions: Int64 = 1
    config: Settings[str] = {}


class AlterTopic(Request, frozen=True):
    """Grow to `partitions` (never shrink) and set `config`; a value of None goes back to the default."""

    API: ClassVar[Api] = Api.ALTER_TOPIC
    topic: str
    partitions: Int64 | None = None
    config: Settings[str | None] = {}


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
    partition: Int64
    offset: Int64


class TrimTopicReply(Message, frozen=True):
    start_offset: Int64
