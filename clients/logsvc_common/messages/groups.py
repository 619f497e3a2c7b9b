"""Consumer groups: membership, progress with its failures, what is due again, and what an operator sees."""

from typing import ClassVar

from logsvc_common.breaker import DEFAULT_BREAKER, BreakerConfig
from logsvc_common.messages.base import Api, Entries, Failures, Int64, Message, Request, Result
from logsvc_common.retry import RetryPolicy


class TopicPartitions(Message, frozen=True):
    topic: str
    partitions: Entries[Int64]


JOIN_EPOCH = 0
LEAVE_EPOCH = -1
STATIC_LEAVE_EPOCH = -2
NO_MEMBER_EPOCH = -1


class GroupHeartbeat(Request, frozen=True):
    """KIP-848's ConsumerGroupHeartbeat. `member_epoch` JOIN_EPOCH joins, LEAVE_EPOCH leaves.

    `member_id` is made by the client, random, anew with every start. `topics`, `assignor`, `session_timeout_ms` and `retry`
    are sent when joining or when they change, else None. `owned` is what the member holds now; None when unchanged since the
    last heartbeat that was answered without an assignment.

    `retry` is the policy under which attempts are spent that nobody is left to report: those of a record that killed its
    consumer. Without one it is RetryPolicy().

    A member with an `instance_id` (static, KIP-345) sends it with every heartbeat. STATIC_LEAVE_EPOCH says that it will be
    back: its partitions wait for it until its session ends. Whoever joins with its `instance_id` takes its place at once, and
    what the one before sends is refused with FencedInstanceId, after which that one must not join again.
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
    retry: RetryPolicy | None = None


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
    unparked records that are handled now.

    `attempting` is for a partition that is `isolated`: the one record that is handed to the handler as soon as this commit is
    answered, new or redelivered; `offset` covers all that was handled before it. Should the member die then, that record has
    spent an attempt. The next commit of the partition ends it. -1: none. `attempting_key_hash` is that of its key.

    `handled` counts the new records that were handled since the last commit, in whichever order. -1: not known; then all that
    were handed out count, but those named here.
    """

    topic: str
    partition: Int64
    offset: Int64 = -1
    failed: Failures[Failure] = []
    parked: Failures[Parked] = []
    done: Failures[Int64] = []
    attempting: Int64 = -1
    attempting_key_hash: Int64 | None = None
    handled: Int64 = -1


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
    """`full`: take no new records here: fetch none, and hand out none of those fetched already. Failed and parked records are
    at their cap, the partition waits behind a failure, or the group's breaker is open. The next answer to FetchRetries says
    when it is over.

    `isolated`: a record of this partition seems to kill its consumers. Hand out one record of it at a time, new or
    redelivered, each only after a commit that names it as `attempting` was answered without an error."""

    topic: str
    partition: Int64
    committed: Int64 = -1
    verdicts: list[Verdict] = []
    full: bool = False
    isolated: bool = False


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
    """`committed` is -1 when the group has committed nothing here; `full` and `isolated` as in CommitResult."""

    topic: str
    partition: Int64
    committed: Int64 = -1
    outstanding: list[Outstanding] = []
    full: bool = False
    isolated: bool = False


class FetchOffsetsReply(Message, frozen=True):
    results: list[FetchOffsetsResult]


class FetchRetries(Request, frozen=True):
    """The failed and parked records that are due in these partitions of a member. Waits up to `max_wait_ms` for one.

    A record is handed out once, until it is reported failed or its partition moves. Under `ordering=key` those that wait behind
    it come with it, in order, up to `behind_max` of them: the member takes them up one after another, and none while an earlier
    one is not done.

    `poll` numbers the requests of a member from 1: sending one again under the same number, when its answer was lost, gets the
    same records again. `without_records`: the answer only names them, because the member has most likely kept them; for those
    it has not it asks again, under the same number.
    """

    API: ClassVar[Api] = Api.FETCH_RETRIES
    group: str
    member_id: str
    member_epoch: Int64
    partitions: Entries[FetchOffsetsPartition]
    max_wait_ms: Int64 = 500
    max_records: Int64 = 500
    poll: Int64 = 0
    without_records: bool = False
    behind_max: Int64 = 0


