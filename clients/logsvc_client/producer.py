"""Producer and AsyncProducer: records in, deliveries out.

`send` puts the record into its partition's open batch and returns; a thread of the client ships batches when they are
full, when `linger_ms` is over, or as soon as somebody waits for one of their deliveries. There is no future per record: a
`Delivery` is the batch and a position in it. What a producer promises: a delivery that has a result is fsynced (by the
topic's `flush` setting), records of a partition keep their order, and with `idempotent` a retry never writes twice.
"""

import asyncio
import random
import threading
import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self

import msgspec

from logsvc_client.accumulator import Accumulator
from logsvc_client.producer_batch import BatchSettings, NewRecord, OnDelivery, ProducerBatch, Wait
from logsvc_client.records import Headers, RecordMetadata, header_list
from logsvc_client.sender import Sender, metadata_of
from logsvc_client.transport import DEFAULT_REQUEST_TIMEOUT_MS, DEFAULT_SERVER, Transport, monotonic_ms
from logsvc_common.batch import Header, codec_number
from logsvc_common.errors import BufferExhausted, ClientClosed, InvalidConfig, InvalidRequest, LogsvcError, RequestTimeout

_NO_HEADERS: list[Header] = []
_time_ns = time.time_ns


class Delivery(msgspec.Struct, gc=False, eq=False):
    """What becomes of one record: a light handle on its batch."""

    _batch: ProducerBatch
    _index: int
    _timestamp_ms: int
    _sender: Sender

    @property
    def done(self) -> bool:
        """True once the record is acknowledged or has failed."""
        return self._batch.done

    @property
    def exception(self) -> LogsvcError | None:
        """Why the record failed; None while it is on its way and when it is acknowledged."""
        return self._batch.error

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Where the record is, once it is acknowledged; waiting sends its batch without further linger.

        Raises the error the record ended in (DeliveryTimeout, RecordTooLarge, ...), or RequestTimeout when `timeout`
        seconds pass first: the record is still on its way then.
        """
        if not self._batch.done:
            done = threading.Event()
            self._sender.wait_done(self._batch, done.set)
            if not done.wait(timeout):
                raise RequestTimeout(f"not acknowledged within {timeout} s; the record is still on its way")
        return self._outcome()

    def _outcome(self) -> RecordMetadata:
        if self._batch.error is not None:
            raise self._batch.error.with_traceback(None)
        return metadata_of(self._batch, self._index, self._timestamp_ms)


class AsyncDelivery(msgspec.Struct, gc=False, eq=False):
    """What becomes of one record: `metadata = await delivery`."""

    _delivery: Delivery

    @property
    def done(self) -> bool:
        """As `Delivery.done`."""
        return self._delivery.done

    @property
    def exception(self) -> LogsvcError | None:
        """As `Delivery.exception`."""
        return self._delivery.exception

    async def result(self) -> RecordMetadata:
        """As `Delivery.result`; bound it with `asyncio.timeout`."""
        delivery = self._delivery
        if not delivery.done:
            waiter, tell = _loop_waiter()
            delivery._sender.wait_done(delivery._batch, tell)
            await waiter
        return delivery._outcome()

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        return self.result().__await__()


class _Core:
    """What both twins are made of."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        client_id: str = "",
        linger_ms: int = 5,
        batch_bytes: int = 1_048_576,
        compression: str = "none",
        buffer_bytes: int = 64 << 20,
        max_block_ms: int = 60_000,
        delivery_timeout_ms: int = 120_000,
        request_timeout_ms: int = DEFAULT_REQUEST_TIMEOUT_MS,
        max_in_flight: int = 5,
        idempotent: bool = True,
    ) -> None:
        if batch_bytes < 1 or buffer_bytes < batch_bytes:
            raise InvalidConfig(f"batch_bytes {batch_bytes} lies between 1 and buffer_bytes {buffer_bytes}")
        if linger_ms < 0 or max_block_ms < 0 or delivery_timeout_ms < 1 or request_timeout_ms < 1:
            raise InvalidConfig("linger_ms and max_block_ms are at least 0, the timeouts at least 1 ms")
        if not 1 <= max_in_flight <= 5:
            raise InvalidConfig("max_in_flight lies between 1 and 5: the broker remembers five batches of a producer")
        settings = BatchSettings(
            linger_ms=linger_ms,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            delivery_timeout_ms=delivery_timeout_ms,
            max_in_flight=max_in_flight,
            idempotent=idempotent,
            codec=codec_number(compression),
        )
        self._accumulator = Accumulator(settings, choose=lambda: random.getrandbits(31))
        self._transport = Transport(server, client_id=client_id, request_timeout_ms=request_timeout_ms)
        self._sender = Sender(self._transport, self._accumulator, batch_bytes)
        self._max_block_ms = max_block_ms
        self._lock = self._sender.lock
        self._slot = self._accumulator.slot
        self._sticky_slots = self._accumulator.sticky_slots
        self._transport.start(self._sender)

    def _add(self, record: NewRecord) -> Delivery | Wait:
        """Add a record the slow way. Needs the lock."""
        batch = self._accumulator.add(record, monotonic_ms())
        self._transport.wake()
        return batch if isinstance(batch, Wait) else Delivery(batch, batch.count - 1, record.timestamp_ms, self._sender)

    def _check_open(self) -> None:
        if self._sender.closed:
            raise ClientClosed("this producer is closed")

    def _exhausted(self) -> BufferExhausted:
        return BufferExhausted(f"the producer's memory stayed full for {self._max_block_ms} ms: the broker is too slow or away")


