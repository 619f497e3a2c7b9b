"""What can happen to a record that did not simply succeed: its states, the one table of transitions, and a plan of changes.

`logsvc_common.delivery` keeps the records of a partition and their order; here it is decided what an event makes of one of
them. An event without a row in `TRANSITIONS` has no effect. That makes a commit safe to send twice: when its answer was lost,
its failures find entries that are WAITING already, and spend nothing again.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from logsvc_common.messages import Failure, Parked, Verdict
from logsvc_common.retry import RetryPolicy

ENTRY_ERROR_BYTES_MAX = 200  # of the error kept with an entry; a dead letter carries more
PARTITION_LANE = "partition"
Spends = Callable[[int], bool]
"""Asked once for each failure that takes effect, with the number of the try that failed: does it spend an attempt?"""


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
    """What happens to a record. DEAD_LETTER, PAUSE and DISCARD are what `RetryPolicy.on_exhausted` makes of a failure that
    spends the last attempt; SPARE is a failure that spends none, because the group's breaker is open."""

    PARK = "park"
    FAIL = "fail"
    SPARE = "spare"
    DEAD_LETTER = "dead-letter"
    PAUSE = "pause"
    DISCARD = "discard"
    DELIVER = "deliver"
    RELEASE = "release"
    REPARK = "repark"
    DONE = "done"
    LETTER = "letter"
    RESUME = "resume"
    REDRIVE = "redrive"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.NEW, Event.PARK): State.PARKED,
    (State.NEW, Event.FAIL): State.WAITING,
    (State.NEW, Event.SPARE): State.WAITING,
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
    (State.DELIVERED, Event.SPARE): State.WAITING,
    (State.DELIVERED, Event.DEAD_LETTER): State.DEAD_LETTERING,
    (State.DELIVERED, Event.PAUSE): State.PAUSED,
    (State.DELIVERED, Event.DISCARD): State.DONE,
    (State.DELIVERED, Event.DONE): State.DONE,
    (State.DEAD_LETTERING, Event.LETTER): State.DONE,
    (State.PAUSED, Event.RESUME): State.WAITING,
    (State.DONE, Event.REDRIVE): State.WAITING,
}

NO_CHANGES: Mapping[int, "FailedOffset | None"] = {}
_VERDICTS = {State.DEAD_LETTERING: "dead_lettered"}


class FailedOffset(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry as it is recorded. `wait_ms` is the backoff that led to `due_ms`; `attempts` is 0 for a parked record and for
    one that was just redriven: `redrives` times in all, the last time from the dead letter at offset `letter` (-1: never)."""

    state: State
    attempts: int
    key_hash: int | None
    ordering: Ordering = Ordering.KEY
    due_ms: int = 0
    wait_ms: int = 0
    first_failure_ms: int = 0
    error: str = ""
    redrives: int = 0
    letter: int = -1

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
    redrives: int = 0
    letter: int = -1


class Plan(NamedTuple):
    """What a commit comes to. `changes` holds the entries to put; None removes one."""

    committed: int
    changes: dict[int, FailedOffset | None]
    verdicts: list[Verdict]
    exhausted: list[Exhausted]


class Standing(Protocol):
    """What is known of a partition's records before a commit."""

    committed: int

    def state(self, offset: int) -> State: ...

    def entry(self, offset: int) -> FailedOffset | None: ...


def always(_attempt: int) -> bool:
    """Every failure spends an attempt."""
    return True


class Draft:
    """A plan in the making: the changes so far, and the rules by which one more is made."""

    __slots__ = ("_committed", "_failed", "changes", "exhausted")

    def __init__(self, failed: Standing, committed: int) -> None:
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

    def resume(self, offset: int, now_ms: int) -> None:
        """A paused record is due now, with a budget of attempts as at first."""
        entry = self._failed.entry(offset)
        if entry is not None and (following := TRANSITIONS.get((entry.state, Event.RESUME))) is not None:
            self.changes[offset] = msgspec.structs.replace(entry, state=following, attempts=0, due_ms=now_ms, wait_ms=0)

    def redrive(self, offset: int, entry: FailedOffset) -> bool:
        """A record that ended in a dead letter is to be handled again, as `entry` says. False when it is not done: the group
        has it in hand, or has yet to read it."""
        state = self._failed.state(offset)
        if state is State.NEW and offset < self._failed.committed:
            state = State.DONE
        if offset in self.changes or TRANSITIONS.get((state, Event.REDRIVE)) is not entry.state:
            return False
        self.changes[offset] = entry
        return True

    def fail(self, failure: Failure, policy: RetryPolicy, now_ms: int, unit: Callable[[], float], spends: Spends) -> Verdict:
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
        if not spends(attempts):
            attempts -= 1
            event, following = Event.SPARE, TRANSITIONS[state, Event.SPARE]
        if following is State.DONE:
            self._put_done(offset)
            return Verdict(offset, "discarded", attempts)
        wait_ms = policy.backoff_ms(attempts, unit()) if event is Event.FAIL else 0
        self.changes[offset] = made = FailedOffset(
            following,
            attempts,
            failure.key_hash if entry is None else entry.key_hash,
            Ordering(policy.ordering),
            now_ms + wait_ms,
            wait_ms,
            (0 if entry is None or entry.state is State.PARKED else entry.first_failure_ms) or now_ms,
            cut(failure.error, ENTRY_ERROR_BYTES_MAX),
            0 if entry is None else entry.redrives,
            -1 if entry is None else entry.letter,
        )
        if following is State.DEAD_LETTERING:
            reason = "no_retry" if skips else "exhausted"
            self.exhausted.append(Exhausted(failure, attempts, made.first_failure_ms, reason, made.redrives, made.letter))
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
