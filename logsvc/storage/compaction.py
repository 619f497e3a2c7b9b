"""Compaction by key (`cleanup.policy=compact`): of the sealed segments only the last record of each key stays.

In the manner of Kafka's log cleaner, with its terms. The log is clean up to the cleaned offset and dirty from there to the
active segment. When at least half of it is dirty, a map of the last offset of each key is built over the dirty part; then
all segments from the start are written anew without the records that a later one supersedes. Offsets are preserved. A
tombstone (no value) stays `delete.retention.ms` after its segment was last written, so that readers see it, and then goes
too. Records without a key cannot be superseded and stay, and so does a batch whose records do not decode.

Where whole batches go, one empty batch spans their offsets: offsets stay dense, and every other part of storage can go on
treating a gap as damage. Neighbouring segments that have become small are merged.

Three steps, because the middle one takes long: `PartitionLog.compaction` plans on the event loop, `Compaction.run` reads and
writes in a worker thread, `PartitionLog.finish_compaction` swaps the files in, on the event loop.

The swap survives a crash at any point. A new segment is written as `BASE.log.cleaned` and fsynced. Renaming it to
`BASE.log.swap` commits it; the segments it replaces are removed and it is renamed to `BASE.log`. Recovery deletes `.cleaned`
files and completes `.swap` files. The checkpoint vouches for none of these segments meanwhile.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from logsvc.config import TopicConfig
from logsvc.storage.disk import Disk, File, write_all
from logsvc.storage.scan import BadBatch, walk_batches
from logsvc.storage.segment import (
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    POSITION_MAX,
    TIME_INDEX_SUFFIX,
    Segment,
    file_name,
)
from logsvc_common.batch import BatchHeader, RawRecord, decode, empty, parse_header, retain
from logsvc_common.errors import CorruptBatch, DiskFull

CLEANED_SUFFIX = ".log.cleaned"
SWAP_SUFFIX = ".log.swap"
DIRTY_RATIO_MIN = 0.5  # Kafka's min.cleanable.dirty.ratio
KEY_BYTES_MAX = 32  # longer keys are held as a hash
KEYS_MAX = 500_000  # distinct keys of one run; a dirty part with more is cleaned in several runs
WRITE_BUFFER_BYTES = 1 << 20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Neighbouring segments that become one."""

    sources: tuple[Segment, ...]

    @property
    def base_offset(self) -> int:
        return self.sources[0].base_offset


@dataclass
class Compaction:
    """One run over one partition: what to do, and after `run` what came of it.

    Reads only sealed segments, which nobody changes; that trim or retention may remove them meanwhile is found out when the
    run is finished. A failing disk or a full one leaves the log as it was.
    """

    disk: Disk
    folder: str
    config: TopicConfig
    groups: tuple[Group, ...]
    dirty_offset: int
    now_ms: int
    cleaned_offset: int = 0
    cleaned: list[Segment] = field(default_factory=list)
    error: OSError | DiskFull | BadBatch | None = None

    def run(self) -> None:
        """Write the `.cleaned` files, durably. For a worker thread. Trouble is left in `error` for `finish_compaction`."""
        try:
            last = self._last_offsets()
            for group in self.groups:
                if group.base_offset < self.cleaned_offset:
                    self.cleaned.append(self._clean(group, last))
        except (OSError, DiskFull, BadBatch) as error:
            self.error = error
            self.cleaned.clear()

    def discard(self) -> None:
        """Remove what was written; nothing of it is part of the log."""
        for group in self.groups:
            path = f"{self.folder}/{file_name(group.base_offset, CLEANED_SUFFIX)}"
            try:
                if self.disk.exists(path):
                    self.disk.unlink(path)
            except OSError as error:
                _LOG.warning("%s not removed, recovery will: %s", path, error)

    def _segments(self) -> Iterator[Segment]:
        for group in self.groups:
            yield from group.sources

    def _last_offsets(self) -> dict[bytes, int]:
        """The last offset of each key in the dirty part, as far as `KEYS_MAX` allows: up to `cleaned_offset`."""
        last: dict[bytes, int] = {}
        for segment in self._segments():
            if segment.end_offset <= self.dirty_offset:
                continue
            file = self.disk.open(segment.path(), writable=False)
            try:
                for header, raw in _batches(file, segment):
                    if header.next_offset <= self.dirty_offset:
                        continue
                    for record in _records(raw) or ():
                        if record.key is not None:
                            last[_map_key(record.key)] = record.offset
                    self.cleaned_offset = header.next_offset
                    if len(last) >= KEYS_MAX:
                        return last
            finally:
                file.close()
        return last

    def _clean(self, group: Group, last: dict[bytes, int]) -> Segment:
        """Write the segment that replaces a group, and describe it."""
        path = f"{self.folder}/{file_name(group.base_offset, CLEANED_SUFFIX)}"
        made = Segment(self.folder, group.base_offset)
        file = self.disk.open(path, create=True)
        try:
            file.truncate(0)
            writer = _Writer(file, made, self.config.index_interval_bytes)
            for segment in group.sources:
                source = self.disk.open(segment.path(), writable=False)
                try:
                    tombstones_go = self.now_ms - segment.modified_ms > self.config.delete_retention_ms
                    for header, raw in _batches(source, segment):
                        writer.add(header, _retained(header, raw, last, self.cleaned_offset, tombstones_go))
                finally:
                    source.close()
            writer.finish()
            file.datasync()
        finally:
            file.close()
        made.first_append_ms = group.sources[0].first_append_ms
        made.modified_ms = max(segment.modified_ms for segment in group.sources)
        return made


