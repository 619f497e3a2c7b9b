"""Changing a group by hand: reset, delete, configure, resume, and what each leaves of failures."""

import pytest

from logsvc.coordinator.events import DeadLetterWritten, ResetOffsets
from logsvc_common.breaker import DEFAULT_BREAKER
from logsvc_common.errors import GroupNotEmpty, InvalidConfig, InvalidGroupName, UnknownGroup
from logsvc_common.messages import (
    JOIN_EPOCH,
    STATIC_LEAVE_EPOCH,
    ConfigureGroup,
    ConfigureGroupReply,
    DeleteGroup,
    DeleteGroupReply,
    GroupHeartbeat,
    Parked,
    ResetGroupReply,
    ResetResult,
    ResumeGroup,
    ResumeGroupReply,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import STEADY, Harness, failure


def reset(broker: Harness, offset: int, *, dry_run: bool = False, drop_failed: bool = False) -> ResetResult:
    reply = broker.handle(ResetOffsets("g", [(("t", 0), offset)], dry_run, drop_failed)).reply
    assert isinstance(reply, ResetGroupReply)
    return reply.results[0]


def with_failures() -> Harness:
    """Committed 100; 10 and 60 wait, 61 is parked behind 60, 150 failed ahead, 160 is done ahead."""
    broker = Harness()
    broker.commit(100, failed=[failure(10), failure(60, key=1)], parked=[Parked(61, 1)])
    broker.commit(failed=[failure(150), failure(160)])
    broker.pass_time(10_000)
    broker.retries()
    broker.commit(done=[160])
    return broker


def outstanding(broker: Harness) -> dict[int, str]:
    return {entry.offset: entry.state for entry in broker.offsets().outstanding}


class TestReset:
    def test_back_forgets_the_failures_that_will_be_read_again(self) -> None:
        broker = with_failures()
        result = reset(broker, 50)
        assert (result.old_offset, result.new_offset, result.dropped, result.kept) == (100, 50, 3, 1)
        assert broker.offsets().committed == 50
        assert list(outstanding(broker)) == [10]

    def test_forward_keeps_what_failed_and_forgets_what_was_done_ahead(self) -> None:
        broker = with_failures()
        result = reset(broker, 500)
        assert (result.dropped, result.kept) == (0, 4)
        assert list(outstanding(broker)) == [10, 60, 61, 150]
        assert broker.offsets().committed == 500

    def test_failures_are_dropped_when_that_is_wanted(self) -> None:
        broker = with_failures()
        result = reset(broker, 500, drop_failed=True)
        assert (result.dropped, result.kept) == (4, 0)
        assert outstanding(broker) == {}

    def test_a_dry_run_tells_the_same_and_changes_nothing(self) -> None:
        broker = with_failures()
        before = list(broker.coordinator.snapshot())
        tried = reset(broker, 50, dry_run=True)
        assert list(broker.coordinator.snapshot()) == before
        assert reset(broker, 50) == tried

    def test_a_dead_letter_that_is_being_written_is_not_taken_back(self) -> None:
        broker = Harness()
        broker.commit(100, failed=[failure(60)], retry=RetryPolicy(max_attempts=1))
        result = reset(broker, 0, drop_failed=True)
        assert (result.dropped, result.kept) == (0, 1)
        assert outstanding(broker) == {60: "dead_lettering"}
        broker.handle(DeadLetterWritten("g", "t", 0, 60, 0))
        assert outstanding(broker) == {60: "done"}, "whoever reads from 0 must pass it over"
        broker.commit(100)
        assert outstanding(broker) == {}

    def test_a_reset_goes_back_and_commits_go_on_from_there(self) -> None:
        broker = Harness()
        broker.commit(100)
        reset(broker, 10)
        assert broker.commit(20).committed == 20

    def test_it_makes_a_group_that_was_not_there(self) -> None:
        broker = Harness()
        assert reset(broker, 7, dry_run=True).old_offset == -1
        with pytest.raises(UnknownGroup):
            broker.coordinator.describe("g", broker.now)
        reset(broker, 7)
        assert broker.offsets().committed == 7

    def test_a_partition_that_never_committed_gets_an_offset(self) -> None:
        broker = Harness()
        broker.commit(100, partition=1)
        assert reset(broker, 0).old_offset == -1
        assert broker.offsets().committed == 0

    def test_it_is_refused_while_somebody_reads_and_not_while_everybody_is_away(self) -> None:
        broker = Harness()
        broker.handle(GroupHeartbeat("g", "a", JOIN_EPOCH, instance_id="one", topics=["t"]))
        for event in (ResetOffsets("g", [(("t", 0), 1)]), DeleteGroup("g")):
            with pytest.raises(GroupNotEmpty):
                broker.handle(event)
        broker.handle(GroupHeartbeat("g", "a", STATIC_LEAVE_EPOCH, instance_id="one"))
        assert reset(broker, 5).new_offset == 5

    def test_a_suspicion_stays_until_the_reset_has_passed_it(self) -> None:
        broker = Harness()
        broker.join("a", session_timeout_ms=1_000)
        broker.commit(100, member="a", epoch=1)
        broker.pass_time(1_000)
        deaths = lambda: broker.coordinator.describe("g", broker.now).partitions[0].deaths  # noqa: E731
        assert deaths() == 1
        reset(broker, 0)
        assert deaths() == 1
        reset(broker, 1_000)
        assert deaths() == 0


class TestDelete:
    def test_nothing_is_left(self) -> None:
        broker = with_failures()
        broker.commit(5, partition=1, failed=[failure(3)], retry=RetryPolicy(max_attempts=1))
        broker.handle(ConfigureGroup("g", threshold=0.1))
        reply = broker.handle(DeleteGroup("g")).reply
        assert isinstance(reply, DeleteGroupReply)
        assert (reply.partitions, reply.failed) == (2, 5)
        assert list(broker.coordinator.snapshot()) == []
        assert broker.offsets().committed == -1
        broker.handle(DeadLetterWritten("g", "t", 1, 3, 0))
        assert list(broker.coordinator.snapshot()) == []

    def test_one_that_is_not_there_is_unknown(self) -> None:
        with pytest.raises(UnknownGroup):
            Harness().handle(DeleteGroup("g"))


class TestConfigure:
    def test_settings_survive_a_restart_and_are_merged(self) -> None:
        broker = Harness()
        broker.handle(ConfigureGroup("g", threshold=0.25))
        broker.handle(ConfigureGroup("g", min_failures=7))
        broker.restart()
        config = broker.coordinator.describe("g", broker.now).breaker.config
        assert (config.threshold, config.min_failures, config.window_ms) == (0.25, 7, DEFAULT_BREAKER.window_ms)

    def test_defaults_come_first(self) -> None:
        broker = Harness()
        broker.handle(ConfigureGroup("g", threshold=0.25, min_failures=7))
        reply = broker.handle(ConfigureGroup("g", defaults=True, probes=9)).reply
        assert isinstance(reply, ConfigureGroupReply)
        assert (reply.breaker.threshold, reply.breaker.probes) == (0.5, 9)

    @pytest.mark.parametrize("wrong", [{"threshold": 2.0}, {"open_ms": 0}, {"open_ms": 10_000, "open_max_ms": 5_000}], ids=str)
    def test_what_cannot_be_changes_nothing(self, wrong: dict[str, float]) -> None:
        broker = Harness()
        with pytest.raises(InvalidConfig):
            broker.handle(ConfigureGroup("g", **wrong))  # type: ignore[arg-type]
        with pytest.raises(UnknownGroup):
            broker.coordinator.describe("g", broker.now)

    def test_a_group_needs_a_legal_name(self) -> None:
        with pytest.raises(InvalidGroupName):
            Harness().handle(ConfigureGroup("../g", enabled=False))

    def test_a_group_that_was_set_up_outlives_its_members(self) -> None:
        broker = Harness()
        broker.handle(ConfigureGroup("g", enabled=False))
        broker.join("a")
        broker.leave("a")
        assert broker.coordinator.describe("g", broker.now).breaker.state == "off"


class TestResume:
    def test_paused_records_are_due_with_a_fresh_budget(self) -> None:
        broker = Harness()
        policy = RetryPolicy(max_attempts=1, on_exhausted="pause")
        for partition in (0, 1):
            broker.commit(10, partition=partition, failed=[failure(3)], retry=policy)
        assert broker.offsets().full
        reply = broker.handle(ResumeGroup("g", "t", 0)).reply
        assert reply == ResumeGroupReply("g", breaker_closed=False, resumed=1)
        assert not broker.offsets().full
        assert broker.offsets(1).full, "only that partition"
        [again] = broker.retries()
        assert (again.offset, again.attempt) == (3, 1)

    def test_it_closes_the_breaker(self) -> None:
        broker = Harness()
        broker.commit(0)
        broker.commit(60, failed=[failure(offset) for offset in range(50)], retry=STEADY)
        assert broker.coordinator.describe("g", broker.now).breaker.state == "open"
        reply = broker.handle(ResumeGroup("g")).reply
        assert isinstance(reply, ResumeGroupReply)
        assert reply.breaker_closed
        assert broker.coordinator.describe("g", broker.now).breaker.state == "closed"
        assert not broker.offsets().full

    def test_an_unknown_group_has_nothing_to_resume(self) -> None:
        with pytest.raises(UnknownGroup):
            Harness().handle(ResumeGroup("g"))
