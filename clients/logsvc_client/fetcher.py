"""What a consumer reads next, and what it has read ahead, as a pure machine.

Each assigned partition has a position (the next offset to hand out), a fetch offset (the next to ask for) and, between the
two, chunks: whole batches as they arrived, not decoded yet, and the rest of the chunk decoded last.

    broker --Fetch--> chunks --take--> decoded records --hand out--> user
           fetch_offset ^                     ^ position

A Fetch names every partition that has room and is in no other Fetch; several are out at once, on disjoint sets. So a long
poll that waits for an idle partition never holds up one whose buffer has just been emptied. Memory is bounded: nothing
more is asked for while what is buffered and what may still arrive reach `buffer_bytes`.

A partition's `version` changes whenever its position is moved or it is taken away: answers to older requests are dropped.
Times are monotonic milliseconds, given by the caller, who also holds the lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from logsvc_client.quotas import throttled_until_ms
from logsvc_client.records import Record, TopicPartition
from logsvc_common.batch import BatchHeader, Buffer, split
from logsvc_common.errors import (
    CorruptBatch,
    LogsvcError,
    NoOffset,
    OffsetOutOfRange,
    UnknownTopic,
    from_wire,
)
from logsvc_common.messages import EARLIEST, LATEST, Fetch, FetchPartition, FetchReply, FetchResult

FETCHES_IN_FLIGHT_MAX = 16
FETCH_PARTITIONS_MAX = 1_000
RETRY_BACKOFF_MS = 100
MISSING_RETRY_MS = 1_000  # a topic that is gone may come back, or the group takes it away
COMMITTED = -3  # where to begin: at the group's committed offset

RESETS = {"earliest": EARLIEST, "latest": LATEST}


class Chunk(NamedTuple):
    """One whole batch that was fetched."""

    header: BatchHeader
    data: memoryview


class PartitionFetch:
    """Reading one partition."""

    __slots__ = (
        "_touched",
        "buffered_bytes",
        "chunks",
        "decoded",
        "decoded_at",
        "error",
        "fetch_offset",
        "held",
        "high_watermark",
        "in_flight",
        "isolated",
        "locating",
        "paused",
        "position",
        "retry_at_ms",
        "start",
        "tp",
        "version",
    )

    def __init__(self, tp: TopicPartition, start: int, touched: "Callable[[PartitionFetch], None]") -> None:
        self.tp = tp
        self._touched = touched  # told of whatever may make the partition wait for the fetcher
        self.start: int | None = start  # COMMITTED, EARLIEST or LATEST while the position is to be found out
        self.locating = False
        self.position = -1
        self.fetch_offset = -1
        self.chunks: deque[Chunk] = deque()
        self.decoded: list[Record] = []
        self.decoded_at = 0
        self.buffered_bytes = 0
        self.in_flight = False
        self.paused = False
        self.held = False  # failures are at their cap, or the partition waits behind one
        self.isolated = False  # its records are handed out one at a time, by `isolation`
        self.retry_at_ms = 0
        self.error: LogsvcError | None = None
        self.high_watermark = -1
        self.version = 0

    def move(self, offset: int) -> None:
        """Read on from `offset`; what was read ahead is dropped."""
        self._drop()
        self.start = None
        self.position = self.fetch_offset = offset
        self._touched(self)

    def locate(self, start: int) -> None:
        """Find out the position anew."""
        self._drop()
        self.start = start
        self.position = self.fetch_offset = -1
        self._touched(self)

    def _drop(self) -> None:
        self.version += 1
        self.chunks.clear()
        self.decoded = []
        self.decoded_at = 0
        self.buffered_bytes = 0
        self.in_flight = self.locating = False
        self.error = None
        self.retry_at_ms = 0

    def set_paused(self, paused: bool) -> None:
        """By the user: nothing is handed out or read ahead."""
        self.paused = paused
        self._touched(self)

    def set_held(self, held: bool) -> None:
        """By the group, in the same way."""
        self.held = held
        self._touched(self)

    def pop_chunk(self) -> Chunk:
        """The next chunk, to be decoded."""
        chunk = self.chunks.popleft()
        self.buffered_bytes -= chunk.header.size
        self._touched(self)
        return chunk

    def pass_decoded(self) -> None:
        """The next decoded record has been handed out, or is not to be."""
        self.position = self.decoded[self.decoded_at].offset + 1
        self.decoded_at += 1
        if self.decoded_at == len(self.decoded):
            self.decoded, self.decoded_at = [], 0

    @property
    def readable(self) -> bool:
        """True when records can be handed out now."""
        return not self.paused and not self.held and (self.decoded_at < len(self.decoded) or bool(self.chunks))


class SentFetch(NamedTuple):
    """A Fetch under way: what was asked of which version of each partition."""

    body: Fetch
    partitions: list[tuple[PartitionFetch, int]]


class Fetcher:
    """The partitions of one consumer. `reset` is `earliest`, `latest` or `error`."""

    def __init__(
        self,
        *,
        reset: str,
        max_wait_ms: int,
        min_bytes: int,
        fetch_bytes_max: int,
        partition_bytes_max: int,
        buffer_bytes: int,
        missing_is_error: bool,
    ) -> None:
        self.partitions: dict[TopicPartition, PartitionFetch] = {}
        self.isolated: dict[PartitionFetch, None] = {}
        self._reset = reset
        self._max_wait_ms = max_wait_ms
        self._min_bytes = min_bytes
        self._fetch_bytes_max = fetch_bytes_max
        self._partition_bytes_max = partition_bytes_max
        self._buffer_bytes = buffer_bytes
        self._missing_is_error = missing_is_error
        # Only partitions that something has happened to are looked at: there may be thousands.
        self._touched: dict[PartitionFetch, None] = {}
        self._unlocated: dict[PartitionFetch, None] = {}
        self._readable: dict[PartitionFetch, None] = {}
        self._fetches = 0
        self._expected_bytes = 0  # what the answers under way may bring at most
        self._throttled_until_ms = 0  # the broker wants no fetch before
        self.gone: list[PartitionFetch] = []  # those whose topic was deleted

    # Assignment

    def add(self, tp: TopicPartition, start: int) -> PartitionFetch:
        """Begin with a partition at an offset, or at COMMITTED, EARLIEST or LATEST."""
        partition = self.partitions[tp] = PartitionFetch(tp, start, self._touch)
        if start >= 0:
            partition.move(start)
        else:
            partition.locate(start)
        return partition

    def _touch(self, partition: PartitionFetch) -> None:
        self._touched[partition] = None
        if partition.start is not None:
            self._unlocated[partition] = None
        if partition.chunks:
            self._readable[partition] = None

    def set_isolated(self, partition: PartitionFetch, isolated: bool) -> None:
        """By the group: records of this partition are read ahead as ever, but `next_readable` gives it only to be decoded."""
        partition.isolated = isolated
        if isolated:
            self.isolated[partition] = None
        else:
            self.isolated.pop(partition, None)

    def start_anywhere(self) -> int:
        """Where to begin where nothing else is said. Raises NoOffset when that is an error."""
        if self._reset == "error":
            raise NoOffset("auto_offset_reset is `error`, and there is no committed offset to begin at: seek first")
        return RESETS[self._reset]

    def remove(self, tp: TopicPartition) -> None:
        """Stop with a partition."""
        partition = self.partitions.pop(tp, None)
        if partition is not None:
            self.isolated.pop(partition, None)
            partition.locate(COMMITTED)  # Whatever is still under way for it finds another version.

    def unlocated(self, *starts: int) -> list[PartitionFetch]:
        """The partitions whose position must be asked for and is not being asked for."""
        for partition in list(self._unlocated):
            if partition.start is None or self.partitions.get(partition.tp) is not partition:
                del self._unlocated[partition]
        return [p for p in self._unlocated if p.start in starts and not p.locating and p.error is None]

    def located(self, partition: PartitionFetch, version: int, offset: int) -> None:
        """The position has been found out: begin there."""
        if partition.version == version:
            partition.move(offset)

    def not_located(self, partition: PartitionFetch, version: int, error: LogsvcError, now_ms: int) -> None:
        """Finding out the position failed."""
        if partition.version == version:
            partition.locating = False
            self._failed(partition, error, now_ms)

    def no_committed(self, partition: PartitionFetch, version: int) -> None:
        """The group has no offset here: `reset` decides."""
        if partition.version != version:
            return
        try:
            partition.locate(self.start_anywhere())
        except NoOffset as error:
            partition.locating = False
            partition.error = NoOffset(f"{_name(partition.tp)}: {error}")

    # Fetching

    def plan(self, now_ms: int) -> list[SentFetch]:
        """The Fetch requests to send now."""
        sent: list[SentFetch] = []
        if now_ms < self._throttled_until_ms:
            return sent
        hungry = []
        for partition in list(self._touched):
            if self._hungry(partition, now_ms):
                hungry.append(partition)
            elif partition.retry_at_ms <= now_ms:
                del self._touched[partition]
        while hungry and self._fetches < FETCHES_IN_FLIGHT_MAX:
            buffered_bytes = sum(p.buffered_bytes for p in self.partitions.values())
            room_bytes = self._buffer_bytes - buffered_bytes - self._expected_bytes
            if room_bytes <= 0:
                break
            chosen, hungry = hungry[:FETCH_PARTITIONS_MAX], hungry[FETCH_PARTITIONS_MAX:]
            max_bytes = min(self._fetch_bytes_max, room_bytes, len(chosen) * self._partition_bytes_max)
            wanted = [FetchPartition(*p.tp, p.fetch_offset, self._partition_bytes_max) for p in chosen]
            for partition in chosen:
                partition.in_flight = True
                del self._touched[partition]
            self._fetches += 1
            self._expected_bytes += max_bytes
            body = Fetch(wanted, self._max_wait_ms, self._min_bytes, max_bytes)
            sent.append(SentFetch(body, [(p, p.version) for p in chosen]))
        return sent

    def _hungry(self, partition: PartitionFetch, now_ms: int) -> bool:
        return (
            partition.start is None
            and not partition.in_flight
            and partition.error is None
            and partition.buffered_bytes < self._partition_bytes_max
            and not partition.paused
            and not partition.held
            and partition.retry_at_ms <= now_ms
        )

    def wants(self, partition: PartitionFetch) -> bool:
        """True when a Fetch for this partition could go out now."""
        return self._hungry(partition, partition.retry_at_ms)

    def received(self, sent: SentFetch, reply: FetchReply, payload: Sequence[Buffer], now_ms: int) -> bool:
        """An answer arrived. Returns True when it brought records or an error the user should see."""
        self._over(sent)
        if reply.throttle_ms:
            self._throttled_until_ms = max(self._throttled_until_ms, throttled_until_ms(reply.throttle_ms, now_ms))
        asked = {partition.tp: (partition, version) for partition, version in sent.partitions}
        news = False
        for result, data in zip(reply.results, payload, strict=False):
            partition, version = asked.get(TopicPartition(result.topic, result.partition), (None, -1))
            if partition is not None and partition.version == version:
                news |= self._result(partition, result, data, now_ms)
        return news

    def _result(self, partition: PartitionFetch, result: FetchResult, data: Buffer, now_ms: int) -> bool:
        if result.error_code:
            error = from_wire(result.error_code, result.error_message)
            if isinstance(error, OffsetOutOfRange) and self._reset != "error":
                partition.locate(RESETS[self._reset])
                return True
            self._failed(partition, error, now_ms)
            return partition.error is not None
        partition.high_watermark = result.high_watermark
        try:
            for piece in split(data, partition.fetch_offset):
                chunk = Chunk(*piece)
                if chunk.header.next_offset > partition.fetch_offset:
                    partition.chunks.append(chunk)
                    partition.buffered_bytes += chunk.header.size
                    partition.fetch_offset = chunk.header.next_offset
        except CorruptBatch as error:  # what came before it is handed out first
            partition.error = CorruptBatch(f"{_name(partition.tp)} at offset {partition.fetch_offset}: {error}")
        self._touch(partition)
        return True

    def _failed(self, partition: PartitionFetch, error: LogsvcError, now_ms: int) -> None:
        if error.retriable:
            partition.retry_at_ms = now_ms + RETRY_BACKOFF_MS
        elif isinstance(error, UnknownTopic) and not self._missing_is_error:
            partition.retry_at_ms = now_ms + MISSING_RETRY_MS
            self.gone.append(partition)
        else:
            at = f" at offset {partition.fetch_offset}" if partition.fetch_offset >= 0 else ""
            partition.error = type(error)(f"{_name(partition.tp)}{at}: {error}")

    def lost(self, sent: SentFetch, error: LogsvcError, now_ms: int) -> None:
        """A Fetch ended without an answer, or with an error for all of it."""
        self._over(sent)
        for partition, version in sent.partitions:
            if partition.version == version:
                self._failed(partition, error, now_ms)

    def _over(self, sent: SentFetch) -> None:
        self._fetches -= 1
        self._expected_bytes -= sent.body.max_bytes
        for partition, version in sent.partitions:
            if partition.version == version:
                partition.in_flight = False
                self._touch(partition)

    # Handing out

    def next_readable(self) -> PartitionFetch | None:
        """A partition that has records to hand out; they take turns."""
        found, empty = None, []
        for partition in self._readable:
            if partition.readable and not (partition.isolated and partition.decoded_at < len(partition.decoded)):
                found = partition
                break
            if partition.decoded_at == len(partition.decoded) and not partition.chunks:
                empty.append(partition)
        for partition in empty:
            del self._readable[partition]
        if found is not None:
            # To the back of the line: dictionaries keep the order of insertion.
            del self._readable[found]
            self._readable[found] = None
        return found

    def raise_error(self) -> None:
        """Raise the error of a partition that has nothing left to hand out. It is tried again after that."""
        for partition in self.partitions.values():
            if partition.error is not None and not partition.readable and not partition.paused:
                error, partition.error = partition.error, None
                self._touch(partition)
                raise error

    def next_due_ms(self, now_ms: int) -> int | None:
        """When a partition that waits, after an error or for a quota, is to be looked at again."""
        if now_ms < self._throttled_until_ms:
            return self._throttled_until_ms
        due = [p.retry_at_ms for p in self._touched if p.retry_at_ms > now_ms]
        return min(due, default=None)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"


def names(partitions: Iterable[TopicPartition]) -> str:
    """Partitions as text, for logs and errors."""
    return ", ".join(_name(tp) for tp in sorted(partitions)) or "none"
