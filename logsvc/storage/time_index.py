"""Sparse index from timestamp to offset in a segment, in Apache Kafka's layout.

    12 bytes an entry, big-endian: timestamp int64 in ms, relative offset int32

An entry (T, O) says: no record of the segment up to offset O is younger than T, and O is the last offset of the batch in which
T came up first. It is added together with an offset index entry, when T has grown, and once more when the segment is
sealed, so the last entry of a sealed segment holds its largest timestamp. (Kafka's `TimeIndex`; its DumpLogSegments
checks that O is the last offset of a batch whose largest timestamp is T.)

Derived from the log like the offset index, and held in memory as the bytes of the file.
"""

import struct
from bisect import bisect_left
from itertools import pairwise

from logsvc.storage.offset_index import RELATIVE_OFFSET_MAX
from logsvc_common.batch import Buffer

ENTRY_BYTES = 12
NO_TIMESTAMP = -1
_ENTRY = struct.Struct(">qi")
_LONG = struct.Struct(">q")


class TimeIndex:
    """The entries of one segment; threads as in `OffsetIndex`."""

    __slots__ = ("base_offset", "content")

    def __init__(self, base_offset: int, content: Buffer = b"") -> None:
        self.base_offset = base_offset
        self.content = bytearray(content)

    def __len__(self) -> int:
        return len(self.content) // ENTRY_BYTES

    def maybe_append(self, timestamp_ms: int, last_offset: int) -> None:
        """Add an entry if the timestamp is above the last one; Kafka's rule, which keeps timestamps ascending. None for an
        offset too far from the base offset for Kafka's layout."""
        last_ms = _LONG.unpack_from(self.content, len(self.content) - ENTRY_BYTES)[0] if self.content else NO_TIMESTAMP
        if timestamp_ms > last_ms and last_offset - self.base_offset <= RELATIVE_OFFSET_MAX:
            self.content += _ENTRY.pack(timestamp_ms, last_offset - self.base_offset)

    def entry(self, number: int) -> tuple[int, int]:
        """(timestamp in ms, last offset of the batch it came from) of one entry."""
        timestamp_ms, relative = _ENTRY.unpack_from(self.content, number * ENTRY_BYTES)
        return timestamp_ms, self.base_offset + relative

    def offset_before(self, timestamp_ms: int) -> int:
        """An offset up to which every record is older than `timestamp_ms`; the base offset - 1 when none is known."""
        content = self.content
        above = bisect_left(
            range(len(self)), timestamp_ms, key=lambda number: _LONG.unpack_from(content, number * ENTRY_BYTES)[0]
        )
        return self.entry(above - 1)[1] if above else self.base_offset - 1

    def keep_below(self, offset: int) -> None:
        """Drop the entries for `offset` or later."""
        while self.content and self.entry(len(self) - 1)[1] >= offset:
            del self.content[-ENTRY_BYTES:]

    def why_unsound(self, end_offset: int) -> str | None:
        """What is wrong with the entries of a segment that ends before `end_offset`; None when nothing is.

        At least as strict as Kafka's `TimeIndex.sanityCheck`.
        """
        if len(self.content) % ENTRY_BYTES:
            return f"{len(self.content)} bytes are not a multiple of {ENTRY_BYTES}"
        entries = [self.entry(number) for number in range(len(self))]
        if any(later[0] <= earlier[0] or later[1] < earlier[1] for earlier, later in pairwise(entries)):
            return "entries do not ascend"
        if entries and not (entries[0][1] >= self.base_offset and entries[-1][1] < end_offset):
            return "entries lie outside the segment"
        return None
