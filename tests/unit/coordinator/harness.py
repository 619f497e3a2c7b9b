"""A coordinator in a test: logs that are only numbers, a clock that is moved, and a broker shell that never fails.

Every record that is written is kept, so a restart is a new coordinator that replays them; after every event the state is
compared with what such a restart would rebuild.
"""

from collections.abc import Iterable

from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Effect, Event, Now, Outcome, StateRecord, Tick, WriteDeadLetter
from logsvc.coordinator.limits import DEFAULT_LIMITS, CoordinatorLimits
from logsvc_common.messages import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    CommitResult,
    DueRecord,
    Failure,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchOffsetsResult,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    Parked,
    TopicPartitions,
)
from logsvc_common.retry import RetryPolicy

WALL_MS = 1_700_000_000_000
STEADY = RetryPolicy(max_attempts=3, initial_ms=1_000, max_ms=8_000, jitter=0.0)


class FakeLogs:
    """Topics as lists of end offsets."""

    def __init__(self, **topics: list[int]) -> None:
        self.topics = topics

    def partition_count(self, topic: str) -> int | None:
        return len(self.topics[topic]) if topic in self.topics else None

    def start_offset(self, topic: str, partition: int) -> int:
        return 0

    def check_online(self, topic: str, partition: int) -> None: ...

    def end_offset(self, topic: str, partition: int) -> int:
        return self.topics[topic][partition]


class Harness:
    """One group `g` on topic `t`, unless told otherwise."""

    def __init__(self, *, partitions: int = 4, limits: CoordinatorLimits = DEFAULT_LIMITS) -> None:
        self.logs = FakeLogs(t=[1_000] * partitions)
        self.limits = limits
        self.now = Now(WALL_MS, 5_000)
        self.written: list[StateRecord] = []
        self.effects: list[Effect] = []
        self.replay_checked_every = 1  # events; long runs look less often
        self._steps = 0
        self.coordinator = self._fresh()

    def _fresh(self) -> Coordinator:
        return Coordinator(self.logs, limits=self.limits, unit=lambda: 0.5)

    def handle(self, event: Event) -> Outcome:
        looked_at = self._steps % self.replay_checked_every == 0
        before = list(self.coordinator.snapshot()) if looked_at else []
        outcome = self.coordinator.handle(event, self.now)
        assert not looked_at or list(self.coordinator.snapshot()) == before, "handle changed what only replay may change"
        self._write(outcome)
        return outcome

    def _write(self, outcome: Outcome) -> None:
        for record in outcome.records:
            self.coordinator.replay(record)
        self.written += outcome.records
        self.effects += outcome.effects
        self._steps += 1
        if self._steps % self.replay_checked_every == 0:
            self.check_replay()

    def check_replay(self) -> None:
        rebuilt = self._fresh()
        for record in self.written:
            rebuilt.replay(record)
        assert list(rebuilt.snapshot()) == list(self.coordinator.snapshot())

    def restart(self) -> list[Effect]:
        """A new coordinator on the same internal log; returns the effects it starts with."""
        self.check_replay()
        self.coordinator = self._fresh()
        for record in self.written:
            self.coordinator.replay(record)
        outcome = self.coordinator.loaded(self.now)
        self._write(outcome)
        return list(outcome.effects)

    def pass_time(self, ms: int) -> Outcome:
        self.now = Now(self.now.wall_ms + ms, self.now.monotonic_ms + ms)
        return self.handle(Tick())

    # Requests

    def beat(
        self,
        member: str,
        epoch: int,
        owned: Iterable[int] | None = None,
        *,
        topics: list[str] | None = None,
        assignor: str | None = None,
        session_timeout_ms: int | None = None,
    ) -> GroupHeartbeatReply:
        request = GroupHeartbeat(
            "g",
            member,
            epoch,
            topics=topics,
            assignor=assignor,
            session_timeout_ms=session_timeout_ms,
            owned=None if owned is None else [TopicPartitions("t", sorted(owned))],
        )
        reply = self.handle(request).reply
        assert isinstance(reply, GroupHeartbeatReply)
        return reply

    def join(
        self,
        member: str,
        *,
        topics: list[str] | None = None,
        assignor: str | None = None,
        session_timeout_ms: int | None = None,
    ) -> GroupHeartbeatReply:
        topics = ["t"] if topics is None else topics
        return self.beat(member, JOIN_EPOCH, topics=topics, assignor=assignor, session_timeout_ms=session_timeout_ms)

    def leave(self, member: str) -> GroupHeartbeatReply:
        return self.beat(member, LEAVE_EPOCH)

    def commit(
        self,
        offset: int = -1,
        *,
        member: str = "",
        epoch: int = NO_MEMBER_EPOCH,
        partition: int = 0,
        failed: Iterable[Failure] = (),
        parked: Iterable[Parked] = (),
        done: Iterable[int] = (),
        retry: RetryPolicy | None = STEADY,
    ) -> CommitResult:
        part = CommitPartition("t", partition, offset, list(failed), list(parked), list(done))
        reply = self.handle(Commit("g", member, epoch, [part], retry)).reply
        assert isinstance(reply, CommitReply)
        return reply.results[0]

    def retries(
        self, *, member: str = "", epoch: int = NO_MEMBER_EPOCH, partition: int = 0, poll: int = 0, max_records: int = 500
    ) -> list[DueRecord]:
        request = FetchRetries("g", member, epoch, [FetchOffsetsPartition("t", partition)], 0, max_records, poll)
        reply = self.handle(request).reply
        assert isinstance(reply, FetchRetriesReply)
        return [record for result in reply.results for record in result.records]

    def next_due_ms(self, partitions: Iterable[FetchOffsetsPartition] = (), *, member: str = "") -> int | None:
        asked = list(partitions) or [FetchOffsetsPartition("t", 0)]
        return self.coordinator.next_due_ms(FetchRetries("g", member, NO_MEMBER_EPOCH, asked), self.now)

    def offsets(self, partition: int = 0) -> FetchOffsetsResult:
        reply = self.handle(FetchOffsets("g", [FetchOffsetsPartition("t", partition)])).reply
        assert isinstance(reply, FetchOffsetsReply)
        return reply.results[0]

    def letters_asked_for(self) -> list[WriteDeadLetter]:
        return [effect for effect in self.effects if isinstance(effect, WriteDeadLetter)]


def given(reply: GroupHeartbeatReply) -> set[int] | None:
    """The partitions of `t` in an answer; None when it says that nothing changed."""
    if reply.assignment is None:
        return None
    return {partition for entry in reply.assignment for partition in entry.partitions}


def failure(offset: int, *, key: int | None = None, attempt: int = 0, exception: str = "ValueError") -> Failure:
    return Failure(offset, f"cannot handle {offset}", exception, "Traceback", key, attempt)
