"""Opening a partition folder after anything: clean stop, kill -9, power cut, bit rot. Idempotent, and it may crash itself.

Below the checkpoint's durable offset nothing is scanned: sealed segments need only exist with the size remembered. Above it
every batch is checked. The first bad one decides:

- **torn**: at or above the durable offset and no good batch follows, here or in a later segment. These bytes were never
  acknowledged. They are copied to `OFFSET.torn`, the file is cut, and the partition is online.
- **corrupt**: below the durable offset, or a good batch follows. Nothing is touched. The partition is read-only, serves every
  good batch, answers PartitionCorrupt for the bad offsets, and waits for `logsvc verify --repair`.

A zero-filled tail is torn like any other: zeros have no magic. What was recovered is made durable before anyone may read it,
since after kill -9 it may stand in the page cache only. An fsync alone would not do: should one have failed in the life before,
the kernel has marked those pages clean, and the next fsync would report success and save nothing. So the tail is written again
where it stands, and then fsynced. Segments before the last one need none of that: the last one was begun after their fsync.
"""

import errno
import logging
from dataclasses import dataclass, field
from itertools import pairwise

from logsvc.config import TopicConfig
from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.checkpoint import Checkpoint, SegmentInfo
from logsvc.storage.compaction import CLEANED_SUFFIX, complete_swaps
from logsvc.storage.disk import Disk, File, write_all
from logsvc.storage.producer_state import ProducerState
from logsvc.storage.removal import DELETED_SUFFIX
from logsvc.storage.scan import SCAN_WINDOW_BYTES, BadBatch, batch_after, find_batch, walk_batches
from logsvc.storage.segment import (
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
    Segment,
    file_name,
    load_indexes,
    rebuild_indexes,
)
from logsvc_common.errors import DiskFull

TORN_SUFFIX = ".torn"
FAULTS_MAX = 16  # faults described one by one; more are only counted
_LOG = logging.getLogger(__name__)


@dataclass
class Recovered:
    """A partition as it was found. Without faults the last segment is active and its file open."""

    segments: list[Segment]
    start_offset: int
    end_offset: int
    producers: ProducerState
    faults: list[str] = field(default_factory=list)
    changed: bool = False  # differs from the checkpoint, which should be written
    created: bool = False  # the active segment's file is new
    torn_bytes: int = 0
    scanned_bytes: int = 0
    cleaned_offset: int = 0


def recover(disk: Disk, folder: str, config: TopicConfig) -> Recovered:
    """Bring the partition in `folder` into order and say what it holds. Raises OSError when the disk fails, DiskFull."""
    recovery = _Recovery(disk, folder, config)
    try:
        return recovery.run()
    except (OSError, DiskFull):
        recovery.close_files()
        raise


def segment_offsets(names: list[str]) -> list[int]:
    """Base offsets of the segment files among the names of a partition folder, ascending."""
    digits = (name.removesuffix(LOG_SUFFIX) for name in names if name.endswith(LOG_SUFFIX))
    return sorted(int(stem) for stem in digits if len(stem) == 20 and stem.isascii() and stem.isdigit())


