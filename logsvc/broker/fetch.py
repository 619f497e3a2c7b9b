"""Fetch: whole batches as they lie on disk, and the long poll when there are not enough of them yet."""

from collections.abc import Callable
from typing import NamedTuple

from logsvc.broker.dispatcher import guarded
from logsvc.broker.exchange import Exchange
from logsvc.broker.parked import Parked
from logsvc.broker.throttle import Throttle
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import InvalidRequest, LogsvcError
from logsvc_common.messages import Fetch, FetchPartition, FetchReply, FetchResult

FETCH_BYTES_MAX = 64 << 20  # of one answer, whatever was asked for; plus at most one batch
CROWDED_FETCH_BYTES = 256 << 10  # while peers that do not read hold half of what all may
CROWDED_WAIT_MS = 100  # while they hold all of it
FETCH_WAIT_MS_MAX = 60_000
FETCH_PARTITIONS_MAX = 4_000  # an answer has one frame a partition


class _Read(NamedTuple):
    results: list[FetchResult]
    frames: list[bytes]
    bytes: int
    failed: bool


class FetchHandler:
    """`count(topic, bytes)` is told of what went out.

    `held_bytes()` says how much of earlier answers their peers have not taken yet. From half of `held_bytes_max` on answers are
    small, so that those who read go on; at all of it they are empty, and ask to wait.
    """

    def __init__(
        self,
        logs: LogDirectory,
        monotonic_ms: Callable[[], int],
        count: Callable[[str, int], None],
        throttle: Throttle,
        held_bytes: Callable[[], int],
        held_bytes_max: int,
    ) -> None:
        self._logs = logs
        self._throttle = throttle
        self._held_bytes = held_bytes
        self._held_bytes_max = held_bytes_max
        self._monotonic_ms = monotonic_ms
        self._count = count
        self.parked: Parked[PartitionLog, Exchange[Fetch]] = Parked()

    def handle(self, exchange: Exchange[Fetch]) -> None:
        fetch = exchange.body
        if len(fetch.partitions) > FETCH_PARTITIONS_MAX:
            raise InvalidRequest(f"{len(fetch.partitions)} partitions in one fetch, at most {FETCH_PARTITIONS_MAX} are taken")
        if self._throttle.active and self._throttle.holds_fetch(exchange, self._go_on):
            return
        bytes_max = self._bytes_max(exchange)
        if not bytes_max:
            exchange.reply(FetchReply([], CROWDED_WAIT_MS))
            return
        read = self._read(fetch, bytes_max)
        missing = min(fetch.min_bytes, bytes_max) - read.bytes
        if missing > 0 and not read.failed and fetch.max_wait_ms > 0 and fetch.partitions:
            deadline_ms = self._monotonic_ms() + min(fetch.max_wait_ms, FETCH_WAIT_MS_MAX)
            keys = [self._logs.partition(wanted.topic, wanted.partition) for wanted in fetch.partitions]
            if self.parked.add(exchange, keys, deadline_ms=deadline_ms, missing=missing):
                return
        self._answer(exchange, read)

    def readable(self, log: PartitionLog, size: int) -> None:
        """`size` more bytes of `log` may be read: answer the polls that now have enough."""
        for exchange in self.parked.wake(log, size):
            self._answer_now(exchange)

    def gone(self, log: PartitionLog) -> None:
        """`log` was deleted or failed: whoever waits on it is told."""
        for exchange in self.parked.wake(log):
            self._answer_now(exchange)

    def expire(self, now_ms: int) -> None:
        for exchange in self.parked.expire(now_ms):
            self._answer_now(exchange)

    def stop(self) -> None:
        """Answer all polls with what there is."""
        for exchange in self.parked.drain():
            self._answer_now(exchange)

    def _go_on(self, exchange: Exchange[Fetch]) -> None:
        """A fetch that was held for its client's quota: as if it had come now."""
        guarded(self.handle, exchange)

    def _answer_now(self, exchange: Exchange[Fetch]) -> None:
        """Answer with what there is; later, when the client's quota is used up."""
        if self._throttle.active and self._throttle.holds_fetch(exchange, self._answer_now):
            return
        bytes_max = self._bytes_max(exchange)
        if bytes_max:
            self._answer(exchange, self._read(exchange.body, bytes_max))
        else:
            exchange.reply(FetchReply([], CROWDED_WAIT_MS))

    def _bytes_max(self, exchange: Exchange[Fetch]) -> int:
        """How much an answer may bring now."""
        if not exchange.peer:
            return FETCH_BYTES_MAX  # of this process, which takes it at once
        held = self._held_bytes()
        bytes_max = FETCH_BYTES_MAX
        if held > self._held_bytes_max // 2:
            bytes_max = CROWDED_FETCH_BYTES if held < self._held_bytes_max else 0
        return self._throttle.fetch_bytes_max(exchange, bytes_max) if self._throttle.active else bytes_max

    def _answer(self, exchange: Exchange[Fetch], read: _Read) -> None:
        for result, frame in zip(read.results, read.frames, strict=True):
            if frame:
                self._count(result.topic, len(frame))
        throttle_ms = self._throttle.fetched(exchange, read.bytes) if self._throttle.active else 0
        exchange.reply(FetchReply(read.results, throttle_ms), read.frames)

    def _read(self, fetch: Fetch, bytes_max: int) -> _Read:
        results: list[FetchResult] = []
        frames: list[bytes] = []
        budget = min(fetch.max_bytes, bytes_max)
        total = 0
        failed = False
        for wanted in fetch.partitions:
            if total and total >= budget:
                break
            try:
                result, data = self._read_partition(wanted, budget - total)
            except LogsvcError as error:
                failed = True
                result = FetchResult(
                    topic=wanted.topic, partition=wanted.partition, error_code=error.code, error_message=error.message
                )
                data = b""
            else:
                if not data:
                    continue
            results.append(result)
            frames.append(data)
            total += len(data)
        return _Read(results, frames, total, failed)

    def _read_partition(self, wanted: FetchPartition, budget: int) -> tuple[FetchResult, bytes]:
        log = self._logs.partition(wanted.topic, wanted.partition)
        data = log.read(wanted.offset, max(1, min(wanted.max_bytes, budget)))
        return (
            FetchResult(
                topic=wanted.topic,
                partition=wanted.partition,
                high_watermark=log.high_watermark,
                start_offset=log.start_offset,
            ),
            data,
        )
