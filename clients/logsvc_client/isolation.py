"""Records that are there but may not be begun now: those of isolated partitions, which go one at a time, and deferred ones.

A partition is isolated when a record of it seems to kill its consumers. Of all isolated partitions of a member, one record at
a time goes to the user's hands, each named to the broker before:

    plan: a candidate, named as `attempting` of the next commit --> take: handed out once the answer is there --> over: its
    verdict is known, or the user asks for more, and the next candidate is named, by the commit that carries the verdict

Candidates are, in this order: redelivered records; new ones that were handed out before the partition was isolated (deferred);
new ones from the log. The last stay where they are, the next of their partition, until they are handed out.

Deferred are records taken one by one (`run`) that wait for a worker when their partition is isolated, or is full: whoever is
about to begin one gives it back here, and it is handed out again, ahead of those of its key behind it, when that is over.
"""

from collections import deque
from dataclasses import dataclass

from logsvc_client.engine import Engine
from logsvc_client.fetcher import PartitionFetch
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition

REFUSED_BACKOFF_MS = 200
SHARED_TURN = 16  # records of other partitions in one take while an isolated one waits: each round trip brings it only one


@dataclass(slots=True)
class Candidate:
    """The record that is handed out alone; `partition` and `version` when it comes from the log."""

    progress: PartitionProgress
    record: Record
    partition: PartitionFetch | None = None
    version: int = -1
    redelivered: bool = False
    in_hand: bool = False


