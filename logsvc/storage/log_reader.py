"""Reading a partition's segments: byte ranges of whole batches, and offsets by time. Changes nothing in the log.

A read costs one index lookup, a short walk over headers, and one `pread` for the data. Where the data is larger than asked
for it is cut at an indexed batch position, so nothing between is parsed. The place where a read ended is remembered: the next
one usually begins there and needs neither index nor walk.

What is read is checked at its first header only; the CRC of each batch is checked by who consumes it, and by `verify`.
Errors here are BadBatch (position and reason) and OSError; `PartitionLog` turns them into the partition's state.
"""

from typing import NamedTuple

from sortedcontainers import SortedDict

from logsvc.storage.disk import File
from logsvc.storage.scan import BadBatch, batch_at, find_batch, walk_headers
from logsvc.storage.segment import Segment, SegmentCache
from logsvc_common.batch import HEADER_BYTES, BatchHeader, RawRecord, check_crc, decode, parse_header
from logsvc_common.errors import CorruptBatch

REMEMBERED_PLACES = 64
SAME_TIME_MS = 100  # records of a batch that spans no more are taken to have come together
TIMED_BATCH_BYTES_MAX = 256 << 10  # stored bytes of a batch that is decoded to find the time of one record


class LogPoint(NamedTuple):
    """A batch boundary of a partition: the offset, and where it lies. `base_offset` names the segment."""

    offset: int
    base_offset: int
    position: int


