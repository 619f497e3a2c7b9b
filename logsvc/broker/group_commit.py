"""Group commit: an ack means fsynced, and one fsync pays for everything that arrived while the last one ran.

Per partition at most one sync is under way. Whoever commits meanwhile waits for the next one, which starts as soon as the
first has ended and covers all of them. Syncs of different partitions run side by side, so that the file system's journal
can join them.

A sync that fails is never tried again (after a failed fsync the kernel may have dropped the pages: the "fsyncgate" of
PostgreSQL, 2018): everyone waiting gets the error, and the partition has marked itself failed.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from logsvc_common.errors import LogsvcError, StorageFailed

logger = logging.getLogger(__name__)

Done = Callable[[LogsvcError | None], None]
"""Called in the event loop's thread: None when what was appended is durable, else why it is not."""

Call = Callable[[], None]


class Syncable(Protocol):
    """A partition log, as far as this module knows one. `sync` blocks and runs in a worker thread."""

    def sync(self) -> int: ...


class GroupCommit:
    """`submit` runs a job in a worker thread; `soon` runs a callable in the event loop's next turn, `from_thread` does the
    same from a worker."""

    def __init__(
        self,
        submit: Callable[[Call], object],
        soon: Callable[[Call], object],
        from_thread: Callable[[Call], object],
        observe_sync_seconds: Callable[[float], None],
    ) -> None:
        self._submit = submit
        self._soon = soon
        self._from_thread = from_thread
        self._observe = observe_sync_seconds
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
        self._submit(partial(self._sync, log, waiters))

    def _sync(self, log: Syncable, waiters: list[Done]) -> None:
        """In a worker thread."""
        started = time.perf_counter()
        error: LogsvcError | None = None
        try:
            log.sync()
        except LogsvcError as failure:
            error = failure
        except Exception as failure:
            logger.exception("a sync failed in a way it never should")
            error = StorageFailed(f"sync failed: {type(failure).__name__}: {failure}")
        seconds = time.perf_counter() - started
        self._from_thread(partial(self._ended, log, waiters, error, seconds))

    def _ended(self, log: Syncable, waiters: list[Done], error: LogsvcError | None, seconds: float) -> None:
        self._observe(seconds)
        if self._next[log]:
            self._start(log)
        else:
            del self._next[log]
        for done in waiters:
            done(error)
