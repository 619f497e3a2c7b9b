"""Unlinking files away from the event loop: freeing the blocks of a large segment, or a thousand folders, takes a while.

What is to go is first renamed out of the way by the caller, `*.deleted` for a segment and `ID-PARTITION-delete` for a
partition, so that nothing that is made meanwhile under the old name is ever unlinked. A crash leaves such files behind;
recovery removes them. So nothing here need be durable, or in any order.

One job runs at a time, a bounded stretch of it at a turn: the threads are there for fsyncs first. `run_in_thread` None does
all at once, which tests and `verify` want.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

DELETED_SUFFIX = ".deleted"
STEPS_PER_TURN = 32  # files or folders that are removed before other jobs of the threads have their turn

Steps = Iterator[None]
"""A removal; each `next` does a little of it. It may raise OSError, and then the rest is left to recovery."""


class Removals:
    """What is being removed. `begin` may be called from any thread."""

    def __init__(self) -> None:
        self.run_in_thread: Callable[[Callable[[], None]], object] | None = None
        self._lock = threading.Lock()
        self._waiting: deque[Steps] = deque()
        self._running = False

    def begin(self, steps: Steps) -> None:
        """Carry out a removal, in a thread if there are any."""
        run_in_thread = self.run_in_thread
        if run_in_thread is None:
            while _advance(steps):
                pass
            return
        with self._lock:
            self._waiting.append(steps)
            if self._running:
                return
            self._running = True
        run_in_thread(self._turn)

    def _turn(self) -> None:
        """In a thread: some steps of the oldest removal, then back into the line."""
        if not _advance(self._waiting[0]):
            self._waiting.popleft()
        with self._lock:
            more = self._running = bool(self._waiting)
        if more and self.run_in_thread is not None:
            self.run_in_thread(self._turn)


def _advance(steps: Steps) -> bool:
    """True when there is more to do."""
    try:
        for _ in range(STEPS_PER_TURN):
            next(steps)
    except StopIteration:
        return False
    except OSError as error:
        logger.warning("not removed, the next start will: %s", error)
        return False
    return True
