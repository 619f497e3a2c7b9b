"""Records: a page of a partition from an offset, from a time, from the end, or those of one key; one value whole."""

import base64
import binascii
from typing import Annotated

import msgspec

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.operations import Download, Given, Operation
from logsvc.listeners.api.scan import Page, Pick, Span, fill, find_span, find_time, new_page
from logsvc.listeners.api.shown import Bytes, ShownHeaders, show_bytes, show_headers, size_of, weight_of
from logsvc.listeners.api.topics import describe
from logsvc_common.batch import RawRecord
from logsvc_common.errors import InvalidRequest, OffsetOutOfRange
from logsvc_common.keys import partition_for

RECORDS_MAX = 500
RECORDS = 50


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """A record. `size_bytes` counts its whole key, value and headers; of its headers the first 100 are shown, and
    `header_count` says how many there are."""

    offset: int
    timestamp_ms: int
    key: Bytes | None
    value: Bytes | None
    headers: ShownHeaders
    header_count: int
    size_bytes: int


class Records(msgspec.Struct, forbid_unknown_fields=True):
    """A page of a partition that holds `start_offset` up to, not including, `end_offset`.

    `next_offset` is where the next page begins, `previous_offset` where the one before does, null at the log's start. A page
    looks at a bounded number of bytes: `scanned_to` is the first offset it has not looked at, and `complete` says that this
    is the end of the partition.
    """

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    records: list[Record]
    next_offset: int
    previous_offset: int | None
    scanned_to: int
    complete: bool


class RecordsQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which records, and which page of them."""

    key: Annotated[str, msgspec.Meta(description="Only records with this key, as text")] | None = None
    key_base64: Annotated[str, msgspec.Meta(description="Only records with this key, as base64")] | None = None
    offset: (
        Annotated[
            int,
            msgspec.Meta(description="Begin at this offset; below 0, so many before the end. Default: the last page, or all"),
        ]
        | None
    ) = None
    time_ms: Annotated[int, msgspec.Meta(description="Begin with the first record at or after this time", ge=0)] | None = None
    limit: Annotated[int, msgspec.Meta(description="Most records on the page", ge=1, le=RECORDS_MAX)] = RECORDS


def _key_of(query: RecordsQuery) -> bytes | None:
    if query.key is not None and query.key_base64 is not None:
        raise InvalidRequest("key and key_base64 mean the same: give one")
    if query.key_base64 is None:
        return None if query.key is None else query.key.encode()
    try:
        return base64.b64decode(query.key_base64, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("key_base64 is not base64") from None


async def list_records(backend: Backend, given: Given) -> Records:
    """Read records of a partition

    From `offset`, from the first record at or after `time_ms`, or the newest. With a key only records that have it: a page
    then looks at up to 64 MiB or for two seconds, and `next_offset` goes on from there.
    """
    return await _read(backend, given.path["topic"], given.path["partition"], given.query)


async def list_records_of_key(backend: Backend, given: Given) -> Records:
    """Read the records of one key

    In the partition that a producer puts this key into.
    """
    key = _key_of(given.query)
    if key is None:
        raise InvalidRequest(
            "give a key, as key=TEXT or key_base64=BYTES; or read one partition: /topics/TOPIC/partitions/0/records"
        )
    topic = await describe(backend, given.path["topic"])
    return await _read(backend, topic.topic, partition_for(key, topic.partition_count), given.query)


async def _read(backend: Backend, topic: str, partition: int, query: RecordsQuery) -> Records:
    key = _key_of(query)
    span = await find_span(backend, topic, partition)
    begin = await _begin(backend, topic, partition, span, query, with_key=key is not None)
    page: Page[Record] = new_page(backend, begin, span.end, query.limit)

    def pick(record: RawRecord) -> Pick[Record] | None:
        return _show(record) if key is None or record.key == key else None

    await fill(backend, topic, partition, page, pick)
    return Records(
        topic=topic,
        partition=partition,
        start_offset=span.start,
        end_offset=span.end,
        records=page.items,
        next_offset=page.position,
        previous_offset=max(span.start, begin - query.limit) if begin > span.start else None,
        scanned_to=page.position,
        complete=page.complete,
    )


async def _begin(backend: Backend, topic: str, partition: int, span: Span, query: RecordsQuery, *, with_key: bool) -> int:
    """The offset that a page begins at. Raises OffsetOutOfRange for one that the partition does not hold."""
    if query.offset is not None and query.time_ms is not None:
        raise InvalidRequest("offset and time_ms both say where to begin: give one")
    if query.time_ms is not None:
        found = await find_time(backend, topic, partition, query.time_ms)
        return span.end if found is None else found
    if query.offset is None:
        return span.start if with_key else max(span.start, span.end - query.limit)
    if query.offset < 0:
        return max(span.start, span.end + query.offset)
    if not span.start <= query.offset <= span.end:
        raise OffsetOutOfRange(
            f"{topic}-{partition} holds offsets {span.start} to {span.end}, not {query.offset}; give one of those, "
            "or -N for the last N records"
        )
    return query.offset


def _show(record: RawRecord) -> Pick[Record]:
    key, value, headers = record.key, record.value, record.headers
    shown = Record(
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=show_bytes(key),
        value=show_bytes(value),
        headers=show_headers(headers),
        header_count=len(headers),
        size_bytes=size_of(key, value, headers),
    )
    return Pick(shown, weight_of(key, value, headers))


async def get_value(backend: Backend, given: Given) -> Download:
    """Download the value of a record

    All of it, as it was produced. 204 when the record has no value (a tombstone).
    """
    topic, partition, offset = given.path["topic"], given.path["partition"], given.path["offset"]
    span = await find_span(backend, topic, partition)
    page: Page[bytes | None] = new_page(backend, offset, min(span.end, offset + 1), 1)
    if span.start <= offset < span.end:
        await fill(backend, topic, partition, page, lambda record: Pick(record.value, 0))
    if not page.items:
        held = f"it holds {span.start} to {span.end - 1}" if span.start < span.end else "it is empty"
        raise OffsetOutOfRange(f"{topic}-{partition} has no record at offset {offset}; {held}")
    return Download(page.items[0], f"{topic}-{partition}-{offset}.bin")


OPERATIONS = (
    Operation("GET", "/topics/{topic}/partitions/{partition}/records", list_records, Records, RecordsQuery, tag="records"),
    Operation("GET", "/topics/{topic}/partitions/{partition}/records/{offset}/value", get_value, None, tag="records"),
    Operation("GET", "/topics/{topic}/records", list_records_of_key, Records, RecordsQuery, tag="records"),
)
