"""Walking over the batches of a segment file: by headers alone, or with every checksum.

What counts as a good batch, in one place (`fault`): a possible header, wholly inside the file, leader epoch 0 (the only one
this broker writes; the field lies outside the CRC), the base offset that follows the batch before it, and the right CRC-32C.
Offsets of a log are dense, batch after batch: compaction and repair put an empty batch where records were, as Kafka's
cleaner does, so a gap is always a fault.

Files are read in windows, never whole, and never one system call a batch when batches are small.
"""

import logging
from collections.abc import Iterator

from logsvc.storage.disk import File
from logsvc_common.batch import HEADER_BYTES, BatchHeader, check_crc, parse_header
from logsvc_common.errors import CorruptBatch

HEADER_WINDOW_BYTES = 8 << 10  # covers the gap between two index entries at the default interval
SCAN_WINDOW_BYTES = 4 << 20
SEARCH_BYTES_MAX = 8 << 30  # a few seconds
_LOG = logging.getLogger(__name__)

# A stamped batch has leader epoch 0 and magic 2 at bytes 12..16: what a search for the next batch looks for.
_EPOCH_AND_MAGIC = b"\x00\x00\x00\x00\x02"
_EPOCH_AT = 12
_OVERLAP_BYTES = _EPOCH_AT + len(_EPOCH_AND_MAGIC) - 1  # of search windows, so that what lies across their border is found


class BadBatch(CorruptBatch):
    """What lies at `position` of a segment file is not the batch that begins at `offset`."""

    def __init__(self, position: int, offset: int, reason: str) -> None:
        super().__init__(f"no good batch for offset {offset} at byte {position}: {reason}")
        self.position = position
        self.offset = offset
        self.reason = reason


def walk_headers(
    file: File, position: int, end: int, offset: int | None, window_bytes: int = HEADER_WINDOW_BYTES
) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each batch from `position` up to `end`. No checksums.

    The first batch begins at `offset`; None when that is not known because an index led here.

    Raises BadBatch at a header that cannot be, or that does not follow the one before it; OSError.
    """
    while position < end:
        start = position
        window = file.pread(min(window_bytes, end - position), position)
        if len(window) < HEADER_BYTES:
            raise BadBatch(position, offset or 0, f"only {len(window)} bytes are there")
        while position - start + HEADER_BYTES <= len(window):
            try:
                header = parse_header(window, position - start)
            except CorruptBatch as error:
                raise BadBatch(position, offset or 0, error.message) from error
            if offset is None:
                offset = header.base_offset
            if reason := fault(header, offset, end - position):
                raise BadBatch(position, offset, reason)
            yield position, header
            position += header.size
            offset = header.next_offset


def walk_batches(
    file: File, position: int, end: int, offset: int, window_bytes: int = SCAN_WINDOW_BYTES
) -> Iterator[tuple[int, BatchHeader]]:
    """Like `walk_headers`, with the CRC of every batch checked."""
    while position < end:
        start = position
        window = memoryview(file.pread(min(window_bytes, end - position), position))
        while position < start + len(window):
            at = position - start
            try:
                header = parse_header(window, at)
                if reason := fault(header, offset, end - position):
                    raise BadBatch(position, offset, reason)
                if at + header.size > len(window):
                    break
                check_crc(window, header, at)
            except BadBatch:
                raise
            except CorruptBatch as error:
                if len(window) - at < HEADER_BYTES and at and start + len(window) < end:
                    break
                raise BadBatch(position, offset, error.message) from error
            yield position, header
            position += header.size
            offset = header.next_offset
        if position == start:  # one batch is larger than the window
            header = _large_batch(file, position, offset)
            yield position, header
            position += header.size
            offset = header.next_offset


def _large_batch(file: File, position: int, offset: int) -> BatchHeader:
    try:
        header = parse_header(file.pread(HEADER_BYTES, position))  # nothing, should the file end before it was said to
        check_crc(file.pread(header.size, position), header)
    except CorruptBatch as error:
        raise BadBatch(position, offset, error.message) from error
    return header


def fault(header: BatchHeader, offset: int, room: int) -> str | None:
    """Why a header that parses is not the one of the batch that begins at `offset` with `room` bytes left; None if it is."""
    if header.base_offset != offset:
        return f"base offset is {header.base_offset}"
    if header.leader_epoch != 0:
        return f"leader epoch is {header.leader_epoch}, this broker writes 0"
    if header.size > room:
        return f"it has {header.size} bytes, {room} are left"
    return None


def batch_after(file: File, bad: BadBatch, end: int) -> tuple[int, BatchHeader] | None:
    """Position and header of the first good batch behind a bad one; None when no more come.

    If the bad batch has a header that fits its place, the next batch is looked for where that one ends, so that nothing inside
    its records is taken for one. Only then is the rest searched.
    """
    try:
        header = parse_header(file.pread(HEADER_BYTES, bad.position))
    except CorruptBatch:
        header = None
    if header is not None and header.base_offset == bad.offset:
        following = batch_at(file, bad.position + header.size, end, header.next_offset)
        if following is not None and following.base_offset == header.next_offset:
            return bad.position + header.size, following
    return find_batch(file, bad.position + 1, end, bad.offset)


def find_batch(file: File, position: int, end: int, offset_min: int) -> tuple[int, BatchHeader] | None:
    """The first whole, valid batch at `position` or after it whose base offset is at least `offset_min`; None without one.

    This tells a torn tail (nothing good after it) from corruption. A record whose value holds a batch can look like one;
    the answer is then corruption, which loses nothing, rather than a cut, which might. Bytes made to look like the
    beginnings of large batches cannot keep the search busy for ever: it gives up after `SEARCH_BYTES_MAX` of checksums.
    """
    searched_bytes = 0
    while position + HEADER_BYTES <= end:
        window = file.pread(min(SCAN_WINDOW_BYTES, end - position), position)
        found = window.find(_EPOCH_AND_MAGIC, _EPOCH_AT)
        while found >= 0:
            candidate = position + found - _EPOCH_AT
            header = _plausible(file, candidate, end, offset_min)
            if header is not None:
                if batch_at(file, candidate, end) is not None:
                    return candidate, header
                searched_bytes += header.size
                if searched_bytes > SEARCH_BYTES_MAX:
                    _LOG.error("gave up looking for a good batch at byte %d", candidate)
                    return None
            found = window.find(_EPOCH_AND_MAGIC, found + 1)
        if len(window) < SCAN_WINDOW_BYTES:
            return None
        position += len(window) - _OVERLAP_BYTES
    return None


def batch_at(file: File, position: int, end: int, offset_min: int = 0) -> BatchHeader | None:
    """The header of the batch at `position` if it is whole, its CRC right and its offset high enough; None otherwise."""
    header = _plausible(file, position, end, offset_min)
    if header is None:
        return None
    try:
        check_crc(file.pread(header.size, position), header)
    except CorruptBatch:
        return None
    return header


def _plausible(file: File, position: int, end: int, offset_min: int) -> BatchHeader | None:
    try:
        header = parse_header(file.pread(HEADER_BYTES, position))
    except CorruptBatch:
        return None
    return header if header.base_offset >= offset_min and header.size <= end - position else None