class LogReader:
    """Reads of one partition; event-loop thread only. Shares the map of segments with its `PartitionLog`."""

    __slots__ = ("_cache", "_places", "_segments", "damage", "interval_bytes")

    def __init__(self, segments: SortedDict, cache: SegmentCache, interval_bytes: int) -> None:
        self._segments = segments
        self._cache = cache
        self._places: dict[int, tuple[Segment, int]] = {}
        self.interval_bytes = interval_bytes
        self.damage: BadBatch | None = None

    def forget_places(self) -> None:
        """Segments were removed or rewritten."""
        self._places.clear()

    def segment_of(self, offset: int) -> Segment:
        """The segment whose range holds `offset`."""
        number = max(self._segments.bisect_right(offset) - 1, 0)
        segment: Segment = self._segments.peekitem(number)[1]
        return segment

    def read(self, offset: int, max_bytes: int, limit: LogPoint) -> bytes:
        """Whole batches from the one that holds `offset`, at least one, none at `limit` or above; `offset` is below it."""
        segment = self.segment_of(offset)
        position = self._place(segment, offset)
        if position is not None:
            try:
                return self._read_at(segment, offset, position, max_bytes, limit)
            except BadBatch:  # the length of the batch before it may have lied
                self._places.clear()
        return self._read_at(segment, offset, self._locate(segment, offset)[0], max_bytes, limit)

    def _read_at(self, segment: Segment, offset: int, position: int, max_bytes: int, limit: LogPoint) -> bytes:
        end = limit.position if segment.base_offset == limit.base_offset else segment.size
        file = self._cache.file(segment)
        room = max(end - position, 0)
        if room <= max_bytes:
            next_offset = limit.offset if segment.base_offset == limit.base_offset else segment.end_offset
            data = file.pread(room, position)
            self._check_first(data, offset, position, room)
        else:
            next_offset, data = self._read_part(segment, offset, position, max_bytes, end)
        if len(self._places) >= REMEMBERED_PLACES:
            del self._places[next(iter(self._places))]
        self._places[next_offset] = (segment, position + len(data))
        return data

    def _place(self, segment: Segment, offset: int) -> int | None:
        """Where the batch that begins at `offset` lies, if a read ended there."""
        remembered = self._places.get(offset)
        return remembered[1] if remembered is not None and remembered[0] is segment else None

    def _read_part(self, segment: Segment, offset: int, position: int, max_bytes: int, end: int) -> tuple[int, bytes]:
        """(next offset, batches) from `position`, at most `max_bytes` of them or one batch; more than that is there."""
        file = self._cache.file(segment)
        index, _ = self._cache.indexes(segment, self.interval_bytes)
        cut = index.batch_at_or_before(position + max_bytes)
        if cut is not None and cut > position:
            try:
                following = parse_header(file.pread(HEADER_BYTES, cut))
            except CorruptBatch:
                following = None
            if following is not None:
                data = file.pread(cut - position, position)
                self._check_first(data, offset, position, cut - position)
                return following.base_offset, data
        data = file.pread(max(max_bytes, HEADER_BYTES), position)
        first = self._check_first(data, offset, position, end - position)
        if first.size >= len(data):
            return first.next_offset, file.pread(first.size, position)
        used, next_offset = 0, first.base_offset
        while len(data) - used >= HEADER_BYTES:
            try:
                header = parse_header(data, used)
            except CorruptBatch:
                break
            if header.base_offset != next_offset or used + header.size > len(data):
                break
            used += header.size
            next_offset = header.next_offset
        return next_offset, data[:used]

    def _check_first(self, data: bytes, offset: int, position: int, room: int) -> BatchHeader:
        try:
            first = parse_header(data)
        except CorruptBatch as error:
            raise BadBatch(position, offset, error.message) from error
        if not first.base_offset <= offset <= first.last_offset:
            raise BadBatch(position, offset, f"a batch of offsets {first.base_offset} to {first.last_offset} is there")
        if first.size > room:
            raise BadBatch(position, offset, f"it has {first.size} bytes, {room} are left")
        return first

    def good_prefix(self, data: bytes, offset: int) -> bytes:
        """The batches of `data` up to the first with a wrong checksum: for logs known to be corrupt.

        Raises BadBatch when it is the first.
        """
        used = 0
        while used < len(data):
            try:
                header = parse_header(data, used)
                check_crc(data, header, used)
            except CorruptBatch as error:
                if used:
                    break
                raise BadBatch(0, offset, error.message) from error
            used += header.size
        return data[:used]

    def _locate(self, segment: Segment, offset: int) -> tuple[int, BatchHeader]:
        """Position and header of the batch that holds `offset`. A bad batch before it is passed over and noted in `damage`."""
        index, _ = self._cache.indexes(segment, self.interval_bytes)
        file = self._cache.file(segment)
        entry = index.lookup(offset)
        position, expected = (entry[1], None) if entry else (0, segment.base_offset)
        before = -1  # the batch walked over last: if it is bad, its length led to the wrong place
        while True:
            try:
                for at, header in walk_headers(file, position, segment.size, expected):
                    if expected is None and entry is not None and at == entry[1] and header.last_offset != entry[0]:
                        raise BadBatch(at, offset, f"it ends at offset {header.last_offset}, the index says {entry[0]}")
                    if header.last_offset >= offset:
                        if header.base_offset < offset:
                            self._check_whole(file, at, header, offset)
                        return at, header
                    before = at
                raise BadBatch(segment.size, offset, "its segment ends before it")
            except BadBatch as bad:
                if before >= 0 and batch_at(file, before, segment.size) is None:
                    bad = BadBatch(before, bad.offset, bad.reason)
                found = find_batch(file, bad.position + 1, segment.size, segment.base_offset)
                if found is None or found[1].base_offset > offset:
                    raise BadBatch(bad.position, offset, bad.reason) from bad
                self.damage = bad
                before, position, expected = -1, found[0], found[1].base_offset

    def _check_whole(self, file: File, position: int, header: BatchHeader, offset: int) -> None:
        """A header may claim offsets that are not in its batch; reads in the middle of a batch are rare enough to check."""
        try:
            check_crc(file.pread(header.size, position), header)
        except CorruptBatch as error:
            raise BadBatch(position, offset, error.message) from error

    def position_before(self, offset: int, limit: LogPoint) -> LogPoint:
        """The boundary at or below `offset`: the beginning of the batch that holds it. `limit` when that is not above it.

        Where there is no batch for `offset`, the end of the good ones before it.
        """
        if offset >= limit.offset:
            return limit
        segment = self.segment_of(offset)
        try:
            position, header = self._locate(segment, offset)
        except BadBatch as bad:
            return LogPoint(offset, segment.base_offset, bad.position)
        return LogPoint(header.base_offset, segment.base_offset, position)

    def timestamp_at(self, offset: int, end_offset: int) -> int | None:
        """The timestamp of the first record from `offset` on, None when there is none.

        At the beginning of a batch its header says it, and within one whose records are as good as of one time. Else the batch
        is read, unless it is so large that its records are taken to be spread evenly over its time.
        """
        while offset < end_offset:
            segment = self.segment_of(offset)
            position, header = self._header_at(segment, offset)
            if header.record_count:
                if header.base_offset >= offset or 0 <= header.max_timestamp_ms - header.first_timestamp_ms <= SAME_TIME_MS:
                    return header.first_timestamp_ms
                if header.size > TIMED_BATCH_BYTES_MAX:
                    span_ms = header.max_timestamp_ms - header.first_timestamp_ms
                    return header.first_timestamp_ms + span_ms * (offset - header.base_offset) // header.last_offset_delta
                for record in self._records(segment, position, header):
                    if record.offset >= offset:
                        return record.timestamp
            offset = header.next_offset
        return None

    def _records(self, segment: Segment, position: int, header: BatchHeader) -> list[RawRecord]:
        batch = self._cache.file(segment).pread(header.size, position)
        try:
            check_crc(batch, header)
            return decode(batch)
        except CorruptBatch as error:
            raise BadBatch(position, header.base_offset, error.message) from error

    def _header_at(self, segment: Segment, offset: int) -> tuple[int, BatchHeader]:
        position = self._place(segment, offset)
        if position is not None:
            data = self._cache.file(segment).pread(HEADER_BYTES, position)
            try:
                return position, self._check_first(data, offset, position, segment.size - position)
            except BadBatch:
                self._places.clear()
        return self._locate(segment, offset)

    def offset_for_time(self, timestamp_ms: int, start_offset: int, limit: LogPoint) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record from `start_offset`, below `limit`, that is not older; None without one."""
        for base_offset, segment in self._segments.items():
            if base_offset >= limit.offset:
                return None
            if segment.max_timestamp_ms < timestamp_ms or segment.end_offset <= start_offset:
                continue
            found = self._first_not_older(segment, timestamp_ms, start_offset, limit)
            if found is not None:
                return found
        return None

    def _first_not_older(
        self, segment: Segment, timestamp_ms: int, start_offset: int, limit: LogPoint
    ) -> tuple[int, int] | None:
        index, times = self._cache.indexes(segment, self.interval_bytes)
        from_offset = max(times.offset_before(timestamp_ms) + 1, start_offset, segment.base_offset)
        if from_offset >= min(segment.end_offset, limit.offset):
            return None
        file = self._cache.file(segment)
        end = limit.position if segment.base_offset == limit.base_offset else segment.size
        entry = index.lookup(from_offset)
        start, first_offset = (entry[1], None) if entry else (0, segment.base_offset)
        for position, header in walk_headers(file, start, end, first_offset):
            if header.last_offset < from_offset or header.max_timestamp_ms < timestamp_ms or not header.record_count:
                continue
            for record in self._records(segment, position, header):
                if record.timestamp >= timestamp_ms and record.offset >= start_offset:
                    return record.offset, record.timestamp
        return None
