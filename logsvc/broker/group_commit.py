"""Group commit: an ack means fsynced, and one fsync pays for everything that arrived while the last one ran.

Per partition at most one sync is under way. Whoever commits meanwhile waits for the next one, which starts as soon as the
first has ended and covers all of them. Syncs of different partitions run side by side, so that the file system's journal
can join them.

A lone commit on an idle broker whose disk has been quick is synced on the event loop itself: the way to a worker thread and
back costs as much as the fsync. Whatever comes meanwhile waits no longer than it would for a worker, and goes together.

A sync that fails is never tried again (after a failed fsync the kernel may have dropped the pages: the "fsyncgate" of
PostgreSQL, 2018): everyone waiting gets the error, and the partition has marked itself failed.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from logsvc_common.errors import LogsvcError, StorageFailed

logger = logging.getLogger(__name__)

INLINE_SECONDS_MAX = 0.0005  # a disk whose syncs take longer than this on average never holds up the event loop
AVERAGE_WEIGHT = 0.1  # of the newest sync in that average

Done = Callable[[LogsvcError | None], None]
"""Called in the event loop's thread: None when what was appended is durable, else why it is not."""

Call = Callable[[], None]


class Syncable(Protocol):
    """A partition log, as far as this module knows one. `sync` blocks and runs in a worker thread."""

    def sync(self) -> int: ...


class GroupCommit:
    """`submit` runs a job in a worker thread; `soon` runs a callable in the event loop's next turn, `from_thread` does the
    same from a worker. `seconds` is a monotonic clock, for how long syncs take."""

    def __init__(
        self,
        submit: Callable[[Call], object],
        soon: Callable[[Call], object],
        from_thread: Callable[[Call], object],
        observe_sync_seconds: Callable[[float], None],
        seconds: Callable[[], float],
    ) -> None:
        self._submit = submit
        self._soon = soon
        self._from_thread = from_thread
        self._observe = observe_sync_seconds
        self._seconds = seconds
        self._average_seconds = INLINE_SECONDS_MAX  # nothing is known of the disk yet
        # A log is in here from its commit to the end of the sync; the list holds those whom the next sync will serve.
        self._next: dict[Syncable, list[Done]] = {}

    def commit(self, log: Syncable, done: Done) -> None:
        """Make what `log` holds now durable, then call `done`."""
        waiting = self._next.get(log)
        if waiting is not None:
            waiting.append(done)
            return
        self._next[log] = [done]
        # Not at once: what else this turn of the event loop appends goes with it.
        self._soon(partial(self._start, log))

    def _start(self, log: Syncable) -> None:
        waiters, self._next[log] = self._next[log], []
        if len(waiters) == 1 and len(self._next) == 1 and self._average_seconds < INLINE_SECONDS_MAX:
            self._ended(log, waiters, *self._sync(log))
        else:
            self._submit(partial(self._sync_in_thread, log, waiters))

    def _sync_in_thread(self, log: Syncable, waiters: list[Done]) -> None:
        self._from_thread(partial(self._ended, log, waiters, *self._sync(log)))

    def _sync(self, log: Syncable) -> tuple[LogsvcError | None, float]:
        started = self._seconds()
        error: LogsvcError | None = None
        try:
            log.sync()
        except LogsvcError as failure:
            error = failure
        except Exception as failure:
            logger.exception("a sync failed in a way it never should")
            error = StorageFailed(f"sync failed: {type(failure).__name__}: {failure}")
        return error, self._seconds() - started

    def _ended(self, log: Syncable, waiters: list[Done], error: LogsvcError | None, seconds: float) -> None:
        self._observe(seconds)
        self._average_seconds += AVERAGE_WEIGHT * (seconds - self._average_seconds)
        if self._next[log]:
            self._start(log)
        else:
            del self._next[log]
        for done in waiters:
            done(error)
