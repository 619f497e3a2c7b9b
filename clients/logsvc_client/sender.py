"""The producer's engine: it lives on the I/O thread and moves batches between the accumulator and the broker.

Users' threads fill batches under one lock; the engine drains, encodes outside the lock, sends, and tells whoever waits.
It also keeps what a producer must know: its id and epoch, and the partitions of the topics it writes to.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from logsvc_client.accumulator import Accumulator
from logsvc_client.producer_batch import ProducerBatch
from logsvc_client.quotas import throttled_until_ms
from logsvc_client.records import RecordMetadata
from logsvc_client.transport import IDLE_MS, Transport
from logsvc_common.batch import Buffer
from logsvc_common.errors import (
    ClientClosed,
    Disconnected,
    InvalidProducerEpoch,
    InvalidRequest,
    LogsvcError,
    UnknownTopic,
    from_wire,
)
from logsvc_common.messages import (
    InitProducerId,
    InitProducerIdReply,
    Message,
    Metadata,
    MetadataReply,
    Produce,
    ProducePartition,
    ProduceReply,
    TopicDescription,
)
from logsvc_common.names import check_topic

log = logging.getLogger(__name__)

METADATA_MAX_AGE_MS = 300_000
METADATA_RETRY_MS = 5_000
PRODUCER_ID_RETRY_MS = 100


class Sender:
    """The service behind Producer and AsyncProducer."""

    def __init__(self, transport: Transport, accumulator: Accumulator, batch_bytes: int) -> None:
        self.lock = threading.Lock()
        self.accumulator = accumulator
        self.transport = transport
        self.closed = False
        self._batch_bytes = batch_bytes
        self._room_waiters: list[Callable[[], None]] = []
        self._learning: dict[str, Future[MetadataReply]] = {}
        self._topics: set[str] = set()
        self._refresh_at_ms = transport.now_ms() + METADATA_MAX_AGE_MS
        self._ask_id_at_ms = 0
        self._asking_id = False
        self._throttled_until_ms = 0  # the broker wants no batches before

    # What users' threads call

    def wait_done(self, batch: ProducerBatch, waiter: Callable[[], None]) -> None:
        """Send the batch without further linger, and call `waiter` once when it is done (at once if it is)."""
        with self.lock:
            if not batch.done:
                batch.waiters.append(waiter)
                self.accumulator.expedite(batch)
                waiter = _nothing
        waiter()
        self.transport.wake()

    def wait_room(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once when memory has been freed since. Call with the lock held."""
        self._room_waiters.append(waiter)

    def learn(self, topic: str, timeout_ms: int) -> "Future[MetadataReply]":
        """Ask for the partitions of a topic; asking twice is asking once. The accumulator knows before the future ends."""
        check_topic(topic)
        with self.lock:
            if self.closed:
                raise ClientClosed("this producer is closed")
            asked = self._learning.get(topic)
            if asked is not None:
                return asked
            told: Future[MetadataReply] = Future()
            told.set_running_or_notify_cancel()
            self._learning[topic] = told
        self.transport.submit(Metadata([topic]), MetadataReply, timeout_ms).add_done_callback(
            partial(self._learned, topic, told)
        )
        return told

    def _learned(self, topic: str, told: "Future[MetadataReply]", answered: "Future[MetadataReply]") -> None:
        error = answered.exception()
        if error is None:
            reply = answered.result()
            error = self._note_topics(reply.topics)
            if error is None and not self.accumulator.knows(topic):
                error = UnknownTopic(f"the broker does not describe topic {topic!r}")
        with self.lock:
            self._learning.pop(topic, None)
        if error is None:
            told.set_result(reply)
        else:
            told.set_exception(error)

    def _note_topics(self, topics: Sequence[TopicDescription]) -> LogsvcError | None:
        """Take in what the broker says of topics; returns the last error among them."""
        error = None
        with self.lock:
            for topic in topics:
                if topic.error_code:
                    error = from_wire(topic.error_code, topic.error_message)
                    self._topics.discard(topic.topic)
                    self.accumulator.forget_topic(topic.topic)
                elif not self.closed:
                    limit = int(topic.config.get("max.message.bytes", self._batch_bytes))
                    self._topics.add(topic.topic)
                    self.accumulator.set_topic(topic.topic, topic.partition_count, limit)
        return error

    def flush(self, waiter: Callable[[], None]) -> None:
        """Send all that is open; call `waiter` once everything sent before this call is done."""
        with self.lock:
            batches = self.accumulator.unfinished()
            left = len(batches)

            def one_done() -> None:
                nonlocal left  # Only the I/O thread gets here: waiters of batches run there, one after another.
                left -= 1
                if left == 0:
                    waiter()

            for batch in batches:
                batch.waiters.append(one_done)
                self.accumulator.expedite(batch)
        if not batches:
            waiter()
        self.transport.wake()

    # What the I/O thread calls

    def step(self, now_ms: int) -> int:
        with self.lock:
            ended = self.accumulator.expire(now_ms)
            ready = self.transport.ready
            throttled = now_ms < self._throttled_until_ms
            requests = self.accumulator.drain(now_ms) if ready and not throttled else []
            needs_epoch = ready and self.accumulator.needs_epoch
        self._ended(ended)
        for request in requests:
            self._fly(request)
        due_ms = min(now_ms + IDLE_MS, self._refresh(now_ms))
        if needs_epoch and not self._asking_id:
            if now_ms >= self._ask_id_at_ms:
                self._ask_producer_id(now_ms)
            else:
                due_ms = min(due_ms, self._ask_id_at_ms)
        with self.lock:
            if throttled:
                return min(due_ms, self._throttled_until_ms, self.accumulator.expiry_ms)
            return min(due_ms, self.accumulator.next_due_ms(now_ms) if ready else self.accumulator.expiry_ms)

    def stopped(self, error: LogsvcError) -> None:
        with self.lock:
            self.closed = True
            for topic in self._topics:
                self.accumulator.forget_topic(topic)
            ended = self.accumulator.fail_all(error)
        self._ended(ended)
        self._wake_room_waiters()

    def _fly(self, request: list[ProducerBatch]) -> None:
        producer_id, epoch = self.accumulator.producer_id, self.accumulator.producer_epoch
        body = Produce([ProducePartition(batch.queue.topic, batch.queue.partition) for batch in request])
        payload = [batch.encoded(producer_id, epoch) for batch in request]
        self.transport.send(body, payload, partial(self._answered, request))

    def _answered(self, request: list[ProducerBatch], answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        if isinstance(answer, ProduceReply) and len(answer.results) != len(request):
            answer = InvalidRequest(f"{len(answer.results)} results for {len(request)} batches")
        now_ms = self.transport.now_ms()
        if isinstance(answer, ProduceReply) and answer.throttle_ms:
            self._throttled_until_ms = max(self._throttled_until_ms, throttled_until_ms(answer.throttle_ms, now_ms))
        ended = []
        with self.lock:
            for index, batch in enumerate(request):
                if isinstance(answer, Disconnected):
                    self.accumulator.lost(batch)
                    continue
                error: LogsvcError | None
                if isinstance(answer, ProduceReply):
                    result = answer.results[index]
                    if not result.error_code:
                        if self.accumulator.acked(batch, result.base_offset):
                            ended.append(batch)
                        continue
                    error = from_wire(result.error_code, result.error_message)
                else:
                    error = answer if isinstance(answer, LogsvcError) else InvalidRequest(f"answered with {answer!r}")
                if isinstance(error, UnknownTopic):
                    self.accumulator.forget_topic(batch.queue.topic)
                    self._topics.discard(batch.queue.topic)
                if self.accumulator.refused(batch, error, now_ms):
                    ended.append(batch)
        self._ended(ended)

    def _ended(self, batches: list[ProducerBatch]) -> None:
        """Tell whoever waits for these batches, or for memory."""
        if not batches:
            return
        for batch in batches:
            if batch.error is not None:
                where = f"{batch.queue.topic}-{batch.queue.partition}"
                log.warning("%d records for %s failed: %s", batch.count, where, batch.error)
            with self.lock:  # From here on `wait_done` sees the batch done and adds no waiter.
                waiters, batch.waiters = batch.waiters, []
                callbacks, batch.callbacks = batch.callbacks, []
            for waiter in waiters:
                waiter()
            for index, timestamp_ms, on_delivery in callbacks:
                try:
                    on_delivery(metadata_of(batch, index, timestamp_ms) if batch.error is None else None, batch.error)
                except Exception:
                    log.exception("an on_delivery callback failed")
        self._wake_room_waiters()

    def _wake_room_waiters(self) -> None:
        with self.lock:
            waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            waiter()

    def _refresh(self, now_ms: int) -> int:
        if now_ms >= self._refresh_at_ms:
            self._refresh_at_ms = now_ms + METADATA_MAX_AGE_MS
            if self._topics and self.transport.ready:
                self.transport.send(Metadata(sorted(self._topics)), (), self._refreshed)
        return self._refresh_at_ms

    def _refreshed(self, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        if isinstance(answer, MetadataReply):
            self._note_topics(answer.topics)
        else:
            self._refresh_at_ms = self.transport.now_ms() + METADATA_RETRY_MS

    def _ask_producer_id(self, now_ms: int) -> None:
        self._asking_id = True
        self._ask_id_at_ms = now_ms + PRODUCER_ID_RETRY_MS
        request = InitProducerId(self.accumulator.producer_id, self.accumulator.producer_epoch)
        self.transport.send(request, (), self._got_producer_id)

    def _got_producer_id(self, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        self._asking_id = False
        if isinstance(answer, InitProducerIdReply):
            with self.lock:
                self.accumulator.new_producer(answer.producer_id, answer.producer_epoch)
        elif isinstance(answer, InvalidProducerEpoch):
            # The next epoch was given out and its reply lost: a fresh id is as good.
            with self.lock:
                self.accumulator.producer_id = self.accumulator.producer_epoch = -1
        elif isinstance(answer, LogsvcError) and not answer.retriable:
            log.warning("no producer id: %s; trying again", answer)


def metadata_of(batch: ProducerBatch, index: int, timestamp_ms: int) -> RecordMetadata:
    """Where one record of an acknowledged batch is."""
    return RecordMetadata(batch.queue.topic, batch.queue.partition, batch.base_offset + index, timestamp_ms)


def _nothing() -> None:
    pass
