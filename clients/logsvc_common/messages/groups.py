"""Consumer groups: membership, progress with its failures, what is due again, and what an operator sees."""

from typing import ClassVar

from logsvc_common.messages.base import Api, Entries, Failures, Int64, Message, Request, Result
from logsvc_common.retry import RetryPolicy


class TopicPartitions(Message, frozen=True):
    topic: str
    partitions: Entries[Int64]


JOIN_EPOCH = 0
LEAVE_EPOCH = -1
NO_MEMBER_EPOCH = -1


class GroupHeartbeat(Request, frozen=True):
    """KIP-848's ConsumerGroupHeartbeat. `member_epoch` JOIN_EPOCH joins, LEAVE_EPOCH leaves.

    `member_id` is made by the client, random. `topics`, `assignor` and `session_timeout_ms` are sent when joining or when
    they change, else None. `owned` is what the member holds now; None when unchanged since the last heartbeat that was
    answered without an assignment.
    """

    API: ClassVar[Api] = Api.GROUP_HEARTBEAT
    group: str
    member_id: str
    member_epoch: Int64
    instance_id: str | None = None
    client_id: str = ""
    topics: Entries[str] | None = None
    assignor: str | None = None
    session_timeout_ms: Int64 | None = None
    owned: Entries[TopicPartitions] | None = None


class GroupHeartbeatReply(Message, frozen=True):
    """`assignment` is what the member may hold now, whole; None when unchanged. What it holds beyond that it gives up and
    reports by the next `owned`."""

    member_id: str
    member_epoch: Int64
    heartbeat_interval_ms: Int64
    assignment: list[TopicPartitions] | None = None


class Failure(Message, frozen=True):
    """One failed record. `key_hash` groups records that must keep their order (None: no key). `attempt` is the number of the
    try that failed, 1 for the first; it tells a report sent twice from a second failure. 0 when it is not known."""

    offset: Int64
    error: str
    exception_class: str = ""
    stacktrace: str = ""
    key_hash: Int64 | None = None
    attempt: Int64 = 0


class Parked(Message, frozen=True):
    """A record not handled because an earlier one of its key has failed: it waits behind it."""

    offset: Int64
    key_hash: Int64


class CommitPartition(Message, frozen=True):
    """All below `offset` is done, failed or parked; -1 leaves the committed offset as it is. `done` lists retried or
    unparked records that are handled now."""

    topic: str
    partition: Int64
    offset: Int64 = -1
    failed: Failures[Failure] = []
    parked: Failures[Parked] = []
    done: Failures[Int64] = []


class Commit(Request, frozen=True):
    """Progress and the failures it passes, in one message. A consumer outside the group's membership sends an empty
    `member_id` and NO_MEMBER_EPOCH; that is refused while the group has members. `retry` goes with failures."""

    API: ClassVar[Api] = Api.COMMIT
    group: str
    member_id: str
    member_epoch: Int64
    partitions: Entries[CommitPartition]
    retry: RetryPolicy | None = None


class Verdict(Message, frozen=True):
    """What became of a failure: `state` is `waiting`, `parked`, `dead_lettered`, `discarded` or `paused`, or `done` when the
    record was finished before this report of it came."""

    offset: Int64
    state: str
    attempts: Int64
    due_in_ms: Int64 = 0


class CommitResult(Result, frozen=True, kw_only=True):
    """`full`: failed and parked records are at their cap; fetch no new ones here until some are done."""

    topic: str
    partition: Int64
    committed: Int64 = -1
    verdicts: list[Verdict] = []
    full: bool = False


class CommitReply(Message, frozen=True):
    """In the order of the request."""

    results: list[CommitResult]


class FetchOffsetsPartition(Message, frozen=True):
    topic: str
    partition: Int64


class FetchOffsets(Request, frozen=True):
    """Where a group stands; all it has committed when `partitions` is None."""

    API: ClassVar[Api] = Api.FETCH_OFFSETS
    group: str
    partitions: Entries[FetchOffsetsPartition] | None = None


class Outstanding(Message, frozen=True):
    """A record that is not read again from the log: it comes by FetchRetries, or not at all. Later records of its key wait
    behind it while its state is `waiting`, `parked`, `delivered` or `paused`. Nothing waits behind `dead_lettering`, whose
    outcome is certain, and `done`, which was finished ahead of the committed offset."""

    offset: Int64
    key_hash: Int64 | None
    state: str


class FetchOffsetsResult(Result, frozen=True, kw_only=True):
    """`committed` is -1 when the group has committed nothing here; `full` as in CommitResult."""

    topic: str
    partition: Int64
    committed: Int64 = -1
    outstanding: list[Outstanding] = []
    full: bool = False


class FetchOffsetsReply(Message, frozen=True):
    results: list[FetchOffsetsResult]


class FetchRetries(Request, frozen=True):
    """The failed and parked records that are due in these partitions of a member. Waits up to `max_wait_ms` for one.

    A record is handed out once, until it is reported failed or its partition moves. `poll` numbers the requests of a member
    from 1: sending one again under the same number, when its answer was lost, gets the same records again.
    """

    API: ClassVar[Api] = Api.FETCH_RETRIES
    group: str
    member_id: str
    member_epoch: Int64
    partitions: Entries[FetchOffsetsPartition]
    max_wait_ms: Int64 = 500
    max_records: Int64 = 500
    poll: Int64 = 0


class DueRecord(Message, frozen=True):
    """`attempt` is the number this try has: 2 for the first retry, 1 for a record that was only parked."""

    offset: Int64
    attempt: Int64
    key_hash: Int64 | None = None


class RetriesResult(Result, frozen=True, kw_only=True):
    topic: str
    partition: Int64
    records: list[DueRecord] = []


class FetchRetriesReply(Message, frozen=True):
    """Payload: one frame a result: the whole batches that hold its records, ascending. A record that retention has
    removed is not in them: the member reports it failed. Partitions with nothing due are left out. `full` lists those of the
    partitions asked for that should still take no new records."""

    results: list[RetriesResult]
    full: list[TopicPartitions] = []


class ListGroups(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_GROUPS


class GroupListing(Message, frozen=True):
    """`state` is `empty`, `assigning`, `reconciling` or `stable`; `lag` in records, over all its partitions."""

    group: str
    state: str
    members: Int64
    topics: list[str]
    lag: Int64
    failed: Int64 = 0


class ListGroupsReply(Message, frozen=True):
    groups: list[GroupListing]


class DescribeGroup(Request, frozen=True):
    API: ClassVar[Api] = Api.DESCRIBE_GROUP
    group: str


class MemberDescription(Message, frozen=True):
    member_id: str
    client_id: str
    member_epoch: Int64
    instance_id: str | None
    owned: list[TopicPartitions]
    target: list[TopicPartitions]


class GroupPartition(Message, frozen=True):
    """`committed` -1: nothing yet. `lag_ms`: age of the first record not consumed, 0 when caught up. `failed` counts the
    failed offsets by state. `member_id` is empty when nobody holds the partition."""

    topic: str
    partition: Int64
    committed: Int64
    start_offset: Int64
    end_offset: Int64
    lag: Int64
    lag_ms: Int64
    member_id: str
    failed: dict[str, Int64] = {}


class DescribeGroupReply(Message, frozen=True):
    group: str
    state: str
    epoch: Int64
    assignor: str
    members: list[MemberDescription]
    partitions: list[GroupPartition]
