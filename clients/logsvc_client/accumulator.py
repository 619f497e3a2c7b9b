"""The producer's batches, from the first record to the acknowledgement, as a pure machine.

A partition has at most one open batch, that `append` fills; a queue of sealed ones; and up to `max_in_flight` flying.

    open --full, linger over, expedited--> sealed --drain--> flying --reply--> done
                                             ^                  |
                                             +-- retriable -----+

Order. Batches of a partition leave in the order they were sealed, and a batch that comes back goes in front of those
behind it. With an idempotent producer (KIP-98) each carries a sequence, assigned when it first leaves; the broker refuses
one that does not follow (OutOfOrderSequence), so a batch that overtakes a lost one is refused and sent again behind it,
and one that arrives twice is appended once. The broker remembers five batches, and answers may overtake each other: so the
newest that flies is less than `max_in_flight` behind the oldest. It takes any first sequence of a producer it does not know:
so until a batch of the partition is acknowledged only one flies.

Restart of sequences (KIP-360). A batch that took a sequence and is given up (delivery timeout, a refusal for good) leaves
a gap that nothing may follow. Then the producer needs its next epoch: it stops sending, except the batches whose fate is
in doubt (sent, connection lost), because only under their old sequence can the broker tell whether it has them. When
nothing is flying and nothing in doubt, `needs_epoch` turns true; `new_producer` numbers what is left from 0.

Memory. An open batch reserves the bytes it may grow to, a sealed one what it holds; the sum stays below `buffer_bytes`.
Where many partitions are written, batches get smaller so that half the memory holds one open batch each.

Appending to an open batch takes no lock (see `producer_batch`); everything else needs the caller's. Times are monotonic
milliseconds, given by the caller.
"""

from collections import deque
from collections.abc import Callable

from logsvc_client.partitioner import next_sticky, partition_for
from logsvc_client.producer_batch import (
    BatchSettings,
    NewRecord,
    PartitionQueue,
    ProducerBatch,
    TopicQueues,
    Wait,
    append_record,
    closed_batch,
)
from logsvc_common.batch import builder
from logsvc_common.errors import (
    DeliveryTimeout,
    LogsvcError,
    OutOfOrderSequence,
    RecordTooLarge,
    UnknownPartition,
)

RECORD_BYTES_MAX = 64 << 20  # the largest `max.message.bytes` a topic may have
BATCH_BYTES_MIN = 16_384  # how small a batch's limit may become when many partitions share the memory
REQUEST_BYTES_MAX = 1 << 20  # a request takes batches of several partitions up to this
REQUEST_BATCHES_MAX = 256
BUSY_RETRY_MS = 1
RETRY_BACKOFF_MIN_MS = 20
RETRY_BACKOFF_MAX_MS = 1_000
RESTARTS_MAX = 3  # times a batch may be numbered anew before its refusal is final
NEVER_MS = 1 << 62


