"""One segment of a partition: a file of batches `%020d.log`, named by its first offset, and its two indexes.

The active segment, the last one, keeps its file open and its indexes in memory. A sealed segment keeps neither: `SegmentCache`
opens its file and loads its indexes when someone reads, and closes the least recently used, so a thousand partitions cost
a thousand descriptors and not three thousand times their segments.

An index file is believed when its length and CRC are those remembered from writing it (in memory, and in the checkpoint).
Otherwise it is built anew from the batch headers, and written again.
"""

import logging
from collections import OrderedDict

from fastcrc import crc32

from logsvc.storage.checkpoint import SegmentInfo
from logsvc.storage.disk import Disk, File, read_small_file, write_all, write_file
from logsvc.storage.offset_index import OffsetIndex
from logsvc.storage.scan import BadBatch, batch_after, walk_headers
from logsvc.storage.time_index import NO_TIMESTAMP, TimeIndex
from logsvc_common.batch import BatchHeader
from logsvc_common.errors import DiskFull

LOG_SUFFIX = ".log"
OFFSET_INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
POSITION_MAX = (1 << 31) - 1  # positions and relative offsets are int32 in Kafka's indexes
OPEN_FILES_MAX = 128
INDEX_BYTES_MAX = 16 << 20
REBUILD_WINDOW_BYTES = 64 << 10

_LOG = logging.getLogger(__name__)


def file_name(offset: int, suffix: str = LOG_SUFFIX) -> str:
    """Kafka's name of a segment file: the base offset in 20 digits."""
    return f"{offset:020d}{suffix}"


