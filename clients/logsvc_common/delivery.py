"""The failed offsets of one group partition: who is tried again, who waits behind whom, who is given up.

State: `committed`, and an entry for each offset that did not simply succeed. Whatever is below `committed` and has no
entry is done, so success costs nothing here. An entry is recorded by whoever uses this module (the broker's coordinator in
its state log) and outlives restarts; that a record is in a consumer's hands right now (DELIVERED) is not recorded, because
a hand-out is not a failure: after a restart or a change of owner it is simply due again.

    NEW              park -> PARKED    fail -> WAITING     budget spent -> DEAD_LETTERING, PAUSED or DONE
    WAITING, PARKED  deliver -> DELIVERED    done -> DONE
    DELIVERED        release -> what it was    fail -> WAITING    done -> DONE    budget spent -> as for NEW
    DEAD_LETTERING   letter -> DONE

`TRANSITIONS` is the whole of it; an event without a row has no effect. That makes a commit safe to send twice: when its
answer was lost, its failures find entries that are WAITING already, and spend nothing again.

Order is kept in lanes. Under `ordering=key` the lane is the record's key, under `partition` the whole partition, under
`none` there is none. Only the lowest unfinished offset of a lane can be due. Outcomes keep that order as long as a failure
comes with the commit that passes it: what was handled, but not committed, ahead of one is read again and may fail then.

`plan` decides without changing anything; `put` and `set_committed` apply what was decided. Due times are wall-clock, since
they must mean something after a restart; `reanchor` bounds them by the wait that was chosen when the clock has gone back.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
from sortedcontainers import SortedList

from logsvc_common.messages import CommitPartition, DueRecord, Failure, Outstanding, Parked, Verdict
from logsvc_common.retry import RetryPolicy

ENTRY_ERROR_BYTES_MAX = 200  # of the error kept with an entry; a dead letter carries more
PARTITION_LANE = "partition"


class State(StrEnum):
    """Where a record stands. NEW has no entry; DONE keeps one only above the committed offset."""

    NEW = "new"
    WAITING = "waiting"
    DELIVERED = "delivered"
    PARKED = "parked"
    DEAD_LETTERING = "dead_lettering"
    PAUSED = "paused"
    DONE = "done"


class Ordering(StrEnum):
    """What waits behind a failure: `RetryPolicy.ordering`."""

    KEY = "key"
    PARTITION = "partition"
    NONE = "none"


class Event(StrEnum):
    """What happens to a record. The last four of a failure are what `RetryPolicy.on_exhausted` makes of a spent budget."""

    PARK = "park"
    FAIL = "fail"
    DEAD_LETTER = "dead-letter"
    PAUSE = "pause"
    DISCARD = "discard"
    DELIVER = "deliver"
    RELEASE = "release"
    REPARK = "repark"
    DONE = "done"
    LETTER = "letter"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.NEW, Event.PARK): State.PARKED,
    (State.NEW, Event.FAIL): State.WAITING,
    (State.NEW, Event.DEAD_LETTER): State.DEAD_LETTERING,
    (State.NEW, Event.PAUSE): State.PAUSED,
    (State.NEW, Event.DISCARD): State.DONE,
    (State.WAITING, Event.DELIVER): State.DELIVERED,
    (State.WAITING, Event.DONE): State.DONE,  # by an owner whose hand-out a restart has forgotten
    (State.PARKED, Event.DELIVER): State.DELIVERED,
    (State.PARKED, Event.DONE): State.DONE,
    (State.DELIVERED, Event.RELEASE): State.WAITING,
    (State.DELIVERED, Event.REPARK): State.PARKED,
    (State.DELIVERED, Event.FAIL): State.WAITING,
    (State.DELIVERED, Event.DEAD_LETTER): State.DEAD_LETTERING,
    (State.DELIVERED, Event.PAUSE): State.PAUSED,
    (State.DELIVERED, Event.DISCARD): State.DONE,
    (State.DELIVERED, Event.DONE): State.DONE,
    (State.DEAD_LETTERING, Event.LETTER): State.DONE,
}

NO_CHANGES: Mapping[int, "FailedOffset | None"] = {}
_VERDICTS = {State.DEAD_LETTERING: "dead_lettered"}


class FailedOffset(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry as it is recorded. `wait_ms` is the backoff that led to `due_ms`; `attempts` is 0 for a parked record."""

    state: State
    attempts: int
    key_hash: int | None
    ordering: Ordering = Ordering.KEY
    due_ms: int = 0
    wait_ms: int = 0
    first_failure_ms: int = 0
    error: str = ""

    @property
    def lane(self) -> int | str | None:
        """What it keeps its order with; None when nothing waits behind it."""
        if self.ordering is Ordering.PARTITION:
            return PARTITION_LANE
        return self.key_hash if self.ordering is Ordering.KEY else None


