"""The failed offsets of a partition against a model that looks at every entry each time it is asked anything."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from logsvc_common.delivery import FailedOffsets, Plan
from logsvc_common.messages import CommitPartition, Failure, Parked
from logsvc_common.retry import RetryPolicy

CAP = 6
offsets = st.integers(0, 12)


def key_of(offset: int) -> int | None:
    return (1, 2, None)[offset % 3]


@dataclass
class Entry:
    state: str
    attempts: int = 0
    ordering: str = "key"
    due_ms: int = 0
    wait_ms: int = 0
    delivered: bool = False


class Model:
    """What should be true, said as plainly as possible."""

    def __init__(self) -> None:
        self.committed = -1
        self.entries: dict[int, Entry] = {}

    def finish(self, offset: int) -> None:
        self.entries[offset] = Entry("done")

    def commit(self, part: CommitPartition, policy: RetryPolicy, now_ms: int) -> list[tuple[int, str, int]]:
        old_committed, self.committed = self.committed, max(self.committed, part.offset)
        touched: set[int] = set()
        verdicts: list[tuple[int, str, int]] = []
        for offset in part.done:
            entry = self.entries.get(offset)
            if entry is not None and entry.state in ("waiting", "parked"):
                self.finish(offset)
                touched.add(offset)
        for failure in part.failed:
            if failure.offset not in touched:
                self.fail(failure, old_committed, policy, now_ms, touched)
            verdicts.append(self.verdict(failure.offset))
        for parked in part.parked:
            if parked.offset >= old_committed and parked.offset not in self.entries and parked.offset not in touched:
                self.entries[parked.offset] = Entry("parked", ordering=policy.ordering)
        self.forget()
        return verdicts

    def fail(self, failure: Failure, old_committed: int, policy: RetryPolicy, now_ms: int, touched: set[int]) -> None:
        entry = self.entries.get(failure.offset)
        if entry is None:
            if failure.offset < old_committed:
                return
            entry = Entry("new")
        elif entry.state not in ("waiting", "parked"):
            return
        elif failure.attempt:
            if failure.attempt != entry.attempts + 1:
                return
        elif not entry.delivered:
            return
        touched.add(failure.offset)
        attempts = entry.attempts + 1
        if attempts < policy.max_attempts:
            wait_ms = policy.backoff_ms(attempts, 0.5)
            self.entries[failure.offset] = Entry("waiting", attempts, policy.ordering, now_ms + wait_ms, wait_ms)
        elif policy.on_exhausted == "discard":
            self.finish(failure.offset)
        else:
            state = "paused" if policy.on_exhausted == "pause" else "dead_lettering"
            self.entries[failure.offset] = Entry(state, attempts, policy.ordering)

    def verdict(self, offset: int) -> tuple[int, str, int]:
        entry = self.entries.get(offset)
        if entry is None:
            return (offset, "done", 0)
        return (offset, "dead_lettered" if entry.state == "dead_lettering" else entry.state, entry.attempts)

    def forget(self) -> None:
        self.entries = {o: e for o, e in self.entries.items() if e.state != "done" or o >= self.committed}

    def letter(self, offset: int) -> None:
        if offset in self.entries and self.entries[offset].state == "dead_lettering":
            self.finish(offset)
            self.forget()

    def lane(self, offset: int) -> object:
        ordering = self.entries[offset].ordering
        return "all" if ordering == "partition" else key_of(offset) if ordering == "key" else None

    def candidates(self) -> list[tuple[int, int]]:
        """(due, offset) of what may be handed out, once it is time."""
        if any(entry.state == "paused" for entry in self.entries.values()):
            return []
        found = []
        for offset, entry in self.entries.items():
            lane = self.lane(offset)
            earlier = [o for o, e in self.entries.items() if o < offset and e.state != "done" and self.lane(o) == lane]
            if entry.state in ("waiting", "parked") and not entry.delivered and (lane is None or not earlier):
                found.append((entry.due_ms, offset))
        return sorted(found)

    def hand_out(self, now_ms: int, limit: int) -> list[tuple[int, int]]:
        taken = sorted(offset for due_ms, offset in self.candidates()[:limit] if due_ms <= now_ms)
        for offset in taken:
            self.entries[offset].delivered = True
        return [(offset, self.entries[offset].attempts + 1) for offset in taken]

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.entries.values():
            if entry.state != "done":
                name = "delivered" if entry.delivered else entry.state
                found[name] = found.get(name, 0) + 1
        return found

    def full(self) -> bool:
        return (
            len(self.entries) >= CAP
            or any(entry.state == "paused" for entry in self.entries.values())
            or any(entry.ordering == "partition" and entry.state in ("waiting", "parked") for entry in self.entries.values())
        )


class DeliveryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.failed = FailedOffsets()
        self.model = Model()
        self.now_ms = 1_000_000

    @initialize(attempts=st.integers(1, 3), ordering=st.sampled_from(["key", "partition", "none"]))
    def choose(self, attempts: int, ordering: str) -> None:
        self.policy = RetryPolicy(max_attempts=attempts, initial_ms=100, max_ms=400, ordering=ordering)

    @rule(
        ordering=st.sampled_from(["key", "partition", "none"]),
        on_exhausted=st.sampled_from(["dead-letter", "discard", "pause"]),
    )
    def change_policy(self, ordering: str, on_exhausted: str) -> None:
        self.policy = RetryPolicy(
            max_attempts=self.policy.max_attempts, initial_ms=100, max_ms=400, ordering=ordering, on_exhausted=on_exhausted
        )

    @rule(
        offset=st.integers(-1, 13),
        failed=st.lists(st.tuples(offsets, st.integers(0, 4)), max_size=4),
        parked=st.lists(offsets, max_size=3),
        done=st.lists(offsets, max_size=3),
        twice=st.booleans(),
    )
    def commit(self, offset: int, failed: list[tuple[int, int]], parked: list[int], done: list[int], twice: bool) -> None:
        part = CommitPartition(
            "t",
            0,
            offset,
            [Failure(o, "boom", "E", "", key_of(o), attempt) for o, attempt in failed],
            [Parked(o, key_of(o) or 3) for o in parked if key_of(o) is not None],
            done,
        )
        for _ in range(1 + twice):
            plan = self.failed.plan(part, self.policy, self.now_ms, lambda: 0.5)
            foretold = self.failed.full(CAP, plan.changes)
            self.apply(plan)
            assert foretold == self.failed.full(CAP)
            expected = self.model.commit(part, self.policy, self.now_ms)
            assert [
                (v.offset, "done" if v.state == "discarded" else v.state, 0 if v.state == "discarded" else v.attempts)
                for v in plan.verdicts
            ] == expected
            assert {e.failure.offset for e in plan.exhausted} <= {
                o for o, e in self.model.entries.items() if e.state == "dead_lettering"
            }

    def apply(self, plan: Plan) -> None:
        self.failed.set_committed(plan.committed)
        for offset, entry in plan.changes.items():
            self.failed.put(offset, entry)

    @rule(limit=st.integers(0, 5))
    def hand_out(self, limit: int) -> None:
        handed = [(record.offset, record.attempt) for record in self.failed.due(self.now_ms, limit)]
        assert handed == self.model.hand_out(self.now_ms, limit)

    @rule()
    def release(self) -> None:
        self.failed.release()
        for entry in self.model.entries.values():
            entry.delivered = False

    @rule(offset=offsets)
    def write_letter(self, offset: int) -> None:
        self.apply(self.failed.plan_letter_written(offset))
        self.model.letter(offset)

    @rule(ms=st.sampled_from([1, 50, 100, 400]))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @rule(ms=st.sampled_from([50, 1_000, 500_000]))
    def turn_clock_back(self, ms: int) -> None:
        self.now_ms -= ms
        self.failed.reanchor(self.now_ms)
        for entry in self.model.entries.values():
            entry.due_ms = min(entry.due_ms, self.now_ms + entry.wait_ms)

    @rule()
    def restart(self) -> None:
        """Rebuilt from what is recorded, in any order; hand-outs are forgotten."""
        rebuilt = FailedOffsets()
        for offset, entry in reversed(self.failed.entries().items()):
            rebuilt.put(offset, entry)
        rebuilt.set_committed(self.failed.committed)
        rebuilt.reanchor(self.now_ms)
        self.failed = rebuilt
        for offset, entry in self.model.entries.items():
            entry.delivered = False
            recorded = rebuilt.entries()[offset]
            entry.due_ms = min(recorded.due_ms, self.now_ms + recorded.wait_ms)

    @invariant()
    def they_agree(self) -> None:
        assert self.failed.committed == self.model.committed
        assert self.failed.counts() == self.model.counts()
        assert [entry.offset for entry in self.failed.outstanding()] == sorted(self.model.entries)
        assert self.failed.full(CAP) == self.model.full()
        candidates = self.model.candidates()
        assert self.failed.next_due_ms() == (candidates[0][0] if candidates else None)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        DeliveryMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


def test_failed_offsets_do_what_the_model_says() -> None:
    run(300, 40)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_failed_offsets_do_what_the_model_says_for_long() -> None:
    run(10_000, 60)