class DueRecord(Message, frozen=True):
    """`attempt` is the number this try has: 2 for the first retry, 1 for a record that was only parked, and for the first try
    after a redrive, which put it back from the dead letter at offset `letter` (-1: it was not redriven)."""

    offset: Int64
    attempt: Int64
    key_hash: Int64 | None = None
    letter: Int64 = -1


class RetriesResult(Result, frozen=True, kw_only=True):
    topic: str
    partition: Int64
    records: list[DueRecord] = []


class FetchRetriesReply(Message, frozen=True):
    """Payload, unless it was asked for `without_records`: one frame a result, with batches that hold its records; first those
    made from dead letters, at the offsets of the records that failed. A record that retention has removed is not in them: the
    member reports it failed. Of large records there are as many as fit; the others come with the next poll. A partition that
    cannot be read has an error and an empty frame. Partitions with nothing due are left out. `full` and `isolated` list those
    of the partitions asked for that are so now, as in CommitResult; those not listed are so no more. Of an isolated partition
    at most one record is in here, and none while one is in the member's hands."""

    results: list[RetriesResult]
    full: list[TopicPartitions] = []
    isolated: list[TopicPartitions] = []


class ListGroups(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_GROUPS


class GroupListing(Message, frozen=True):
    """`state` is `empty`, `assigning`, `reconciling` or `stable`; `lag` in records, over all its partitions; `breaker` as in
    BreakerDescription. `lag_ms` is the worst of its partitions, `failed_states` are the failed offsets by state. `position`
    is the sum of where it reads on, the log's start where nothing is committed: two of them, and the time between, are its
    rate of consumption. `lag_ms` and `position` are -1 from a broker that does not tell them."""

    group: str
    state: str
    members: Int64
    topics: list[str]
    lag: Int64
    failed: Int64 = 0
    breaker: str = "closed"
    lag_ms: Int64 = -1
    failed_states: dict[str, Int64] = {}
    position: Int64 = -1


class ListGroupsReply(Message, frozen=True):
    groups: list[GroupListing]


class DescribeGroup(Request, frozen=True):
    API: ClassVar[Api] = Api.DESCRIBE_GROUP
    group: str


class MemberDescription(Message, frozen=True):
    """`retry` is the policy it has joined with, None when it has none."""

    member_id: str
    client_id: str
    member_epoch: Int64
    instance_id: str | None
    owned: list[TopicPartitions]
    target: list[TopicPartitions]
    retry: RetryPolicy | None = None


class GroupPartition(Message, frozen=True):
    """`committed` -1: nothing yet. `lag_ms`: age of the first record not consumed, 0 when caught up. `failed` counts the
    failed offsets by state. `member_id` is empty when nobody holds the partition. `deaths`: how many consumers have died
    with records of it in hand, not counting those before the last good stretch; `isolated` since the second."""

    topic: str
    partition: Int64
    committed: Int64
    start_offset: Int64
    end_offset: Int64
    lag: Int64
    lag_ms: Int64
    member_id: str
    failed: dict[str, Int64] = {}
    deaths: Int64 = 0
    isolated: bool = False


class BreakerDescription(Message, frozen=True):
    """The flood breaker of a group. `state` is `closed`, `open` or `half_open`, or `off` when it is not enabled. `deliveries`
    and `failures` are those of the window; `retry_in_ms` is when an open one lets a probe through, `successes` how many
    probes have succeeded in a row, `opened` how often it has opened since the broker started."""

    state: str = "closed"
    deliveries: Int64 = 0
    failures: Int64 = 0
    retry_in_ms: Int64 = 0
    successes: Int64 = 0
    opened: Int64 = 0
    config: BreakerConfig = DEFAULT_BREAKER


class DescribeGroupReply(Message, frozen=True):
    group: str
    state: str
    epoch: Int64
    assignor: str
    members: list[MemberDescription]
    partitions: list[GroupPartition]
    breaker: BreakerDescription = BreakerDescription()
