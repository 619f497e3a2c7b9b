"""Holding the two index files of a segment against its batches, entry by entry, as `verify` comes by them.

An entry is right when a batch lies where it says: for the offset index its last offset and position, for the time index its
last offset and the largest timestamp up to there. What no batch has answered for at the end of the segment is wrong, and the
first such entry says at which byte of the file.
"""

from typing import NamedTuple

from logsvc.storage import checkpoint as checkpoints
from logsvc.storage import offset_index, time_index
from logsvc.storage.checkpoint import SegmentInfo
from logsvc.storage.disk import Disk, read_small_file
from logsvc.storage.offset_index import OffsetIndex
from logsvc.storage.segment import OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, file_name
from logsvc.storage.time_index import NO_TIMESTAMP, TimeIndex
from logsvc_common.batch import BatchHeader


class IndexFault(NamedTuple):
    """What is wrong with an index file, `name`, from byte `position` of it on."""

    kind: str
    name: str
    position: int
    message: str


class IndexCheck:
    """The indexes of one segment. `sealed`: no batch comes any more, so both files are there and whole."""

    def __init__(self, disk: Disk, folder: str, base: int, *, sealed: bool) -> None:
        self._sealed = sealed
        self._complete = True
        self._max_timestamp_ms = NO_TIMESTAMP
        self._offset_name = file_name(base, OFFSET_INDEX_SUFFIX)
        self._time_name = file_name(base, TIME_INDEX_SUFFIX)
        self._offset_content = _load(disk, f"{folder}/{self._offset_name}")
        self._time_content = _load(disk, f"{folder}/{self._time_name}")
        index = self._index = OffsetIndex(base, self._offset_content or b"")
        times = self._times = TimeIndex(base, self._time_content or b"")
        # What is left of them at the end has no batch. Positions and last offsets are distinct in a sound index.
        self._entries = {index.entry(number): number for number in range(len(index))}
        self._time_entries = {times.entry(number): number for number in range(len(times))}

    def batch(self, position: int, header: BatchHeader) -> None:
        """The next batch of the segment."""
        if header.max_timestamp_ms > self._max_timestamp_ms:
            self._max_timestamp_ms = header.max_timestamp_ms
        last_offset = header.base_offset + header.last_offset_delta
        self._entries.pop((last_offset, position), None)
        self._time_entries.pop((self._max_timestamp_ms, last_offset), None)

    def lost(self, start: int, end: int, first_offset: int, last_offset: int) -> None:
        """From position `start` up to `end` there are damaged batches, of these offsets: what points at them was right once."""
        self._complete = False
        self._entries = {entry: number for entry, number in self._entries.items() if not start <= entry[1] < end}
        self._time_entries = {
            entry: number for entry, number in self._time_entries.items() if not first_offset <= entry[1] <= last_offset
        }

    def end(self, end_offset: int, size: int, info: SegmentInfo | None) -> list[IndexFault]:
        """What is wrong. `info` is what the checkpoint remembers of a sealed segment's files.

        The indexes of the active segment are written now and then: they may be missing or short, not wrong.
        """
        found = []
        if (reason := self._offset_fault(end_offset, size, info)) is not None:
            found.append(IndexFault("offset_index", self._offset_name, *reason))
        if (reason := self._time_fault(end_offset, info)) is not None:
            found.append(IndexFault("time_index", self._time_name, *reason))
        return found

    def _offset_fault(self, end_offset: int, size: int, info: SegmentInfo | None) -> tuple[int, str] | None:
        content = self._offset_content
        if content is None:
            return (0, "the file is missing") if self._sealed else None
        entry_bytes = offset_index.ENTRY_BYTES
        if self._entries:
            return _without_batch(sorted(self._entries.values()), entry_bytes)
        if (reason := self._index.why_unsound(end_offset, size)) is not None:
            return len(content) // entry_bytes * entry_bytes, reason
        if info is not None and (info.offset_index_bytes, info.offset_index_crc) != _identity(content):
            return 0, "not the file that was written, says the checkpoint"
        return None

    def _time_fault(self, end_offset: int, info: SegmentInfo | None) -> tuple[int, str] | None:
        content, times = self._time_content, self._times
        if content is None:
            return (0, "the file is missing") if self._sealed else None
        entry_bytes = time_index.ENTRY_BYTES
        if self._time_entries:
            return _without_batch(sorted(self._time_entries.values()), entry_bytes)
        if (reason := times.why_unsound(end_offset)) is not None:
            return len(content) // entry_bytes * entry_bytes, reason
        if info is not None and (info.time_index_bytes, info.time_index_crc) != _identity(content):
            return 0, "not the file that was written, says the checkpoint"
        last_ms = times.entry(len(times) - 1)[0] if len(times) else NO_TIMESTAMP
        if self._sealed and self._complete and last_ms != self._max_timestamp_ms:
            return len(content), f"ends at {last_ms} ms, the segment at {self._max_timestamp_ms} ms"
        return None


def _load(disk: Disk, path: str) -> bytes | None:
    try:
        return read_small_file(disk, path)
    except FileNotFoundError:
        return None


def _identity(content: bytes) -> tuple[int, int]:
    return len(content), checkpoints.checksum(content)


def _without_batch(numbers: list[int], entry_bytes: int) -> tuple[int, str]:
    return numbers[0] * entry_bytes, f"entries that point at no such batch: {len(numbers)}, the first is number {numbers[0]}"
