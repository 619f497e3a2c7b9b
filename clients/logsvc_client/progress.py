"""How far a group member has come in one partition, and what it has to tell the broker, as a pure machine.

`handled`: all below it is handled, failed or parked; it becomes the committed offset. Failures, parked records and
redelivered ones that are done collect until the next Commit, which carries them together with the progress that passes
them: the committed offset never passes a failure that the broker has not recorded.

Order. `Lanes` has the records that failed or were parked and are not done. While a key has one, later records of that key are
parked behind it (`ordering=key`); under `partition` the partition is held. Redelivered records come from the broker, and are
`ready` to go to the user when none of their key is before them.

Isolated (a record of the partition seems to kill its consumers): the one record that is to be handed out next is named to the
broker beforehand, as `attempting` of a commit, and may be handed out when that commit's answer is there (`allowed`).

`_ahead` holds offsets not passed yet that must not be handed out when they are read: they were finished ahead of the
committed offset, or are outstanding and come by redelivery.
"""

from collections import deque
from itertools import islice

from logsvc_client.commit_size import CommitRoom
from logsvc_client.kept import KeptRecords
from logsvc_client.lanes import Lanes
from logsvc_client.records import Record, TopicPartition
from logsvc_common.keys import murmur2
from logsvc_common.messages import CommitPartition, CommitResult, Failure, FetchOffsetsResult, Parked

# A record in one of these is not done: later ones of its key wait behind it. The outcome of any other state is certain.
UNFINISHED_STATES = frozenset({"waiting", "parked", "delivered", "paused"})
RESOLVED_STATES = frozenset({"dead_lettered", "discarded", "done"})
NEVER = 1 << 62  # an offset no record has
UNTOLD_FAILURES_MAX = 1_000  # of one partition; with so many, no new records are handed out until the broker has heard


