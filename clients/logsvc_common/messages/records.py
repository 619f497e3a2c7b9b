"""Records in and out: produce, fetch, and offsets for times."""

from typing import ClassVar

from logsvc_common.messages.base import Api, Entries, Int64, Message, Request, Result


class InitProducerId(Request, frozen=True):
    """A fresh producer id, or with one given: the same with the next epoch, after a loss that broke the sequence."""

    API: ClassVar[Api] = Api.INIT_PRODUCER_ID
    producer_id: Int64 = -1
    producer_epoch: Int64 = -1


class InitProducerIdReply(Message, frozen=True):
    producer_id: Int64
    producer_epoch: Int64


class ProducePartition(Message, frozen=True):
    topic: str
    partition: Int64


class Produce(Request, frozen=True):
    """Append one batch to each partition named. Payload: one frame a partition, in that order, each one whole batch.

    Answered when every batch is as durable as its topic's `flush` setting promises.
    """

    API: ClassVar[Api] = Api.PRODUCE
    partitions: Entries[ProducePartition]


class ProduceResult(Result, frozen=True, kw_only=True):
    """`base_offset` is the first record's; for a batch that was there already, the one it got then (`duplicate`)."""

    base_offset: Int64 = -1
    duplicate: bool = False


class ProduceReply(Message, frozen=True):
    """In the order of the request. `throttle_ms`: a quota is used up, send no more for so long."""

    results: list[ProduceResult]
    throttle_ms: Int64 = 0


class FetchPartition(Message, frozen=True):
    topic: str
    partition: Int64
    offset: Int64
    max_bytes: Int64 = 1 << 20


class Fetch(Request, frozen=True):
    """Records from each `offset` on. Answered when `min_bytes` are there, a partition fails, or after `max_wait_ms`.

    At least one whole batch is returned from the first partition that has any, however large.
    """

    API: ClassVar[Api] = Api.FETCH
    partitions: Entries[FetchPartition]
    max_wait_ms: Int64 = 500
    min_bytes: Int64 = 1
    max_bytes: Int64 = 16 << 20


class FetchResult(Result, frozen=True, kw_only=True):
    """`high_watermark` is one past the last durable record."""

    topic: str
    partition: Int64
    high_watermark: Int64 = -1
    start_offset: Int64 = -1


class FetchReply(Message, frozen=True):
    """Payload: one frame a result, in order: whole batches (the first may begin before the offset asked for), or empty
    for a result with an error. Partitions with neither data nor error are left out. `throttle_ms`: as of a produce."""

    results: list[FetchResult]
    throttle_ms: Int64 = 0


EARLIEST = -2
LATEST = -1
LAST_RECORD = -100


class ListOffsetsPartition(Message, frozen=True):
    """`timestamp_ms`: EARLIEST, LATEST, LAST_RECORD for the last offset there is and its time, or a time: then the first record
    at or after it is meant."""

    topic: str
    partition: Int64
    timestamp_ms: Int64


class ListOffsets(Request, frozen=True):
    API: ClassVar[Api] = Api.LIST_OFFSETS
    partitions: Entries[ListOffsetsPartition]


class ListOffsetsResult(Result, frozen=True, kw_only=True):
    """`offset` is -1 when no record is at or after the time asked for; `timestamp_ms` -1 when there is no record there."""

    topic: str
    partition: Int64
    offset: Int64 = -1
    timestamp_ms: Int64 = -1


class ListOffsetsReply(Message, frozen=True):
    results: list[ListOffsetsResult]
