"""Writing the log of one partition: append, roll, sync, checkpoint, and what happens when the disk fails.

Who may call what, and why it is safe:

- The event-loop thread appends, reads, trims and applies retention. Only it changes the map of segments.
- A worker thread calls `sync` meanwhile, one at a time (`_sync_mutex`). Under `_lock` it takes a snapshot of the tail
  and the active file, and works on that. fdatasync and pwrite on one descriptor do not disturb each other.
- `_lock` is held for an append (one system call; an fsync when it rolls), for snapshots and while indexes are written.
- `_tail` and `_durable` are immutable points, replaced whole: a reader of the attribute sees an old one or a new one.
- Sealed segments are wholly durable. A file that a sync may still be using is not closed but retired, and closed later.

The order that makes an ack true: bytes are written, the tail moves, the file (and after a roll the folder) is fsynced, the
durable point moves. The checkpoint comes after that and only says less than what is durable.
"""

import logging
import threading
from enum import StrEnum
from typing import NamedTuple

from sortedcontainers import SortedDict

from logsvc.config import TopicConfig
from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.checkpoint import Checkpoint
from logsvc.storage.disk import FULL_ERRNOS, Disk, write_all
from logsvc.storage.log_reader import LogPoint, LogReader
from logsvc.storage.recovery import Recovered
from logsvc.storage.removal import Removals
from logsvc.storage.reserve import DiskReserve
from logsvc.storage.scan import BadBatch
from logsvc.storage.segment import (
    Segment,
    SegmentCache,
)
from logsvc_common.batch import LENGTH_END, BatchHeader, Buffer, stamp
from logsvc_common.errors import (
    CorruptBatch,
    DiskFull,
    LogsvcError,
    PartitionCorrupt,
    RecordTooLarge,
    StorageFailed,
)

CHECKPOINT_INTERVAL_BYTES = 32 << 20  # appended bytes after which a sync writes the checkpoint: what a restart scans at most
_LOG = logging.getLogger(__name__)


class AppendResult(NamedTuple):
    """Where a batch stands in the log. `duplicate`: it was there already, sent again by an idempotent producer."""

    base_offset: int
    last_offset: int
    duplicate: bool


class PartitionState(StrEnum):
    ONLINE = "online"
    READ_ONLY = "read_only"
    FAILED = "failed"


