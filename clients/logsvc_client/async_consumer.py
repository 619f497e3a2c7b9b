"""AsyncConsumer: the consumer for asyncio, on the same engine. It decides nothing of its own; see `consumer`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from logsvc_client.async_worker import AsyncHandler, AsyncWorker, wait_news
from logsvc_client.consumer import CLOSE_TIMEOUT_SECONDS, ITERATION_WAIT_MS
from logsvc_client.consumer_core import ConsumerCore
from logsvc_client.handling import RunOptions
from logsvc_client.middleware import Middleware
from logsvc_client.records import Record, TopicPartition
from logsvc_common.errors import InvalidRequest, LogsvcError, RequestTimeout
from logsvc_common.messages import EARLIEST, LATEST, FetchOffsetsReply, ListOffsetsReply
from logsvc_common.retry import RetryPolicy

T = TypeVar("T")


class AsyncConsumer(ConsumerCore):
    """As `Consumer`, with the same settings.

        async with AsyncConsumer("orders", group_id="billing") as consumer:
            async for record in consumer:
                ...

    Make it in a running loop and use it there.
    """

    def _prepare(self) -> None:
        loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._stopped = False
        self._worker: AsyncWorker | None = None
        self._iterator = self._iterate()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:
                pass  # The loop was closed meanwhile: nobody waits any more.

        self._tell = tell
        self._engine.on_news = tell

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(unsure=kind is not None)

    # Taking

    async def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> list[Record]:
        """As `Consumer.poll`."""
        deadline = time.monotonic() + timeout_ms / 1_000
        while True:
            self._news.clear()
            records = self._handout.take(max_records or self._max_poll_records)
            left = deadline - time.monotonic()
            if records or left <= 0 or self._stopped:
                return records
            await wait_news(self._news, left)

    def __aiter__(self) -> AsyncIterator[Record]:
        """As `Consumer.__iter__`."""
        return self._iterator

    async def _iterate(self) -> AsyncIterator[Record]:
        handout = self._handout
        while not self._stopped:
            records = await self.poll(ITERATION_WAIT_MS)
            handout.cursor, turn, calm = 0, handout.turn, handout.calm or self
            for given, record in enumerate(records, 1):
                if handout.calm is not calm:
                    if handout.turn != turn or self._stopped:
                        break
                    if not handout.admit(record):
                        handout.cursor = given
                        continue
                handout.cursor = given
                yield record

    async def run(
        self,
        handler: AsyncHandler,
        *,
        retry: RetryPolicy | None = None,
        concurrency: int = 1,
        handler_timeout_ms: int | None = None,
        drain_timeout_ms: int | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """As `Consumer.run`, with up to `concurrency` calls of the handler under way; those of a key one after another.

        Handlers are cancelled when their time is up, or the drain's.
        """
        if self._group_id is None:
            raise InvalidRequest("run needs a group: failures are kept by it")
        options = RunOptions(concurrency, handler_timeout_ms, drain_timeout_ms, middleware)
        if retry is not None:
            with self._engine.lock:
                self._engine.set_retry(retry)
        self._worker = AsyncWorker(self._handout, handler, self._news, self._tell, options)
        try:
            if not self._stopped:
                await self._worker.run()
        finally:
            self._worker = None
            self._stopped = True
        await self._commit_quietly(CLOSE_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """As `Consumer.stop`."""
        self._stopped = True
        self._handout.unsettle()
        if self._worker is not None:
            self._worker.stop()
        self._tell()

    # Verdicts and positions

    async def commit(self) -> None:
        """As `Consumer.commit`; bound it with `asyncio.timeout`."""
        self._handout.settle()
        await asyncio.wrap_future(self._commit())

    async def position(self, tp: TopicPartition) -> int:
        """As `Consumer.position`; bound it with `asyncio.timeout`."""
        while (found := self._position(tp)) is None:
            self._news.clear()
            await wait_news(self._news, 0.1)
        return found

    async def committed(self, partitions: Sequence[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """As `Consumer.committed`."""
        request = self._committed_request(partitions)
        return self._committed_of(await asyncio.wrap_future(self._transport.submit(request, FetchOffsetsReply)))

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """As `Consumer.offsets_for_times`."""
        request = self._times_request(times)
        return self._offsets_of(await asyncio.wrap_future(self._transport.submit(request, ListOffsetsReply)))

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `Consumer.beginning_offsets`."""
        return await self.offsets_for_times(dict.fromkeys(partitions, EARLIEST))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `Consumer.end_offsets`."""
        return await self.offsets_for_times(dict.fromkeys(partitions, LATEST))

    # The end

    async def close(self) -> None:
        """As `Consumer.close`."""
        await self._close(unsure=False)

    async def _close(self, *, unsure: bool) -> None:
        if not self._closed:
            self._closed = True
            self._stopped = True
            if self._auto_commit:
                self._handout.settle(unsure=unsure)
                await self._commit_quietly(CLOSE_TIMEOUT_SECONDS)
            if self._group_id is not None:
                try:
                    await self._within(self._leave(), CLOSE_TIMEOUT_SECONDS)
                except LogsvcError as error:
                    self._log_close(error)
        await asyncio.to_thread(self._transport.stop)

    async def _commit_quietly(self, seconds: float) -> None:
        if self._group_id is None:
            return
        try:
            await self._within(self._commit(), seconds)
        except LogsvcError as error:
            self._log_close(error)

    async def _within(self, future: "Future[T]", seconds: float) -> T:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise RequestTimeout(f"no answer from {self._transport.server} within {seconds} s") from None
