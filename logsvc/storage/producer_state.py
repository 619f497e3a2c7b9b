"""What a partition remembers of idempotent producers, so that a batch sent twice is written once (KIP-98).

For each producer id: the epoch and the last five batches (as many as Kafka; clients therefore
keep at most five in flight). A batch equal to one of them is a duplicate and gets the first one's offsets. Any other must
follow the last one without a gap. An unknown producer may begin at any sequence: it may have been forgotten.

Entries are immutable and replaced whole, so that a snapshot for the checkpoint is one shallow copy.
"""

from typing import NamedTuple

from logsvc.storage.checkpoint import ProducerBatch, ProducerEntry
from logsvc_common.batch import BatchHeader
from logsvc_common.errors import DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence

BATCHES_REMEMBERED = 5
PRODUCERS_MAX = 10_000
PRODUCER_EXPIRATION_MS = 86_400_000  # Kafka's producer.id.expiration.ms
_SEQUENCE_MASK = 0x7FFFFFFF


class Duplicate(NamedTuple):
    """Where the batch was written the first time."""

    first_offset: int
    last_offset: int


class ProducerState:
    """The producers of one partition, least recently heard of first. Used under the partition's lock."""

    __slots__ = ("_entries",)

    def __init__(self, entries: tuple[ProducerEntry, ...] = ()) -> None:
        self._entries = {entry.producer_id: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, header: BatchHeader) -> Duplicate | None:
        """None when the batch is the next one, Duplicate when it is there already.

        Raises InvalidProducerEpoch for an older epoch than known, OutOfOrderSequence when batches before it are missing,
        DuplicateSequence for one that was written so long ago that its offsets are forgotten.
        """
        entry = self._entries.get(header.producer_id)
        if entry is None:
            return None
        epoch, first = header.producer_epoch, header.base_sequence
        if epoch < entry.epoch:
            raise InvalidProducerEpoch(f"producer {header.producer_id} is at epoch {entry.epoch}, this batch is from {epoch}")
        if epoch > entry.epoch:
            if first != 0:
                raise OutOfOrderSequence(f"producer {header.producer_id} begins epoch {epoch} with sequence {first}, not 0")
            return None
        last = header.last_sequence
        for batch in reversed(entry.batches):
            if batch.first_sequence == first and batch.last_sequence == last:
                return Duplicate(batch.first_offset, batch.last_offset)
        expected = (entry.batches[-1].last_sequence + 1) & _SEQUENCE_MASK
        if first != expected:
            # Sequences wrap: what is less than half the circle behind is old, the rest is ahead.
            if (expected - first) & _SEQUENCE_MASK <= _SEQUENCE_MASK // 2:
                raise DuplicateSequence(f"producer {header.producer_id} sent sequence {first} again, expected {expected}")
            raise OutOfOrderSequence(f"producer {header.producer_id} sent sequence {first}, expected {expected}")
        return None

    def update(self, header: BatchHeader, base_offset: int, now_ms: int) -> None:
        """Remember a batch that was written at `base_offset`."""
        batch = ProducerBatch(header.base_sequence, header.last_sequence, base_offset, base_offset + header.last_offset_delta)
        producer_id = header.producer_id
        entry = self._entries.pop(producer_id, None)
        if entry is None or entry.epoch != header.producer_epoch:
            batches: tuple[ProducerBatch, ...] = (batch,)
            if entry is None and len(self._entries) >= PRODUCERS_MAX:
                del self._entries[next(iter(self._entries))]
        else:
            batches = (*entry.batches[1 - BATCHES_REMEMBERED :], batch)
        self._entries[producer_id] = ProducerEntry(producer_id, header.producer_epoch, now_ms, batches)

    def expire(self, now_ms: int) -> None:
        """Forget producers not heard of for a day."""
        old = [key for key, entry in self._entries.items() if now_ms - entry.last_append_ms > PRODUCER_EXPIRATION_MS]
        for producer_id in old:
            del self._entries[producer_id]

    def snapshot(self) -> tuple[ProducerEntry, ...]:
        return tuple(self._entries.values())
