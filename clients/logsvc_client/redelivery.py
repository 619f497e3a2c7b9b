"""Failed and parked records that are due again: a long poll kept under way while the member is in its group.

The broker hands such a record out once. An answer that is lost is asked for again under the same number, and brings the same
records. It only names them, since this member has kept what it reported failed or parked; when one is missing, the poll is
repeated, and then brings all of them whole. They wait in `due` for the user, who gets them ahead of new ones.

While an answer brings as many as it may, there are more, and no new records are handed out (`behind`): each of a key that
waits would have to be parked, which costs many times what handling it does, and the group would never catch up.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from logsvc_client.fetcher import names
from logsvc_client.membership import ungrouped
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.batch import Buffer, check_crc, decode, split
from logsvc_common.errors import Disconnected, GroupError, LogsvcError, from_wire
from logsvc_common.messages import FetchOffsetsPartition, FetchRetries, FetchRetriesReply, Message, RetriesResult

if TYPE_CHECKING:
    from logsvc_client.engine import Engine

log = logging.getLogger(__name__)

WAIT_MS = 1_000  # how long the broker may hold the request
BUFFERED_MAX = 500  # records waiting for the user; with so many, no more are asked for
BACKOFF_MS = 200
# Between polls, and between commits of verdicts, while the user has other records: what happens meanwhile goes together.
TOGETHER_MS = 5

Found = dict[int, Record]
"""Records by their offset."""


class Redelivery:
    """The part of an engine that fetches what is due again. Everything but `_fetched` needs the engine's lock."""

    def __init__(self, engine: "Engine") -> None:
        self.due: deque[tuple[PartitionProgress, Record]] = deque()
        self._engine = engine
        self._poll = 1
        self.behind = False  # the last answer was full
        self._whole = False  # the poll under way is a repeated one, for records that were not kept
        self._in_flight = False
        self._not_before_ms = 0
        self._again_ms = 0

    @property
    def full(self) -> bool:
        """True when no more are asked for, until the user takes some."""
        return len(self.due) >= BUFFERED_MAX

    def plan(self, now_ms: int) -> list[Callable[[], None]]:
        """The request to send now, if any."""
        engine, membership = self._engine, self._engine.membership
        if membership is None or self._in_flight or now_ms < self._not_before_ms:
            return []
        if not membership.joined or not engine.progress or self.full:
            return []
        if not engine.hungry and now_ms < self._again_ms:
            return []
        self._in_flight, self._again_ms = True, now_ms + TOGETHER_MS
        asked = dict(engine.progress)
        body = FetchRetries(
            membership.group,
            membership.member_id,
            membership.epoch,
            [FetchOffsetsPartition(*tp) for tp in asked],
            0 if self.behind else WAIT_MS,
            BUFFERED_MAX,
            self._poll,
            not self._whole,
            engine.kept.behind_max,
        )
        return [engine.sending(body, partial(self._fetched, asked, body), engine.transport.request_timeout_ms + WAIT_MS)]

    def next_due_ms(self) -> int | None:
        """When a request put off is to be sent."""
        return None if self._in_flight else max(self._not_before_ms, self._again_ms)

    def _fetched(
        self,
        asked: dict[TopicPartition, PartitionProgress],
        sent: FetchRetries,
        answer: Message | LogsvcError,
        payload: Sequence[Buffer],
    ) -> None:
        engine = self._engine
        now_ms = engine.transport.now_ms()
        found: list[Found | LogsvcError] = []
        if isinstance(answer, FetchRetriesReply) and not sent.without_records:
            # Before the lock is taken: decoding takes long enough to keep a handler's thread waiting.
            found = [_found(result, data) for result, data in zip(answer.results, payload, strict=False)]
        with engine.lock:
            self._in_flight = self.behind = False
            if isinstance(answer, FetchRetriesReply):
                if sent.without_records:
                    kept = [self._kept(result) for result in answer.results]
                    found = [each for each in kept if each is not None]
                    self._whole = len(found) < len(kept)
                else:
                    self._whole = False
                if self._whole:
                    engine.transport.wake()
                    return
                self._poll += 1
                full, isolated = ungrouped(answer.full), ungrouped(answer.isolated)
                for tp, progress in asked.items():
                    if engine.progress.get(tp) is progress:
                        progress.full, progress.isolated = tp in full, tp in isolated
                        engine.update_held(tp)
                self.behind = sum(len(result.records) for result in answer.results) >= BUFFERED_MAX
                for result, records in zip(answer.results, found, strict=False):
                    self._take(result, records)
            else:
                self._not_before_ms = now_ms + (0 if isinstance(answer, Disconnected) else BACKOFF_MS)
                if isinstance(answer, GroupError) and engine.membership is not None:
                    engine.membership.ask_again(now_ms)
        engine.on_news()

    def _kept(self, result: RetriesResult) -> Found | None:
        """The records of a result as far as they can be handed out; None when one was not kept."""
        tp = TopicPartition(result.topic, result.partition)
        if tp not in self._engine.progress:
            return {}  # It moved on meanwhile.
        records = self._engine.kept.find(tp, result.records)
        return None if records is None else {record.offset: record for record in records}

    def _take(self, result: RetriesResult, found: Found | LogsvcError) -> None:
        engine = self._engine
        tp = TopicPartition(result.topic, result.partition)
        partition, progress = engine.fetcher.partitions.get(tp), engine.progress.get(tp)
        if partition is None or progress is None:
            return  # It moved on meanwhile: the broker gives these to its new owner.
        if result.error_code:
            engine.error = from_wire(result.error_code, f"{names([tp])}, records due again: {result.error_message}")
            return
        if isinstance(found, LogsvcError):
            engine.error = type(found)(f"{names([tp])}, records due again: {found}")
            return
        keyed = engine.retry.ordering == "key"
        for entry in result.records:
            kept = found.get(entry.offset)
            if kept is None:
                progress.missing(entry.offset, entry.attempt, entry.key_hash)
                continue
            record = Record(*tp, kept.offset, kept.timestamp_ms, kept.key, kept.value, kept.headers, entry.attempt)
            progress.redeliver(record, entry.key_hash, partition.position, keyed=keyed)
        self.collect(progress)

    def collect(self, progress: PartitionProgress) -> None:
        """Take up the records of a partition whose turn has come."""
        while progress.ready:
            self.due.append((progress, progress.ready.popleft()))


def _found(result: RetriesResult, data: Buffer) -> Found | LogsvcError:
    """The records in the batches of an answer. A batch holds nothing but what is due, or a copy from a dead letter."""
    tp = TopicPartition(result.topic, result.partition)
    found: Found = {}
    try:
        for header, piece in split(data):
            check_crc(piece, header)
            for raw in decode(piece):
                # A copy from a dead letter comes first.
                found.setdefault(raw.offset, Record(*tp, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers)))
    except LogsvcError as error:
        return error
    return found
