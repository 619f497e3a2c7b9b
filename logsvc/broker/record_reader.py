"""Single records by their offset: those that failed are handed out again one by one, and copied into dead letters.

A log is read by whole batches. Failures come in runs, and a record is looked for at every retry and once more for its
letter: so the batches used last stay decoded, and of thousands of records in a batch only those asked for travel.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import BatchHeader, RawRecord, check_crc, decode, retain, split
from logsvc_common.errors import OffsetOutOfRange

BATCHES_MAX = 64
BATCHES_BYTES_MAX = 32 << 20  # as they lie in memory, the batch used last not counted
RECORD_BYTES = 300  # what a record takes beside its key, value and headers
HEADER_BYTES = 200  # and a header beside its name and value

_offset_of = attrgetter("offset")


class Found(NamedTuple):
    """A record, and the header of the batch it lies in."""

    header: BatchHeader
    record: RawRecord


@dataclass(frozen=True, slots=True)
class _Batch:
    log: PartitionLog
    header: BatchHeader
    records: list[RawRecord]
    size_bytes: int  # decoded: a compressed batch may take a thousand times what it does on the disk

    def holds(self, log: PartitionLog, offset: int) -> bool:
        return self.log is log and self.header.base_offset <= offset <= self.header.last_offset

    def find(self, offset: int) -> RawRecord | None:
        at = bisect_left(self.records, offset, key=_offset_of)
        return self.records[at] if at < len(self.records) and self.records[at].offset == offset else None


class RecordReader:
    """Reads through to the logs; what it keeps is bounded by BATCHES_MAX and BATCHES_BYTES_MAX."""

    def __init__(self) -> None:
        self._batches: list[_Batch] = []  # the one used last comes last

    def find(self, log: PartitionLog, offset: int) -> tuple[RawRecord | None, BatchHeader]:
        """The record at `offset`, None when compaction has removed it, and the header of the batch that spans it.

        Raises OffsetOutOfRange when retention has removed it, CorruptBatch, and what reading raises.
        """
        batch = self._batch(log, offset)
        return batch.find(offset), batch.header

    def get(self, log: PartitionLog, offset: int) -> Found | None:
        """The record at `offset` with the header of its batch; None when it is gone. Raises what reading raises."""
        try:
            record, header = self.find(log, offset)
        except OffsetOutOfRange:
            return None
        return None if record is None else Found(header, record)

    def _batch(self, log: PartitionLog, offset: int) -> _Batch:
        if offset < log.start_offset:
            raise OffsetOutOfRange(f"offset {offset} was removed: the log starts at {log.start_offset}")
        for at, batch in enumerate(self._batches):
            if batch.holds(log, offset):
                self._batches.append(self._batches.pop(at))
                return batch
        for header, data in split(log.read(offset, 1), offset):
            check_crc(data, header)
            records = decode(data)
            batch = _Batch(log, header, records, sum(map(size_of, records)))
            self._keep(batch)
            return batch
        raise OffsetOutOfRange(f"offset {offset} is not there yet")

    def _keep(self, batch: _Batch) -> None:
        self._batches.append(batch)
        while len(self._batches) > BATCHES_MAX or sum(each.size_bytes for each in self._batches[:-1]) > BATCHES_BYTES_MAX:
            del self._batches[0]


def size_of(record: RawRecord) -> int:
    """About how many bytes a record takes in memory, which is more than on the wire."""
    headers = sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in record.headers) if record.headers else 0
    return RECORD_BYTES + len(record.key or b"") + len(record.value or b"") + headers


def batches_of(found: Iterable[Found]) -> list[bytes]:
    """Batches that hold these records and nothing else; those that lie in one batch, one after the other, stay in one."""
    # Not compressed again: it is a handful of records, and nobody keeps them.
    return [
        retain(header._replace(attributes=0), [record for _, record in group])
        for header, group in groupby(found, key=lambda each: each.header)
    ]