class Producer(_Core):
    """Sends records to a broker.

        with Producer("tcp://127.0.0.1:9292") as producer:
            delivery = producer.send("orders", b"value", key=b"42", headers={"trace": b"1"})
            print(delivery.result(timeout=5).offset)

    `linger_ms`: how long a batch waits for more records. `batch_bytes`: its size, before compression (`none`, `gzip`,
    `snappy`, `lz4`, `zstd`). `buffer_bytes`: memory for records on their way; when it is full `send` waits up to
    `max_block_ms`. `delivery_timeout_ms`: from `send` to the final verdict, retries included. `max_in_flight`: batches of
    a partition under way at once, at most 5. `idempotent`: a retry never appends twice. Safe to share between threads.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Delivery:
        """Send a record. Returns at once, unless the topic is new to this producer or its memory is full.

        `partition` wins over `key`; a record with neither goes where a batch is being filled. `timestamp_ms` counts from
        the epoch; the default is now. `on_delivery(metadata, error)` runs on the client's thread: keep it short.

        Raises UnknownTopic, UnknownPartition, InvalidRequest (a negative timestamp), RecordTooLarge (over 64 MiB, or over
        the memory), BufferExhausted (memory full for `max_block_ms`), RequestTimeout (no broker told of the topic within
        `max_block_ms`), ClientClosed.
        """
        if timestamp_ms is None:
            timestamp_ms = _time_ns() // 1_000_000
        elif timestamp_ms < 0:
            raise InvalidRequest(f"timestamp_ms is {timestamp_ms}; it counts from the epoch")
        headers_list = _NO_HEADERS if headers is None else header_list(headers)
        try:
            slot = self._sticky_slots[topic] if key is None and partition is None else self._slot(topic, key, partition)
            batch = slot.pop()
        except (KeyError, IndexError):
            return self._send_slowly(NewRecord(topic, value, key, headers_list, partition, timestamp_ms, on_delivery))
        try:
            index = batch.count
            if batch.append(index, timestamp_ms, key, value, headers_list) is not None:
                batch.count = index + 1
                if on_delivery is not None:
                    batch.callbacks.append((index, timestamp_ms, on_delivery))
                return Delivery(batch, index, timestamp_ms, self._sender)
        finally:
            slot.append(batch)
        return self._send_slowly(NewRecord(topic, value, key, headers_list, partition, timestamp_ms, on_delivery))

    def _send_slowly(self, record: NewRecord) -> Delivery:
        """Open a batch, and wait for what it takes: to learn of the topic, for memory, for another thread."""
        deadline_ms = monotonic_ms() + self._max_block_ms
        while True:
            left_ms = max(0, deadline_ms - monotonic_ms())
            room = threading.Event()
            with self._lock:
                self._check_open()
                delivery = self._add(record)
                if delivery is Wait.ROOM:
                    self._sender.wait_room(room.set)
            if isinstance(delivery, Delivery):
                return delivery
            if delivery is Wait.TOPIC:
                self._sender.learn(record.topic, left_ms).result()
            elif delivery is Wait.BUSY:
                time.sleep(0)  # The other thread has the batch for a few bytecodes; it needs the interpreter to go on.
            elif not room.wait(left_ms / 1_000):
                raise self._exhausted()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every record sent so far is acknowledged or has failed (its delivery tells which).

        Raises RequestTimeout after `timeout` seconds.
        """
        done = threading.Event()
        self._sender.flush(done.set)
        if not done.wait(timeout):
            raise RequestTimeout(f"records are still on their way after {timeout} s")

    def close(self, timeout: float | None = None) -> None:
        """Flush, then close. Records not acknowledged within `timeout` seconds fail with ClientClosed. Safe to call twice."""
        if not self._sender.closed:
            done = threading.Event()
            self._sender.flush(done.set)
            done.wait(timeout)
        self._transport.stop()


