"""Records from the engine to the user's hands, and what the user says became of them.

Runs on the user's thread. Batches are decoded here, not on the I/O thread, and outside the lock. Two ways to settle:

- In bulk (`poll`, iteration): what was taken counts as handled when more is taken, or when the user commits. Nothing is
  kept per record but a cursor into the list.
- One by one (`run`): each record is handed out and finished, failed or parked by itself, in any order; progress is the
  first that is not.

Redelivered records come first: somebody waits for them.
"""

from typing import NamedTuple

from logsvc_client.described import described
from logsvc_client.engine import Engine
from logsvc_client.fetcher import Chunk, PartitionFetch
from logsvc_client.isolation import SHARED_TURN, Isolation
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.batch import check_crc, decode_into
from logsvc_common.errors import CorruptBatch, InvalidRequest


class Run(NamedTuple):
    """Records of one partition that lie together in the list handed out, from `begin` to before `end`."""

    partition: PartitionFetch
    version: int
    next_offset: int  # the position after them
    begin: int
    end: int


class Handout:
    """The user's side of an engine. One thread at a time takes; any thread reports what became of a record."""

    def __init__(self, engine: Engine, *, settle_on_take: bool) -> None:
        self._engine = engine
        engine.on_changed = self.unsettle
        self._isolation = Isolation(engine)
        self._settle_on_take = settle_on_take
        self._list: list[Record] = []  # what was taken last: first the redelivered records, then the runs
        self._due: list[PartitionProgress] = []
        self._runs: list[Run] = []
        self._given: dict[PartitionFetch, tuple[int, int]] = {}  # version and offset up to which the user was given all
        self._given_due: dict[tuple[TopicPartition, int], tuple[PartitionProgress, Record]] = {}
        self._one_by_one = False
        self._sorted = False
        self.cursor = -1  # iteration: how many of the list have been given to the user, or parked; -1: all
        self.restless = False  # records taken must be looked at again before they are handled
        self.stirred: set[bytes | None] = set()  # when not restless: those of these keys must
        self.turn = 0  # counts takes and seeks: a list taken in an earlier turn is not to be gone on with
        self.calm: object = object()  # what an iteration compares, record by record: changes when it must look closer

    @property
    def ordering(self) -> str:
        """What keeps its order through failures: `key`, `partition` or `none`."""
        return self._engine.retry.ordering

    # Taking

    def take(self, records_max: int, *, one_by_one: bool = False, all_judged: bool = False) -> list[Record]:
        """Up to `records_max` records that are there now; an empty list when there are none. `all_judged`: every record taken
        one by one before has its verdict.

        Raises what went wrong: CorruptBatch, OffsetOutOfRange, NoOffset, UnknownTopic, ClientClosed, ...
        """
        engine = self._engine
        self._one_by_one = one_by_one
        with engine.lock:
            self._note_given(len(self._list) if self.cursor < 0 else self.cursor)
            if self._settle_on_take:
                self._settle()
            engine.lost = None
            engine.reconcile()
            self._raise_error()
            self.turn += 1
            # One by one, records of earlier turns may still wait for a worker.
            self.restless = self.restless and (one_by_one or any(not p.quiet for p in engine.progress.values()))
            self.calm = object()
            if 0 <= self.cursor < len(self._list) and self._keep_rest(self.cursor):
                self.cursor = -1 if len(self._list) <= records_max else records_max
                return self._list[:records_max]
            # What is taken now is sorted while it is: nothing has to be looked at again, as long as nothing happens meanwhile.
            self._sorted = all_judged and not self._isolation.busy
            self.stirred.clear()
            self.restless = self.restless and not self._sorted
            alone: list[Record] = []
            if self._isolation.busy:
                alone = self._take_alone(one_by_one)
                records_max = min(records_max, SHARED_TURN)
            records = alone or self._take_due(records_max, one_by_one)
        if alone:
            return records
        while len(records) < records_max:
            with engine.lock:
                partition = None if engine.redelivery.behind else engine.fetcher.next_readable()
                if partition is None:
                    if not records:
                        engine.fetcher.raise_error()
                    break
                version, position = partition.version, partition.position
                chunk = None if partition.decoded_at < len(partition.decoded) else self._next_chunk(partition)
            decoded = None if chunk is None else self._decode(partition, version, chunk, position)
            with engine.lock:
                if partition.version != version:
                    continue
                if decoded is not None:
                    partition.decoded, partition.decoded_at = decoded, 0
                    if not decoded and chunk is not None:
                        partition.position = chunk.header.next_offset  # Compaction has left an empty batch.
                if partition.isolated:
                    self._isolation.plan(one_by_one=one_by_one)
                else:
                    self._hand_out(partition, records, records_max, one_by_one)
        engine.set_hungry(not records)
        return records

    def _take_alone(self, one_by_one: bool) -> list[Record]:
        """The record of an isolated partition that may be handed out now, and nothing else with it."""
        if not one_by_one:
            self._isolation.all_over()
        taken = self._isolation.take(one_by_one=one_by_one)
        if taken is None:
            return []
        self._list, self._due, self._runs, self.cursor = [taken.record], [], [], -1
        if not one_by_one:
            if taken.partition is None:
                self._due.append(taken.progress)
            else:
                self._runs.append(Run(taken.partition, taken.version, taken.record.offset + 1, 0, 1))
        return self._list

    def _keep_rest(self, count: int) -> bool:
        """An iteration was left: what it was not given comes next, unless it is stale. False when nothing is left."""
        engine = self._engine
        rest: list[Record] = []
        due, runs = [], []
        for progress, record in zip(self._due[count:], self._list[count:], strict=False):
            if engine.progress.get(progress.tp) is progress:
                rest.append(record)
                due.append(progress)
        for run in self._runs:
            if run.end > count and engine.fetcher.partitions.get(run.partition.tp) is run.partition:
                if run.version != run.partition.version:
                    continue
                kept = self._list[max(run.begin, count) : run.end]
                runs.append(run._replace(begin=len(rest), end=len(rest) + len(kept)))
                rest += kept
        self._list, self._due, self._runs = rest, due, runs
        return bool(rest)

    def unsettle(self) -> None:
        """Records taken already must be looked at again before they are handled: something has failed, or was moved."""
        self.restless = True
        self.calm = None

    def _raise_error(self) -> None:
        engine = self._engine
        if engine.error is not None:
            error = engine.error
            if not engine.closing:
                engine.error = None
            raise error

    def _next_chunk(self, partition: PartitionFetch) -> Chunk:
        chunk = partition.pop_chunk()
        if self._engine.fetcher.wants(partition):
            self._engine.transport.wake()
        return chunk

    def _decode(self, partition: PartitionFetch, version: int, chunk: Chunk, position: int) -> list[Record] | None:
        topic, number = partition.tp
        header, data = chunk
        try:
            check_crc(data, header)
            records = decode_into(
                data,
                lambda raws: [
                    Record(topic, number, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers)) for raw in raws
                ],
            )
        except CorruptBatch as error:
            where = f"{topic}-{number}, batch at offset {header.base_offset}"
            with self._engine.lock:
                if partition.version == version:
                    # Read it again next time, never past it: whoever wants to skip it seeks.
                    partition.move(position)
                    partition.error = CorruptBatch(f"{where}: {error}")
            return None
        return records if header.base_offset >= position else [record for record in records if record.offset >= position]

    def _hand_out(self, partition: PartitionFetch, records: list[Record], records_max: int, one_by_one: bool) -> None:
        """Append what is decoded to `records`, as far as there is room, without what waits or is skipped."""
        start = partition.decoded_at
        end = min(len(partition.decoded), start + records_max - len(records))
        if end <= start:
            return
        handed = partition.decoded if end - start == len(partition.decoded) else partition.decoded[start:end]
        partition.decoded_at = end
        if end == len(partition.decoded):
            partition.decoded, partition.decoded_at = [], 0
        next_offset = partition.position = handed[-1].offset + 1
        progress = self._engine.progress.get(partition.tp)
        if progress is not None:
            if one_by_one:
                # All of them, those to be parked or skipped too: progress passes each in its turn.
                progress.hand_out(handed)
            if not progress.quiet:
                handed = self._admitted(progress, handed)
                if not self._sorted:
                    self.unsettle()
        begin = len(records)
        records += handed
        if not one_by_one:
            self._runs.append(Run(partition, partition.version, next_offset, begin, len(records)))

    def _admitted(self, progress: PartitionProgress, handed: list[Record]) -> list[Record]:
        keyed = self._engine.retry.ordering == "key"
        admitted = progress.sort_out(handed, keyed=keyed)
        if progress.overdue:
            self._engine.update_held(progress.tp)
        if progress.urgent:
            self._engine.tell_soon()
        return admitted

    def _take_due(self, records_max: int, one_by_one: bool) -> list[Record]:
        records = self._isolation.released(records_max) if one_by_one else []
        self._list, self._due, self._runs, self.cursor = records, [], [], -1
        due = self._engine.redelivery.due
        was_full = self._engine.redelivery.full
        for _ in range(len(due)):
            if len(records) >= records_max:
                break
            progress, record = due.popleft()
            if progress.isolated:
                due.append((progress, record))
            elif self._engine.progress.get(progress.tp) is progress:
                records.append(record)
                if not one_by_one:
                    self._due.append(progress)
        if was_full and records:
            self._engine.transport.wake()  # There is room for more of them.
        return records

    def admit(self, record: Record) -> bool:
        """Whether a record taken earlier may still be handled. If not, it is parked, read again later, or somebody else's.

        For iteration and `run`: between taking and handling, a record before it may have failed.
        """
        engine = self._engine
        tp = TopicPartition(record.topic, record.partition)
        with engine.lock:
            progress, partition = engine.progress.get(tp), engine.fetcher.partitions.get(tp)
            if progress is None or partition is None:
                if tp in engine.revoking:
                    engine.revoking[tp].abandon(record.offset)
                return engine.group is None
            alone = self._isolation.holds(record)
            if progress.is_redelivered(record):
                if self._one_by_one and progress.isolated and not alone:
                    self._isolation.defer(progress, record)
                    return False
                return True
            if not (progress.has_handed(record.offset) if self._one_by_one else record.offset < partition.position):
                return False  # It was given back, and is read again.
            if engine.retry.ordering == "partition" and progress.failing:
                self._give_back(progress, partition, record.offset)
                self._isolation.over(record)
                return False
            if not alone and self._must_wait(progress, record):
                if self._one_by_one:
                    self._isolation.defer(progress, record)
                else:
                    self._give_back(progress, partition, record.offset)
                return False
            if engine.retry.ordering == "key" and progress.waits(record.key):
                progress.park(record)
                self._isolation.over(record)
                engine.tell_soon()
                return False
            progress.deferred.pop(record.offset, None)
            return True

    def _must_wait(self, progress: PartitionProgress, record: Record) -> bool:
        """New records of a partition that is full or isolated are not begun, nor those behind one of their key that was not."""
        return (
            progress.full or progress.isolated or (self._engine.retry.ordering == "key" and progress.waits_for_deferred(record))
        )

    def _give_back(self, progress: PartitionProgress, partition: PartitionFetch, offset: int) -> None:
        """The partition waits behind a failure: what was taken beyond it is read again when it is done."""
        if not self._one_by_one:
            progress.advance(offset)  # All before it was given to the user.
        progress.take_back(offset)
        partition.move(offset)

    # Settling

    def settle(self, *, unsure: bool = False) -> None:
        """What the user was given counts as handled; when `unsure`, not what was given last."""
        with self._engine.lock:
            if not unsure:
                self._note_given(len(self._list) if self.cursor < 0 else self.cursor)
            elif self.cursor > 0:
                self._note_given(self.cursor - 1)
            if not self._one_by_one:
                self._isolation.all_over()
            self._settle()

    def _note_given(self, count: int) -> None:
        """The user was given the first `count` of the list."""
        for progress, record in zip(self._due[:count], self._list, strict=False):
            self._given_due[progress.tp, record.offset] = (progress, record)
        for run in self._runs:
            if run.end <= count:
                self._given[run.partition] = (run.version, run.next_offset)
            elif run.begin < count:
                self._given[run.partition] = (run.version, self._list[count - 1].offset + 1)

    def _settle(self) -> None:
        assigned = self._engine.progress
        for partition, (version, offset) in self._given.items():
            progress = assigned.get(partition.tp)
            if progress is not None and partition.version == version:
                progress.advance(offset)
        for progress, record in self._given_due.values():
            if assigned.get(progress.tp) is progress and progress.is_redelivered(record):
                progress.finish(record)
                self._engine.redelivery.collect(progress)
                self._engine.update_held(progress.tp)
                self._engine.tell_soon()
        self._given, self._given_due = {}, {}

    # One by one

    def finish(self, record: Record) -> None:
        """A record was handled."""
        engine = self._engine
        tp = TopicPartition(record.topic, record.partition)
        with engine.lock:
            progress = engine.progress.get(tp) or engine.revoking.get(tp)
            if progress is not None:
                urgent = progress.finish(record)
                self._isolation.over(record)
                if tp in engine.revoking:
                    engine.transport.wake()
                elif urgent:
                    engine.redelivery.collect(progress)
                    engine.update_held(tp)
                    engine.tell_soon()

    def fail(self, record: Record, error: BaseException | str) -> None:
        """A record has failed: the group's retry policy decides what happens to it. The broker is told at once."""
        engine = self._engine
        if engine.group is None:
            raise InvalidRequest("a consumer without a group cannot fail records")
        message, exception_class, stacktrace = described(error)
        tp = TopicPartition(record.topic, record.partition)
        with engine.lock:
            progress = engine.progress.get(tp) or engine.revoking.get(tp)
            if progress is None:
                return  # The partition is another member's: it gets the record too.
            progress.fail(record, message, exception_class, stacktrace)
            self._isolation.over(record)
            if self._sorted and engine.retry.ordering == "key":
                self.stirred.add(record.key)
            else:
                self.unsettle()
            engine.update_held(tp)
            engine.tell_soon()

    def put_back(self, record: Record) -> None:
        """A record taken one by one goes back unspent: nobody will say what became of it, and the next owner gets it."""
        engine = self._engine
        tp = TopicPartition(record.topic, record.partition)
        with engine.lock:
            progress = engine.progress.get(tp) or engine.revoking.get(tp)
            if progress is not None:
                progress.abandon(record.offset)
                self._isolation.over(record)
                engine.transport.wake()
