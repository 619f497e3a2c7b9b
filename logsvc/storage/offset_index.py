"""Sparse index from offset to position in a segment file, in Apache Kafka's layout.

    8 bytes an entry, big-endian: relative offset int32, position int32

An entry holds the LAST offset of a batch, relative to the segment's base offset, and the byte position of that batch. One is
added for the first batch that begins more than `index.interval.bytes` after the last entry, so the first batch of a
segment never has one. To find an offset: take the last entry at or below it and walk batch headers from there.

The log is the truth, the index is derived: no checksum in the file, and one that is missing or differs from what the checkpoint
says of it is built anew. In memory it is the very bytes of the file, looked up by bisection.
"""

import struct
from bisect import bisect_right
from itertools import pairwise

from logsvc_common.batch import Buffer

ENTRY_BYTES = 8
RELATIVE_OFFSET_MAX = (1 << 31) - 1  # of an entry in this file and in the time index
_ENTRY = struct.Struct(">ii")
_INT = struct.Struct(">i")


class OffsetIndex:
    """The entries of one segment. Appended to by the event-loop thread only; `content` may be copied by any thread
    that holds the partition's lock."""

    __slots__ = ("base_offset", "content")

    def __init__(self, base_offset: int, content: Buffer = b"") -> None:
        self.base_offset = base_offset
        self.content = bytearray(content)

    def __len__(self) -> int:
        return len(self.content) // ENTRY_BYTES

    def append(self, last_offset: int, position: int) -> None:
        """Add an entry, unless its offset is too far from the base offset for Kafka's layout: a search then walks further."""
        if last_offset - self.base_offset <= RELATIVE_OFFSET_MAX:
            self.content += _ENTRY.pack(last_offset - self.base_offset, position)

    def entry(self, number: int) -> tuple[int, int]:
        """(last offset of the batch, position of the batch) of one entry."""
        relative, position = _ENTRY.unpack_from(self.content, number * ENTRY_BYTES)
        return self.base_offset + relative, position

    def lookup(self, offset: int) -> tuple[int, int] | None:
        """The last entry for a batch that ends at `offset` or before it: where to begin looking. None: at position 0."""
        relative, content = offset - self.base_offset, self.content
        above = bisect_right(range(len(self)), relative, key=lambda number: _INT.unpack_from(content, number * ENTRY_BYTES)[0])
        return self.entry(above - 1) if above else None

    def batch_at_or_before(self, position: int) -> int | None:
        """The highest indexed batch position that is not above `position`: a place where a read may be cut."""
        content = self.content
        above = bisect_right(
            range(len(self)), position, key=lambda number: _INT.unpack_from(content, number * ENTRY_BYTES + 4)[0]
        )
        return self.entry(above - 1)[1] if above else None

    def keep_below(self, position: int) -> None:
        """Drop the entries of batches at `position` or after it."""
        while self.content and self.entry(len(self) - 1)[1] >= position:
            del self.content[-ENTRY_BYTES:]

    def why_unsound(self, end_offset: int, size: int) -> str | None:
        """What is wrong with the entries of a segment of `size` bytes that ends before `end_offset`; None when nothing is.

        At least as strict as Kafka's `OffsetIndex.sanityCheck`.
        """
        if len(self.content) % ENTRY_BYTES:
            return f"{len(self.content)} bytes are not a multiple of {ENTRY_BYTES}"
        entries = [self.entry(number) for number in range(len(self))]
        if any(later[0] <= earlier[0] or later[1] <= earlier[1] for earlier, later in pairwise(entries)):
            return "entries do not ascend"
        if entries and not (entries[0][0] >= self.base_offset and entries[0][1] > 0):
            return f"first entry {entries[0]} lies before the segment"
        if entries and not (entries[-1][0] < end_offset and entries[-1][1] < size):
            return f"last entry {entries[-1]} lies beyond the segment"
        return None
