"""The failed offsets of one partition: budget, backoff, hand-outs, reports that come twice."""

import pytest

from logsvc_common.delivery import TRANSITIONS, Event, FailedOffsets, Plan, State, cut
from logsvc_common.messages import CommitPartition, DueRecord, Failure, Parked
from logsvc_common.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, initial_ms=100, max_ms=1_000, multiplier=2.0, jitter=0.0)
NOW = 1_000_000


def report(
    failed: FailedOffsets,
    offset: int = -1,
    *,
    fails: list[Failure] | None = None,
    parked: list[Parked] | None = None,
    done: list[int] | None = None,
    policy: RetryPolicy = POLICY,
    now_ms: int = NOW,
) -> Plan:
    """Plan a commit and apply it."""
    plan = failed.plan(CommitPartition("t", 0, offset, fails or [], parked or [], done or []), policy, now_ms, lambda: 0.5)
    apply(failed, plan)
    return plan


def apply(failed: FailedOffsets, plan: Plan) -> None:
    failed.set_committed(plan.committed)
    for offset, entry in plan.changes.items():
        failed.put(offset, entry)


def fail(offset: int, attempt: int = 0, key: int | None = None) -> Failure:
    return Failure(offset, "boom", "app.Boom", "", key, attempt)


def handed(failed: FailedOffsets, now_ms: int = NOW + 10_000, limit: int = 100) -> list[int]:
    return [record.offset for record in failed.due(now_ms, limit)]


def test_success_leaves_nothing_behind() -> None:
    failed = FailedOffsets()
    assert report(failed, 5) == Plan(5, {}, [], [])
    assert (failed.committed, len(failed)) == (5, 0)


def test_planning_changes_nothing() -> None:
    failed = FailedOffsets()
    failed.plan(CommitPartition("t", 0, 5, [fail(4)], [Parked(3, 1)], []), POLICY, NOW, lambda: 0.5)
    assert (failed.committed, len(failed)) == (-1, 0)


def test_a_failure_waits_longer_each_time_and_is_exhausted_with_its_budget() -> None:
    failed = FailedOffsets()
    first = report(failed, 5, fails=[fail(4)])
    assert [(v.state, v.attempts, v.due_in_ms) for v in first.verdicts] == [("waiting", 1, 100)]
    assert handed(failed, NOW + 99) == []
    assert failed.due(NOW + 100, 10) == [DueRecord(4, 2)]

    second = report(failed, fails=[fail(4)], now_ms=NOW + 100)
    assert [(v.state, v.attempts, v.due_in_ms) for v in second.verdicts] == [("waiting", 2, 200)]
    assert failed.due(NOW + 300, 10) == [DueRecord(4, 3)]

    third = report(failed, fails=[fail(4)], now_ms=NOW + 300)
    assert [(v.state, v.attempts) for v in third.verdicts] == [("dead_lettered", 3)]
    (exhausted,) = third.exhausted
    assert (exhausted.attempts, exhausted.first_failure_ms, exhausted.reason) == (3, NOW, "exhausted")
    assert failed.next_due_ms() is None

    apply(failed, failed.plan_letter_written(4))
    assert len(failed) == 0


def test_a_report_that_comes_twice_spends_one_attempt() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)])
    again = report(failed, 5, fails=[fail(4)], now_ms=NOW + 40)
    assert [(v.state, v.attempts, v.due_in_ms) for v in again.verdicts] == [("waiting", 1, 60)]
    assert again.changes == {}


def test_a_late_copy_of_a_report_is_known_by_its_attempt_even_when_the_record_is_out_again() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4, attempt=1)])
    assert handed(failed) == [4]
    late = report(failed, 5, fails=[fail(4, attempt=1)])
    assert [(v.state, v.attempts) for v in late.verdicts] == [("waiting", 1)]
    assert late.changes == {}
    assert report(failed, fails=[fail(4, attempt=2)]).verdicts[0].attempts == 2


def test_a_numbered_attempt_counts_though_a_restart_has_forgotten_the_hand_out() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4, attempt=1)])
    assert report(failed, fails=[fail(4, attempt=2)]).verdicts[0].attempts == 2
    assert report(failed, fails=[fail(4, attempt=2)]).verdicts[0].attempts == 2


def test_a_record_that_is_finished_cannot_fail_any_more() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)])
    handed(failed)
    report(failed, done=[4])
    late = report(failed, 5, fails=[fail(4), fail(3)])
    assert [v.state for v in late.verdicts] == ["done", "done"]
    assert late.changes == {}


def test_a_hand_out_spends_nothing() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)])
    for _ in range(10):
        assert failed.due(NOW + 100, 10) == [DueRecord(4, 2)]
        failed.release()


def test_a_record_in_hand_is_not_handed_out_again() -> None:
    failed = FailedOffsets()
    report(failed, 6, fails=[fail(4), fail(5)])
    assert handed(failed, limit=1) == [4]
    assert handed(failed) == [5]
    assert handed(failed) == []
    assert failed.counts() == {"delivered": 2}


