"""Reading the log again before anyone needs it, so that rot is found while there is a copy elsewhere; stretch by stretch.

As with compaction there are three steps. `PartitionLog.scrub` says on the event loop which stretch comes next, `Scrub.run`
reads and checks it in a worker thread, through a file of its own, and `PartitionLog.finish_scrub` draws the consequences, on
the event loop. What is below the durable offset never changes, so nothing need be locked. That a segment was removed or
rewritten meanwhile is found out in the end, and then what was found in it counts for nothing.

Every batch is held against its CRC and its place. With the first stretch of a sealed segment both of its index files are held
against the lengths and CRCs they were written with; where they differ, they are built anew.
"""

import errno
from dataclasses import dataclass, field
from typing import NamedTuple

from logsvc.storage.checkpoint import SegmentInfo
from logsvc.storage.disk import Disk, File
from logsvc.storage.offset_index import OffsetIndex
from logsvc.storage.scan import BadBatch, batch_after, walk_batches
from logsvc.storage.segment import Segment, load_indexes, rebuild_indexes
from logsvc.storage.time_index import TimeIndex

STRETCH_BYTES = 512 << 10  # of a stretch; the batch that crosses it is checked whole
# Not the disk's fault: the stretch is tried again later.
PASSING_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
STRETCH_BATCHES = 128  # what checking them costs the interpreter is then less than half a millisecond


class ScrubPoint(NamedTuple):
    """Where the next stretch of a partition begins: a batch boundary of a segment; at its first one without any."""

    segment: Segment | None = None
    position: int = 0
    offset: int = 0


class ScrubFindings(NamedTuple):
    """What a stretch has come to: batches that are damaged, index files that were built anew."""

    damaged_batches: int = 0
    rebuilt_indexes: int = 0


@dataclass
class Scrub:
    """One stretch: what to read, and after `run` what came of it. `next` is where the one after it begins."""

    disk: Disk
    segment: Segment
    position: int
    offset: int
    end: int
    info: SegmentInfo | None  # of the index files to check, if any
    interval_bytes: int
    batches: int = 0
    damage: list[BadBatch] = field(default_factory=list)
    rebuilt: tuple[OffsetIndex, TimeIndex] | None = None
    error: OSError | None = None
    next: ScrubPoint = field(default_factory=ScrubPoint)

    @property
    def checked_bytes(self) -> int:
        return max(self.next.position - self.position, 0)

    def run(self) -> None:
        """Read and check. For a worker thread; a failing disk is left in `error`."""
        self.next = ScrubPoint(self.segment, self.position, self.offset)
        try:
            file = self.disk.open(self.segment.path(), writable=False)
            try:
                self._check_indexes(file)
                self._check_batches(file)
            finally:
                file.close()
        except OSError as error:
            self.error = error

    def _check_indexes(self, file: File) -> None:
        if self.info is not None and load_indexes(self.disk, self.segment, self.info) is None:
            self.rebuilt = rebuild_indexes(file, self.segment.base_offset, self.end, self.interval_bytes, finished=True)

    def _check_batches(self, file: File) -> None:
        position, offset = self.position, self.offset
        while position < self.end and not self._is_enough(position):
            try:
                for at, header in walk_batches(file, position, self.end, offset, STRETCH_BYTES):
                    position, offset = at + header.size, header.next_offset
                    self.batches += 1
                    if self._is_enough(position):
                        break
            except BadBatch as bad:
                self.damage.append(bad)
                found = batch_after(file, bad, self.end)
                position, offset = (found[0], found[1].base_offset) if found else (self.end, offset)
        self.next = ScrubPoint(self.segment, position, offset)

    def _is_enough(self, position: int) -> bool:
        return position - self.position >= STRETCH_BYTES or self.batches + len(self.damage) >= STRETCH_BATCHES
