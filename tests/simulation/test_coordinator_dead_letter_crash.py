"""A crash at every step of the dead-letter move: exactly one letter, and the offset done.

The broker here is as small as one can be: an internal log and a dead-letter log that lose what was not synced, and the
coordinator's shell between them, which crashes when its countdown ends. Every write, sync, reply and event is a step. A
scenario is run once without a crash to count its steps, then once for each step and each way of losing unsynced data, and
once more for each pair of steps, so that the restart crashes as well.
"""

import pytest

from logsvc.coordinator import deadletter
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import NOTHING, DeadLetterWritten, Event, Now, Outcome, StateRecord, WriteDeadLetter
from logsvc_common import letters
from logsvc_common.batch import RecordData
from logsvc_common.messages import (
    Commit,
    CommitPartition,
    Failure,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    Parked,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import WALL_MS, FakeLogs
from tests.unit.coordinator.test_dead_letters import Record

FAILING = (3, 5)  # offsets that fail; 4 and 6 are parked behind them
ONCE = RetryPolicy(max_attempts=1)
COMMIT = Commit(
    "g",
    "",
    -1,
    [
        CommitPartition(
            "t", 0, 8, [Failure(offset, "boom", "E", "trace", offset) for offset in FAILING], [Parked(4, 3), Parked(6, 5)]
        )
    ],
    ONCE,
)


class Crash(Exception):
    """The machine stops here."""


class Disk:
    """Two logs. What is appended is lost by a crash unless it was synced, or unless `keeps` says the system wrote it early."""

    def __init__(self) -> None:
        self.state: list[list[StateRecord]] = []  # batches: one append is all there or not at all
        self.letters: list[RecordData] = []
        self.synced = (0, 0)

    def crash(self, keeps: bool) -> None:
        if not keeps:
            del self.state[self.synced[0] :]
            del self.letters[self.synced[1] :]
        self.synced = (len(self.state), len(self.letters))


class Shell:
    """One life of the broker. It ends at the step `crash_at`; None: it does not."""

    def __init__(self, disk: Disk, crash_at: int | None) -> None:
        self.disk = disk
        self.steps = 0
        self.crash_at = crash_at
        self.logs = FakeLogs(t=[10])
        self.coordinator = Coordinator(self.logs, unit=lambda: 0.5)
        self.now = Now(WALL_MS, 1_000)
        self.see_letters()
        for batch in disk.state:
            for record in batch:
                self.coordinator.replay(record)
        self.carry_out(self.coordinator.loaded(self.now))

    def see_letters(self) -> None:
        if self.disk.letters:
            self.logs.topics["dlq.t.g"] = [self.disk.synced[1]]

    def step(self) -> None:
        """A point where a crash could tell the difference."""
        if self.steps == self.crash_at:
            raise Crash
        self.steps += 1

    def handle(self, event: Event) -> Outcome:
        outcome = self.coordinator.handle(event, self.now)
        self.carry_out(outcome)
        return outcome

    def carry_out(self, outcome: Outcome) -> None:
        self.step()
        if outcome.records:
            self.disk.state.append(outcome.records)
            for record in outcome.records:
                self.coordinator.replay(record)
            self.step()
            self.disk.synced = (len(self.disk.state), self.disk.synced[1])
            self.step()
        for effect in outcome.effects:
            if isinstance(effect, WriteDeadLetter):
                self.write_letter(effect)

    def write_letter(self, effect: WriteDeadLetter) -> None:
        for place in range(effect.search_from, len(self.disk.letters)):
            if deadletter.identity(self.disk.letters[place].headers) == deadletter.identity(effect.headers):
                break
        else:
            place = len(self.disk.letters)
            self.disk.letters.append(deadletter.letter(Record(effect.offset), effect, self.now.wall_ms))
            self.step()
        self.disk.synced = (self.disk.synced[0], len(self.disk.letters))
        self.see_letters()
        self.step()
        self.handle(DeadLetterWritten("g", "t", 0, effect.offset, place))


def live(disk: Disk, crashes: list[int], keeps: bool) -> int:
    """Commit until it is answered, each life crashing at the step `crashes` has for it. Returns the steps of the last life."""
    for crash_at in (*crashes, None):
        try:
            shell = Shell(disk, crash_at)
            shell.handle(COMMIT)  # sent again after a crash, as a client does that had no answer
        except Crash:
            disk.crash(keeps)
        else:
            check(disk, shell)
            return shell.steps
    raise AssertionError("the last life does not crash")


def check(disk: Disk, shell: Shell) -> None:
    offsets = [dict(letter.headers)[letters.OFFSET] for letter in disk.letters]
    assert sorted(offsets) == [b"3", b"5"], "exactly one letter for each exhausted failure"
    reply = shell.coordinator.handle(FetchOffsets("g", [FetchOffsetsPartition("t", 0)]), shell.now).reply
    assert isinstance(reply, FetchOffsetsReply)
    assert reply.results[0].committed == 8
    assert [entry.offset for entry in reply.results[0].outstanding] == [4, 6], "only what was parked is left"
    restarted = Coordinator(shell.logs, unit=lambda: 0.5)
    for batch in disk.state:
        for record in batch:
            restarted.replay(record)
    assert not restarted.loaded(shell.now).effects, "nothing is left to do"
    assert list(restarted.snapshot()) == list(shell.coordinator.snapshot())


@pytest.fixture(name="steps")
def steps_of_a_life_without_a_crash() -> int:
    steps = live(Disk(), [], keeps=True)
    assert steps > 10
    return steps


def crash_at_every_step(steps: int, *, keeps: bool) -> None:
    for crash in range(steps):
        live(Disk(), [crash], keeps)


@pytest.mark.parametrize("keeps", [False, True], ids=["unsynced data lost", "unsynced data kept"])
def test_a_crash_at_any_step_leaves_exactly_one_letter(steps: int, keeps: bool) -> None:
    crash_at_every_step(steps, keeps=keeps)
    print(f"{steps} crash points")


@pytest.mark.parametrize("keeps", [False, True], ids=["unsynced data lost", "unsynced data kept"])
def test_a_crash_during_the_recovery_from_a_crash_leaves_exactly_one_letter(steps: int, keeps: bool) -> None:
    pairs = [(first, second) for first in range(steps) for second in range(steps)]
    for pair in pairs:
        live(Disk(), list(pair), keeps)
    print(f"{len(pairs)} pairs of crash points")


def test_the_simulation_would_notice_a_second_letter(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletter, "identity", lambda _: object())
    with pytest.raises(AssertionError, match="exactly one letter"):
        crash_at_every_step(steps, keeps=True)


def test_the_simulation_would_notice_a_lost_intent(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "loaded", lambda _self, _now: NOTHING)
    with pytest.raises(AssertionError, match="exactly one letter"):
        crash_at_every_step(steps, keeps=True)
