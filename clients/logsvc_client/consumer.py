"""Consumer: records out, in order, with or without a group.

Without a group it reads every partition of its topics, or those it assigns itself. With one it shares the topics with the
other members, commits how far it has come, and reports failures, which come back by the group's retry policy.

What counts as handled. `poll` and iteration: what the last call returned, when the next is made (and on a clean `close`),
unless it was failed. `run`: what the handler returned from. Progress is committed every `auto_commit_interval_ms`,
failures at once. A record handed out and not counted is handed out again, to this or another member: at least once.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from logsvc_client.consumer_core import ConsumerCore
from logsvc_client.handling import RunOptions
from logsvc_client.middleware import Middleware
from logsvc_client.records import Record, TopicPartition
from logsvc_client.transport import DEFAULT_CALL_TIMEOUT_MS
from logsvc_client.worker import Handler, Worker
from logsvc_common.errors import InvalidRequest, LogsvcError, RequestTimeout
from logsvc_common.messages import EARLIEST, LATEST, FetchOffsetsReply, ListOffsetsReply
from logsvc_common.retry import RetryPolicy

CLOSE_TIMEOUT_SECONDS = 10.0
ITERATION_WAIT_MS = 1_000


class Consumer(ConsumerCore):
    """Reads records; see the module for what counts as handled, `ConsumerCore` for the settings.

        with Consumer("orders", group_id="billing") as consumer:
            for record in consumer:
                ...

    One thread at a time takes records; `stop`, `fail` and `ack` are safe from any.
    """

    def _prepare(self) -> None:
        self._news = threading.Event()
        self._engine.on_news = self._news.set
        self._iterator = self._iterate()
        self._worker: Worker | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(unsure=kind is not None)

    # Taking

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> list[Record]:
        """Records that are there, up to `max_records`; waits up to `timeout_ms` for the first.

        Raises CorruptBatch, OffsetOutOfRange, NoOffset, UnknownTopic, ... once nothing else is left to hand out; the next
        call tries again. RequestTimeout when no broker was ever reached within `connect_timeout_ms`.
        """
        deadline = time.monotonic() + timeout_ms / 1_000
        while True:
            self._news.clear()
            records = self._handout.take(max_records or self._max_poll_records)
            if records:
                return records
            left = deadline - time.monotonic()
            if left <= 0 or self._stopped:
                return records
            self._news.wait(left)

    def __iter__(self) -> Iterator[Record]:
        """Records, one after another, until `stop`. A loop that was left goes on where it was."""
        return self._iterator

    def _iterate(self) -> Iterator[Record]:
        handout = self._handout
        while not self._stopped:
            records = self.poll(ITERATION_WAIT_MS)
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

    def run(
        self,
        handler: Handler,
        *,
        retry: RetryPolicy | None = None,
        concurrency: int = 1,
        handler_timeout_ms: int | None = None,
        drain_timeout_ms: int | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """Call `handler` with each record until `stop`, SIGTERM or SIGINT (the signals when on the main thread). Needs a group.

        An exception is a failure of that record: it comes back after its backoff, up to `retry.max_attempts`, and then
        goes to the dead letters. `concurrency` threads keep the order of each key.

        `handler_timeout_ms`: a handler that has not come back by then, nor called `renew`, hangs: its record has failed with
        HandlerTimeout, and others go on in its place. None: as long as it takes, which costs no partition, because heartbeats
        do not depend on handlers. `drain_timeout_ms`: how long running handlers have to finish once it ends; None: as long as
        they take. What is not finished goes back unspent, so all that is left to do with this consumer is `close`. With either
        limit the handler never runs on the caller's thread.

        Raises InvalidRequest without a group, InvalidConfig, the consumer's own errors, and what is not an `Exception` (as
        SystemExit) from the handler.
        """
        if self._group_id is None:
            raise InvalidRequest("run needs a group: failures are kept by it")
        options = RunOptions(concurrency, handler_timeout_ms, drain_timeout_ms, middleware)
        if retry is not None:
            with self._engine.lock:
                self._engine.set_retry(retry)
        self._worker = Worker(self._handout, handler, self._news, options)
        try:
            if not self._stopped:
                self._worker.run()
        finally:
            self._worker = None
            self._stopped = True
        self._commit_quietly()

    def stop(self) -> None:
        """End `run` and iteration soon; from any thread."""
        self._stopped = True
        self._handout.unsettle()
        if self._worker is not None:
            self._worker.stop()
        self._news.set()

    # Verdicts

    def commit(self, timeout: float | None = CLOSE_TIMEOUT_SECONDS) -> None:
        """Count all that was handed out as handled, and wait until the broker has it.

        Raises FencedMemberEpoch or UnknownMember when the group has given the partitions to others, RequestTimeout after
        `timeout` seconds.
        """
        self._handout.settle()
        self._wait(self._commit(), timeout, "commit")

    def _wait(self, future: "Future[None]", timeout: float | None, what: str) -> None:
        try:
            future.result(timeout)
        except TimeoutError:
            raise RequestTimeout(f"{what}: no answer from {self._transport.server} within {timeout} s") from None

    # Positions

    def position(self, tp: TopicPartition, timeout: float | None = CLOSE_TIMEOUT_SECONDS) -> int:
        """The offset of the next record to be handed out; waits until it is found out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (found := self._position(tp)) is None:
            left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if left <= 0:
                raise RequestTimeout(f"the position of {tp.topic}-{tp.partition} was not found out within {timeout} s")
            self._news.clear()
            self._news.wait(left)
        return found

    def committed(self, partitions: Sequence[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """The group's committed offsets, where there are any; of the partitions assigned unless others are named."""
        request = self._committed_request(partitions)
        return self._committed_of(self._transport.call(request, FetchOffsetsReply, DEFAULT_CALL_TIMEOUT_MS))

    def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The first offset at or after each time in ms since the epoch; -1 where there is none."""
        return self._offsets_of(self._transport.call(self._times_request(times), ListOffsetsReply))

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        return self.offsets_for_times(dict.fromkeys(partitions, EARLIEST))

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last offset of each partition."""
        return self.offsets_for_times(dict.fromkeys(partitions, LATEST))

    # The end

    def close(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """Commit, leave the group, disconnect. What was handed out counts as handled. Safe to call twice."""
        self._close(unsure=False, timeout=timeout)

    def _close(self, *, unsure: bool, timeout: float = CLOSE_TIMEOUT_SECONDS) -> None:
        if not self._closed:
            self._closed = True
            self._stopped = True
            if self._auto_commit:
                self._handout.settle(unsure=unsure)
                self._commit_quietly(timeout)
            if self._group_id is not None:
                try:
                    self._leave().result(timeout)
                except (TimeoutError, LogsvcError) as error:
                    self._log_close(error)
        self._transport.stop()

    def _commit_quietly(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """At the end of things: what cannot be committed is handed out again, and that is said, not raised."""
        if self._group_id is None:
            return
        try:
            self._wait(self._commit(), timeout, "commit")
        except LogsvcError as error:
            self._log_close(error)
