"""Reading a stretch of one partition for a page: fetched by the event loop, decoded in a thread, bounded in every way.

A page ends when it has enough records, when its answer is large enough, when enough bytes were read or enough time has
passed, or at the end of the log; `position` says where the next one goes on. It always advances by a record at least,
so a reader that goes on from `position` gets through any log. What one batch may cost is bounded by INFLATED_BYTES_MAX:
records are taken one by one while they are decoded, so a batch of millions of them is never a list.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from logsvc.clock import Clock
from logsvc.listeners.api.backend import Backend, checked
from logsvc_common.batch import Buffer, RawRecord, check_crc, decode_into, split
from logsvc_common.errors import CorruptBatch, LogsvcError, OffsetOutOfRange, RecordTooLarge
from logsvc_common.messages import (
    EARLIEST,
    LATEST,
    Fetch,
    FetchPartition,
    FetchReply,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
)

FIRST_READ_BYTES = 128 << 10  # of batches, at least one; enough for most pages
READ_BYTES = 1 << 20
SCANNED_BYTES_MAX = 64 << 20  # of batches read for one page
SCAN_MS_MAX = 2_000
ANSWER_BYTES_MAX = 4 << 20  # of keys, values and headers shown in one page
INFLATED_BYTES_MAX = 16 << 20  # of the records of one compressed batch; to make room for them holds the interpreter
CLOCK_EVERY_RECORDS = 256

ItemT = TypeVar("ItemT")


class Pick(NamedTuple, Generic[ItemT]):
    """A record that belongs on the page: what is shown of it, and about how many bytes that takes."""

    item: ItemT
    weight: int


@dataclass(slots=True)
class Page(Generic[ItemT]):
    """A page while it is made. `position` is the next offset to look at, `end` where the log ended when it began.
    `deadline_ms` is monotonic."""

    position: int
    end: int
    limit: int
    deadline_ms: int
    items: list[ItemT] = field(default_factory=list)
    weight: int = 0
    scanned_bytes: int = 0
    looked_at: int = 0
    is_full: bool = False

    @property
    def complete(self) -> bool:
        """True when the log's end is reached."""
        return self.position >= self.end


class Span(NamedTuple):
    """What a partition holds: `start` up to, not including, `end`."""

    start: int
    end: int


async def find_span(backend: Backend, topic: str, partition: int) -> Span:
    """Raises UnknownTopic, UnknownPartition."""
    wanted = [ListOffsetsPartition(topic, partition, time) for time in (EARLIEST, LATEST)]
    reply = await backend.ask(ListOffsets(wanted), ListOffsetsReply)
    start, end = (checked(result).offset for result in reply.results)
    return Span(start, end)


async def find_time(backend: Backend, topic: str, partition: int, time_ms: int) -> int | None:
    """The offset of the first record at or after `time_ms`, None without one."""
    wanted = ListOffsetsPartition(topic, partition, max(0, time_ms))
    (result,) = (await backend.ask(ListOffsets([wanted]), ListOffsetsReply)).results
    offset = checked(result).offset
    return offset if offset >= 0 else None


async def fill(
    backend: Backend, topic: str, partition: int, page: Page[ItemT], pick: Callable[[RawRecord], Pick[ItemT] | None]
) -> None:
    """Add to `page` the records that `pick` picks. Raises what reading raises, RecordTooLarge for a batch over the limit.

    An error behind records that were read does not take them away: the next page begins with it.
    """
    read_bytes = FIRST_READ_BYTES
    while not page.complete and not page.is_full:
        try:
            data = await _read(backend, FetchPartition(topic, partition, page.position, read_bytes))
            if not data:
                page.position = page.end  # what was there when the page began is gone
                return
            await backend.threads.run(partial(take, data, page, pick, backend.clock))
        except LogsvcError:
            if page.items:
                return
            raise
        read_bytes = READ_BYTES


async def _read(backend: Backend, wanted: FetchPartition) -> Buffer:
    """The batches of one fetch, empty at the end of the log."""
    answer = await backend.call(Fetch([wanted], max_wait_ms=0, max_bytes=wanted.max_bytes))
    reply: FetchReply = answer.body
    for result in reply.results:
        checked(result)
    return answer.payload[0] if answer.payload else b""


def take(data: Buffer, page: Page[ItemT], pick: Callable[[RawRecord], Pick[ItemT] | None], clock: Clock) -> None:
    """Add what `pick` picks of the batches in `data` to `page`, and move its position. Runs in a thread.

    Raises CorruptBatch, RecordTooLarge.
    """
    before = page.position
    for header, batch in split(data, before):
        if header.base_offset >= page.end or page.is_full:
            break
        check_crc(batch, header)
        try:
            decode_into(batch, lambda records: _take_records(records, page, pick, clock), inflated_bytes_max=INFLATED_BYTES_MAX)
        except CorruptBatch as error:
            if not header.codec:
                raise
            # Its checksum was right, so it is what a producer sent: most likely more than is inflated here.
            raise RecordTooLarge(
                f"the batch at offset {header.base_offset} does not inflate within {INFLATED_BYTES_MAX} bytes; "
                f"go on from offset {header.next_offset}, or read it with `logsvc consume`"
            ) from error
        page.scanned_bytes += header.size
        if not page.is_full:
            page.position = max(page.position, header.next_offset)
            page.is_full = page.scanned_bytes >= SCANNED_BYTES_MAX or clock.monotonic_ms() >= page.deadline_ms
    if page.position == before and not page.is_full:
        raise OffsetOutOfRange(f"there is no whole batch at offset {before}")


def _take_records(
    records: Iterable[RawRecord], page: Page[ItemT], pick: Callable[[RawRecord], Pick[ItemT] | None], clock: Clock
) -> list[RawRecord]:
    for record in records:
        if record.offset < page.position:
            continue
        if record.offset >= page.end:
            break
        picked = pick(record)
        if picked is not None:
            if page.items and page.weight + picked.weight > ANSWER_BYTES_MAX:
                page.is_full = True
                break
            page.items.append(picked.item)
            page.weight += picked.weight
        page.position = record.offset + 1
        page.looked_at += 1
        timed_out = page.looked_at % CLOCK_EVERY_RECORDS == 0 and clock.monotonic_ms() >= page.deadline_ms
        if len(page.items) >= page.limit or timed_out:
            page.is_full = True
            break
    return []


def new_page(backend: Backend, position: int, end: int, limit: int) -> Page[ItemT]:
    """An empty page that begins at `position` and has SCAN_MS_MAX from now on."""
    return Page(position=position, end=end, limit=limit, deadline_ms=backend.clock.monotonic_ms() + SCAN_MS_MAX)