class PartitionProgress:
    """One partition of one member. `kept`: where its failed and parked records stay until they are due again."""

    __slots__ = (
        "_abandoned",
        "_ahead",
        "_attempting_hash",
        "_attempting_sent",
        "_attempting_untold",
        "_committing",
        "_counted",
        "_done",
        "_failed",
        "_finished",
        "_handed",
        "_kept",
        "_lanes",
        "_parked",
        "_parked_first",
        "_redelivered",
        "_told",
        "_told_before",
        "allowed",
        "attempting",
        "deferred",
        "full",
        "handled",
        "isolated",
        "ready",
        "tp",
    )

    def __init__(self, tp: TopicPartition, handled: int = -1, *, kept: KeptRecords | None = None) -> None:
        self.tp = tp
        self._kept = KeptRecords() if kept is None else kept
        self.handled = handled
        self.full = False  # the broker wants no new records read
        self.isolated = False  # one record at a time, each named before
        self.attempting = -1  # the record that is named; -1: none
        self.allowed: bool | None = None  # what became of naming it; None: no answer yet
        self._attempting_hash: int | None = None
        self._attempting_untold = False
        self._attempting_sent = False  # the commit under way, or answered last, names it
        self._told = -1  # the progress the broker has, or has been sent
        self._told_before = -1  # the same, without the commit under way
        self._failed: dict[int, Failure] = {}
        self._parked: dict[int, Parked] = {}
        self._parked_first = NEVER  # the lowest of them, or lower
        self._done: list[int] = []
        self._committing = False
        self._lanes = Lanes()
        self.ready: deque[Record] = deque()  # redelivered records whose turn has come, for whoever hands them out
        self._ahead: set[int] = set()
        self._redelivered: dict[int, Record] = {}  # by offset, in the user's hands or on their way there
        self._handed: deque[int] = deque()  # new records in the user's hands, one by one (`run`)
        self._counted = -1  # how many of them were handled since the last commit; -1: records do not go one by one
        self._abandoned: set[int] = set()  # those of them that go back
        self._finished: set[int] = set()  # those of them that are finished while an earlier one is not
        self.deferred: dict[int, int | None] = {}  # those of them that may not be begun yet, by offset: their key's hash

    def located(self, result: FetchOffsetsResult) -> None:
        """What the broker knows of this partition when it is taken over."""
        self.full, self.isolated = result.full, result.isolated
        self.handled = self._told = result.committed
        for entry in result.outstanding:
            if entry.offset >= result.committed:
                self._ahead.add(entry.offset)
            if entry.state in UNFINISHED_STATES:
                self._lanes.add(entry.offset, entry.key_hash)

    def begin(self, offset: int) -> None:
        """Reading begins, or goes on after a seek, at `offset`."""
        self.handled = offset
        self._handed.clear()
        self._finished.clear()
        self._abandoned.clear()
        self.deferred.clear()

    # Order

    @property
    def quiet(self) -> bool:
        """True when nothing stands in the way of any record: the usual case, in which nothing is looked at one by one."""
        return not self._lanes and not self._ahead

    @property
    def failing(self) -> bool:
        """True while a failed or parked record is not done."""
        return bool(self._lanes)

    def skips(self, offset: int) -> bool:
        """True for a record just read that is not to be handed out: it is done, or comes by redelivery."""
        return offset in self._ahead

    def sort_out(self, records: list[Record], *, keyed: bool) -> list[Record]:
        """Those of the records just read that are to be handed out; the others are skipped, or parked behind their key."""
        if not self._ahead and not (keyed and self._lanes.any_waits(records)):
            return records
        handed_out = []
        for record in records:
            if record.offset in self._ahead:
                self.skip(record.offset)
            elif keyed and self._lanes.waits(record.key):
                self.park(record)
            else:
                handed_out.append(record)
        return handed_out

    def waits(self, key: bytes | None) -> bool:
        """True while an earlier record of this key is outstanding."""
        return self._lanes.waits(key)

    def defer(self, record: Record) -> None:
        """A new record handed out one by one may not be begun now."""
        self.deferred[record.offset] = None if record.key is None else murmur2(record.key)

    def waits_for_deferred(self, record: Record) -> bool:
        """True while an earlier new record of this key is deferred."""
        if not self.deferred or record.key is None:
            return False
        key_hash = murmur2(record.key)
        return any(offset < record.offset and each == key_hash for offset, each in self.deferred.items())

    def _remove_outstanding(self, offset: int) -> None:
        self._kept.drop(self.tp, offset)
        following = self._lanes.remove(offset)
        if following is not None:
            self._make_ready(following)

    def _make_ready(self, record: Record) -> None:
        self._kept.drop(self.tp, record.offset)
        self._redelivered[record.offset] = record
        self.ready.append(record)

    # What happens to records

    def redeliver(self, record: Record, key_hash: int | None, position: int, *, keyed: bool = False) -> None:
        """The broker has handed out a failed or parked record again; reading stands at `position`. It is `ready` now, or, when
        `keyed`, in its turn."""
        self._lanes.add(record.offset, key_hash, record.key)
        if record.offset >= position:
            self._ahead.add(record.offset)
        if keyed and key_hash is not None and not self._lanes.lead(record.offset, key_hash):
            self._lanes.follow(record, key_hash)
            self._kept.hold(self.tp, record)
        else:
            self._make_ready(record)

    def hand_out(self, records: list[Record]) -> None:
        """New records go to the user one by one; `finish`, `fail`, `park` or `skip` will be called for each."""
        self._handed.extend([record.offset for record in records])
        self._counted = max(0, self._counted)

    def skip(self, offset: int) -> None:
        """A new record that `skips` says is not to be handed out."""
        self._pass(offset)

    def finish(self, record: Record) -> bool:
        """A redelivered record, or one handed out one by one, was handled. True when that is to be told soon."""
        held = self._redelivered.get(record.offset)
        if held is None:
            self._counted += self._counted >= 0
            self._pass(record.offset)
            return False
        if held.attempt != record.attempt:
            return False
        del self._redelivered[record.offset]
        self._done.append(record.offset)
        self._remove_outstanding(record.offset)
        return True

    def _pass(self, offset: int) -> None:
        """A record handed out one by one is out of the user's hands: progress goes up to the first that is not."""
        handed, finished = self._handed, self._finished
        if not handed or offset < handed[0]:
            return
        if offset == handed[0] and not finished and not self.deferred:
            # The usual case: records are finished in the order in which they were handed out.
            handed.popleft()
            self.advance(handed[0] if handed else offset + 1)
            return
        finished.add(offset)
        self.deferred.pop(offset, None)
        last = -1
        while handed and handed[0] in finished:
            last = handed.popleft()
            finished.remove(last)
        if last >= 0:
            self.advance(handed[0] if handed else last + 1)

    def advance(self, offset: int) -> None:
        """All below `offset` is handled, failed or parked."""
        if offset > self.handled:
            self.handled = offset
            if self._ahead:
                self._ahead = {each for each in self._ahead if each >= offset}

    def fail(self, record: Record, error: str, exception_class: str, stacktrace: str) -> None:
        """A record in the user's hands has failed."""
        offset = record.offset
        held = self._redelivered.get(offset)
        if held is not None and held.attempt != record.attempt:
            return  # A late word about an earlier try: the next one is on its way to the user.
        self._redelivered.pop(offset, None)
        key_hash = None if record.key is None else murmur2(record.key)
        self._failed[offset] = Failure(offset, error, exception_class, stacktrace, key_hash, record.attempt)
        self._lanes.add(offset, key_hash, record.key)
        self._kept.keep(self.tp, record)
        self._pass(offset)

    def park(self, record: Record) -> None:
        """A new record waits behind an earlier one of its key."""
        assert record.key is not None
        key_hash = murmur2(record.key)
        self._parked[record.offset] = Parked(record.offset, key_hash)
        self._parked_first = min(self._parked_first, record.offset)
        self._lanes.add(record.offset, key_hash, record.key)
        self._kept.keep(self.tp, record)
        self._pass(record.offset)

    def is_redelivered(self, record: Record) -> bool:
        """True for this very redelivery of a record, while its verdict is missing.

        Not for an earlier one: a record may fail, and come back, while the user still has others of the same list.
        """
        return self._redelivered.get(record.offset) is record

    def has_handed(self, offset: int) -> bool:
        """True for a new record handed out one by one whose verdict is missing."""
        return offset in self._handed and offset not in self._finished

    def take_back(self, offset: int) -> None:
        """The new records handed out one by one from `offset` on are handed out again later."""
        while self._handed and self._handed[-1] >= offset:
            taken = self._handed.pop()
            self._finished.discard(taken)
            self.deferred.pop(taken, None)

    def abandon(self, offset: int) -> None:
        """A record handed out one by one goes back unspent: it will not be handled here, and progress ends before it."""
        self._redelivered.pop(offset, None)
        if self._handed and offset >= self._handed[0]:
            self._abandoned.add(offset)

    # Isolation

    def attempt(self, record: Record) -> None:
        """This record is handed out next: the next commit says so, and its answer is `allowed`."""
        self.attempting = record.offset
        self._attempting_hash = None if record.key is None else murmur2(record.key)
        self._attempting_untold, self._attempting_sent, self.allowed = True, False, None

    def end_attempt(self) -> None:
        """The record that was named is out of the user's hands, or was not handed out: the next commit says so."""
        self.attempting, self._attempting_hash = -1, None
        self._attempting_untold, self._attempting_sent, self.allowed = True, False, None

    # Commits

    @property
    def in_hand(self) -> bool:
        """True while records handed out one by one are not finished."""
        return self.in_hand_count > 0

    @property
    def in_hand_count(self) -> int:
        """How many that are."""
        return len(self._handed) - len(self._finished) - len(self._abandoned)

    @property
    def urgent(self) -> bool:
        """True when a failure waits to be told: its backoff begins when the broker knows."""
        return bool(self._failed or self._done or self._parked_first < self._untold_from)

    @property
    def _untold_from(self) -> int:
        """Parked records from here on are not told yet: one before them, perhaps of their key, is in the user's hands. The
        broker would hand out what is parked first, and that one when it has failed too."""
        return self._handed[0] if self._handed else NEVER

    @property
    def overdue(self) -> bool:
        """True when so many failed and parked records wait to be told that there should be no more."""
        return len(self._failed) + len(self._parked) >= UNTOLD_FAILURES_MAX

    @property
    def pending(self) -> bool:
        """True when there is something to commit."""
        return self.handled > self._told or self.urgent or self._attempting_untold

    @property
    def names_next(self) -> bool:
        """True when the broker is to hear at once which record is handed out next, or that none is."""
        return self._attempting_untold

    @property
    def settled(self) -> bool:
        """True when the broker knows everything."""
        return not self.pending and not self._committing

    def take_commit(self, room: CommitRoom | None = None) -> CommitPartition | None:
        """What the broker does not know yet, as far as there is `room`; None when there is nothing. One commit is under way at
        a time."""
        if not self.pending:
            return None
        room = CommitRoom() if room is None else room
        tellable = [entry for entry in self._parked.values() if entry.offset < self._untold_from]
        failed, parked, done = room.fill(self._failed.values()), room.fill(tellable), room.fill(self._done)
        self._failed = dict(islice(self._failed.items(), len(failed), None))
        for entry in parked:
            del self._parked[entry.offset]
        self._parked_first = min(self._parked, default=NEVER)
        self._done = self._done[len(done) :]
        # Not past what finds no room. What lies below the progress told before is known to the broker.
        handled = min([self.handled, *(offset for offset in (*self._failed, *self._parked) if offset >= self._told)])
        message = CommitPartition(
            *self.tp,
            handled if handled > self._told else -1,
            failed,
            parked,
            done,
            self.attempting,
            self._attempting_hash,
            self._counted,
        )
        self._counted = min(0, self._counted)
        self._attempting_untold, self._attempting_sent = False, self.attempting >= 0
        self._told_before, self._told = self._told, max(self._told, handled)
        self._committing = True
        return message

    def committed(self, result: CommitResult) -> None:
        """The broker's answer to the commit under way."""
        self.full, self.isolated = result.full, result.isolated
        if self._attempting_sent:
            self.allowed = True
        for verdict in result.verdicts:
            if verdict.state in RESOLVED_STATES and verdict.offset not in self._failed:
                self._remove_outstanding(verdict.offset)

    def refused(self, sent: CommitPartition) -> None:
        """The broker could not record the commit under way: all it said is still to be told, or it would be lost."""
        for failure in sent.failed:
            self._failed.setdefault(failure.offset, failure)
        for parked in sent.parked:
            self._parked.setdefault(parked.offset, parked)
            self._parked_first = min(self._parked_first, parked.offset)
        self._done = [*sent.done, *self._done]
        self._told = self._told_before
        if self._counted >= 0 and sent.handled >= 0:
            self._counted += sent.handled

    def commit_over(self) -> None:
        """The commit under way has its final answer, or is given up."""
        self._committing = False
        if self._attempting_sent and self.allowed is None:
            self.allowed = False

    def missing(self, offset: int, attempt: int, key_hash: int | None) -> None:
        """A redelivered record that retention or compaction has removed: it can only fail, and those behind it wait for it."""
        self._redelivered.pop(offset, None)
        self._lanes.add(offset, key_hash)
        if key_hash is not None:
            self._lanes.lead(offset, key_hash)
        error = "the record was removed by retention before it could be tried again"
        self._failed[offset] = Failure(offset, error, "OffsetOutOfRange", "", key_hash, attempt)
