"""What `run` is told, and the time a handler has: shared by the worker with threads and the one with tasks.

The time limit is for handlers that hang, not for slow ones: heartbeats do not depend on handlers, so a slow handler loses
nothing. One that may rightly take long calls `renew` while it gets on, and has its whole time again.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from logsvc_client.middleware import Middleware
from logsvc_client.records import Record
from logsvc_common.errors import HandlerTimeout, InvalidConfig

CONCURRENCY_MAX = 1_000
QUEUED_PER_WORKER = 16  # records taken but not begun, for each worker
RUN_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The settings of one `run`; `Consumer.run` says what they mean. Raises InvalidConfig."""

    concurrency: int = 1
    handler_timeout_ms: int | None = None
    drain_timeout_ms: int | None = None
    middleware: Sequence[Middleware] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise InvalidConfig(f"concurrency is {self.concurrency}; it lies between 1 and {CONCURRENCY_MAX}")
        if self.handler_timeout_ms is not None and self.handler_timeout_ms < 1:
            raise InvalidConfig(f"handler_timeout_ms is {self.handler_timeout_ms}; it is at least 1, or None")
        if self.drain_timeout_ms is not None and self.drain_timeout_ms < 0:
            raise InvalidConfig(f"drain_timeout_ms is {self.drain_timeout_ms}; it is at least 0, or None")

    @property
    def handler_timeout(self) -> float | None:
        """In seconds."""
        return None if self.handler_timeout_ms is None else self.handler_timeout_ms / 1_000

    @property
    def drain_timeout(self) -> float | None:
        """In seconds."""
        return None if self.drain_timeout_ms is None else self.drain_timeout_ms / 1_000

    def timed_out(self, where: str = "") -> HandlerTimeout:
        """The failure of a record whose handler has not come back."""
        return HandlerTimeout(f"the handler did not come back within {self.handler_timeout_ms} ms{where}")


class Call:
    """One call of a handler on a thread. Whoever settles it first, the handler's thread or the clock, has the verdict."""

    __slots__ = ("_settled", "_timeout", "deadline", "record")

    def __init__(self, record: Record, timeout: float | None) -> None:
        self.record = record
        self.deadline = float("inf")
        self._timeout = timeout
        self._settled = threading.Lock()
        if timeout is not None:
            self.deadline = time.monotonic() + timeout

    def settle(self) -> bool:
        """True for the first who calls."""
        return self._settled.acquire(blocking=False)

    def renew(self) -> None:
        """The whole time again. Raises HandlerTimeout when it is up already."""
        if self._settled.locked():
            raise HandlerTimeout(f"the time for the record at offset {self.record.offset} was up: it is not this handler's now")
        if self._timeout is not None:
            self.deadline = time.monotonic() + self._timeout


renewal: ContextVar[Callable[[], None] | None] = ContextVar("renewal", default=None)


def renew() -> None:
    """Within a handler of `run`: it is getting on, and gets its whole `handler_timeout_ms` again.

    Raises HandlerTimeout when the time is up already and the record has failed: a good moment to stop. Does nothing where
    there is no limit, nor outside a handler. It finds its handler by a context variable: threads that a handler starts by
    itself do not have it, `asyncio.to_thread` and tasks do.
    """
    again = renewal.get()
    if again is not None:
        again()
