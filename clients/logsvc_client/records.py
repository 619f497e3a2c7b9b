"""The values users hold: records, where they came from, where they went."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from logsvc_common.batch import Header

Headers = Mapping[str, bytes | None] | Iterable[Header]


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is: its offset, and its timestamp in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as a consumer receives it.

    `timestamp_ms` counts milliseconds since the epoch. `headers` keeps the producer's order; a key may occur twice.
    `attempt` is 1 the first time a record reaches its group's handlers, 2 on the first retry. A struct without garbage
    collector bookkeeping costs a third of a NamedTuple, and every record consumed is one.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    attempt: int = 1

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


def header_list(headers: Headers | None) -> list[Header]:
    """Headers as the codec wants them: a list of (str, bytes or None)."""
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        return list(headers.items())
    return [(name, value) for name, value in headers]