def plan(segments: Sequence[Segment], cleaned_offset: int, config: TopicConfig) -> tuple[Group, ...]:
    """The sealed segments in groups that become one each; nothing when too little of them is dirty."""
    dirty = sum(segment.size for segment in segments if segment.end_offset > cleaned_offset)
    total = sum(segment.size for segment in segments)
    if not dirty or dirty < DIRTY_RATIO_MIN * total:
        return ()
    groups: list[list[Segment]] = []
    for segment in segments:
        current = groups[-1] if groups else []
        fits = (
            current
            and sum(member.size for member in current) + segment.size <= min(config.segment_bytes, POSITION_MAX)
            and segment.end_offset - current[0].base_offset <= POSITION_MAX
        )
        if fits:
            current.append(segment)
        else:
            groups.append([segment])
    return tuple(Group(tuple(group)) for group in groups)


def swap(disk: Disk, folder: str, made: Segment, sources: Sequence[Segment]) -> None:
    """Put one cleaned segment in the place of its sources. Raises OSError; recovery then goes on from where it stopped."""
    cleaned = f"{folder}/{file_name(made.base_offset, CLEANED_SUFFIX)}"
    disk.rename(cleaned, f"{folder}/{file_name(made.base_offset, SWAP_SUFFIX)}")
    disk.sync_dir(folder)
    _replace(disk, folder, made.base_offset, [segment.base_offset for segment in sources])


def complete_swaps(disk: Disk, folder: str, names: Sequence[str]) -> bool:
    """Finish the swaps that a crash interrupted; True when there were any. Raises BadBatch (the file is left), OSError."""
    found = [name for name in names if name.endswith(SWAP_SUFFIX)]
    for name in found:
        base = int(name.removesuffix(SWAP_SUFFIX))
        file = disk.open(f"{folder}/{name}", writable=False)
        try:
            end_offset = base
            for _, header in walk_batches(file, 0, file.size(), base):
                end_offset = header.next_offset
        finally:
            file.close()
        bases = [int(other.removesuffix(LOG_SUFFIX)) for other in names if other.endswith(LOG_SUFFIX)]
        _replace(disk, folder, base, [other for other in bases if base <= other < end_offset])
        _LOG.info("%s: completed the compaction of offsets %d to %d", folder, base, end_offset - 1)
    return bool(found)


def _replace(disk: Disk, folder: str, base: int, sources: Sequence[int]) -> None:
    for source in sources:
        suffixes = [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] + ([LOG_SUFFIX] if source != base else [])
        for suffix in suffixes:
            path = f"{folder}/{file_name(source, suffix)}"
            if disk.exists(path):
                disk.unlink(path)
    if len(sources) > 1:
        # The sources go before the new segment has its name: found beside it after a power cut they would look like corruption,
        # and nothing but this makes a folder keep the order of its changes.
        disk.sync_dir(folder)
    disk.rename(f"{folder}/{file_name(base, SWAP_SUFFIX)}", f"{folder}/{file_name(base)}")
    disk.sync_dir(folder)


def _batches(file: File, segment: Segment) -> Iterator[tuple[BatchHeader, bytes]]:
    """Every batch of a sealed segment, its CRC checked: rot must not be written anew as if it were sound."""
    for position, header in walk_batches(file, 0, segment.size, segment.base_offset):
        yield header, file.pread(header.size, position)


def _records(raw: bytes) -> list[RawRecord] | None:
    """The records of a batch; None when a producer has sent something that does not decode."""
    try:
        return decode(raw)
    except CorruptBatch as error:
        _LOG.warning("compaction keeps a batch as it is: %s", error.message)
        return None


def _map_key(key: bytes) -> bytes:
    """Keys beyond a few bytes count by their hash, which is longer than any key that counts by itself."""
    return key if len(key) <= KEY_BYTES_MAX else blake2b(key, digest_size=KEY_BYTES_MAX + 1).digest()


def _retained(
    header: BatchHeader, raw: bytes, last: dict[bytes, int], cleaned_offset: int, tombstones_go: bool
) -> bytes | None:
    """What stays of a batch; None when nothing does."""
    if not header.record_count:
        return None
    records = _records(raw)
    if records is None:
        return raw

    def stays(record: RawRecord) -> bool:
        if record.key is None or record.offset >= cleaned_offset:
            return True
        newest = last.get(_map_key(record.key), record.offset)
        return newest <= record.offset and not (record.value is None and tombstones_go)

    kept = [record for record in records if stays(record)]
    if len(kept) == len(records):
        return raw
    return retain(header, kept) if kept else None


class _Writer:
    """Appends batches to a cleaned segment and fills the holes between them with empty ones."""

    def __init__(self, file: File, segment: Segment, interval_bytes: int) -> None:
        self._file = file
        self._segment = segment
        self._interval_bytes = interval_bytes
        self._buffered: list[bytes] = []
        self._buffered_bytes = 0
        self._written = 0
        self._hole_from: int | None = None
        self._hole_to = 0

    def add(self, header: BatchHeader, content: bytes | None) -> None:
        """What stays of the next batch."""
        if content is None:
            if self._hole_from is None:
                self._hole_from = header.base_offset
            self._hole_to = header.last_offset
            return
        self._close_hole()
        self._put(content)

    def finish(self) -> None:
        self._close_hole()
        self._flush()
        self._segment.finish_time_index()

    def _close_hole(self) -> None:
        if self._hole_from is not None:
            self._put(empty(self._hole_from, self._hole_to))
            self._hole_from = None

    def _put(self, content: bytes) -> None:
        header = parse_header(content)
        self._segment.add(header, header.base_offset, self._interval_bytes, 0)
        self._buffered.append(content)
        self._buffered_bytes += len(content)
        if self._buffered_bytes >= WRITE_BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffered:
            self._written += write_all(self._file, [b"".join(self._buffered)], self._written)
            self._buffered, self._buffered_bytes = [], 0