class Segment:
    """State of one segment. Changed by the event-loop thread only, while it holds the partition's lock."""

    __slots__ = (
        "_bytes_since_entry",
        "_flushed_index_bytes",
        "_flushed_time_bytes",
        "base_offset",
        "end_offset",
        "file",
        "first_append_ms",
        "folder",
        "info",
        "max_timestamp_ms",
        "max_timestamp_offset",
        "modified_ms",
        "offset_index",
        "size",
        "time_index",
    )

    def __init__(self, folder: str, base_offset: int, file: File | None = None) -> None:
        self.folder = folder
        self.base_offset = base_offset
        self.end_offset = base_offset
        self.size = 0
        self.max_timestamp_ms = NO_TIMESTAMP
        self.max_timestamp_offset = base_offset
        self.first_append_ms = -1
        self.modified_ms = -1
        self.file = file
        self.offset_index: OffsetIndex | None = OffsetIndex(base_offset)
        self.time_index: TimeIndex | None = TimeIndex(base_offset)
        self.info: SegmentInfo | None = None
        self._bytes_since_entry = 0
        self._flushed_index_bytes = 0
        self._flushed_time_bytes = 0

    @classmethod
    def sealed(cls, folder: str, info: SegmentInfo, end_offset: int) -> "Segment":
        """A segment the checkpoint vouches for; nothing of it is read until someone asks."""
        segment = cls(folder, info.base_offset)
        segment.end_offset, segment.size = end_offset, info.size
        segment.max_timestamp_ms, segment.max_timestamp_offset = info.max_timestamp_ms, info.max_timestamp_offset
        segment.first_append_ms, segment.modified_ms = info.first_append_ms, info.modified_ms
        segment.offset_index = segment.time_index = None
        segment.info = info
        return segment

    def path(self, suffix: str = LOG_SUFFIX) -> str:
        return f"{self.folder}/{file_name(self.base_offset, suffix)}"

    def is_full(self, size: int, last_offset: int, segment_bytes: int, segment_ms: int, now_ms: int) -> bool:
        """True when a batch of `size` bytes that ends at `last_offset` belongs into the next segment."""
        return self.size > 0 and (
            self.size + size > min(segment_bytes, POSITION_MAX)
            or last_offset - self.base_offset > POSITION_MAX
            or self.is_old(segment_ms, now_ms)
        )

    def is_old(self, segment_ms: int, now_ms: int) -> bool:
        return self.size > 0 and now_ms - self.first_append_ms >= segment_ms

    def add(self, header: BatchHeader, base_offset: int, interval_bytes: int, now_ms: int) -> None:
        """Account for a batch that now stands at the end of the file, and index it when it is due (Kafka's rule)."""
        last_offset = base_offset + header.last_offset_delta
        if header.max_timestamp_ms > self.max_timestamp_ms:
            self.max_timestamp_ms, self.max_timestamp_offset = header.max_timestamp_ms, last_offset
        if self._bytes_since_entry > interval_bytes:
            assert self.offset_index is not None
            assert self.time_index is not None
            self.offset_index.append(last_offset, self.size)
            self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)
            self._bytes_since_entry = 0
        size = header.size
        self._bytes_since_entry += size
        if not self.size:
            self.first_append_ms = now_ms
        self.size += size
        self.end_offset = last_offset + 1
        self.modified_ms = now_ms

    def resume(self, info: SegmentInfo, offset_index: OffsetIndex, time_index: TimeIndex, end_offset: int) -> None:
        """Take up a segment at the checkpoint's point, its indexes having been loaded or rebuilt up to there."""
        self.size, self.end_offset = info.size, end_offset
        self.max_timestamp_ms, self.max_timestamp_offset = info.max_timestamp_ms, info.max_timestamp_offset
        self.first_append_ms, self.modified_ms = info.first_append_ms, info.modified_ms
        self.offset_index, self.time_index = offset_index, time_index
        indexed = offset_index.entry(len(offset_index) - 1)[1] if len(offset_index) else 0
        self._bytes_since_entry = info.size - indexed
        self._flushed_index_bytes = self._flushed_time_bytes = 0

    def describe(self) -> SegmentInfo:
        """What the checkpoint is to remember; for a sealed segment what it remembered before."""
        if self.offset_index is None or self.time_index is None:
            assert self.info is not None
            return self.info
        index, times = self.offset_index.content, self.time_index.content
        return SegmentInfo(
            base_offset=self.base_offset,
            size=self.size,
            max_timestamp_ms=self.max_timestamp_ms,
            max_timestamp_offset=self.max_timestamp_offset,
            first_append_ms=self.first_append_ms,
            modified_ms=self.modified_ms,
            offset_index_bytes=len(index),
            offset_index_crc=crc32.iscsi(bytes(index)),
            time_index_bytes=len(times),
            time_index_crc=crc32.iscsi(bytes(times)),
        )

    def seal(self, disk: Disk) -> None:
        """No batch comes any more: close the time index with the largest timestamp, write both files, free the memory.

        An index that cannot be written is left to be rebuilt by the first reader.
        """
        self.finish_time_index()
        self.info = self.describe()
        try:
            write_index_files(disk, self)
        except (OSError, DiskFull) as error:
            _LOG.warning("%s: indexes not written, to be rebuilt when read: %s", self.path(), error)
        self.offset_index = self.time_index = None

    def finish_time_index(self) -> bool:
        """Kafka's entry for the largest timestamp of a segment that is sealed or closed. True when it was not there yet."""
        assert self.time_index is not None
        before = len(self.time_index)
        self.time_index.maybe_append(self.max_timestamp_ms, self.max_timestamp_offset)
        return len(self.time_index) > before

    def flush_indexes(self, disk: Disk) -> None:
        """Put what was added to the indexes of the active segment into their files, without fsync: what a crash spoils is
        rebuilt. Needs the partition's lock. Raises DiskFull, OSError."""
        assert self.offset_index is not None
        assert self.time_index is not None
        flushed = []
        for suffix, content, position in (
            (OFFSET_INDEX_SUFFIX, self.offset_index.content, self._flushed_index_bytes),
            (TIME_INDEX_SUFFIX, self.time_index.content, self._flushed_time_bytes),
        ):
            file = disk.open(self.path(suffix), create=True)
            try:
                if len(content) > position:
                    write_all(file, [bytes(content[position:])], position)
                file.truncate(len(content))
            finally:
                file.close()
            flushed.append(len(content))
        self._flushed_index_bytes, self._flushed_time_bytes = flushed


def write_index_files(disk: Disk, segment: Segment) -> None:
    """Write both indexes whole, exactly as long as they are. Raises DiskFull, OSError."""
    assert segment.offset_index is not None
    assert segment.time_index is not None
    write_file(disk, segment.path(OFFSET_INDEX_SUFFIX), bytes(segment.offset_index.content), durable=False)
    write_file(disk, segment.path(TIME_INDEX_SUFFIX), bytes(segment.time_index.content), durable=False)