class _Recovery:
    """One run. `_offset` is the offset the next batch must have."""

    def __init__(self, disk: Disk, folder: str, config: TopicConfig) -> None:
        self._disk = disk
        self._folder = folder
        self._config = config
        self._checkpoint = checkpoints.load(disk, folder) or Checkpoint(0, 0, (), ())
        self._infos = {info.base_offset: info for info in self._checkpoint.segments}
        self._following = dict(pairwise(sorted(self._infos)))
        self._out = Recovered([], 0, 0, ProducerState(self._checkpoint.producers), list(self._checkpoint.faults))
        self._out.cleaned_offset = self._checkpoint.cleaned_offset
        self._offset = 0
        self._unsynced: list[tuple[Segment, int]] = []  # and from which position on
        self._faults = 0

    def run(self) -> Recovered:
        bases, folder = self._tidy(), self._folder
        out, durable = self._out, self._checkpoint.durable_offset
        self._offset = bases[0] if bases else (self._checkpoint.start_offset if self._checkpoint.segments else durable)
        out.start_offset = max(self._checkpoint.start_offset, self._offset)
        if self._checkpoint.segments and out.start_offset > self._checkpoint.start_offset:
            _LOG.warning("%s begins at %d, its checkpoint says %d", folder, out.start_offset, self._checkpoint.start_offset)
        for number, base in enumerate(bases):
            later = bases[number + 1 :]
            if base != self._offset and not self._accept_gap(base, bases[number:]):
                break
            if self._trusted(base, later):
                continue
            if not self._scan(base, later):
                break
        if self._offset < durable:
            self._fault(f"offsets {self._offset} to {durable - 1} are gone from the end")
        out.end_offset = max(self._offset, durable)
        out.start_offset = min(out.start_offset, out.end_offset)
        if out.faults:
            self._seal(out.segments)
        else:
            self._finish()
        return out

    def close_files(self) -> None:
        """After trouble: let go of what was opened."""
        for segment in self._out.segments:
            if segment.file is not None:
                segment.file.close()
                segment.file = None

    def _tidy(self) -> list[int]:
        """Remove what an interrupted write, trim or retention left behind; the segments there are."""
        names = self._disk.listdir(self._folder)
        if self._swaps_completed(names):
            names = self._disk.listdir(self._folder)
        bases = segment_offsets(names)
        start_offset = self._checkpoint.start_offset
        kept = [base for base, following in pairwise(bases) if following > start_offset] + bases[-1:]
        stems = {file_name(base, "") for base in kept}
        for name in names:
            stem, dot, suffix = name.partition(".")
            suffix = dot + suffix
            leftover = name.endswith((".tmp", CLEANED_SUFFIX, DELETED_SUFFIX))
            if suffix in (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX):
                leftover = len(stem) == 20 and stem.isdigit() and stem not in stems
            if leftover:
                _LOG.info("%s: removing leftover %s", self._folder, name)
                self._disk.unlink(f"{self._folder}/{name}")
        return kept

    def _swaps_completed(self, names: list[str]) -> bool:
        try:
            completed = complete_swaps(self._disk, self._folder, names)
        except BadBatch as bad:
            self._fault(f"a compacted segment cannot be put in its place: {bad.message}")
            return False
        self._out.changed |= completed
        return completed

    def _fault(self, text: str) -> None:
        self._faults += 1
        if self._faults <= FAULTS_MAX:
            self._out.faults.append(text)
        _LOG.error("%s is corrupt: %s", self._folder, text)

    def _accept_gap(self, base: int, bases: list[int]) -> bool:
        """The segment at `base` does not begin where the one before it ends. False: it is part of a torn tail, now cut."""
        if self._out.segments and self._offset >= self._checkpoint.durable_offset and not self._good_batch_in(bases):
            last = self._out.segments[-1]
            self._cut(last, last.size, bases, last.size)
            return False
        self._fault(f"offsets {self._offset} to {base - 1} are missing before {file_name(base)}")
        self._offset = base
        return True

    def _trusted(self, base: int, later: list[int]) -> bool:
        """True for a sealed segment that the checkpoint vouches for and that has the size it should have."""
        info = self._infos.get(base)
        following = self._following.get(base)
        if info is None or following is None or not later:
            return False
        following = min(following, later[0])  # a segment the checkpoint does not vouch for may lie between
        if self._disk.file_size(f"{self._folder}/{file_name(base)}") != info.size:
            return False
        self._out.segments.append(Segment.sealed(self._folder, info, following))
        self._offset = following
        return True

    def _scan(self, base: int, later: list[int]) -> bool:
        """Check the batches of one segment above the durable point. False when it ends in a torn tail, now cut."""
        segment = Segment(self._folder, base)
        segment.file = file = self._disk.open(segment.path())
        size, modified_ms = file.size(), self._disk.modified_ms(segment.path())
        self._out.segments.append(segment)
        self._resume(segment, file, size)
        position, resumed_at = segment.size, segment.size
        while position < size:
            try:
                for at, header in walk_batches(file, position, size, self._offset):
                    segment.size = at
                    segment.add(header, header.base_offset, self._config.index_interval_bytes, modified_ms)
                    if header.producer_id >= 0 and header.record_count and self._offset >= self._checkpoint.durable_offset:
                        self._out.producers.update(header, header.base_offset, modified_ms)
                    self._offset = header.next_offset
                break
            except BadBatch as bad:
                found = batch_after(file, bad, size)
                torn = found is None and self._offset >= self._checkpoint.durable_offset and not self._good_batch_in(later)
                if torn:
                    self._cut(segment, bad.position, later, resumed_at)
                    return False
                self._fault(f"{file_name(base)} at byte {bad.position}: {bad.message}")
                if found is None:
                    break
                position, self._offset = found[0], found[1].base_offset
        self._out.scanned_bytes += size - resumed_at
        self._out.changed |= segment.size != resumed_at or base not in self._infos
        if later:
            file.datasync()
            self._seal([segment])
        else:
            self._unsynced.append((segment, resumed_at))
        return True

    def _resume(self, segment: Segment, file: File, size: int) -> None:
        """Skip what the checkpoint says is durable, if this is the segment it was active in and it is long enough."""
        info: SegmentInfo | None = self._infos.get(segment.base_offset)
        if info is None or info is not self._checkpoint.segments[-1] or size < info.size:
            return
        sizes = {OFFSET_INDEX_SUFFIX: info.offset_index_bytes, TIME_INDEX_SUFFIX: info.time_index_bytes}
        found = load_indexes(self._disk, segment, info, longer=True)
        if found is None:
            _LOG.info("%s: indexes not as the checkpoint remembers them; rebuilding both", segment.path())
            interval = self._config.index_interval_bytes
            found = rebuild_indexes(file, segment.base_offset, info.size, interval, finished=False)
            self._out.changed = True
        elif any(self._disk.file_size(segment.path(suffix)) != size for suffix, size in sizes.items()):
            self._out.changed = True
        segment.resume(info, found[0], found[1], self._checkpoint.durable_offset)
        self._offset = self._checkpoint.durable_offset

    def _good_batch_in(self, bases: list[int]) -> bool:
        """True when any of these segments holds a valid batch that could follow."""
        for base in bases:
            file = self._disk.open(f"{self._folder}/{file_name(base)}", writable=False)
            try:
                if find_batch(file, 0, file.size(), self._offset) is not None:
                    return True
            finally:
                file.close()
        return False

    def _cut(self, segment: Segment, position: int, later: list[int], unsynced_from: int) -> None:
        """End the log at `position` of `segment`: set aside what lies behind it and in the later segments. From `unsynced_from`
        on the checkpoint does not say that it is durable."""
        out = self._out
        for base in reversed(later):
            path = f"{self._folder}/{file_name(base)}"
            if self._disk.file_size(path):
                self._disk.rename(path, f"{self._folder}/{file_name(base, TORN_SUFFIX)}")
            else:
                self._disk.unlink(path)
            for suffix in (OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX):
                if self._disk.exists(f"{self._folder}/{file_name(base, suffix)}"):
                    self._disk.unlink(f"{self._folder}/{file_name(base, suffix)}")
        if segment.file is None:  # sealed by the checkpoint, and now the last one
            self._reopen(segment)
        assert segment.file is not None
        size = segment.file.size()
        _LOG.warning("%s: torn tail of %d bytes at offset %d, cut off", segment.path(), size - position, self._offset)
        if size > position:
            self._save_tail(segment.file, position, size)
            segment.file.truncate(position)
        self._unsynced.append((segment, unsynced_from))
        out.torn_bytes += size - position
        out.changed = True

    def _save_tail(self, file: File, position: int, size: int) -> None:
        path = f"{self._folder}/{file_name(self._offset, TORN_SUFFIX)}"
        try:
            copy = self._disk.open(path, create=True)
            try:
                copy.truncate(0)
                for at in range(position, size, SCAN_WINDOW_BYTES):
                    write_all(copy, [file.pread(min(SCAN_WINDOW_BYTES, size - at), at)], at - position)
                copy.datasync()
            finally:
                copy.close()
        except DiskFull as error:
            # Nothing in the tail was acknowledged; a broker that cannot start for want of room for it would be worse.
            _LOG.warning("%s: torn tail not kept: %s", path, error.message)

    def _reopen(self, segment: Segment) -> None:
        segment.file = self._disk.open(segment.path())
        assert segment.info is not None
        found = load_indexes(self._disk, segment, segment.info) or rebuild_indexes(
            segment.file, segment.base_offset, segment.size, self._config.index_interval_bytes, finished=True
        )
        segment.resume(segment.info, found[0], found[1], segment.end_offset)

    def _finish(self) -> None:
        """No faults: the last segment is the active one, the others are sealed, and all there is to read is made durable.

        The name of an empty file may wait for the first sync.
        """
        out = self._out
        if not out.segments:
            segment = Segment(self._folder, self._offset)
            segment.file = self._disk.open(segment.path(), create=True)
            out.segments.append(segment)
            out.created = True
        active = out.segments[-1]
        if active.file is None:
            self._reopen(active)
        if out.scanned_bytes or out.torn_bytes:
            for segment, position in self._unsynced:
                assert segment.file is not None
                _write_again(segment.file, position, segment.size)
                segment.file.datasync()
            self._disk.sync_dir(self._folder)
        self._seal(out.segments[:-1])

    def _seal(self, segments: list[Segment]) -> None:
        for segment in segments:
            if segment.file is not None:
                segment.file.close()
                segment.file = None
            if segment.offset_index is not None:
                segment.seal(self._disk)


def _write_again(file: File, position: int, end: int) -> None:
    """Put the bytes there are into the page cache once more, so that the next fsync takes them for new. In place: `write_all`
    would cut the file should the disk refuse. Raises OSError."""
    while position < end:
        data = file.pread(min(SCAN_WINDOW_BYTES, end - position), position)
        written = file.pwritev([data], position) if data else 0
        if written <= 0:
            raise OSError(errno.EIO, "the disk does not take what it has given")
        position += written
