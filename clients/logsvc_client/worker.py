"""`run`: a handler for each record, exceptions as failures, order by key across threads, and an orderly end.

With `concurrency=1` the handler runs on the caller's thread. With more, each record goes to the worker its key hashes to,
so records of a key are handled one after another; records without a key take turns. A record whose key has failed between
being taken and being handled is parked, not handled. `stop`, or SIGTERM and SIGINT when `run` has the main thread, ends
it: running handlers finish, records not begun go back unspent, progress is committed.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from logsvc_client.handout import Handout
from logsvc_client.records import Record
from logsvc_common.errors import InvalidConfig
from logsvc_common.keys import murmur2

Handler = Callable[[Record], object]

CONCURRENCY_MAX = 1_000
QUEUED_PER_WORKER = 16  # records taken but not begun, for each worker
RUN_WAIT_SECONDS = 1.0


class Worker:
    """One call of `run`."""

    def __init__(self, handout: Handout, handler: Handler, news: threading.Event, concurrency: int) -> None:
        if not 1 <= concurrency <= CONCURRENCY_MAX:
            raise InvalidConfig(f"concurrency is {concurrency}; it lies between 1 and {CONCURRENCY_MAX}")
        self._handout = handout
        self._handler = handler
        self._news = news
        self._concurrency = concurrency
        self._stopping = False

    def stop(self) -> None:
        """End soon; safe from any thread and from signal handlers."""
        self._stopping = True
        self._news.set()

    def run(self) -> None:
        """Handle records until stopped. Raises what cannot be a record's fault; the drain is done by then."""
        with _signals(self.stop):
            if self._concurrency == 1:
                self._run_here()
            else:
                self._run_threads()

    def handle(self, record: Record) -> None:
        """One record through the handler, and its verdict."""
        handout = self._handout
        if handout.restless and not handout.admit(record):
            return
        try:
            self._handler(record)
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises is that record's failure
            handout.fail(record, error)
        else:
            handout.finish(record)

    def _run_here(self) -> None:
        while not self._stopping:
            self._news.clear()
            records = self._handout.take(QUEUED_PER_WORKER, one_by_one=True)
            for record in records:
                if self._stopping:
                    return
                self.handle(record)
            if not records and not self._stopping:
                self._news.wait(RUN_WAIT_SECONDS)

    def _run_threads(self) -> None:
        queues: list[SimpleQueue[Record | None]] = [SimpleQueue() for _ in range(self._concurrency)]
        threads = [
            threading.Thread(target=self._work, args=(queue,), name=f"logsvc-worker-{number}", daemon=True)
            for number, queue in enumerate(queues)
        ]
        for thread in threads:
            thread.start()
        turn = 0
        try:
            while not self._stopping:
                self._news.clear()
                room = QUEUED_PER_WORKER * self._concurrency - sum(queue.qsize() for queue in queues)
                records = self._handout.take(room, one_by_one=True) if room > 0 else []
                for record in records:
                    turn += 1
                    queues[lane(record, self._handout.ordering, turn) % self._concurrency].put(record)
                if not records and not self._stopping:
                    self._news.wait(RUN_WAIT_SECONDS)
        finally:
            self._stopping = True
            for queue in queues:
                queue.put(None)
            for thread in threads:
                thread.join()

    def _work(self, queue: "SimpleQueue[Record | None]") -> None:
        while (record := queue.get()) is not None:
            if not self._stopping:
                self.handle(record)
            if queue.empty():
                self._news.set()  # There is room for more.


def lane(record: Record, ordering: str, turn: int) -> int:
    """A number that records which must be handled one after another share; `turn` for those that need not."""
    if ordering == "partition":
        return record.partition
    return turn if ordering == "none" or record.key is None else murmur2(record.key)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT stop the run while it has the main thread; as before afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
