"""`run`: a handler for each record, exceptions as failures, order by key across threads, and an orderly end.

Without time limits and with `concurrency=1` the handler runs on the caller's thread. Else each record goes to the lane its
key hashes to, a queue with a thread of its own, so records of a key are handled one after another; records without a key take
turns. A record whose key has failed between being taken and being handled is parked, not handled.

A thread cannot be killed. When a handler's time is up, its record fails, the lane gets a new thread, and what the old one has
to say later is only logged. STUCK_MAX threads that hang end the run: something is wrong that retries do not cure.

`stop`, or SIGTERM and SIGINT when `run` has the main thread, ends it: running handlers finish (those that do not within the
drain's time are left behind), records not begun or not finished go back unspent, progress is committed.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from logsvc_client.handling import QUEUED_PER_WORKER, RUN_WAIT_SECONDS, Call, RunOptions, renewal
from logsvc_client.handout import Handout
from logsvc_client.middleware import Chain
from logsvc_client.records import Record
from logsvc_common.errors import HandlerTimeout
from logsvc_common.keys import murmur2

log = logging.getLogger(__name__)

Handler = Callable[[Record], object]

STUCK_MAX = 100
DRAIN_LOOK_SECONDS = 0.05


class Lane:
    """Records that are handled one after another, and the thread that does."""

    __slots__ = ("call", "queue", "thread")

    def __init__(self) -> None:
        self.queue: SimpleQueue[Record | None] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.call: Call | None = None  # what the thread is at

    @property
    def working(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class Worker:
    """One call of `run`."""

    def __init__(self, handout: Handout, handler: Handler, news: threading.Event, options: RunOptions) -> None:
        self._handout = handout
        self._handler = handler
        self._news = news
        self._options = options
        self._chain = Chain(options.middleware)
        self._stopping = False
        self._lanes = [Lane() for _ in range(options.concurrency)]
        self._stuck: list[threading.Thread] = []
        self._fatal: BaseException | None = None

    def stop(self) -> None:
        """End soon; safe from any thread and from signal handlers."""
        self._stopping = True
        self._news.set()

    def run(self) -> None:
        """Handle records until stopped. Raises what cannot be a record's fault; the drain is done by then."""
        options = self._options
        with _signals(self.stop):
            if options.concurrency == 1 and options.handler_timeout_ms is None and options.drain_timeout_ms is None:
                self._run_here()
            else:
                self._run_lanes()
        if self._fatal is not None:
            raise self._fatal

    def _handle(self, record: Record, call: Call | None = None) -> bool:
        """One record through the handler, and its verdict. False when its time was up before."""
        handout, chain = self._handout, self._chain
        try:
            chain.before(record)
            self._handler(record)
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises is that record's failure
            if call is not None and not call.settle():
                log.warning("a handler has ended after its time, with %s: %s", type(error).__name__, error)
                return False
            handout.fail(record, error)
            chain.on_failure(record, error)
        else:
            if call is not None and not call.settle():
                log.warning("a handler has ended after its time; its record at offset %d had failed", record.offset)
                return False
            handout.finish(record)
            chain.after(record)
        return True

    def _run_here(self) -> None:
        handout = self._handout
        while not self._stopping:
            self._news.clear()
            records = handout.take(QUEUED_PER_WORKER, one_by_one=True, all_judged=True)
            for record in records:
                if self._stopping:
                    return
                if (handout.restless or record.key in handout.stirred) and not handout.admit(record):
                    continue
                self._handle(record)
            if not records and not self._stopping:
                self._news.wait(RUN_WAIT_SECONDS)

    # Lanes

    def _run_lanes(self) -> None:
        lanes, ordering = self._lanes, self._handout.ordering
        for lane in lanes:
            self._start(lane)
        turn = 0
        try:
            while not self._stopping:
                self._news.clear()
                room = QUEUED_PER_WORKER * len(lanes) - sum(lane.queue.qsize() for lane in lanes)
                records = self._handout.take(room, one_by_one=True) if room > 0 else []
                for record in records:
                    turn += 1
                    lanes[lane_of(record, ordering, turn) % len(lanes)].queue.put(record)
                wait = self._expire(time.monotonic())
                if not records and not self._stopping:
                    self._news.wait(wait)
        finally:
            self._stopping = True
            self._drain()

    def _start(self, lane: Lane) -> None:
        lane.call = None
        name = f"logsvc-worker-{self._lanes.index(lane)}"
        lane.thread = threading.Thread(target=self._work, args=(lane,), name=name, daemon=True)
        lane.thread.start()

    def _work(self, lane: Lane) -> None:
        queue, handout, timeout = lane.queue, self._handout, self._options.handler_timeout
        try:
            while (record := queue.get()) is not None:
                if not self._stopping and (not handout.restless or handout.admit(record)):
                    call = lane.call = Call(record, timeout)
                    renewal.set(call.renew)
                    if not self._handle(record, call):
                        return  # The lane has another thread.
                    lane.call = None
                if queue.empty():
                    self._news.set()  # There is room for more.
        except BaseException as error:  # noqa: BLE001 -- raised by `run`: a lane that died silently would hold its records for good
            self._fatal = self._fatal or error
            self.stop()

    def _expire(self, now: float) -> float:
        """Fail the records whose handlers' time is up. Returns for how many seconds nothing else can be."""
        timeout = self._options.handler_timeout
        if timeout is None:
            return RUN_WAIT_SECONDS
        wait = min(RUN_WAIT_SECONDS, timeout)
        for lane in self._lanes:
            call = lane.call
            if call is None or now < call.deadline:
                wait = wait if call is None else min(wait, call.deadline - now)
            elif call.settle():
                error = self._options.timed_out(_whereabouts(lane.thread))
                self._leave_behind(lane)
                self._handout.fail(call.record, error)
                self._chain.on_failure(call.record, error)
                self._start(lane)
        return wait

    def _leave_behind(self, lane: Lane) -> None:
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if lane.thread is not None:
            self._stuck.append(lane.thread)
        if len(self._stuck) >= STUCK_MAX and self._fatal is None:
            self._fatal = HandlerTimeout(f"{len(self._stuck)} handlers have not come back long after their time: giving up")
            self.stop()

    def _drain(self) -> None:
        """Wait for the handlers that run; what they do not finish in time goes back unspent."""
        drain = self._options.drain_timeout
        deadline = float("inf") if drain is None else time.monotonic() + drain
        for lane in self._lanes:
            lane.queue.put(None)
        while working := [lane for lane in self._lanes if lane.working]:
            now = time.monotonic()
            wait = self._expire(now)
            if now >= deadline:
                break
            thread = working[0].thread
            assert thread is not None
            thread.join(min(wait, deadline - now, DRAIN_LOOK_SECONDS))
        for lane in self._lanes:
            if lane.working and lane.call is not None and lane.call.settle():
                log.warning("run ends before the handler of the record at offset %d", lane.call.record.offset)
                self._handout.put_back(lane.call.record)


def lane_of(record: Record, ordering: str, turn: int) -> int:
    """A number that records which must be handled one after another share; `turn` for those that need not."""
    if ordering == "partition":
        return record.partition
    return turn if ordering == "none" or record.key is None else murmur2(record.key)


def _whereabouts(thread: threading.Thread | None) -> str:
    """Where a thread is, in words, for the message of its failure."""
    frame = sys._current_frames().get(thread.ident or 0) if thread is not None else None
    return "" if frame is None else f": it is in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"


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
