"""The records of the internal log `__logsvc_groups`: types, keys and values.

    key   = msgpack [type, group, ...]            value (None takes it away)
    1  GROUP    [1, group]                             [epoch, assignor, {topic: partition count}]
    2  MEMBER   [2, group, member id]                  the member whole: subscription, epochs, target, what it holds
    3  OFFSET   [3, group, topic, partition]           [committed, time]
    4  FAILURE  [4, group, topic, partition, offset]   an entry of `logsvc_common.delivery`
    5  INTENT   [5, group, topic, partition, offset]   a dead letter that is to be written

Each key stands alone, so the newest record per key, in any order of keys, is the whole state: the log may be compacted. A
value grows by fields at its end with defaults; anything else takes a new type number. A type this version does not know is
refused by name, because going on without it would lose state silently.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from logsvc.coordinator.events import StateRecord, TopicPartition
from logsvc_common.delivery import FailedOffset
from logsvc_common.errors import UnsupportedVersion


class RecordType(IntEnum):
    GROUP = 1
    MEMBER = 2
    OFFSET = 3
    FAILURE = 4
    INTENT = 5


class GroupMeta(msgspec.Struct, frozen=True, array_like=True):
    """`topics` are the partition counts the targets were computed for; the epoch rises with every new computation."""

    epoch: int
    assignor: str
    topics: dict[str, int]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member. It may read what is in `assigned`, and still commit what is in `revoking`, which it was told to give up.

    Both map a partition to the member epoch it was given at: a commit from an older epoch is a zombie's (KIP-1251).
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


Value = GroupMeta | Member | CommittedOffset | FailedOffset | Intent


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
}
_TYPES = {int(record_type): record_type for record_type in RecordType}


def _record(value: Value | None, *key: int | str) -> StateRecord:
    return StateRecord(_encoder.encode(key), None if value is None else _encoder.encode(value))


def group_record(group: str, meta: GroupMeta | None) -> StateRecord:
    return _record(meta, RecordType.GROUP, group)


def member_record(group: str, member_id: str, member: Member | None) -> StateRecord:
    if member is None:
        return _record(None, RecordType.MEMBER, group, member_id)
    # In order, so that the same member always makes the same bytes.
    layout = (
        *astuple(member)[:-3],
        sorted(member.target),
        dict(sorted(member.assigned.items())),
        dict(sorted(member.revoking.items())),
    )
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
