"""`run` for asyncio: lanes as in `worker`, each a task. A handler whose time is up is cancelled where it waits."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from logsvc_client.handling import QUEUED_PER_WORKER, RUN_WAIT_SECONDS, RunOptions, renewal
from logsvc_client.handout import Handout
from logsvc_client.middleware import Chain
from logsvc_client.records import Record
from logsvc_client.worker import lane_of

log = logging.getLogger(__name__)

AsyncHandler = Callable[[Record], Awaitable[object]]
Queue = asyncio.Queue[Record | None]


class AsyncWorker:
    """One call of `run`. `tell` sets `news` from any thread."""

    def __init__(
        self, handout: Handout, handler: AsyncHandler, news: asyncio.Event, tell: Callable[[], None], options: RunOptions
    ) -> None:
        self._handout = handout
        self._handler = handler
        self._news = news
        self._tell = tell
        self._options = options
        self._chain = Chain(options.middleware)
        self._stopping = False

    def stop(self) -> None:
        """End soon; safe from any thread and from signal handlers."""
        self._stopping = True
        self._tell()

    async def run(self) -> None:
        """Handle records until stopped. Raises what cannot be a record's fault; the drain is done by then."""
        queues: list[Queue] = [asyncio.Queue() for _ in range(self._options.concurrency)]
        tasks = [asyncio.create_task(self._work(queue)) for queue in queues]
        with _signals(self.stop):
            try:
                await self._dispatch(queues)
            finally:
                self._stopping = True
                await self._drain(queues, tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _dispatch(self, queues: list[Queue]) -> None:
        ordering, turn = self._handout.ordering, 0
        while not self._stopping:
            self._news.clear()
            room = QUEUED_PER_WORKER * len(queues) - sum(queue.qsize() for queue in queues)
            records = self._handout.take(room, one_by_one=True) if room > 0 else []
            for record in records:
                turn += 1
                queues[lane_of(record, ordering, turn) % len(queues)].put_nowait(record)
            if not records and not self._stopping:
                await wait_news(self._news, RUN_WAIT_SECONDS)

    async def _work(self, queue: Queue) -> None:
        handout = self._handout
        try:
            while (record := await queue.get()) is not None:
                if not self._stopping and (not handout.restless or handout.admit(record)):
                    await self._handle(record)
                if queue.empty():
                    self._news.set()  # There is room for more.
        except BaseException:
            self.stop()  # Of the whole run: what a dead lane holds would never be handled.
            raise

    async def _handle(self, record: Record) -> None:
        handout, chain = self._handout, self._chain
        scope = asyncio.timeout(self._options.handler_timeout)
        try:
            chain.before(record)
            async with scope:
                renewal.set(lambda: self._renew(scope))
                await self._handler(record)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                # It was not this task that was cancelled, but one that the handler waited for.
                handout.fail(record, error)
                chain.on_failure(record, error)
                return
            log.warning("run ends before the handler of the record at offset %d", record.offset)
            handout.put_back(record)
            raise
        except Exception as error:  # noqa: BLE001 -- whatever a handler raises is that record's failure
            failure = self._options.timed_out() if scope.expired() and isinstance(error, TimeoutError) else error
            handout.fail(record, failure)
            chain.on_failure(record, failure)
        else:
            handout.finish(record)
            chain.after(record)

    def _renew(self, scope: asyncio.Timeout) -> None:
        timeout = self._options.handler_timeout
        if scope.expired():
            raise self._options.timed_out()
        if timeout is not None:
            scope.reschedule(asyncio.get_running_loop().time() + timeout)

    async def _drain(self, queues: list[Queue], tasks: list["asyncio.Task[None]"]) -> None:
        """Wait for the handlers that run; those that do not finish in time are cancelled, and their records go back unspent."""
        for queue in queues:
            queue.put_nowait(None)
        _done, late = await asyncio.wait(tasks, timeout=self._options.drain_timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


async def wait_news(news: asyncio.Event, seconds: float) -> None:
    """Until there is news, or the time is over."""
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except TimeoutError:
        pass  # Nothing new: the caller looks at the time.


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT stop the run, where the loop can take signals (the main thread); as before afterwards."""
    loop = asyncio.get_running_loop()
    taken: dict[int, object] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            before = signal.getsignal(number)
            loop.add_signal_handler(number, stop)
            taken[number] = before
        except (ValueError, RuntimeError, NotImplementedError):
            break  # Not the main thread: whoever runs the loop decides when to stop.
    try:
        yield
    finally:
        for taken_number, handler in taken.items():
            loop.remove_signal_handler(taken_number)
            signal.signal(taken_number, handler)  # type: ignore[arg-type]
