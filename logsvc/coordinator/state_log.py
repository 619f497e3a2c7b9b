"""The records of the internal log `__logsvc_groups`: types, keys and values.

    key   = msgpack [type, group, ...]            value (None takes it away)
    1  GROUP    [1, group]                             [epoch, assignor, {topic: partition count}]
    2  MEMBER   [2, group, member id]                  the member whole: subscription, epochs, target, what it holds
    3  OFFSET   [3, group, topic, partition]           [committed, time]
    4  FAILURE  [4, group, topic, partition, offset]   an entry of `logsvc_common.delivery`
    5  INTENT   [5, group, topic, partition, offset]   a dead letter that is to be written
    6  CONFIG   [6, group]                             the group's settings
    7  SUSPECT  [7, group, topic, partition]           consumers that died with records of the partition in hand
    8  REDRIVE  [8, group, number]                     a redrive: what it is to do, and how far it is
    9  REDRIVEN [9, group, dead-letter topic, partition, block]   which letters of a block of offsets were redriven

Each key stands alone, so the newest record per key, in any order of keys, is the whole state: the log may be compacted. A
value grows by fields at its end with defaults; anything else takes a new type number. A type this version does not know is
refused by name, because going on without it would lose state silently.
"""

from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from logsvc.coordinator.events import StateRecord, TopicPartition
from logsvc_common.breaker import DEFAULT_BREAKER, BreakerConfig
from logsvc_common.delivery import FailedOffset
from logsvc_common.errors import UnsupportedVersion
from logsvc_common.messages import RedriveFilter
from logsvc_common.retry import RetryPolicy


class RecordType(IntEnum):
    GROUP = 1
    MEMBER = 2
    OFFSET = 3
    FAILURE = 4
    INTENT = 5
    GROUP_CONFIG = 6
    SUSPECT = 7
    REDRIVE = 8
    REDRIVEN = 9


