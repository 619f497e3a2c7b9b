"""Produce: each batch is checked as it came, stamped, appended, and answered for when it is durable.

No record is decoded. What is checked: the frame is exactly one batch, its CRC, its codec, that it is neither
transactional nor a control batch, that its record count fits its offsets, and `max.message.bytes`.
"""

from collections.abc import Callable

from logsvc.broker.appender import Appender
from logsvc.broker.exchange import Exchange
from logsvc.broker.throttle import ReplyToProduce, Throttle
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import AppendResult
from logsvc_common.batch import (
    CODEC_NAMES,
    CONTROL_BIT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    Buffer,
    check_crc,
    parse_header,
)
from logsvc_common.errors import CorruptBatch, InternalTopic, InvalidRequest, LogsvcError, RecordTooLarge
from logsvc_common.messages import Produce, ProducePartition, ProduceReply, ProduceResult
from logsvc_common.names import is_internal


def check_batch(batch: Buffer) -> BatchHeader:
    """The header of a frame that must be one whole batch a producer may send; CorruptBatch or InvalidRequest if not."""
    header = parse_header(batch)
    if header.size != len(batch):
        raise CorruptBatch(f"the frame has {len(batch)} bytes, its batch says {header.size}")
    check_crc(batch, header)
    if header.codec not in CODEC_NAMES:
        raise CorruptBatch(f"codec {header.codec} is not known")
    if header.attributes & (TRANSACTIONAL_BIT | CONTROL_BIT):
        raise InvalidRequest("transactional and control batches are not taken")
    if header.record_count != header.last_offset_delta + 1:
        raise CorruptBatch(f"{header.record_count} records cannot fill {header.last_offset_delta + 1} offsets")
    return header


class _Pending:
    """A request whose batches wait for their fsyncs, each on its own."""

    __slots__ = ("_missing", "_reply", "_results")

    def __init__(self, partitions: int, reply: ReplyToProduce) -> None:
        self._reply = reply
        self._missing = partitions
        self._results: list[ProduceResult] = [ProduceResult()] * self._missing

    def set(self, place: int, result: ProduceResult) -> None:
        self._results[place] = result
        self._missing -= 1
        if not self._missing:
            self._reply(ProduceReply(self._results))


def _failed(error: LogsvcError) -> ProduceResult:
    return ProduceResult(error_code=error.code, error_message=error.message)


class ProduceHandler:
    """`unsaturated` is called when there is room again."""

    def __init__(
        self,
        logs: LogDirectory,
        appender: Appender,
        wall_ms: Callable[[], int],
        bytes_max: int,
        unsaturated: Callable[[], None],
        throttle: Throttle,
    ) -> None:
        self._logs = logs
        self._appender = appender
        self._wall_ms = wall_ms
        self.bytes_in_flight = 0
        self._bytes_max = bytes_max
        self._unsaturated = unsaturated
        self._throttle = throttle

    @property
    def saturated(self) -> bool:
        """True while so much waits for its fsync that no more requests should be read from the sockets."""
        return self.bytes_in_flight >= self._bytes_max

    def handle(self, exchange: Exchange[Produce]) -> None:
        partitions = exchange.body.partitions
        if len(partitions) != len(exchange.payload):
            raise InvalidRequest(f"{len(partitions)} partitions, but {len(exchange.payload)} batches")
        if not partitions:
            exchange.reply(ProduceReply([]))
            return
        reply = self._throttle.admit(exchange) if self._throttle.active else exchange.reply
        if reply is None:
            return
        pending = _Pending(len(partitions), reply)
        batches, now_ms = exchange.payload, self._wall_ms()
        for place, (target, batch) in enumerate(zip(partitions, batches, strict=True)):
            try:
                self._append(pending, place, target, batch, now_ms)
            except LogsvcError as error:
                pending.set(place, _failed(error))

    def _append(self, pending: _Pending, place: int, target: ProducePartition, batch: Buffer, now_ms: int) -> None:
        if is_internal(target.topic):
            raise InternalTopic(f"topic {target.topic!r} is the broker's own; it takes no records from clients")
        log = self._logs.partition(target.topic, target.partition)
        size = len(batch)
        if size > log.config.max_message_bytes:
            raise RecordTooLarge(
                f"the batch has {size} bytes, topic {target.topic!r} takes {log.config.max_message_bytes} (max.message.bytes)"
            )
        header = check_batch(batch)

        def done(result: AppendResult, error: LogsvcError | None) -> None:
            self._release(size)
            if error is not None:
                pending.set(place, _failed(error))
                return
            pending.set(place, ProduceResult(base_offset=result.base_offset, duplicate=result.duplicate))

        self.bytes_in_flight += size
        try:
            self._appender.append(log, batch, header, now_ms, done)
        except LogsvcError:
            self._release(size)
            raise

    def _release(self, size: int) -> None:
        was_saturated = self.saturated
        self.bytes_in_flight -= size
        if was_saturated and not self.saturated:
            self._unsaturated()