class AsyncProducer(_Core):
    """The same for asyncio, with the same settings.

    async with AsyncProducer("tcp://127.0.0.1:9292") as producer:
        delivery = await producer.send("orders", b"value", key=b"42")
        print((await delivery).offset)
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> AsyncDelivery:
        """As `Producer.send`; suspends only while the topic is being learned or the memory is full."""
        if timestamp_ms is None:
            timestamp_ms = _time_ns() // 1_000_000
        elif timestamp_ms < 0:
            raise InvalidRequest(f"timestamp_ms is {timestamp_ms}; it counts from the epoch")
        headers_list = _NO_HEADERS if headers is None else header_list(headers)
        record = NewRecord(topic, value, key, headers_list, partition, timestamp_ms, on_delivery)
        deadline_ms = monotonic_ms() + self._max_block_ms
        while True:
            room, tell = _loop_waiter()
            with self._lock:
                self._check_open()
                delivery = self._add(record)
                if delivery is Wait.ROOM:
                    self._sender.wait_room(tell)
            if isinstance(delivery, Delivery):
                return AsyncDelivery(delivery)
            left_ms = max(0, deadline_ms - monotonic_ms())
            if delivery is Wait.TOPIC:
                await asyncio.wrap_future(self._sender.learn(topic, left_ms))
            elif delivery is Wait.BUSY:
                await asyncio.sleep(0)
            else:
                try:
                    await asyncio.wait_for(room, left_ms / 1_000)
                except TimeoutError:
                    raise self._exhausted() from None

    async def flush(self) -> None:
        """As `Producer.flush`; bound it with `asyncio.timeout`."""
        waiter, tell = _loop_waiter()
        self._sender.flush(tell)
        await waiter

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- what is left then fails, unlike a cancellation
        """As `Producer.close`."""
        if not self._sender.closed:
            waiter, tell = _loop_waiter()
            self._sender.flush(tell)
            await asyncio.wait([waiter], timeout=timeout)
        await asyncio.to_thread(self._transport.stop)


def _loop_waiter() -> tuple["asyncio.Future[None]", "Any"]:
    """A future of the running loop, and what another thread calls to end it."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(end)
        except RuntimeError:
            pass  # The loop was closed meanwhile: nobody waits any more.

    return waiter, tell
