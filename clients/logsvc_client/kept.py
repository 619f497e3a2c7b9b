"""Failed and parked records that a member keeps in memory: when they are due again, the broker only has to name them.

Reading and sending them again would cost both sides a batch to decode for each. What does not fit is not kept, and neither is
what another member reported: those the broker sends. A record leaves when it is handed out again or its outcome is certain.

Records that came with one they wait for (`Lanes`) are held here as well, whatever there is room for: so a consumer that holds
much asks for no more of them (`behind_max`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from logsvc_client.records import Record, TopicPartition
from logsvc_common.keys import murmur2
from logsvc_common.messages import DueRecord

KEPT_BYTES_MAX = 16 << 20  # of one consumer
BEHIND_MAX = 15  # of a key, with the one that is due
RECORD_BYTES = 300  # what a record takes beside its key, value and headers


@dataclass(slots=True)
class KeptRecords:
    """Of all partitions of one consumer, within `bytes_max`."""

    bytes_max: int = KEPT_BYTES_MAX
    bytes: int = 0
    _records: dict[TopicPartition, dict[int, Record]] = field(default_factory=dict)

    @property
    def behind_max(self) -> int:
        """How many may come with a record that is due, because they wait for it."""
        return BEHIND_MAX if self.bytes <= self.bytes_max // 2 else 0

    def hold(self, tp: TopicPartition, record: Record) -> None:
        """A record is in memory until its turn comes."""
        self.drop(tp, record.offset)
        self.bytes += _size(record)
        self._records.setdefault(tp, {})[record.offset] = record

    def keep(self, tp: TopicPartition, record: Record) -> None:
        """Keep a record that comes again, if there is room."""
        self.drop(tp, record.offset)
        if self.bytes + _size(record) <= self.bytes_max:
            self.hold(tp, record)

    def find(self, tp: TopicPartition, due: Sequence[DueRecord]) -> list[Record] | None:
        """The records that are due, in their order; None when one is missing. A redriven one always is: its dead letter counts,
        whatever lies at its offset."""
        records = self._records.get(tp, {})
        found = [records.get(entry.offset) for entry in due if entry.letter < 0]
        kept = [record for record in found if record is not None]
        if len(kept) < len(due):
            return None
        # A topic that was deleted and made anew has other records at the same offsets.
        same = all(entry.key_hash in (None, _hash(record)) for entry, record in zip(due, kept, strict=True))
        return kept if same else None

    def drop(self, tp: TopicPartition, offset: int) -> None:
        """This record's outcome is certain, or it was handed out."""
        records = self._records.get(tp)
        if records is not None and (record := records.pop(offset, None)) is not None:
            self.bytes -= _size(record)
            if not records:
                del self._records[tp]

    def drop_partition(self, tp: TopicPartition) -> None:
        """The partition is another member's."""
        self.bytes -= sum(_size(record) for record in self._records.pop(tp, {}).values())


def _size(record: Record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers) if record.headers else 0
    return RECORD_BYTES + len(record.key or b"") + len(record.value or b"") + headers


def _hash(record: Record) -> int | None:
    return None if record.key is None else murmur2(record.key)
