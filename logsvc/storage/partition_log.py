"""The log of one partition: opening, reading, trim, retention, compaction. Writing, and the rules for threads: `log_writer`.

Everything here runs on the event-loop thread, and everything that removes bytes follows one order: first a durable checkpoint
with the new log start (or without the segments about to be swapped), then the files.
"""

import logging
from collections.abc import Iterator, Sequence

from logsvc.config import TopicConfig
from logsvc.storage.compaction import Compaction, plan, swap
from logsvc.storage.disk import Disk, File
from logsvc.storage.log_reader import LogPoint
from logsvc.storage.log_writer import AppendResult, LogWriter, PartitionState
from logsvc.storage.producer_state import ProducerState
from logsvc.storage.recovery import Recovered, recover
from logsvc.storage.removal import DELETED_SUFFIX, Removals
from logsvc.storage.reserve import DiskReserve
from logsvc.storage.retention import SegmentAge, expired
from logsvc.storage.scan import BadBatch
from logsvc.storage.scrub import PASSING_ERRNOS, Scrub, ScrubFindings, ScrubPoint
from logsvc.storage.segment import (
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
    Segment,
    SegmentCache,
)
from logsvc_common.errors import (
    DiskFull,
    LogsvcError,
    OffsetOutOfRange,
)

SCANNED_BYTES_MAX = 1 << 20  # a recovery that scanned more writes the checkpoint at once, else the first sync does
LARGE_BYTES = 1 << 20  # of a segment whose room takes a while to free; a file is held open for it
_LOG = logging.getLogger(__name__)

__all__ = ["AppendResult", "PartitionLog", "PartitionState"]