class Accumulator:
    """The batches of one producer. `choose` gives random numbers of 31 bits, for the sticky placement."""

    def __init__(self, settings: BatchSettings, choose: Callable[[], int]) -> None:
        self._settings = settings
        self._choose = choose
        self._topics: dict[str, TopicQueues] = {}
        self.sticky_slots: dict[str, list[ProducerBatch]] = {}  # by topic: where a record without a key goes
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._lingering: deque[ProducerBatch] = deque()
        self._to_send: dict[PartitionQueue, None] = {}  # an ordered set: queues with something to send, now or soon
        self.expiry_ms = NEVER_MS  # no batch expires earlier
        self._busy = False  # a batch to be sealed was in a user's hands: look again soon
        self._pressed = False  # somebody waits for memory: no batch lingers
        self.free_bytes = settings.buffer_bytes
        self.producer_id = -1
        self.producer_epoch = -1
        self._restart_wanted = False

    # What the user's threads call

    def slot(self, topic: str, key: bytes | None, partition: int | None) -> list[ProducerBatch]:
        """Where the open batch for such a record lies. Raises KeyError for a topic not known, or UnknownPartition.

        Needs no lock. Whoever pops the batch puts it back, or seals it; records without key and partition find their slot
        in `sticky_slots` without this call.
        """
        return self._queue(self._topics[topic], topic, key, partition).slot

    def _queue(self, topic: TopicQueues, name: str, key: bytes | None, partition: int | None) -> PartitionQueue:
        if partition is None:
            return topic.sticky if key is None else topic.queues[partition_for(key, len(topic.queues))]
        if not 0 <= partition < len(topic.queues):
            raise UnknownPartition(f"topic {name!r} has partitions 0 to {len(topic.queues) - 1}, not {partition}")
        return topic.queues[partition]

    def add(self, record: NewRecord, now_ms: int) -> ProducerBatch | Wait:
        """Add a record the slow way: to the open batch if it has room after all, else seal that and open another.

        The record is the last one of the batch returned, until somebody else appends. Raises UnknownPartition, or
        RecordTooLarge for a record that fits no request or not the producer's memory.
        """
        topic = self._topics.get(record.topic)
        if topic is None:
            return Wait.TOPIC
        sticky = record.partition is None and record.key is None
        queue = self._queue(topic, record.topic, record.key, record.partition)
        for _ in range(2):
            if queue.open is not None:
                if (batch := queue.claim()) is None:
                    return Wait.BUSY
                try:
                    fits = append_record(batch, record)
                finally:
                    queue.slot.append(batch)
                if fits:
                    return batch
                self._seal_open(queue)
            if not sticky:
                break
            # A new batch is due: records without a key move on to another partition, which may have an open one.
            sticky = False
            at = next_sticky(queue.partition, len(topic.queues), self._choose())
            queue = topic.sticky = topic.queues[at]
            self.sticky_slots[record.topic] = queue.slot
        return self._open(topic, queue, record, now_ms)

    def _open(self, topic: TopicQueues, queue: PartitionQueue, record: NewRecord, now_ms: int) -> ProducerBatch | Wait:
        record_bytes = record.size_bytes
        record_bytes_max = min(RECORD_BYTES_MAX, self._settings.buffer_bytes)
        if record_bytes > record_bytes_max:
            raise RecordTooLarge(f"a record of {record_bytes} bytes; this producer sends at most {record_bytes_max}")
        share = max(BATCH_BYTES_MIN, self._settings.buffer_bytes // (2 * len(self._queues)))
        limit = min(self._settings.batch_bytes, topic.batch_bytes_max, share)
        reserved_bytes = max(limit, record_bytes)
        if reserved_bytes > self.free_bytes:
            self._pressed = True
            return Wait.ROOM
        due_ms, deliver_by_ms = now_ms + self._settings.linger_ms, now_ms + self._settings.delivery_timeout_ms
        batch = ProducerBatch(queue, builder(self._settings.codec, limit), reserved_bytes, due_ms, deliver_by_ms)
        append_record(batch, record)  # The first record always fits; a wrong type raises here, and nothing has happened.
        self.free_bytes -= reserved_bytes
        queue.open = batch
        queue.slot.append(batch)
        self._lingering.append(batch)
        self.expiry_ms = min(self.expiry_ms, deliver_by_ms)
        return batch

    def expedite(self, batch: ProducerBatch) -> None:
        """Somebody waits for this batch: it lingers no more."""
        if not batch.done and batch.order < 0:
            batch.due_ms = 0
            self._to_send[batch.queue] = None

    def unfinished(self) -> list[ProducerBatch]:
        """Every batch that is not done."""
        return [batch for queue in self._queues.values() for batch in queue.batches() if not batch.done]

    # Topics

    def knows(self, topic: str) -> bool:
        """True when the partitions of the topic are known."""
        return topic in self._topics

    def set_topic(self, topic: str, partition_count: int, batch_bytes_max: int) -> None:
        """Learn or refresh a topic: its partitions, and the largest batch it takes."""
        queues = []
        for partition in range(partition_count):
            queue = self._queues.get((topic, partition))
            if queue is None:
                queue = self._queues[topic, partition] = PartitionQueue(topic, partition)
            queues.append(queue)
        known = self._topics.get(topic)
        sticky = known.sticky if known is not None and known.sticky in queues else queues[self._choose() % partition_count]
        self._topics[topic] = TopicQueues(queues, batch_bytes_max, sticky)
        self.sticky_slots[topic] = sticky.slot

    def forget_topic(self, topic: str) -> None:
        """The next record for it needs `set_topic` first."""
        self._topics.pop(topic, None)
        self.sticky_slots.pop(topic, None)

    # What the I/O thread calls

    def drain(self, now_ms: int) -> list[list[ProducerBatch]]:
        """The requests to send now: each a list of batches of different partitions. They are flying from now on."""
        self._busy = False
        self._end_lingering(now_ms)
        requests: list[list[ProducerBatch]] = []
        while True:
            request: list[ProducerBatch] = []
            size_bytes = 0
            for queue in list(self._to_send):
                batch = self._next(queue, now_ms)
                if batch is None:
                    continue
                if request and (size_bytes + batch.reserved_bytes > REQUEST_BYTES_MAX or len(request) >= REQUEST_BATCHES_MAX):
                    requests.append(request)
                    request, size_bytes = [], 0
                request.append(batch)
                size_bytes += batch.reserved_bytes
            if not request:
                return requests
            requests.append(request)

    def _end_lingering(self, now_ms: int) -> None:
        lingering = self._lingering
        while lingering and (self._pressed or lingering[0].due_ms <= now_ms or lingering[0].order >= 0):
            batch = lingering.popleft()
            if batch.order < 0 and not batch.done:
                if self._pressed:
                    batch.due_ms = 0
                self._to_send[batch.queue] = None
        self._pressed = False

    def _next(self, queue: PartitionQueue, now_ms: int) -> ProducerBatch | None:
        """The batch of a partition to send now. A queue that can only go on after a reply comes back with the reply."""
        unsealed = queue.open if not queue.sealed else None
        if not queue.sealed and (unsealed is None or unsealed.due_ms > now_ms):
            del self._to_send[queue]
            return None
        window = self._settings.max_in_flight if queue.confirmed or not self._settings.idempotent else 1
        order = queue.sealed[0].order if queue.sealed else queue.next_order
        # As in Nagle's algorithm: a batch that is not full goes on filling while another flies, unless somebody waits for it.
        fills = unsealed is not None and unsealed.due_ms > 0
        if queue.flying and (fills or order - min(batch.order for batch in queue.flying) >= window):
            del self._to_send[queue]
            return None
        if queue.retry_at_ms > now_ms:
            return None
        if self._settings.idempotent and (self.producer_id < 0 or self._restart_wanted):
            return self._next_doubtful(queue)
        if not queue.sealed and not self._seal_open(queue):
            self._busy = True
            return None
        batch = queue.sealed.popleft()
        if self._settings.idempotent and batch.sequence < 0:
            batch.sequence = queue.next_sequence
            queue.next_sequence = (queue.next_sequence + batch.count) & 0x7FFFFFFF
        return self._take_off(queue, batch)

    def _next_doubtful(self, queue: PartitionQueue) -> ProducerBatch | None:
        for batch in queue.sealed:
            if batch.doubtful:
                queue.sealed.remove(batch)
                return self._take_off(queue, batch)
        return None

    @staticmethod
    def _take_off(queue: PartitionQueue, batch: ProducerBatch) -> ProducerBatch:
        batch.tries += 1
        queue.flying.append(batch)
        return batch

    def _land(self, batch: ProducerBatch) -> None:
        batch.queue.flying.remove(batch)
        self._to_send[batch.queue] = None

    def _seal_open(self, queue: PartitionQueue) -> bool:
        """Close the open batch; False when another thread has it at this moment."""
        spare_bytes = queue.seal()
        if spare_bytes is None:
            return False
        self.free_bytes += spare_bytes
        self._to_send[queue] = None
        return True

    def acked(self, batch: ProducerBatch, base_offset: int) -> bool:
        """The broker has the batch. Returns True when that ended it, False when it had been given up before."""
        self._land(batch)
        batch.queue.retry_at_ms = 0
        batch.queue.confirmed = True
        return self._finish(batch, base_offset, None)

    def refused(self, batch: ProducerBatch, error: LogsvcError, now_ms: int) -> bool:
        """The broker's answer was an error. Returns True when the batch ended in it, False when it is sent again."""
        queue = batch.queue
        self._land(batch)
        if batch.done:
            return False
        batch.refusal = error
        waited_ms = now_ms - batch.deliver_by_ms + self._settings.delivery_timeout_ms
        if error.worth_retrying(waited_ms):
            queue.retry_at_ms = now_ms + min(RETRY_BACKOFF_MAX_MS, RETRY_BACKOFF_MIN_MS << min(batch.tries - 1, 16))
            self._return(batch)
            return False
        if isinstance(error, OutOfOrderSequence) and self._settings.idempotent:
            # Refused for its sequence means it is not in the log, whatever became of earlier tries.
            batch.doubtful = False
            first = all(other.done or other.order > batch.order for other in queue.batches() if other.order >= 0)
            if first and not self._restart_wanted:
                # Nothing before it is left to send: the broker lost the sequence, and only a new epoch starts another.
                batch.restarts += 1
                self._restart_wanted = True
            if batch.restarts <= RESTARTS_MAX:
                self._return(batch)
                return False
        self._give_up(batch, error)
        return True

    def lost(self, batch: ProducerBatch) -> None:
        """The connection broke while the batch was flying: it may be in the log."""
        self._land(batch)
        if not batch.done:
            batch.doubtful = True
            self._return(batch)

    def _return(self, batch: ProducerBatch) -> None:
        queue = batch.queue
        queue.sealed = deque(sorted([batch, *queue.sealed], key=lambda each: each.order))
        self._to_send[queue] = None

    def expire(self, now_ms: int) -> list[ProducerBatch]:
        """The batches whose delivery timeout has passed; they end here."""
        if now_ms < self.expiry_ms:
            return []
        expired = []
        self.expiry_ms = now_ms + self._settings.delivery_timeout_ms
        for batch in self.unfinished():
            if batch.deliver_by_ms > now_ms:
                self.expiry_ms = min(self.expiry_ms, batch.deliver_by_ms)
                continue
            if batch.order < 0 and batch.queue.claim() is None:
                self.expiry_ms = now_ms + BUSY_RETRY_MS
                continue
            tried = f"sent {batch.tries} times, not acknowledged" if batch.tries else "never sent"
            why = f"{batch.count} records for {batch.queue.topic}-{batch.queue.partition} {tried}"
            last = f"; last error: {batch.refusal}" if batch.refusal is not None else ""
            self._give_up(batch, DeliveryTimeout(f"{why} within {self._settings.delivery_timeout_ms} ms{last}"))
            expired.append(batch)
        return expired

    def fail_all(self, error: LogsvcError) -> list[ProducerBatch]:
        """End everything; returns what was ended."""
        for batch in (batches := self.unfinished()):
            if batch.order < 0:
                batch.queue.claim()
            self._give_up(batch, error)
        return batches

    def _give_up(self, batch: ProducerBatch, error: LogsvcError) -> None:
        queue = batch.queue
        if queue.open is batch:
            queue.open = None
        elif batch in queue.sealed:
            queue.sealed.remove(batch)
        if batch.sequence >= 0:
            self._restart_wanted = True
        self._finish(batch, -1, error)

    def _finish(self, batch: ProducerBatch, base_offset: int, error: LogsvcError | None) -> bool:
        if batch.done:
            return False
        batch.base_offset = base_offset
        batch.error = error
        batch.done = True
        batch.builder = batch.data = None
        batch.append = closed_batch
        self.free_bytes += batch.reserved_bytes
        batch.reserved_bytes = 0
        return True

    # Sequences

    @property
    def needs_epoch(self) -> bool:
        """True when a producer id, or its next epoch, must be had before anything new is sent."""
        if not self._settings.idempotent:
            return False
        if self.producer_id < 0:
            return bool(self._to_send)
        return self._restart_wanted and not any(
            queue.flying or any(batch.doubtful for batch in queue.sealed) for queue in self._queues.values()
        )

    def new_producer(self, producer_id: int, producer_epoch: int) -> None:
        """Sequences start at 0 again, under this id and epoch."""
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self._restart_wanted = False
        for queue in self._queues.values():
            queue.next_sequence = 0
            queue.confirmed = False
            for batch in queue.sealed:
                batch.sequence = -1

    def next_due_ms(self, now_ms: int) -> int:
        """When `drain` or `expire` will have something to do, if nothing else happens."""
        due_ms = now_ms + BUSY_RETRY_MS if self._busy else self.expiry_ms
        if self._lingering:
            due_ms = min(due_ms, self._lingering[0].due_ms)
        for queue in self._to_send:
            if queue.retry_at_ms > now_ms:
                due_ms = min(due_ms, queue.retry_at_ms)
        return due_ms