def load_indexes(
    disk: Disk, segment: Segment, info: SegmentInfo, *, longer: bool = False
) -> tuple[OffsetIndex, TimeIndex] | None:
    """The indexes as `info` remembers them, None when the files hold anything else.

    `longer`: the files may have grown since, as those of the active segment do.
    """
    contents = []
    for suffix, size, crc in (
        (OFFSET_INDEX_SUFFIX, info.offset_index_bytes, info.offset_index_crc),
        (TIME_INDEX_SUFFIX, info.time_index_bytes, info.time_index_crc),
    ):
        try:
            content = read_small_file(disk, segment.path(suffix))
        except FileNotFoundError:
            return None
        if longer:
            content = content[:size]
        if len(content) != size or crc32.iscsi(content) != crc:
            return None
        contents.append(content)
    return OffsetIndex(segment.base_offset, contents[0]), TimeIndex(segment.base_offset, contents[1])


def rebuild_indexes(
    file: File, base_offset: int, end: int, interval_bytes: int, *, finished: bool
) -> tuple[OffsetIndex, TimeIndex]:
    """Both indexes of the bytes up to `end`, from batch headers alone. A stretch that is no batch is passed over. OSError."""
    scratch = Segment("", base_offset)
    position, offset = 0, base_offset
    while position < end:
        try:
            for at, header in walk_headers(file, position, end, offset, REBUILD_WINDOW_BYTES):
                scratch.size = at
                scratch.add(header, header.base_offset, interval_bytes, 0)
                offset = header.next_offset
            break
        except BadBatch as bad:
            found = batch_after(file, bad, end)
            if found is None:
                break
            position, offset = found[0], found[1].base_offset
    assert scratch.offset_index is not None
    assert scratch.time_index is not None
    if finished:
        scratch.finish_time_index()
    return scratch.offset_index, scratch.time_index


class SegmentCache:
    """Open files and loaded indexes of sealed segments, least recently used first; one for a whole data folder.

    Used by the event-loop thread only (and by `verify`, which has its own).
    """

    def __init__(self, disk: Disk, *, open_files_max: int = OPEN_FILES_MAX, index_bytes_max: int = INDEX_BYTES_MAX) -> None:
        self._disk = disk
        self._open_files_max = open_files_max
        self._index_bytes_max = index_bytes_max
        self._files: OrderedDict[Segment, File] = OrderedDict()
        self._indexes: OrderedDict[Segment, tuple[OffsetIndex, TimeIndex]] = OrderedDict()
        self._index_bytes = 0

    def file(self, segment: Segment) -> File:
        """The segment's file, open for reading. Raises OSError."""
        if segment.file is not None:
            return segment.file
        file = self._files.pop(segment, None) or self._disk.open(segment.path(), writable=False)
        self._files[segment] = file
        while len(self._files) > self._open_files_max:
            self._files.popitem(last=False)[1].close()
        return file

    def indexes(self, segment: Segment, interval_bytes: int) -> tuple[OffsetIndex, TimeIndex]:
        """Both indexes, loaded or rebuilt when they are not in memory. Raises OSError."""
        if segment.offset_index is not None and segment.time_index is not None:
            return segment.offset_index, segment.time_index
        found = self._indexes.pop(segment, None)
        if found is None:
            found = self._load(segment, interval_bytes)
            self._index_bytes += len(found[0].content) + len(found[1].content)
        self._indexes[segment] = found
        while self._index_bytes > self._index_bytes_max and len(self._indexes) > 1:
            self._drop(next(iter(self._indexes)))
        return found

    def _load(self, segment: Segment, interval_bytes: int) -> tuple[OffsetIndex, TimeIndex]:
        if segment.info is not None:
            found = load_indexes(self._disk, segment, segment.info)
            if found is not None:
                return found
        _LOG.warning("%s: an index is missing or not the one that was written; rebuilding both", segment.path())
        found = rebuild_indexes(self.file(segment), segment.base_offset, segment.size, interval_bytes, finished=True)
        self.rewrite(segment, found)
        return found

    def rewrite(self, segment: Segment, found: tuple[OffsetIndex, TimeIndex]) -> None:
        """Put indexes that were built anew into a sealed segment's files. One that cannot be written is built again."""
        segment.offset_index, segment.time_index = found
        segment.info = segment.describe()
        try:
            write_index_files(self._disk, segment)
        except (OSError, DiskFull) as error:
            _LOG.warning("%s: rebuilt indexes not written: %s", segment.path(), error)
        segment.offset_index = segment.time_index = None

    def _drop(self, segment: Segment) -> None:
        found = self._indexes.pop(segment, None)
        if found is not None:
            self._index_bytes -= len(found[0].content) + len(found[1].content)

    def forget(self, segment: Segment) -> None:
        """The segment is gone or has changed: close its file and drop its indexes."""
        self._drop(segment)
        file = self._files.pop(segment, None)
        if file is not None:
            file.close()