class PartitionLog(LogWriter):
    """One partition. Offsets are record offsets; sizes are bytes; times are milliseconds since the epoch."""

    @classmethod
    def open(
        cls,
        disk: Disk,
        folder: str,
        topic: str,
        partition: int,
        config: TopicConfig,
        *,
        cache: SegmentCache | None = None,
        reserve: DiskReserve | None = None,
        removals: Removals | None = None,
        now_ms: int = 0,
    ) -> "PartitionLog":
        """Recover the partition in an existing folder. A disk that fails gives a partition that is FAILED, not an error.

        `now_ms`: for forgetting producers not heard of for a day. `removals`: who unlinks what retention removes.
        """
        cache, removals = cache or SegmentCache(disk), removals or Removals()
        try:
            recovered = recover(disk, folder, config)
            log = cls(disk, folder, topic, partition, config, recovered, cache, reserve, removals)
        except (OSError, DiskFull) as error:
            nothing = Recovered([], 0, 0, ProducerState())
            log = cls(disk, folder, topic, partition, config, nothing, cache, reserve, removals)
            log._fail("recovering", error)
            return log
        log._producers.expire(now_ms)
        if recovered.scanned_bytes >= SCANNED_BYTES_MAX and log.state is PartitionState.ONLINE:
            log._checkpoint_or_warn()
        return log

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, offset: int, max_bytes: int, *, up_to: int | None = None) -> bytes:
        """Whole batches, beginning with the one that contains `offset`, about `max_bytes` of them and at least one.

        Ends before `up_to` (default: the high watermark; more, up to the end offset, reads what is not durable yet). Empty
        at the end. The first batch may begin below `offset`. Checksums are for the reader to check.

        Raises OffsetOutOfRange, PartitionCorrupt naming the offset when there is no batch for it, StorageFailed.
        """
        limit = self._limit(offset, up_to)
        if offset == limit.offset:
            return b""
        try:
            if up_to is not None and up_to < limit.offset:
                limit = self._reader.position_before(up_to, limit)
                if offset >= limit.offset:
                    return b""
            data = self._reader.read(offset, max_bytes, limit)
            if self._reader.damage is not None:
                self._corrupt(self._reader.damage.offset, self._reader.damage)
            return data if self.state is PartitionState.ONLINE else self._reader.good_prefix(data, offset)
        except BadBatch as bad:
            raise self._corrupt(offset, bad) from bad
        except OSError as error:
            raise self._fail("reading", error) from error

    def _limit(self, offset: int, up_to: int | None = None) -> LogPoint:
        """Where a read from `offset` ends at the latest."""
        if self.state is PartitionState.FAILED:
            raise self._refusal()
        limit = self._readable
        if up_to is not None and up_to > limit.offset:
            limit = self._tail
        if not self.start_offset <= offset <= limit.offset:
            raise OffsetOutOfRange(
                f"offset {offset} of {self.topic}-{self.partition}; there are {self.start_offset} to {limit.offset}"
            )
        return limit

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first readable record that is not older than `timestamp_ms`; None without one.

        Raises PartitionCorrupt, StorageFailed.
        """
        limit = self._limit(self.start_offset)
        try:
            return self._reader.offset_for_time(timestamp_ms, self.start_offset, limit)
        except BadBatch as bad:
            raise self._corrupt(bad.offset, bad) from bad
        except OSError as error:
            raise self._fail("reading", error) from error

    def timestamp_at(self, offset: int) -> int | None:
        """Timestamp of the first record from `offset` on, None when there is none below the high watermark. For lag in seconds.

        Within a batch it may be that of a record a moment before; see `LogReader.timestamp_at`.

        Raises OffsetOutOfRange, PartitionCorrupt, StorageFailed.
        """
        limit = self._limit(offset)
        try:
            return self._reader.timestamp_at(offset, limit.offset)
        except BadBatch as bad:
            raise self._corrupt(offset, bad) from bad
        except OSError as error:
            raise self._fail("reading", error) from error

    # -- removing -----------------------------------------------------------------------------------------------------

    def trim(self, offset: int) -> int:
        """Move the log start up to `offset`, durably, and delete the segments wholly below; return the start offset.

        An offset below the start changes nothing. Raises OffsetOutOfRange beyond the high watermark, StorageFailed,
        PartitionCorrupt, DiskFull.
        """
        if self.state is not PartitionState.ONLINE:
            raise self._refusal()
        if offset > self.high_watermark:
            raise OffsetOutOfRange(f"cannot trim {self.topic}-{self.partition} to {offset}: it ends at {self.high_watermark}")
        if offset <= self.start_offset:
            return self.start_offset
        if offset == self.end_offset and self._active.size:
            with self._lock:
                self._roll()
        self._advance_start(offset)
        return offset

    def apply_retention(self, now_ms: int) -> int:
        """Roll a segment older than `segment.ms`, delete what `retention.ms` and `retention.bytes` say; how many went.

        Nothing above the durable offset goes. Raises StorageFailed, DiskFull.
        """
        if self.state is not PartitionState.ONLINE:
            return 0
        with self._lock:
            self._producers.expire(now_ms)
            if self._active.is_old(self._config.segment_ms, now_ms):
                self._roll_if_room()
        sealed = self._sealed()
        ages = [SegmentAge(segment.size, segment.max_timestamp_ms, segment.modified_ms) for segment in sealed]
        count = expired(ages, self._active.size, self._config, now_ms)
        if not count:
            return 0
        self._advance_start(max(self.start_offset, sealed[count - 1].end_offset))
        return count

    def _roll_if_room(self) -> None:
        try:
            self._roll()
        except DiskFull as error:  # the other segments may still be deleted, which makes room
            _LOG.warning("%s-%d: not rolled by age: %s", self.topic, self.partition, error.message)

    def compaction(self, now_ms: int) -> Compaction | None:
        """What there is to compact now, None when nothing or too little is. Call `run` of it in a worker thread, then
        `finish_compaction` on the event loop; one at a time."""
        if self.state is not PartitionState.ONLINE or "compact" not in self._config.cleanup_policy or self._compacting:
            return None
        groups = plan(self._sealed(), self._cleaned_offset, self._config)
        if not groups:
            return None
        self._compacting = True
        return Compaction(self._disk, self._folder, self._config, groups, self._cleaned_offset, now_ms)

    def finish_compaction(self, work: Compaction) -> int:
        """Swap in what `work` has written; the number of bytes that are gone. 0 when the log has changed under it.

        Raises StorageFailed, PartitionCorrupt (rot was found), DiskFull (the log is as it was).
        """
        self._compacting = False
        sources = [segment for group in work.groups[: len(work.cleaned)] for segment in group.sources]
        unchanged = all(self._segments.get(segment.base_offset) is segment for segment in sources)
        try:
            if work.error is not None:
                raise self._compaction_failed(work.error)
            if not sources or not unchanged or self.state is not PartitionState.ONLINE:
                work.discard()
                return 0
            self._unvouched = frozenset(segment.base_offset for segment in sources)
            self.write_checkpoint()
        except LogsvcError:
            work.discard()
            self._unvouched = frozenset()
            raise
        freed = sum(segment.size for segment in sources) - sum(segment.size for segment in work.cleaned)
        for made, group in zip(work.cleaned, work.groups, strict=False):
            self._swap_in(made, group.sources)
        self._unvouched = frozenset()
        self._cleaned_offset = work.cleaned_offset
        self._checkpoint_or_warn()
        return freed

    def _compaction_failed(self, error: OSError | DiskFull | BadBatch) -> LogsvcError:
        if isinstance(error, DiskFull):
            return error
        if isinstance(error, BadBatch):
            return self._corrupt(error.offset, error)
        return self._fail("compacting", error)

    def _swap_in(self, made: Segment, sources: Sequence[Segment]) -> None:
        made.end_offset = sources[-1].end_offset
        # What is unlinked while it is open frees its room when it is closed: in a thread.
        large = [segment.path() for segment in sources if segment.size >= LARGE_BYTES]
        held: list[File] = []
        for segment in sources:
            self._cache.forget(segment)
            self._release(segment)
        try:
            held.extend(self._disk.open(path, writable=False) for path in large)
            swap(self._disk, self._folder, made, sources)
        except (OSError, DiskFull) as error:
            raise self._fail("compacting", error) from error
        finally:
            self._removals.begin(_close(held))
        with self._lock:
            for segment in sources:
                del self._segments[segment.base_offset]
            self._retired = [other for other in self._retired if other not in sources]
            made.seal(self._disk)
            self._segments[made.base_offset] = made
        self._reader.forget_places()

    # -- scrubbing ----------------------------------------------------------------------------------------------------

    def scrub(self, at: ScrubPoint) -> Scrub | None:
        """What to read again from `at` on, None at the durable end, or when the partition is not online. Call `run` of it in a
        worker thread, then `finish_scrub` on the event loop."""
        if self.state is not PartitionState.ONLINE:
            return None
        durable = self._durable
        for number in range(max(self._segments.bisect_right(at.offset) - 1, 0), len(self._segments)):
            segment: Segment = self._segments.peekitem(number)[1]
            if segment.base_offset > durable.base_offset:
                break
            end = durable.position if segment.base_offset == durable.base_offset else segment.size
            position, offset = (at.position, at.offset) if segment is at.segment else (0, segment.base_offset)
            if position < end:
                info = None if position or segment is self._active else segment.info
                return Scrub(self._disk, segment, position, offset, end, info, self._config.index_interval_bytes)
        return None

    def finish_scrub(self, work: Scrub) -> ScrubFindings:
        """Mark what `work` has found, as a read that had come upon it would. Nothing when the segment is gone meanwhile."""
        segment = work.segment
        if self.state is not PartitionState.ONLINE or self._segments.get(segment.base_offset) is not segment:
            return ScrubFindings()
        if work.damage:
            self._corrupt(work.damage[0].offset, work.damage[0])
            return ScrubFindings(len(work.damage))
        if work.error is not None:
            if work.error.errno not in PASSING_ERRNOS:
                self._fail("reading", work.error)
        elif work.rebuilt is not None and segment.info is work.info:
            _LOG.warning("%s: an index was not the one that was written: both are built anew", segment.path())
            self._cache.rewrite(segment, work.rebuilt)
            return ScrubFindings(rebuilt_indexes=2)
        return ScrubFindings()

    # -- deleting files -----------------------------------------------------------------------------------------------

    def _advance_start(self, offset: int) -> None:
        """Move the log start, durably, then delete the segments wholly below it.

        The start is set first: a checkpoint that a sync writes meanwhile must not hold the old one. On a full disk the
        checkpoint comes last, because deleting makes the room for it: whole segments may go without it, oldest first and
        each durably, since a log begins at its first segment whatever the checkpoint says.
        """
        before, self.start_offset = self.start_offset, offset
        count = sum(segment.end_offset <= offset for segment in self._sealed())
        try:
            self.write_checkpoint()
            self._remove_segments(count)
        except DiskFull:
            self._remove_segments(count, one_by_one=True)
            self.start_offset = max(before, self._segments.peekitem(0)[0])
            if count:
                self._advance_start(offset)
            else:
                raise
        except LogsvcError:
            self.start_offset = before
            raise

    def _sealed(self) -> list[Segment]:
        segments: list[Segment] = list(self._segments.values())
        return segments[:-1]

    def _remove_segments(self, count: int, *, one_by_one: bool = False) -> None:
        """Delete the `count` oldest segments. `one_by_one`: each is gone for good, its room free, before the next one goes."""
        if not count:
            return
        gone: list[str] = []
        for segment in self._sealed()[:count]:
            with self._lock:
                del self._segments[segment.base_offset]
                self._retired = [other for other in self._retired if other is not segment]
            self._cache.forget(segment)
            self._release(segment)
            try:
                gone += self._put_away(segment)
                if one_by_one:
                    for path in gone:
                        self._disk.unlink(path)
                    gone.clear()
                    self._disk.sync_dir(self._folder)
            except OSError as error:
                if one_by_one:
                    raise self._fail("deleting a segment", error) from error
                _LOG.warning("%s not removed, recovery will: %s", segment.path(), error)
        self._reader.forget_places()
        if gone:
            self._removals.begin(_unlink(self._disk, gone))

    def _put_away(self, segment: Segment) -> list[str]:
        """Take the files of a segment out of the log by another name; the new names."""
        put_away = []
        for suffix in (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            path = segment.path(suffix)
            if self._disk.exists(path):
                self._disk.rename(path, path + DELETED_SUFFIX)
                put_away.append(path + DELETED_SUFFIX)
        return put_away


def _close(files: Sequence[File]) -> Iterator[None]:
    for file in files:
        file.close()
        yield


def _unlink(disk: Disk, paths: Sequence[str]) -> Iterator[None]:
    for path in paths:
        if disk.exists(path):  # the topic may have been deleted since, and its folder with it
            disk.unlink(path)
        yield