class Isolation:
    """Of one consumer. Everything needs the engine's lock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deferred: deque[tuple[PartitionProgress, Record]] = deque()
        self._candidate: Candidate | None = None
        self._told = True  # the broker has been told, or is about to be, that the last candidate is over
        self._not_before_ms = 0

    @property
    def busy(self) -> bool:
        """True while there is anything to do here: the usual case is that there is not."""
        return self._candidate is not None or bool(self._deferred) or bool(self._engine.fetcher.isolated) or not self._told

    def holds(self, record: Record) -> bool:
        """True for the record that was handed out alone."""
        candidate = self._candidate
        return candidate is not None and candidate.in_hand and candidate.record is record

    # One at a time

    def take(self, *, one_by_one: bool) -> Candidate | None:
        """The record to hand out now, alone, when the broker knows of it; else the next is named, if there is one."""
        engine, candidate = self._engine, self._candidate
        if candidate is not None:
            progress = candidate.progress
            if engine.progress.get(progress.tp) is not progress:
                if engine.revoking.get(progress.tp) is not progress:
                    self._candidate = None
                elif not candidate.in_hand:
                    progress.abandon(candidate.record.offset)
                    self._drop(candidate)
            elif not candidate.in_hand:
                if self._may_go(candidate):
                    self._hand_out(candidate, one_by_one)
                    return candidate
                if progress.allowed is not None or self._is_stale(candidate):
                    self._put_back(candidate)
        self.plan(one_by_one=one_by_one)
        return None

    def _may_go(self, candidate: Candidate) -> bool:
        progress = candidate.progress
        return (
            progress.allowed is True
            and not self._is_stale(candidate)
            and progress.isolated
            and (candidate.redelivered or not progress.full)
        )

    def _is_stale(self, candidate: Candidate) -> bool:
        """It is not the next record any more: the user sought, or all of this is over."""
        partition = candidate.partition
        if partition is None:
            known = candidate.progress.has_handed(candidate.record.offset)
            return not (known or candidate.progress.is_redelivered(candidate.record))
        at = partition.decoded_at
        return partition.version != candidate.version or partition.decoded[at : at + 1] != [candidate.record]

    def _hand_out(self, candidate: Candidate, one_by_one: bool) -> None:
        candidate.in_hand = True
        if candidate.partition is not None:
            candidate.partition.pass_decoded()
            if one_by_one:
                candidate.progress.hand_out([candidate.record])

    def _put_back(self, candidate: Candidate) -> None:
        """It could not be handed out: it comes first when it can."""
        progress, record = candidate.progress, candidate.record
        if progress.allowed is False:
            self._not_before_ms = self._engine.transport.now_ms() + REFUSED_BACKOFF_MS
        if candidate.partition is None and not self._is_stale(candidate):
            if candidate.redelivered:
                self._engine.redelivery.due.appendleft((progress, record))
            else:
                self._deferred.appendleft((progress, record))
        self._drop(candidate)

    def _drop(self, candidate: Candidate) -> None:
        candidate.progress.end_attempt()
        self._candidate = None
        self._told = False

    def plan(self, *, one_by_one: bool) -> None:
        """Name the next candidate, or say that there is none."""
        if self._candidate is None and self._engine.transport.now_ms() >= self._not_before_ms:
            candidate = self._next_due() or self._next_deferred() or self._next_new(one_by_one)
            if candidate is not None:
                self._candidate = candidate
                candidate.progress.attempt(candidate.record)
                self._told = False
        if not self._told:
            self._told = True
            self._engine.transport.wake()

    def _next_due(self) -> Candidate | None:
        due = self._engine.redelivery.due
        for at, (progress, record) in enumerate(due):
            if progress.isolated and self._engine.progress.get(progress.tp) is progress:
                del due[at]
                return Candidate(progress, record, redelivered=True)
        return None

    def _next_deferred(self) -> Candidate | None:
        for at, (progress, record) in enumerate(self._deferred):
            if not progress.isolated or self._engine.progress.get(progress.tp) is not progress:
                continue
            redelivered = progress.is_redelivered(record)
            # Only when all handed out before it are deferred, or over: some may be in the handler's hands.
            if redelivered or (not progress.full and progress.in_hand_count == len(progress.deferred)):
                if not redelivered and record.offset != min(progress.deferred, default=-1):
                    continue
                del self._deferred[at]
                return Candidate(progress, record, redelivered=redelivered)
        return None

    def _next_new(self, one_by_one: bool) -> Candidate | None:
        engine = self._engine
        keyed = engine.retry.ordering == "key"
        for partition in engine.fetcher.isolated:
            progress = engine.progress.get(partition.tp)
            if progress is None or progress.in_hand or partition.held or partition.paused:
                continue
            while partition.decoded_at < len(partition.decoded):
                record = partition.decoded[partition.decoded_at]
                if progress.sort_out([record], keyed=keyed):
                    # To the back of the line.
                    engine.fetcher.set_isolated(partition, False)
                    engine.fetcher.set_isolated(partition, True)
                    return Candidate(progress, record, partition, partition.version)
                partition.pass_decoded()
                if one_by_one or progress.handled >= record.offset:
                    progress.advance(record.offset + 1)
        return None

    def over(self, record: Record) -> None:
        """There is a verdict on this record."""
        candidate = self._candidate
        if candidate is None or not candidate.in_hand:
            return
        if candidate.record.offset == record.offset and candidate.progress.tp == (record.topic, record.partition):
            self._drop(candidate)

    def all_over(self) -> None:
        """Whatever was handed out is out of the user's hands."""
        candidate = self._candidate
        if candidate is not None and candidate.in_hand:
            self._drop(candidate)

    # Deferred

    def defer(self, progress: PartitionProgress, record: Record) -> None:
        """A record taken one by one may not be begun now."""
        if not progress.is_redelivered(record):
            progress.defer(record)
        self._deferred.append((progress, record))

    def released(self, records_max: int) -> list[Record]:
        """Deferred records that may go now."""
        engine = self._engine
        records: list[Record] = []
        for _ in range(len(self._deferred)):
            progress, record = self._deferred.popleft()
            redelivered = progress.is_redelivered(record)
            if engine.progress.get(progress.tp) is not progress:
                progress.abandon(record.offset)
                engine.transport.wake()
            elif not redelivered and not progress.has_handed(record.offset):
                continue  # The user sought: it is read again, or not at all.
            elif len(records) >= records_max or progress.isolated or (self._held(progress.tp) and not redelivered):
                self._deferred.append((progress, record))
            else:
                records.append(record)
        return records

    def _held(self, tp: TopicPartition) -> bool:
        partition = self._engine.fetcher.partitions.get(tp)
        return partition is None or partition.held