class Exhausted(NamedTuple):
    """A failure whose budget is gone and that is to become a dead letter. `reason` is `exhausted` or `no_retry`."""

    failure: Failure
    attempts: int
    first_failure_ms: int
    reason: str


class Plan(NamedTuple):
    """What a commit comes to. `changes` holds the entries to put; None removes one."""

    committed: int
    changes: dict[int, FailedOffset | None]
    verdicts: list[Verdict]
    exhausted: list[Exhausted]


class FailedOffsets:
    """The state of one group partition. Not thread-safe. `committed` is -1 before the first commit."""

    __slots__ = ("_ahead", "_counts", "_delivered", "_due", "_due_at", "_entries", "_lanes", "_poll", "_sooner", "committed")

    def __init__(self) -> None:
        self.committed = -1
        self._entries: dict[int, FailedOffset] = {}
        self._counts: dict[State, int] = {}
        self._ahead: set[int] = set()  # DONE above the committed offset
        self._lanes: dict[int | str, int | list[int]] = {}  # unfinished offsets of each lane, ascending; most have only one
        self._due: SortedList = SortedList()  # (due, offset) of those that may be handed out
        self._due_at: dict[int, tuple[int, int]] = {}  # their place in it
        self._sooner: dict[int, int] = {}  # due times that stand in for those of a clock that has gone back
        self._delivered: set[int] = set()
        self._poll: tuple[int, list[int]] = (0, [])  # the last poll that was given something, and what

    def __len__(self) -> int:
        return len(self._entries)

    # Decide

    def plan(self, commit: CommitPartition, policy: RetryPolicy, now_ms: int, unit: Callable[[], float]) -> Plan:
        """What `commit` changes, and the verdict on each of its failures. Changes nothing itself.

        `now_ms` is wall-clock; `unit` gives random numbers in [0, 1) for the jitter.
        """
        committed = max(self.committed, commit.offset)
        if not (commit.failed or commit.parked or commit.done or self._ahead):
            return Plan(committed, {}, [], [])
        draft = _Draft(self, committed)
        for offset in self._ahead:
            if offset < committed:
                draft.changes[offset] = None
        for offset in commit.done:
            draft.finish(offset, Event.DONE)
        verdicts = [draft.fail(failure, policy, now_ms, unit) for failure in commit.failed]
        for parked in commit.parked:
            draft.park(parked, policy)
        return Plan(committed, draft.changes, verdicts, draft.exhausted)

    def plan_letter_written(self, offset: int) -> Plan:
        """What the completion of a dead letter changes; nothing when it is known already."""
        draft = _Draft(self, self.committed)
        draft.finish(offset, Event.LETTER)
        return Plan(self.committed, draft.changes, [], [])

    def state(self, offset: int) -> State:
        """Where the record stands, hand-outs included. Below the committed offset, NEW means done."""
        if offset in self._delivered:
            return State.DELIVERED
        entry = self._entries.get(offset)
        return State.NEW if entry is None else entry.state

    def entry(self, offset: int) -> FailedOffset | None:
        return self._entries.get(offset)

    # Apply

    def set_committed(self, committed: int) -> None:
        self.committed = committed

    def put(self, offset: int, entry: FailedOffset | None) -> None:
        """Make `entry` the one of `offset`; None removes it. Any hand-out of it is over."""
        old = self._entries.pop(offset, None)
        if old is not None:
            self._leave(offset, old)
        if entry is None:
            return
        self._entries[offset] = entry
        self._counts[entry.state] = self._counts.get(entry.state, 0) + 1
        if entry.state is State.DONE:
            self._ahead.add(offset)
            return
        lane = entry.lane
        if lane is None:
            self._offer(offset)
            return
        queue = self._lanes.get(lane)
        if queue is None:
            self._lanes[lane] = offset
            self._offer(offset)
            return
        if isinstance(queue, int):
            queue = self._lanes[lane] = [queue]
        insort(queue, offset)
        if queue[0] == offset:
            self._withdraw(queue[1])
            self._offer(offset)

    def _leave(self, offset: int, entry: FailedOffset) -> None:
        self._counts[entry.state] -= 1
        self._delivered.discard(offset)
        self._ahead.discard(offset)
        self._sooner.pop(offset, None)
        self._withdraw(offset)
        lane = entry.lane
        if lane is None or entry.state is State.DONE:
            return
        queue = self._lanes[lane]
        if isinstance(queue, int) or len(queue) == 1:
            del self._lanes[lane]
            return
        place = bisect_left(queue, offset)
        del queue[place]
        if place == 0:
            self._offer(queue[0])

    def _offer(self, offset: int) -> None:
        """Put an offset among those that can fall due, unless its state forbids it."""
        entry = self._entries[offset]
        if offset in self._delivered or entry.state not in (State.WAITING, State.PARKED):
            return
        place = (self._sooner.get(offset, entry.due_ms), offset)
        self._due_at[offset] = place
        self._due.add(place)

    def _withdraw(self, offset: int) -> None:
        place = self._due_at.pop(offset, None)
        if place is not None:
            self._due.remove(place)

    # Hand out

    def due(self, now_ms: int, limit: int, poll: int = 0) -> list[DueRecord]:
        """Hand out up to `limit` records that are due, ascending. They are not due again until they fail or are released.

        A `poll` other than 0 that was given records before says that the answer was lost: those are handed out again.
        """
        if poll and poll == self._poll[0]:
            self._release(offset for offset in self._poll[1] if offset in self._delivered)
        if not self._due or self._counts.get(State.PAUSED) or limit <= 0:
            return []
        taken: list[int] = []
        for due_ms, offset in self._due.islice(0, limit):
            if due_ms > now_ms:
                break
            taken.append(offset)
        if not taken:
            return []
        for offset in taken:
            self._withdraw(offset)
        self._delivered.update(taken)
        taken.sort()
        self._poll = (poll, taken)
        return [DueRecord(offset, self._entries[offset].attempts + 1, self._entries[offset].key_hash) for offset in taken]

    def next_due_ms(self) -> int | None:
        """Wall-clock time of the next record to fall due (0: one is due now); None when there is none to wait for."""
        if not self._due or self._counts.get(State.PAUSED):
            return None
        due_ms: int = self._due[0][0]
        return due_ms

    def release(self) -> None:
        """The owner has changed: all that was handed out is due as before, nothing is spent."""
        self._release(tuple(self._delivered))
        self._poll = (0, [])

    def _release(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self._delivered.discard(offset)
            self._offer(offset)

    def reanchor(self, now_ms: int) -> None:
        """The clock may have gone back: nobody waits longer from now than the backoff that was chosen for it."""
        for offset, entry in self._entries.items():
            latest = now_ms + entry.wait_ms
            if self._sooner.get(offset, entry.due_ms) <= latest:
                continue
            self._sooner[offset] = latest
            if offset in self._due_at:
                self._withdraw(offset)
                self._offer(offset)

    # Look

    def full(self, cap: int, changes: Mapping[int, FailedOffset | None] = NO_CHANGES) -> bool:
        """True when the consumer should take no new records: `cap` entries, a pause, or a failure that holds the partition.

        With `changes`, as it will be when they are applied.
        """
        entries, paused = len(self._entries), self._counts.get(State.PAUSED, 0)
        for offset, entry in changes.items():
            old = self._entries.get(offset)
            entries += (entry is not None) - (old is not None)
            paused += (entry is not None and entry.state is State.PAUSED) - (old is not None and old.state is State.PAUSED)
        if entries >= cap or paused:
            return True
        queue = self._lanes.get(PARTITION_LANE, ())
        offsets = (queue,) if isinstance(queue, int) else queue
        holding = (self._entries[offset] for offset in offsets if offset not in changes)
        return any(
            entry is not None and entry.lane == PARTITION_LANE and entry.state in (State.WAITING, State.PARKED)
            for entry in (*holding, *changes.values())
        )

    def outstanding(self) -> list[Outstanding]:
        """Every entry, ascending."""
        return [Outstanding(offset, entry.key_hash, str(self.state(offset))) for offset, entry in sorted(self._entries.items())]

    def counts(self) -> dict[str, int]:
        """Unfinished entries by state, DELIVERED counted apart from what it was handed out of."""
        counts = {str(state): count for state, count in self._counts.items() if count and state is not State.DONE}
        for offset in self._delivered:
            recorded = str(self._entries[offset].state)
            counts[recorded] -= 1
            if not counts[recorded]:
                del counts[recorded]
        if self._delivered:
            counts[str(State.DELIVERED)] = len(self._delivered)
        return counts

    def entries(self) -> dict[int, FailedOffset]:
        """The recorded entries by offset, ascending; a copy."""
        return dict(sorted(self._entries.items()))


class _Draft:
    """A plan in the making: the changes so far, and the rules by which one more is made."""

    __slots__ = ("_committed", "_failed", "changes", "exhausted")

    def __init__(self, failed: FailedOffsets, committed: int) -> None:
        self._failed = failed
        self._committed = committed  # as it will be
        self.changes: dict[int, FailedOffset | None] = {}
        self.exhausted: list[Exhausted] = []

    def finish(self, offset: int, event: Event) -> None:
        if TRANSITIONS.get((self._failed.state(offset), event)) is State.DONE:
            self._put_done(offset)

    def _put_done(self, offset: int) -> None:
        # Above the committed offset it must be remembered, or whoever reads on from there would take it for a new record.
        self.changes[offset] = FailedOffset(State.DONE, 0, None) if offset >= self._committed else None

    def park(self, parked: Parked, policy: RetryPolicy) -> None:
        # Below the old committed offset and without an entry it was parked, handed out and done before: a commit sent again.
        if self._failed.state(parked.offset) is State.NEW and parked.offset >= self._failed.committed:
            self.changes.setdefault(parked.offset, FailedOffset(State.PARKED, 0, parked.key_hash, Ordering(policy.ordering)))

    def fail(self, failure: Failure, policy: RetryPolicy, now_ms: int, unit: Callable[[], float]) -> Verdict:
        offset, entry = failure.offset, self._failed.entry(failure.offset)
        if offset in self.changes:  # named twice in one commit, or done as well: the first word counts
            return _verdict(offset, self.changes[offset], now_ms)
        state = self._state_before(failure, entry)
        attempts = 1 if entry is None else entry.attempts + 1
        skips = policy.skips_retries(failure.exception_class)
        event = Event(policy.on_exhausted) if skips or attempts >= policy.max_attempts else Event.FAIL
        following = TRANSITIONS.get((state, event))
        if following is None:
            return _verdict(offset, entry, now_ms)
        if following is State.DONE:
            self._put_done(offset)
            return Verdict(offset, "discarded", attempts)
        wait_ms = policy.backoff_ms(attempts, unit()) if following is State.WAITING else 0
        self.changes[offset] = made = FailedOffset(
            following,
            attempts,
            failure.key_hash if entry is None else entry.key_hash,
            Ordering(policy.ordering),
            now_ms + wait_ms,
            wait_ms,
            now_ms if entry is None or not entry.attempts else entry.first_failure_ms,
            cut(failure.error, ENTRY_ERROR_BYTES_MAX),
        )
        if following is State.DEAD_LETTERING:
            reason = "no_retry" if skips else "exhausted"
            self.exhausted.append(Exhausted(failure, attempts, made.first_failure_ms, reason))
        return _verdict(offset, made, now_ms)

    def _state_before(self, failure: Failure, entry: FailedOffset | None) -> State:
        """The state this report finds the record in. The attempt's number, when it has one, tells a report sent twice from a
        second failure, and proves a hand-out that a restart has forgotten."""
        state = self._failed.state(failure.offset)
        if entry is None:
            return State.DONE if failure.offset < self._failed.committed else State.NEW
        if not failure.attempt or state not in (State.WAITING, State.PARKED, State.DELIVERED):
            return state
        return State.DELIVERED if failure.attempt == entry.attempts + 1 else entry.state


def _verdict(offset: int, entry: FailedOffset | None, now_ms: int) -> Verdict:
    if entry is None:
        return Verdict(offset, str(State.DONE), 0)
    due_in_ms = max(0, min(entry.due_ms - now_ms, entry.wait_ms)) if entry.state is State.WAITING else 0
    return Verdict(offset, _VERDICTS.get(entry.state, str(entry.state)), entry.attempts, due_in_ms)


def cut(text: str, bytes_max: int) -> str:
    """`text` cut to `bytes_max` bytes of UTF-8, between two characters."""
    if len(text) * 4 <= bytes_max:
        return text
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode("utf-8", "ignore")
