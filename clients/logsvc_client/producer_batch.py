"""What the accumulator is made of: a batch on its way, the queue of a partition, the partitions of a topic.

The hot path takes no lock. A partition's open batch lies in its `slot`, a list of at most one, and whoever wants to append
to it or seal it pops it first: `list.pop` is atomic, so it has one owner at a time. An empty slot means "go the slow way":
there is no open batch, or another thread has it for a microsecond.
"""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from logsvc_client.records import RecordMetadata
from logsvc_common.batch import Builder, Header, restamp_producer
from logsvc_common.errors import LogsvcError

RECORD_OVERHEAD_BYTES = 128  # more than the header of a batch and of one record need

OnDelivery = Callable[[RecordMetadata | None, LogsvcError | None], None]


class BatchSettings(NamedTuple):
    """What a producer was told about its batches; see `Producer`. `codec` is a number of `logsvc_common.batch.CODECS`."""

    linger_ms: int
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout_ms: int
    max_in_flight: int
    idempotent: bool
    codec: int


class Wait(Enum):
    """Why a record cannot be added now."""

    TOPIC = "the topic's partitions are not known"
    ROOM = "the memory is full"
    BUSY = "another thread has the batch at this moment"


class ProducerBatch:
    """One batch and what becomes of it. Everything but the result is dropped when it is done."""

    __slots__ = (
        "append",
        "base_offset",
        "builder",
        "callbacks",
        "count",
        "data",
        "deliver_by_ms",
        "done",
        "doubtful",
        "due_ms",
        "error",
        "order",
        "queue",
        "refusal",
        "reserved_bytes",
        "restarts",
        "sequence",
        "stamp",
        "tries",
        "waiters",
    )

    def __init__(self, queue: "PartitionQueue", made: Builder, reserved_bytes: int, due_ms: int, deliver_by_ms: int) -> None:
        self.queue = queue
        self.builder: Builder | None = made
        self.append = made.append  # bound once: the hot path saves a lookup for every record
        self.count = 0
        self.data: bytearray | None = None
        self.reserved_bytes = reserved_bytes
        self.due_ms = due_ms
        self.deliver_by_ms = deliver_by_ms
        self.order = -1  # of sealed ones, within the partition
        self.sequence = -1
        self.stamp = (-1, -1, -1)
        self.tries = 0
        self.refusal: LogsvcError | None = None  # the broker's last
        self.restarts = 0
        self.doubtful = False  # it was sent and nobody knows whether it was appended
        self.done = False
        self.base_offset = -1
        self.error: LogsvcError | None = None
        self.callbacks: list[tuple[int, int, OnDelivery]] = []
        self.waiters: list[Callable[[], None]] = []

    def encoded(self, producer_id: int, producer_epoch: int) -> bytearray:
        """The bytes of the batch: built once, and only renumbered after a restart of the sequences."""
        stamp = (producer_id, producer_epoch, self.sequence)
        if self.data is None:
            assert self.builder is not None
            self.builder.set_producer_state(*stamp)
            self.data = self.builder.build()
            self.builder = None
            self.append = closed_batch
        elif self.stamp != stamp:
            restamp_producer(self.data, *stamp)
        self.stamp = stamp
        return self.data


def closed_batch(offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: list[Header]) -> None:
    """What a sealed batch answers to a record: full."""


def append_record(batch: ProducerBatch, record: "NewRecord") -> bool:
    """Add a record to a batch one owns; False when it is full."""
    index = batch.count
    if batch.append(index, record.timestamp_ms, record.key, record.value, record.headers) is None:
        return False
    batch.count = index + 1
    if record.on_delivery is not None:
        batch.callbacks.append((index, record.timestamp_ms, record.on_delivery))
    return True


class PartitionQueue:
    """The batches of one partition."""

    __slots__ = (
        "confirmed",
        "flying",
        "next_order",
        "next_sequence",
        "open",
        "partition",
        "retry_at_ms",
        "sealed",
        "slot",
        "topic",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.open: ProducerBatch | None = None
        self.slot: list[ProducerBatch] = []  # holds `open` while nobody works on it
        self.sealed: deque[ProducerBatch] = deque()
        self.flying: list[ProducerBatch] = []
        self.next_order = 0
        self.next_sequence = 0
        self.confirmed = False  # the broker knows this producer here, in this epoch
        self.retry_at_ms = 0

    def claim(self) -> ProducerBatch | None:
        """Take the open batch out of its slot; None when another thread has it."""
        try:
            return self.slot.pop()
        except IndexError:
            return None

    def seal(self) -> int | None:
        """Close the open batch. Returns the bytes it had reserved and does not need; None when another thread has it."""
        batch = self.claim()
        if batch is None:
            return None
        assert batch.builder is not None
        self.open = None
        batch.order = self.next_order
        self.next_order += 1
        self.sealed.append(batch)
        spare_bytes = batch.reserved_bytes - batch.builder.size()
        batch.reserved_bytes -= spare_bytes
        return spare_bytes

    def batches(self) -> Iterable[ProducerBatch]:
        """All that are not done, oldest first."""
        yield from self.flying
        yield from self.sealed
        if self.open is not None:
            yield self.open


class TopicQueues:
    """A topic's partitions, the one that records without a key stick to, and the largest batch it takes."""

    __slots__ = ("batch_bytes_max", "queues", "sticky")

    def __init__(self, queues: list[PartitionQueue], batch_bytes_max: int, sticky: PartitionQueue) -> None:
        self.queues = queues
        self.batch_bytes_max = batch_bytes_max
        self.sticky = sticky


class NewRecord(NamedTuple):
    """A record on its way into a batch."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: list[Header]
    partition: int | None
    timestamp_ms: int
    on_delivery: OnDelivery | None

    @property
    def size_bytes(self) -> int:
        """An upper bound of what it takes in a batch of its own."""
        headers_bytes = sum(16 + 4 * len(name) + len(text or b"") for name, text in self.headers)
        return RECORD_OVERHEAD_BYTES + len(self.value or b"") + len(self.key or b"") + headers_bytes