class GroupMeta(msgspec.Struct, frozen=True, array_like=True):
    """`topics` are the partition counts the targets were computed for; the epoch rises with every new computation."""

    epoch: int
    assignor: str
    topics: dict[str, int]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member. It may read what is in `assigned`, and still commit what is in `revoking`, which it was told to give up.

    Both map a partition to the member epoch it was given at: a commit from an older epoch is a zombie's (KIP-1251).
    `retry` is its policy for records that kill it; `away` a static member that will be back.
    """

    client_id: str
    instance_id: str | None
    topics: tuple[str, ...]
    assignor: str | None
    session_timeout_ms: int
    epoch: int = 0
    previous_epoch: int = -1
    target: frozenset[TopicPartition] = frozenset()
    assigned: dict[TopicPartition, int] = {}
    revoking: dict[TopicPartition, int] = {}
    retry: RetryPolicy | None = None
    away: bool = False

    def holds(self, partition: TopicPartition) -> int | None:
        """The epoch the partition was given at; None when the member does not hold it."""
        given = self.assigned.get(partition)
        return self.revoking.get(partition) if given is None else given


class CommittedOffset(msgspec.Struct, frozen=True, array_like=True):
    """`time_ms` is when it was committed, wall-clock."""

    committed: int
    time_ms: int


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """A dead letter that is to be written, with what it says. Removed by its completion."""

    dead_letter_topic: str
    partition_count: int
    search_from: int
    attempts: int
    error: str
    exception_class: str
    stacktrace: str
    first_failure_ms: int
    reason: str
    redrives: int = 0
    letter: int = -1


class GroupConfig(msgspec.Struct, frozen=True, array_like=True):
    """What was set for a group by ConfigureGroup."""

    breaker: BreakerConfig = DEFAULT_BREAKER


class Suspicion(msgspec.Struct, frozen=True, array_like=True):
    """A record of the partition seems to kill its consumers; one of those from the committed offset up to `end_offset`, or of
    `in_hand`, the retries that were out when they died.

    `attempting` is the record that member `attempted_by` has alone in hand, with the hash of its key; -1 for none. `culprit` is
    the one that a member died of in that way.
    """

    deaths: int
    end_offset: int
    in_hand: tuple[int, ...] = ()
    attempting: int = -1
    attempting_key_hash: int | None = None
    attempted_by: str = ""
    culprit: int = -1


class RedriveState(StrEnum):
    RUNNING = "running"
    CANCELLED = "cancelled"
    DONE = "done"


class RedriveTask(msgspec.Struct, frozen=True, array_like=True):
    """One redrive. In each partition of the dead-letter topic, the letters from `next_offsets` up to `end_offsets`, where it
    ended when the redrive began, are still to be looked at. Counts as in `messages.Redrive`; a dry run is never recorded."""

    topic: str
    dead_letter_topic: str
    where: RedriveFilter
    rate_per_s: int
    limit: int
    dry_run: bool
    token: str
    created_ms: int
    updated_ms: int
    total: int
    next_offsets: tuple[int, ...]
    end_offsets: tuple[int, ...]
    state: RedriveState = RedriveState.RUNNING
    matched: int = 0
    redriven: int = 0
    skipped: int = 0


class Redriven(msgspec.Struct, frozen=True, array_like=True):
    """The letters of one block that were redriven: ranges of offsets, first and last included, ascending and apart."""

    ranges: tuple[tuple[int, int], ...]


Value = GroupMeta | Member | CommittedOffset | FailedOffset | Intent | GroupConfig | Suspicion | RedriveTask | Redriven


class Decoded(NamedTuple):
    """A state record read back. `path` is what follows type and group in its key."""

    type: RecordType
    group: str
    path: tuple[Any, ...]
    value: Any


_encoder = msgspec.msgpack.Encoder()
_keys = msgspec.msgpack.Decoder(tuple[int | str, ...])
_SHAPES: dict[RecordType, tuple[tuple[type, ...], Any]] = {
    RecordType.GROUP: ((), msgspec.msgpack.Decoder(GroupMeta)),
    RecordType.MEMBER: ((str,), msgspec.msgpack.Decoder(Member)),
    RecordType.OFFSET: ((str, int), msgspec.msgpack.Decoder(CommittedOffset)),
    RecordType.FAILURE: ((str, int, int), msgspec.msgpack.Decoder(FailedOffset)),
    RecordType.INTENT: ((str, int, int), msgspec.msgpack.Decoder(Intent)),
    RecordType.GROUP_CONFIG: ((), msgspec.msgpack.Decoder(GroupConfig)),
    RecordType.SUSPECT: ((str, int), msgspec.msgpack.Decoder(Suspicion)),
    RecordType.REDRIVE: ((int,), msgspec.msgpack.Decoder(RedriveTask)),
    RecordType.REDRIVEN: ((str, int, int), msgspec.msgpack.Decoder(Redriven)),
}
_MEMBER_FIELDS = Member.__struct_fields__
_TYPES = {int(record_type): record_type for record_type in RecordType}


def _record(value: Value | None, *key: int | str) -> StateRecord:
    return StateRecord(_encoder.encode(key), None if value is None else _encoder.encode(value))


def group_record(group: str, meta: GroupMeta | None) -> StateRecord:
    return _record(meta, RecordType.GROUP, group)


def member_record(group: str, member_id: str, member: Member | None) -> StateRecord:
    if member is None:
        return _record(None, RecordType.MEMBER, group, member_id)
    # In order, so that the same member always makes the same bytes.
    layout = list(astuple(member))
    for index in (_MEMBER_FIELDS.index(name) for name in ("assigned", "revoking")):
        layout[index] = dict(sorted(layout[index].items()))
    layout[_MEMBER_FIELDS.index("target")] = sorted(member.target)
    return StateRecord(_encoder.encode((RecordType.MEMBER, group, member_id)), _encoder.encode(layout))


def offset_key(group: str, topic: str, partition: int) -> bytes:
    """The key of a committed offset, kept by who commits often."""
    return _encoder.encode((RecordType.OFFSET, group, topic, partition))


def offset_record(key: bytes, offset: CommittedOffset | None) -> StateRecord:
    return StateRecord(key, None if offset is None else _encoder.encode(offset))


def failure_record(group: str, topic: str, partition: int, offset: int, entry: FailedOffset | None) -> StateRecord:
    return _record(entry, RecordType.FAILURE, group, topic, partition, offset)


def intent_record(group: str, topic: str, partition: int, offset: int, intent: Intent | None) -> StateRecord:
    return _record(intent, RecordType.INTENT, group, topic, partition, offset)


def config_record(group: str, config: GroupConfig | None) -> StateRecord:
    return _record(config, RecordType.GROUP_CONFIG, group)


def suspect_record(group: str, topic: str, partition: int, suspicion: Suspicion | None) -> StateRecord:
    return _record(suspicion, RecordType.SUSPECT, group, topic, partition)


def redrive_record(group: str, redrive_id: int, task: RedriveTask | None) -> StateRecord:
    return _record(task, RecordType.REDRIVE, group, redrive_id)


def redriven_record(group: str, topic: str, partition: int, block: int, redriven: Redriven | None) -> StateRecord:
    return _record(redriven, RecordType.REDRIVEN, group, topic, partition, block)


def decode(record: StateRecord) -> Decoded:
    """Read a state record. Raises UnsupportedVersion for a type or a layout this version does not know."""
    try:
        number, group, *path = _keys.decode(record.key)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnsupportedVersion(
            f"state record with the key {record.key[:64]!r} is none this version writes: {error}"
        ) from error
    record_type = _TYPES.get(number) if isinstance(number, int) else None
    if record_type is None:
        known = ", ".join(f"{each.value} {each.name}" for each in RecordType)
        raise UnsupportedVersion(f"state record of unknown type {number!r} (group {group!r}); there are {known}")
    shape, decoder = _SHAPES[record_type]
    if not isinstance(group, str) or tuple(map(type, path)) != shape:
        raise UnsupportedVersion(
            f"state record {record_type.name} with the key {record.key[:64]!r} has another shape than {shape}"
        )
    try:
        value = None if record.value is None else decoder.decode(record.value)
    except msgspec.DecodeError as error:
        raise UnsupportedVersion(f"state record {record_type.name} of group {group!r} does not decode: {error}") from error
    return Decoded(record_type, group, tuple(path), value)
