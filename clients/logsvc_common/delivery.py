"""The failed offsets of one group partition: who is tried again, who waits behind whom, who is given up.

State: `committed`, and an entry for each offset that did not simply succeed. Whatever is below `committed` and has no
entry is done, so success costs nothing here. An entry is recorded by whoever uses this module (the broker's coordinator in
its state log) and outlives restarts; that a record is in a consumer's hands right now (DELIVERED) is not recorded, because
a hand-out is not a failure: after a restart or a change of owner it is simply due again.

    NEW              park -> PARKED    fail -> WAITING     budget spent -> DEAD_LETTERING, PAUSED or DONE
    WAITING, PARKED  deliver -> DELIVERED    done -> DONE
    DELIVERED        release -> what it was    fail -> WAITING    done -> DONE    budget spent -> as for NEW
    DEAD_LETTERING   letter -> DONE    PAUSED   resume -> WAITING    DONE   redrive -> WAITING

`logsvc_common.transitions.TRANSITIONS` is the whole of it.

Order is kept in lanes. Under `ordering=key` the lane is the record's key, under `partition` the whole partition, under
`none` there is none. Only the lowest unfinished offset of a lane can be due. Those of its key that wait for nothing else may go
out with it, for the consumer to take up one after another, or each would cost a round trip. Outcomes keep that order as long
as a failure comes with the commit that passes it: what was handled, but not committed, ahead of one is read again and may
fail then.

`plan` decides without changing anything; `put` and `set_committed` apply what was decided. Due times are wall-clock, since
they must mean something after a restart; `reanchor` bounds them by the wait that was chosen when the clock has gone back.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping

from sortedcontainers import SortedList

from logsvc_common.messages import CommitPartition, DueRecord, Outstanding
from logsvc_common.retry import RetryPolicy
from logsvc_common.transitions import (
    NO_CHANGES,
    PARTITION_LANE,
    TRANSITIONS,
    Draft,
    Event,
    Exhausted,
    FailedOffset,
    Ordering,
    Plan,
    Spends,
    State,
    always,
    cut,
)

__all__ = ["TRANSITIONS", "Event", "Exhausted", "FailedOffset", "FailedOffsets", "Ordering", "Plan", "State", "cut"]


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

    def plan(
        self,
        commit: CommitPartition,
        policy: RetryPolicy,
        now_ms: int,
        unit: Callable[[], float],
        spends: Spends = always,
    ) -> Plan:
        """What `commit` changes, and the verdict on each of its failures. Changes nothing itself.

        `now_ms` is wall-clock; `unit` gives random numbers in [0, 1) for the jitter; a failure for which `spends` says no
        waits with the attempts it had, and is due at once.
        """
        committed = max(self.committed, commit.offset)
        if not (commit.failed or commit.parked or commit.done or self._ahead):
            return Plan(committed, {}, [], [])
        draft = Draft(self, committed)
        for offset in self._ahead:
            if offset < committed:
                draft.changes[offset] = None
        for offset in commit.done:
            draft.finish(offset, Event.DONE)
        verdicts = [draft.fail(failure, policy, now_ms, unit, spends) for failure in commit.failed]
        for parked in commit.parked:
            draft.park(parked, policy)
        return Plan(committed, draft.changes, verdicts, draft.exhausted)

    def plan_letter_written(self, offset: int) -> Plan:
        """What the completion of a dead letter changes; nothing when it is known already."""
        draft = Draft(self, self.committed)
        draft.finish(offset, Event.LETTER)
        return Plan(self.committed, draft.changes, [], [])

    def plan_reset(self, committed: int, *, drop_failed: bool = False) -> Plan:
        """What it changes that reading goes on at `committed`, wherever it stands now.

        What is done ahead is forgotten, and so are failures at and above it, or all of them: they are read again, or not
        wanted. Not those whose dead letter is on its way: that cannot be taken back.
        """
        changes: dict[int, FailedOffset | None] = {}
        for offset, entry in self._entries.items():
            if entry.state is not State.DEAD_LETTERING and (drop_failed or offset >= committed or entry.state is State.DONE):
                changes[offset] = None
        return Plan(committed, changes, [], [])

    def plan_resume(self, now_ms: int) -> Plan:
        """Paused records are tried again."""
        draft = Draft(self, self.committed)
        if self._counts.get(State.PAUSED):
            for offset in self._entries:
                draft.resume(offset, now_ms)
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

    def due(self, now_ms: int, limit: int, poll: int = 0, *, alone: bool = False, behind: int = 0) -> list[DueRecord]:
        """Hand out up to `limit` records that are due, ascending. They are not due again until they fail or are released.

        A `poll` other than 0 that was given records before says that the answer was lost: those are handed out again.
        `alone`: one record, and none while another is out. `behind`: with each, up to so many that wait behind it.
        """
        if poll and poll == self._poll[0]:
            self._release(offset for offset in self._poll[1] if offset in self._delivered)
        if alone:
            limit, behind = 0 if self.leading_in_hand() else min(limit, 1), 0
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
        if behind:
            for offset in tuple(taken):
                taken += self._behind(offset, now_ms, min(behind, limit - len(taken)))
            self._delivered.update(taken)
        taken.sort()
        self._poll = (poll, taken)
        return self._handed(taken)

    def _behind(self, offset: int, now_ms: int, limit: int) -> list[int]:
        """What waits for `offset` of the same key and nothing else, in order."""
        leader = self._entries[offset]
        queue = None if leader.lane is None else self._lanes[leader.lane]
        if limit <= 0 or not isinstance(queue, list) or leader.ordering is not Ordering.KEY:
            return []
        found: list[int] = []
        for each in queue[1 : 1 + limit]:
            entry = self._entries[each]
            if each in self._delivered or entry.state not in (State.WAITING, State.PARKED) or entry.due_ms > now_ms:
                break
            found.append(each)
        return found

    def again(self, poll: int) -> list[DueRecord]:
        """What this poll was given and is still out, because its answer was lost."""
        if not poll or poll != self._poll[0]:
            return []
        return self._handed([offset for offset in self._poll[1] if offset in self._delivered])

    def _handed(self, taken: list[int]) -> list[DueRecord]:
        entries = ((offset, self._entries[offset]) for offset in taken)
        return [DueRecord(offset, entry.attempts + 1, entry.key_hash, entry.letter) for offset, entry in entries]

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

    def put_back(self, offsets: Iterable[int]) -> None:
        """These were handed out and did not go to the owner: they are due as before."""
        self._release([offset for offset in offsets if offset in self._delivered])

    def _release(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self._delivered.discard(offset)
            if self._leads(offset):  # an earlier one of its lane may have failed while it was in hand
                self._offer(offset)

    def _leads(self, offset: int) -> bool:
        """True for the lowest unfinished offset of its lane."""
        lane = self._entries[offset].lane
        if lane is None:
            return True
        queue = self._lanes[lane]
        return offset == (queue if isinstance(queue, int) else queue[0])

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

    def in_hand(self) -> list[int]:
        """The offsets that are handed out, ascending."""
        return sorted(self._delivered)

    def leading_in_hand(self) -> bool:
        """True while a record is handed out that waits for no other."""
        return any(map(self._leads, self._delivered))

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