def test_a_poll_that_is_repeated_gets_what_it_got_less_what_is_finished() -> None:
    failed = FailedOffsets()
    report(failed, 7, fails=[fail(4), fail(5), fail(6)])
    assert [r.offset for r in failed.due(NOW + 100, 2, poll=1)] == [4, 5]
    report(failed, done=[4])
    assert [r.offset for r in failed.due(NOW + 100, 2, poll=1)] == [5, 6]
    assert [r.offset for r in failed.due(NOW + 100, 2, poll=2)] == []


def test_due_records_come_ascending_whatever_their_due_times() -> None:
    failed = FailedOffsets()
    report(failed, 3, fails=[fail(2)], now_ms=NOW)
    report(failed, 9, fails=[fail(8)], now_ms=NOW - 50)
    assert failed.next_due_ms() == NOW + 50
    assert handed(failed) == [2, 8]


def test_a_failure_ahead_of_the_committed_offset_is_remembered_as_done_until_it_is_passed() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(8)])
    handed(failed)
    report(failed, done=[8])
    assert [(entry.offset, entry.state) for entry in failed.outstanding()] == [(8, "done")]
    assert failed.counts() == {}
    assert report(failed, 8, fails=[fail(8)], parked=[Parked(8, 1)]).verdicts[0].state == "done"
    report(failed, 9)
    assert failed.outstanding() == []


def test_done_of_what_is_not_tracked_is_nothing() -> None:
    failed = FailedOffsets()
    assert report(failed, 5, done=[3, 7]).changes == {}


def test_a_record_named_twice_in_one_commit_fails_once() -> None:
    failed = FailedOffsets()
    plan = report(failed, 5, fails=[fail(4), fail(4)], parked=[Parked(4, 1)])
    assert [v.attempts for v in plan.verdicts] == [1, 1]
    assert failed.counts() == {"waiting": 1}


@pytest.mark.parametrize(
    ("on_exhausted", "verdict", "left"),
    [("dead-letter", "dead_lettered", {"dead_lettering": 1}), ("pause", "paused", {"paused": 1}), ("discard", "discarded", {})],
)
def test_what_a_spent_budget_comes_to(on_exhausted: str, verdict: str, left: dict[str, int]) -> None:
    failed = FailedOffsets()
    policy = RetryPolicy(max_attempts=1, on_exhausted=on_exhausted)
    assert report(failed, 5, fails=[fail(4)], policy=policy).verdicts[0].state == verdict
    assert failed.counts() == left


def test_exceptions_that_skip_retries_are_exhausted_at_once() -> None:
    failed = FailedOffsets()
    policy = RetryPolicy(max_attempts=9, no_retry=("Boom",))
    plan = report(failed, 5, fails=[fail(4)], policy=policy)
    assert (plan.verdicts[0].state, plan.exhausted[0].reason, plan.exhausted[0].attempts) == ("dead_lettered", "no_retry", 1)


def test_a_budget_that_was_lowered_counts_for_the_next_failure() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)])
    handed(failed)
    assert report(failed, fails=[fail(4)], policy=RetryPolicy(max_attempts=1)).verdicts[0].state == "dead_lettered"


def test_nothing_but_its_letter_ends_a_dead_lettering() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)], policy=RetryPolicy(max_attempts=1))
    assert report(failed, done=[4]).changes == {}
    assert report(failed, fails=[fail(4, attempt=2)]).verdicts[0].state == "dead_lettered"
    assert failed.plan_letter_written(3).changes == {}
    apply(failed, failed.plan_letter_written(4))
    assert failed.counts() == {}


def test_a_clock_that_went_back_cannot_hold_a_record_longer_than_its_backoff() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(3), fail(4)])
    back = NOW - 3_600_000
    failed.reanchor(back)
    assert failed.next_due_ms() == back + 100
    assert handed(failed, back + 100) == [3, 4]


def test_a_clock_that_went_back_while_a_record_was_in_hand_does_not_delay_its_return() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(3, key=1), fail(4, key=1)])
    assert handed(failed) == [3]
    back = NOW - 3_600_000
    failed.reanchor(back)
    failed.release()
    assert handed(failed, back + 100) == [3]
    report(failed, done=[3])
    assert handed(failed, back + 100) == [4]


def test_a_clock_that_is_right_is_left_alone() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)])
    failed.reanchor(NOW + 30)
    assert failed.next_due_ms() == NOW + 100


def test_every_state_but_the_first_is_reached_and_the_last_is_left_only_by_a_redrive() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {event for state, event in TRANSITIONS if state is State.DONE} == {Event.REDRIVE}
    assert set(TRANSITIONS.values()) == set(State) - {State.NEW}
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_text_is_cut_between_characters() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc"
    assert cut("aé", 2) == "a"
    assert cut("é" * 10, 5) == "éé"
    assert cut("\ud800abc", 100) == "\ud800abc"
    assert cut("\ud800" * 100, 4) == "????"
