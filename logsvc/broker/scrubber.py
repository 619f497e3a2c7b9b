"""The scrubber: reads every partition again, slowly, round after round, and marks what is damaged as a read would.

One stretch of one partition is under way at a time, in a worker thread; the event loop only says which and hears what came of
it. The rate is held after each stretch: the next one begins when the bytes of the last have been paid for, counted from its
beginning, so that a slow disk is never caught up with. Small batches cost the interpreter more than the disk, so each counts
for `BATCH_BYTES_MIN` at least.

Where a round stands is not remembered over a restart. Instead a round begins at a partition chosen at random, so that a broker
that is restarted often does not always check the same ones.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from logsvc.broker.group_commit import Call
from logsvc.metrics import ScrubCounters
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc.storage.scrub import Scrub, ScrubPoint
from logsvc_common.errors import LogsvcError

FIRST_ROUND_AFTER_MS = 60_000  # a broker that starts has other things to read
BATCH_BYTES_MIN = 4 << 10
RETRY_MS = 1_000  # after a stretch that could not be read
PARTITIONS_PER_TURN_MAX = 200  # looked at on the event loop before it has its turn again

logger = logging.getLogger(__name__)


def due_after(began_ms: int, checked_bytes: int, batches: int, bytes_per_second: int) -> int:
    """When the next stretch may begin after one that began at `began_ms`. Pure."""
    cost_bytes = max(checked_bytes, batches * BATCH_BYTES_MIN)
    return began_ms + -(-cost_bytes * 1_000 // bytes_per_second)


class Scrubber:
    """`run_in_thread` runs a callable in a worker, `from_thread` one in the event loop's thread; `unit` gives numbers from 0 up
    to 1. `bytes_per_second` 0: nothing is scrubbed. A round begins `interval_ms` after the last one began, or later."""

    def __init__(
        self,
        logs: LogDirectory,
        counters: ScrubCounters,
        *,
        bytes_per_second: int,
        interval_ms: int,
        monotonic_ms: Callable[[], int],
        unit: Callable[[], float],
        run_in_thread: Callable[[Call], object],
        from_thread: Callable[[Call], object],
    ) -> None:
        self._logs = logs
        self._counters = counters
        self._bytes_per_second = bytes_per_second
        self._interval_ms = interval_ms
        self._monotonic_ms = monotonic_ms
        self._unit = unit
        self._run_in_thread = run_in_thread
        self._from_thread = from_thread
        self._round: deque[PartitionLog] = deque()
        self._point = ScrubPoint()
        self._round_began_ms = -1
        self._round_ended_ms: int | None = None
        self._due_ms: int | None = monotonic_ms() + FIRST_ROUND_AFTER_MS if bytes_per_second else None

    def next_due_ms(self) -> int | None:
        """When `run` is to be called; None while a stretch is under way, or when scrubbing is off."""
        return self._due_ms

    def round_age_ms(self) -> int | None:
        """How long ago the last whole round ended; None before the first has."""
        return None if self._round_ended_ms is None else self._monotonic_ms() - self._round_ended_ms

    def run(self, now_ms: int) -> None:
        """Begin the next stretch, if it is due."""
        if self._due_ms is None or now_ms < self._due_ms:
            return
        if self._round_began_ms < 0:
            self._begin_round(now_ms)
        for _ in range(PARTITIONS_PER_TURN_MAX):
            if not self._round:
                self._end_round(now_ms)
                return
            work = self._round[0].scrub(self._point)
            if work is not None:
                self._due_ms = None
                self._run_in_thread(partial(self._check, self._round[0], work, now_ms))
                return
            self._round.popleft()
            self._point = ScrubPoint()
        self._due_ms = now_ms + 1

    def _begin_round(self, now_ms: int) -> None:
        self._round_began_ms = now_ms
        self._round = deque(self._logs.all_partitions())
        self._round.rotate(-int(self._unit() * len(self._round)))

    def _end_round(self, now_ms: int) -> None:
        self._round_ended_ms = now_ms
        self._due_ms = max(self._round_began_ms + self._interval_ms, now_ms + 1)
        self._round_began_ms = -1

    def _check(self, log: PartitionLog, work: Scrub, began_ms: int) -> None:
        """In a worker thread; what goes wrong is kept in `work` for the event loop."""
        try:
            work.run()
        finally:
            self._from_thread(partial(self._finish, log, work, began_ms))

    def _finish(self, log: PartitionLog, work: Scrub, began_ms: int) -> None:
        self._due_ms = due_after(began_ms, work.checked_bytes, work.batches, self._bytes_per_second)
        if work.error is not None:
            self._due_ms = self._monotonic_ms() + RETRY_MS
        self._counters.checked_bytes.inc(work.checked_bytes)
        self._point = work.next
        try:
            found = log.finish_scrub(work)
        except LogsvcError as error:  # the disk failed while the damage was written down; the partition is marked
            logger.error("%s-%d: %s", log.topic, log.partition, error)
            return
        self._counters.damaged_batches.inc(found.damaged_batches)
        self._counters.rebuilt_indexes.inc(found.rebuilt_indexes)
