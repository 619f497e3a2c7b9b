"""One tree of errors, split by who is to blame. Each has a wire code and says whether, and how long, trying again can help.

Codes below 1000 are Kafka's own (`org.apache.kafka.common.protocol.Errors`) where Kafka has the error; ours begin at 1000.
The broker sends `(code, message)`; the client raises the same class again through `from_wire`.
"""

from typing import ClassVar

DISK_FULL_RETRY_MS_MAX = 5_000


class LogsvcError(Exception):
    """Anything logsvc raises on purpose."""

    code: ClassVar[int] = -1
    retriable: ClassVar[bool] = False
    retry_ms_max: ClassVar[int | None] = None  # None: until whoever waits has waited long enough

    @classmethod
    def worth_retrying(cls, waited_ms: int) -> bool:
        """Whether a request that has gone on for `waited_ms` should be sent again after this error."""
        return cls.retriable and (cls.retry_ms_max is None or waited_ms < cls.retry_ms_max)

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__doc__ or ""


# The caller is to blame: the same request will fail again.


class RequestError(LogsvcError):
    """The request cannot be met as it stands; sending it again will not help."""


class InvalidRequest(RequestError):
    """A request that is malformed or contradicts itself."""

    code = 42


class UnsupportedVersion(RequestError):
    """An api, or a version of it, that this side does not speak."""

    code = 35


class InvalidTopicName(RequestError):
    """A topic name that breaks the rule in `logsvc_common.names`."""

    code = 17


class InvalidGroupName(RequestError):
    """A group name that breaks the rule in `logsvc_common.names`."""

    code = 24


class InvalidConfig(RequestError):
    """A setting that does not exist or a value it does not take."""

    code = 40


class InvalidPartitions(RequestError):
    """A number of partitions that cannot be: below one, over the limit, or fewer than the topic has."""

    code = 37


class UnknownTopic(RequestError):
    """No topic of that name."""

    code = 3


class UnknownPartition(UnknownTopic):
    """The topic exists but has no such partition."""

    code = 1003


class TopicExists(RequestError):
    """A topic of that name exists already."""

    code = 36


class InternalTopic(RequestError):
    """The topic belongs to the broker: clients may read it, nothing else."""

    code = 1004


class UnknownRedrive(RequestError):
    """No redrive of that number: it is long over, or never was."""

    code = 1010


class RecordTooLarge(RequestError):
    """A batch above the topic's `max.message.bytes`."""

    code = 10


class CorruptBatch(RequestError):
    """A record batch whose CRC, length or header is wrong."""

    code = 2


class OffsetOutOfRange(RequestError):
    """The offset is below the log's start or above its end."""

    code = 1


class OutOfOrderSequence(RequestError):
    """A batch of an idempotent producer that does not follow the last one: an earlier one is missing."""

    code = 45


class DuplicateSequence(RequestError):
    """A batch of an idempotent producer that is in the log already, from longer ago than the broker remembers where."""

    code = 46


class InvalidProducerEpoch(RequestError):
    """A batch from an older life of this producer."""

    code = 47


# The member is behind the group: rejoin and go on.


class GroupError(LogsvcError):
    """The group does not accept this from this member now."""


class UnknownMember(GroupError):
    """The group does not know this member: it left, or its session ran out."""

    code = 25


class FencedMemberEpoch(GroupError):
    """The member's epoch is not the one the group has for it (KIP-848's FENCED_MEMBER_EPOCH): a zombie, or a lost reply."""

    code = 110


class FencedInstanceId(GroupError):
    """Another member has joined with this `instance_id` and taken its place: stop, and do not join again."""

    code = 82


class UnknownGroup(GroupError):
    """No group of that name."""

    code = 69


class GroupNotEmpty(GroupError):
    """Refused while the group has active members."""

    code = 68


class GroupFull(GroupError):
    """The group, or the broker, has as many members or groups as its limit allows."""

    code = 81


# The broker or its machine is to blame.


class BrokerError(LogsvcError):
    """The broker could not do it."""


class InternalError(BrokerError):
    """A fault in the broker itself; its log has the details."""

    code = 1000


class StorageFailed(BrokerError):
    """The partition's disk failed (an fsync, a write or a read): it is offline until the broker is restarted."""

    code = 56


class PartitionCorrupt(BrokerError):
    """The partition holds a batch that is not what was written: read-only until `logsvc verify --repair`."""

    code = 1001


class DiskFull(BrokerError):
    """No room on the disk: writes are refused, reads and commits go on.

    Retention may make room within seconds; if it does not, somebody has to be told.
    """

    code = 1002
    retriable = True
    retry_ms_max = DISK_FULL_RETRY_MS_MAX


class BrokerOverloaded(BrokerError):
    """A limit on bytes or requests in flight is reached."""

    code = 89
    retriable = True


class QuotaExceeded(BrokerError):
    """The client is so far over a quota of its own that the broker takes nothing from it for now."""

    code = 1011
    retriable = True


class BrokerStopping(BrokerError):
    """The broker is shutting down."""

    code = 1005
    retriable = True


class CoordinatorLoading(BrokerError):
    """The group state is not ready yet."""

    code = 14
    retriable = True


# Found out when a broker starts; these never travel.


class StartError(BrokerError):
    """The broker cannot start."""


class DataFolderLocked(StartError):
    """Another broker runs on this data folder."""


class DataFolderUnusable(StartError):
    """The data folder cannot be made, read or written."""


class AddressInUse(StartError):
    """Something else listens on that port."""


# Found out by the client alone; these never travel.


class ClientError(LogsvcError):
    """The client gave up or was misused."""


class Disconnected(ClientError):
    """The connection broke, or a reply did not come in time; whether the request was carried out is not known."""

    retriable = True


class RequestTimeout(ClientError):
    """No broker answered before the deadline."""


class DeliveryTimeout(RequestTimeout):
    """A record was not acknowledged within `delivery_timeout_ms`; it may or may not be in the log."""


class HandlerTimeout(ClientError):
    """A handler did not come back within `handler_timeout_ms`, nor asked for more time."""


class BufferExhausted(ClientError):
    """The producer's memory stayed full for `max_block_ms`."""


class ClientClosed(ClientError):
    """The client was closed."""


class NoOffset(ClientError):
    """The group has no committed offset here and `auto_offset_reset` is `error`."""


class UnknownError(LogsvcError):
    """An error code from a newer broker that this client does not know."""


def _leaves(error: type[LogsvcError]) -> list[type[LogsvcError]]:
    return [error, *(leaf for child in error.__subclasses__() for leaf in _leaves(child))]


BY_CODE: dict[int, type[LogsvcError]] = {error.code: error for error in _leaves(LogsvcError) if error.code > 0}


def from_wire(code: int, message: str) -> LogsvcError:
    """The exception for a wire code other than 0."""
    error = BY_CODE.get(code)
    return error(message) if error is not None else UnknownError(f"error {code}: {message}")