class LogWriter:
    """The part of a `PartitionLog` that writes and makes durable. It owns the state that reading and removing share."""

    def __init__(
        self,
        disk: Disk,
        folder: str,
        topic: str,
        partition: int,
        config: TopicConfig,
        recovered: Recovered,
        cache: SegmentCache,
        reserve: DiskReserve | None,
        removals: Removals,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.state = PartitionState.ONLINE
        self.state_reason = ""
        self.start_offset = recovered.start_offset
        self._disk = disk
        self._folder = folder
        self._cache = cache
        self._reserve = reserve
        self._removals = removals
        self._segments = SortedDict((segment.base_offset, segment) for segment in recovered.segments)
        self._reader = LogReader(self._segments, cache, config.index_interval_bytes)
        self._producers = recovered.producers
        self._lock = threading.Lock()
        self._sync_mutex = threading.Lock()
        last = recovered.segments[-1] if recovered.segments else Segment(folder, recovered.end_offset)
        self._active = last
        self._tail = self._durable = LogPoint(recovered.end_offset, last.base_offset, last.size)
        self._retired: list[Segment] = []  # sealed, their files still open: closed when no sync can be using them
        # The segment whose file name no fsync of the folder has covered.
        self._unnamed: Segment | None = last if recovered.changed or recovered.created else None
        self._checkpoint_due = recovered.changed
        self._uncheckpointed_bytes = 0
        self._closed = False
        self._cleaned_offset = recovered.cleaned_offset
        self._compacting = False
        self._unvouched: frozenset[int] = frozenset()  # base offsets of segments about to be swapped: not to be checkpointed
        self.config = config
        if recovered.faults:
            self.state, self.state_reason = PartitionState.READ_ONLY, "; ".join(recovered.faults)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def config(self) -> TopicConfig:
        return self._config

    @config.setter
    def config(self, config: TopicConfig) -> None:
        self._flush_always = config.flush == "always"
        if self._flush_always and self._tail is not self._durable and self.state is PartitionState.ONLINE:
            self.sync()  # what consumers could read must stay readable
        self._config = config
        self._reader.interval_bytes = config.index_interval_bytes

    @property
    def end_offset(self) -> int:
        """The offset the next record gets."""
        return self._tail.offset

    @property
    def durable_offset(self) -> int:
        """All below is fsynced."""
        return self._durable.offset

    @property
    def high_watermark(self) -> int:
        """What consumers may read up to: the durable offset with `flush=always`, else the end."""
        return self._readable.offset

    @property
    def _readable(self) -> LogPoint:
        return self._durable if self._flush_always else self._tail

    @property
    def size_bytes(self) -> int:
        # In no order: the sorted view of a SortedDict costs ten times as much, and a scrape asks every partition.
        return sum([segment.size for segment in dict.values(self._segments)])

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def sync_wanted(self) -> bool:
        """True when a sync should come soon although no ack waits for it: a checkpoint is due (matters with `flush=os`)."""
        return self._checkpoint_due or self._uncheckpointed_bytes >= CHECKPOINT_INTERVAL_BYTES

    def __repr__(self) -> str:
        return f"<PartitionLog {self.topic}-{self.partition} {self.state} {self.start_offset}..{self.end_offset}>"

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, batch: Buffer, header: BatchHeader, now_ms: int) -> AppendResult:
        """Write one batch at the end of the log. `header` was parsed from it and its CRC checked by the caller.

        The batch is durable, and may be acknowledged, when `sync` has returned at least `last_offset + 1`. A batch that an
        idempotent producer sent before is not written again: the result has its first offsets, and the same rule for its ack.

        Raises RecordTooLarge, CorruptBatch (counts that cannot be), OutOfOrderSequence, InvalidProducerEpoch, DiskFull (nothing
        is written, try later), StorageFailed and PartitionCorrupt (the partition takes no writes).
        """
        size = header.length + LENGTH_END
        delta = header.last_offset_delta
        config = self._config
        if size > config.max_message_bytes:
            raise RecordTooLarge(f"batch of {size} bytes; {self.topic} takes at most {config.max_message_bytes}")
        if header.record_count != delta + 1 or size != len(batch):
            raise CorruptBatch(f"{header.record_count} records in {len(batch)} bytes; the header says {delta + 1} in {size}")
        with self._lock:
            if self.state is not PartitionState.ONLINE:
                raise self._refusal()
            producer = header.producer_id >= 0
            if producer and (known := self._producers.check(header)) is not None:
                return AppendResult(known.first_offset, known.last_offset, True)
            if self._reserve is not None:
                self._reserve.take(size)
            base_offset = self._tail.offset
            last_offset = base_offset + delta
            segment = self._active
            if segment.is_full(size, last_offset, config.segment_bytes, config.segment_ms, now_ms):
                segment = self._roll()
            assert segment.file is not None
            try:
                write_all(segment.file, stamp(batch, header, base_offset), segment.size)
            except OSError as error:
                raise self._fail("writing", error) from error
            segment.add(header, base_offset, config.index_interval_bytes, now_ms)
            if producer:
                self._producers.update(header, base_offset, now_ms)
            self._tail = LogPoint(last_offset + 1, segment.base_offset, segment.size)
            self._uncheckpointed_bytes += size
        return AppendResult(base_offset, last_offset, False)

    def _roll(self) -> Segment:
        """Seal the active segment and begin the next. Needs the lock. Raises DiskFull with nothing changed, StorageFailed.

        The old segment is fsynced before the new one takes a byte: after a power cut a good batch in the new file must not
        stand behind a torn one in the old, which would look like corruption.
        """
        old = self._active
        assert old.file is not None
        self._release_retired()
        try:
            if self._tail is not self._durable:
                old.file.datasync()
                if self._unnamed is not None:
                    self._disk.sync_dir(self._folder)
                self._durable = self._tail
        except OSError as error:  # even ENOSPC: a failed fsync is a failed fsync
            raise self._fail("fsync", error) from error
        new = Segment(self._folder, self._tail.offset)
        try:
            new.file = self._disk.open(new.path(), create=True)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise DiskFull(f"no room on the disk for a new segment: {error.strerror}") from error
            raise self._fail("beginning a segment", error) from error
        old.seal(self._disk)
        self._retired.append(old)
        self._unnamed, self._checkpoint_due = new, True
        self._segments[new.base_offset] = self._active = new
        # Even if nothing follows, for want of room: positions in the old segment end with its next compaction.
        self._tail = self._durable = LogPoint(self._tail.offset, new.base_offset, 0)
        return new

    def _release_retired(self) -> None:
        """Close the files of sealed segments, unless a sync is under way, which may still be using one. Needs the lock."""
        if self._retired and self._sync_mutex.acquire(blocking=False):
            try:
                while self._retired:
                    self._release(self._retired.pop())
            finally:
                self._sync_mutex.release()

    def _release(self, segment: Segment) -> None:
        """Close the file a segment has kept open. Event-loop thread: nobody is reading it meanwhile."""
        file, segment.file = segment.file, None
        if file is not None:
            file.close()

    # -- making it durable --------------------------------------------------------------------------------------------

    def sync(self) -> int:
        """Make everything appended before the call durable; return the durable offset.

        BLOCKS for an fdatasync: for a worker thread, while the event-loop thread goes on. Now and then it also writes the
        checkpoint. Raises StorageFailed when the disk fails; the partition is then FAILED and what was not acknowledged is in
        doubt until recovery. Never tried again.
        """
        due = self._checkpoint_due or self._uncheckpointed_bytes >= CHECKPOINT_INTERVAL_BYTES
        if self._tail is self._durable and not due:
            if self.state is PartitionState.FAILED:
                raise self._refusal()
            return self._durable.offset
        with self._sync_mutex:
            found = self._sync_active(with_checkpoint=due)
            if found is not None:
                self._store_or_warn(found)
        return self._durable.offset

    def _sync_active(self, *, with_checkpoint: bool) -> Checkpoint | None:
        """fsync all that is dirty; return the checkpoint that has become true, when asked for. Needs `_sync_mutex`."""
        with self._lock:
            if self.state is PartitionState.FAILED:
                raise self._refusal()
            file = self._active.file
            if file is None:  # recovered as corrupt: nothing was opened for writing
                return None
            target = self._tail
            behind = target is not self._durable
            unnamed = self._unnamed
            found = self._checkpoint(target) if with_checkpoint else None
        try:
            if behind:
                file.datasync()
            if unnamed is not None:
                self._disk.sync_dir(self._folder)
        except OSError as error:
            raise self._fail("fsync", error) from error
        with self._lock:
            if target.offset > self._durable.offset:  # a roll meanwhile may have gone further
                self._durable = target
            if self._unnamed is unnamed:
                self._unnamed = None
        return found

    def _checkpoint(self, target: LogPoint) -> Checkpoint:
        """What is true once `target` is durable. Needs the lock."""
        self._checkpoint_due = False
        self._uncheckpointed_bytes = 0
        segments = tuple(
            segment.describe() for segment in self._segments.values() if segment.base_offset not in self._unvouched
        )
        faults = (self.state_reason,) if self.state is PartitionState.READ_ONLY else ()
        producers = self._producers.snapshot()
        return Checkpoint(self.start_offset, target.offset, segments, producers, faults, self._cleaned_offset)

    def _store(self, checkpoint: Checkpoint) -> None:
        with self._lock:
            self._active.flush_indexes(self._disk)
        checkpoints.store(self._disk, self._folder, checkpoint)

    def _store_or_warn(self, checkpoint: Checkpoint) -> None:
        """A checkpoint that cannot be written costs a longer scan at the next start and nothing else."""
        try:
            self._store(checkpoint)
        except (OSError, DiskFull) as error:
            _LOG.warning("%s-%d: checkpoint not written: %s", self.topic, self.partition, error)

    def _checkpoint_or_warn(self) -> None:
        with self._sync_mutex:
            found = self._sync_active(with_checkpoint=True)
            if found is not None:
                self._store_or_warn(found)

    def write_checkpoint(self) -> None:
        """Sync, then write the checkpoint durably. Raises StorageFailed, DiskFull (the old checkpoint stays)."""
        with self._sync_mutex:
            found = self._sync_active(with_checkpoint=True)
            if found is None:
                return
            try:
                self._store(found)
            except OSError as error:
                if error.errno in FULL_ERRNOS:
                    raise DiskFull(f"no room on the disk for a checkpoint: {error.strerror}") from error
                raise StorageFailed(f"checkpoint of {self.topic}-{self.partition} not written: {error}") from error

    def close(self) -> None:
        """Sync, write indexes and checkpoint, close the files: the next start scans nothing. Raises StorageFailed, DiskFull."""
        if self._closed:
            return
        self._closed = True
        try:
            self.finish()
        finally:
            self.abandon()

    def finish(self) -> None:
        """Write what `close` writes, if there is anything new. Raises StorageFailed, DiskFull."""
        if self.state is PartitionState.FAILED or self._active.file is None:
            return
        with self._lock:
            grown = self._active.finish_time_index()
        if grown or self._checkpoint_due or self._uncheckpointed_bytes or self._tail is not self._durable:
            self.write_checkpoint()

    def abandon(self) -> None:
        """Close the files as they are: after a failure, or before the folder is deleted."""
        self._closed = True
        with self._sync_mutex:  # a sync under way ends first
            for segment in self._segments.values():
                self._cache.forget(segment)
                self._release(segment)
        if self.state is PartitionState.ONLINE:
            self.state, self.state_reason = PartitionState.FAILED, "closed"

    # -- trouble ------------------------------------------------------------------------------------------------------

    def check_online(self) -> None:
        """Raises StorageFailed when the disk has failed: what the offsets say is then not to be relied on."""
        if self.state is PartitionState.FAILED:
            raise self._refusal()

    def _refusal(self) -> LogsvcError:
        name = f"{self.topic}-{self.partition}"
        if self.state is PartitionState.READ_ONLY:
            return PartitionCorrupt(f"{name} is read-only, run `logsvc verify --repair` on it: {self.state_reason}")
        return StorageFailed(f"{name} is offline until the broker is restarted: {self.state_reason}")

    def _fail(self, doing: str, error: Exception) -> LogsvcError:
        """The disk failed: the partition is offline from now on. The first reason stays."""
        if self.state is not PartitionState.FAILED:
            self.state, self.state_reason = PartitionState.FAILED, f"{doing} failed: {error}"
            _LOG.error("%s-%d is offline: %s", self.topic, self.partition, self.state_reason)
        return self._refusal()

    def _corrupt(self, offset: int, bad: BadBatch) -> PartitionCorrupt:
        """What lies at `offset` is not what was written: read-only from now on."""
        reason = f"offset {offset}: {bad.message}"
        if self.state is PartitionState.ONLINE:
            self.state, self.state_reason = PartitionState.READ_ONLY, reason
            _LOG.error("%s-%d is corrupt and read-only now: %s", self.topic, self.partition, reason)
            self._checkpoint_or_warn()  # so that a restart does not forget it
        return PartitionCorrupt(f"{self.topic}-{self.partition} is corrupt at {reason}")
