"""Failed and parked records that are due again: a long poll kept under way while the member is in its group.

The broker hands such a record out once. An answer that is lost is asked for again under the same number, and brings the same
records. They wait in `due` for the user, who gets them ahead of new ones.
"""

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from logsvc_client.fetcher import names
from logsvc_client.membership import ungrouped
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.batch import Buffer, RawRecord, check_crc, decode, split
from logsvc_common.errors import Disconnected, GroupError, LogsvcError
from logsvc_common.messages import FetchOffsetsPartition, FetchRetries, FetchRetriesReply, Message, RetriesResult

if TYPE_CHECKING:
    from logsvc_client.engine import Engine

log = logging.getLogger(__name__)

WAIT_MS = 1_000  # how long the broker may hold the request
BUFFERED_MAX = 500  # records waiting for the user; with so many, no more are asked for
BACKOFF_MS = 200

_offset_of = attrgetter("offset")


class Redelivery:
    """The part of an engine that fetches what is due again. Everything but `_fetched` needs the engine's lock."""

    def __init__(self, engine: "Engine") -> None:
        self.due: deque[tuple[PartitionProgress, Record]] = deque()
        self._engine = engine
        self._poll = 1
        self._in_flight = False
        self._not_before_ms = 0

    def plan(self, now_ms: int) -> list[Callable[[], None]]:
        """The request to send now, if any."""
        engine, membership = self._engine, self._engine.membership
        if membership is None or self._in_flight or now_ms < self._not_before_ms:
            return []
        if not membership.joined or not engine.progress or len(self.due) >= BUFFERED_MAX:
            return []
        self._in_flight = True
        asked = dict(engine.progress)
        body = FetchRetries(
            membership.group,
            membership.member_id,
            membership.epoch,
            [FetchOffsetsPartition(*tp) for tp in asked],
            WAIT_MS,
            BUFFERED_MAX,
            self._poll,
        )
        return [engine.sending(body, partial(self._fetched, asked), engine.transport.request_timeout_ms + WAIT_MS)]

    def next_due_ms(self) -> int | None:
        """When a request put off is to be sent."""
        return None if self._in_flight else self._not_before_ms

    def _fetched(
        self, asked: dict[TopicPartition, PartitionProgress], answer: Message | LogsvcError, payload: Sequence[Buffer]
    ) -> None:
        engine = self._engine
        now_ms = engine.transport.now_ms()
        found: list[dict[int, RawRecord] | LogsvcError] = []
        if isinstance(answer, FetchRetriesReply):
            # Before the lock is taken: decoding takes long enough to keep a handler's thread waiting.
            found = [_found(result, data) for result, data in zip(answer.results, payload, strict=False)]
        with engine.lock:
            self._in_flight = False
            if isinstance(answer, FetchRetriesReply):
                self._poll += 1
                full, isolated = ungrouped(answer.full), ungrouped(answer.isolated)
                for tp, progress in asked.items():
                    if engine.progress.get(tp) is progress:
                        progress.full, progress.isolated = tp in full, tp in isolated
                        engine.update_held(tp)
                for result, records in zip(answer.results, found, strict=False):
                    self._take(result, records)
            else:
                self._not_before_ms = now_ms + (0 if isinstance(answer, Disconnected) else BACKOFF_MS)
                if isinstance(answer, GroupError) and engine.membership is not None:
                    engine.membership.ask_again(now_ms)
        engine.on_news()

    def _take(self, result: RetriesResult, found: dict[int, RawRecord] | LogsvcError) -> None:
        engine = self._engine
        tp = TopicPartition(result.topic, result.partition)
        partition, progress = engine.fetcher.partitions.get(tp), engine.progress.get(tp)
        if partition is None or progress is None:
            return  # It moved on meanwhile: the broker gives these to its new owner.
        if result.error_code:
            log.warning("%s: records due again cannot be read: %s", names([tp]), result.error_message)
            return
        if isinstance(found, LogsvcError):
            engine.error = type(found)(f"{names([tp])}, records due again: {found}")
            return
        missing = []
        for entry in result.records:
            raw = found.get(entry.offset)
            if raw is None:
                missing.append((entry.offset, entry.attempt, entry.key_hash))
                continue
            record = Record(*tp, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers), entry.attempt)
            progress.redeliver(record, entry.key_hash, partition.position)
            self.due.append((progress, record))
        progress.missing(missing)


def _found(result: RetriesResult, data: Buffer) -> dict[int, RawRecord] | LogsvcError:
    """Those of the records due that are in the batches, by offset. Of thousands in a batch few are due: they are looked up."""
    offsets = sorted(record.offset for record in result.records)
    found: dict[int, RawRecord] = {}
    try:
        for header, piece in split(data):
            check_crc(piece, header)
            raws = decode(piece)
            for offset in offsets[bisect_left(offsets, header.base_offset) : bisect_left(offsets, header.next_offset)]:
                at = bisect_left(raws, offset, key=_offset_of)
                if at < len(raws) and raws[at].offset == offset:
                    found.setdefault(offset, raws[at])  # A copy from a dead letter comes first.
    except LogsvcError as error:
        return error
    return found
