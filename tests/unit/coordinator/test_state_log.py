"""The records of the internal log: what is written is read back, and what is not known is refused by name."""

import msgspec
import pytest

from logsvc.coordinator.events import StateRecord
from logsvc.coordinator.state_log import (
    CommittedOffset,
    GroupMeta,
    Intent,
    Member,
    RecordType,
    decode,
    failure_record,
    group_record,
    intent_record,
    member_record,
    offset_key,
    offset_record,
)
from logsvc_common.delivery import FailedOffset, Ordering, State
from logsvc_common.errors import UnsupportedVersion
from tests.unit.coordinator.harness import Harness, failure

MEMBER = Member(
    "client",
    "rack-1",
    ("t", "u"),
    "range",
    10_000,
    3,
    2,
    frozenset({("t", 0), ("u", 1)}),
    {("t", 0): 3},
    {("u", 0): 1},
)
ENTRY = FailedOffset(State.WAITING, 2, -5, Ordering.PARTITION, 1_700_000_000_000, 4_000, 1_600_000_000_000, "boom")
INTENT = Intent("dlq.t.g", 4, 17, 3, "boom", "E", "trace", 1_600_000_000_000, "exhausted")


@pytest.mark.parametrize(
    ("record", "record_type", "path", "value"),
    [
        (group_record("g", GroupMeta(4, "uniform", {"t": 2})), RecordType.GROUP, (), GroupMeta(4, "uniform", {"t": 2})),
        (member_record("g", "m", MEMBER), RecordType.MEMBER, ("m",), MEMBER),
        (
            offset_record(offset_key("g", "t", 1), CommittedOffset(9, 5)),
            RecordType.OFFSET,
            ("t", 1),
            CommittedOffset(9, 5),
        ),
        (failure_record("g", "t", 1, 8, ENTRY), RecordType.FAILURE, ("t", 1, 8), ENTRY),
        (intent_record("g", "t", 1, 8, INTENT), RecordType.INTENT, ("t", 1, 8), INTENT),
        (group_record("g", None), RecordType.GROUP, (), None),
        (member_record("g", "m", None), RecordType.MEMBER, ("m",), None),
        (intent_record("g", "t", 1, 8, None), RecordType.INTENT, ("t", 1, 8), None),
    ],
)
def test_every_record_is_read_back(
    record: StateRecord, record_type: RecordType, path: tuple[object, ...], value: object
) -> None:
    assert decode(record) == (record_type, "g", path, value)


def test_the_same_member_always_makes_the_same_bytes() -> None:
    turned = msgspec.structs.replace(MEMBER, assigned=dict(reversed([*MEMBER.assigned.items()])))
    assert member_record("g", "m", turned) == member_record("g", "m", MEMBER)


def test_a_value_with_fields_of_a_newer_version_is_read() -> None:
    newer = StateRecord(offset_key("g", "t", 1), msgspec.msgpack.encode([9, 5, "something new"]))
    assert decode(newer).value == CommittedOffset(9, 5)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        (msgspec.msgpack.encode([99, "g"]), b"\x90", "unknown type 99"),
        (msgspec.msgpack.encode(["x", "g"]), b"\x90", "unknown type 'x'"),
        (msgspec.msgpack.encode([3, "g", "t"]), b"\x90", "OFFSET"),
        (msgspec.msgpack.encode([3, "g", 1, "t"]), b"\x90", "OFFSET"),
        (msgspec.msgpack.encode([1, 7]), b"\x90", "GROUP"),
        (msgspec.msgpack.encode([1]), b"\x90", "none this version writes"),
        (msgspec.msgpack.encode([1, "g"]), b"\xc1", "GROUP"),
        (msgspec.msgpack.encode([1, "g"]), msgspec.msgpack.encode([1]), "GROUP"),
        (b"", b"", "none this version writes"),
        (b"key", b"value", "none this version writes"),
    ],
)
def test_a_record_this_version_does_not_know_is_refused_by_name(key: bytes, value: bytes, named: str) -> None:
    with pytest.raises(UnsupportedVersion, match=named):
        Harness().coordinator.replay(StateRecord(key, value))


def test_a_snapshot_is_what_compaction_would_keep_in_any_order_of_keys() -> None:
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.commit(8, member="a", epoch=1, failed=[failure(6), failure(7)])
    broker.commit(9, member="a", epoch=1, done=[6])
    expected = list(broker.coordinator.snapshot())

    compacted = {record.key: record for record in broker.written}
    for records in (expected, list(compacted.values()), list(reversed(compacted.values()))):
        rebuilt = Harness().coordinator
        for record in records:
            rebuilt.replay(record)
        assert list(rebuilt.snapshot()) == expected


def test_a_tombstone_of_what_was_never_there_is_nothing() -> None:
    broker = Harness()
    broker.commit(3)
    before = list(broker.coordinator.snapshot())
    for record in (
        group_record("other", None),
        member_record("g", "m", None),
        offset_record(offset_key("g", "t", 3), None),
        failure_record("g", "t", 0, 8, None),
        intent_record("g", "t", 0, 8, None),
    ):
        broker.coordinator.replay(record)
    assert list(broker.coordinator.snapshot()) == before
