"""Who waits behind whom: lanes by key, by partition, and none."""

import pytest

from logsvc_common.delivery import FailedOffsets
from logsvc_common.messages import CommitPartition, DueRecord, Parked
from logsvc_common.retry import RetryPolicy
from tests.unit.common.test_delivery_states import NOW, POLICY, apply, fail, handed, report

PARTITION = RetryPolicy(max_attempts=2, initial_ms=100, jitter=0.0, ordering="partition")
NONE = RetryPolicy(max_attempts=2, initial_ms=100, jitter=0.0, ordering="none")
CAP = 1_000


def test_records_of_a_key_wait_behind_its_failure_and_come_one_at_a_time() -> None:
    failed = FailedOffsets()
    report(failed, 9, fails=[fail(4, key=1)], parked=[Parked(6, 1), Parked(8, 1)])
    assert failed.due(NOW + 100, 10) == [DueRecord(4, 2, 1)]
    assert handed(failed) == []

    report(failed, done=[4])
    assert failed.next_due_ms() == 0, "the next of the key is due at once"
    assert failed.due(NOW, 10) == [DueRecord(6, 1, 1)]
    report(failed, done=[6])
    assert failed.due(NOW, 10) == [DueRecord(8, 1, 1)]


def test_those_of_a_key_may_come_behind_the_one_they_wait_for() -> None:
    failed = FailedOffsets()
    report(failed, 20, fails=[fail(4, key=1), fail(5, key=2)], parked=[Parked(6, 1), Parked(8, 1), Parked(9, 1), Parked(7, 2)])
    assert failed.due(NOW + 100, 10, 1, behind=2) == [
        DueRecord(4, 2, 1),
        DueRecord(5, 2, 2),
        DueRecord(6, 1, 1),
        DueRecord(7, 1, 2),
        DueRecord(8, 1, 1),
    ]
    assert handed(failed) == []

    # When the first fails again, the others stay out, and it comes alone.
    report(failed, fails=[fail(4, key=1, attempt=2)])
    assert failed.due(NOW + 1_000, 10, 2, behind=2) == [DueRecord(4, 3, 1)]
    assert not failed.due(NOW + 1_000, 10, 3, behind=2)
    report(failed, done=[4, 6, 8])
    assert failed.due(NOW + 1_000, 10, 4, behind=2) == [DueRecord(9, 1, 1)]
    # A new owner gets everything in turn.
    failed.release()
    assert [each.offset for each in failed.due(NOW + 1_000, 10, 1, behind=9)] == [5, 7, 9]


def test_a_limit_counts_those_behind_too_and_one_that_goes_alone_has_none() -> None:
    failed = FailedOffsets()
    report(failed, 20, fails=[fail(4, key=1), fail(5, key=2)], parked=[Parked(6, 1), Parked(8, 1)])
    assert [each.offset for each in failed.due(NOW + 100, 3, behind=9)] == [4, 5, 6]
    failed.release()
    assert [each.offset for each in failed.due(NOW + 100, 3, behind=9, alone=True)] == [4]
    assert failed.leading_in_hand()
    assert failed.due(NOW + 100, 3, behind=9, alone=True) == []


def test_what_waits_in_a_members_hands_does_not_keep_the_one_it_waits_for_from_going_alone() -> None:
    failed = FailedOffsets()
    report(failed, 20, fails=[fail(4, key=1)], parked=[Parked(6, 1)])
    assert [each.offset for each in failed.due(NOW + 100, 9, behind=9)] == [4, 6]
    report(failed, fails=[fail(4, key=1, attempt=2)])
    assert not failed.leading_in_hand()
    assert [each.offset for each in failed.due(NOW + 1_000, 9, behind=9, alone=True)] == [4]


def test_a_record_behind_that_has_to_wait_for_its_own_retry_does_not_come() -> None:
    failed = FailedOffsets()
    report(failed, 4, fails=[fail(6, key=1)], parked=[Parked(8, 1)])
    assert [each.offset for each in failed.due(NOW + 100, 9)] == [6]
    report(failed, 9, fails=[fail(4, key=1)])
    report(failed, fails=[fail(6, key=1, attempt=2)], now_ms=NOW + 90)
    assert [each.offset for each in failed.due(NOW + 100, 9, behind=9)] == [4]


def test_other_keys_flow() -> None:
    failed = FailedOffsets()
    report(failed, 9, fails=[fail(4, key=1), fail(5, key=2), fail(7)], parked=[Parked(6, 1)])
    assert handed(failed) == [4, 5, 7]


def test_a_parked_record_that_fails_waits_at_the_head_of_its_key() -> None:
    failed = FailedOffsets()
    report(failed, 9, fails=[fail(4, key=1)], parked=[Parked(6, 1), Parked(8, 1)])
    handed(failed)
    report(failed, done=[4])
    handed(failed)
    report(failed, fails=[fail(6, key=1)])
    assert failed.counts() == {"waiting": 1, "parked": 1}
    assert handed(failed) == [6]


def test_an_earlier_failure_of_a_key_goes_before_one_that_is_waiting() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(8, key=1)])
    report(failed, 5, fails=[fail(5, key=1)], now_ms=NOW + 50)
    assert failed.next_due_ms() == NOW + 150
    assert handed(failed) == [5]
    assert handed(failed) == []


def test_a_record_that_comes_back_waits_behind_an_earlier_one_that_failed_meanwhile() -> None:
    failed = FailedOffsets()
    report(failed, 0, fails=[fail(8, key=1)])
    assert handed(failed) == [8]
    report(failed, 0, fails=[fail(5, key=1)])
    failed.release()
    assert handed(failed) == [5]
    assert handed(failed) == []


def test_a_parked_record_whose_key_is_free_again_is_due_at_once() -> None:
    failed = FailedOffsets()
    report(failed, 9, parked=[Parked(6, 1)])
    assert handed(failed, NOW) == [6]
    failed.release()
    assert failed.counts() == {"parked": 1}


def test_parking_twice_is_parking_once_and_never_again_when_done() -> None:
    failed = FailedOffsets()
    report(failed, 9, parked=[Parked(6, 1)])
    assert report(failed, 9, parked=[Parked(6, 1)]).changes == {}
    handed(failed)
    report(failed, done=[6])
    assert report(failed, 9, parked=[Parked(6, 1)]).changes == {}


def test_records_behind_a_dead_letter_wait_until_it_is_written() -> None:
    failed = FailedOffsets()
    report(failed, 9, fails=[fail(4, key=1)], parked=[Parked(6, 1)], policy=RetryPolicy(max_attempts=1))
    assert handed(failed) == []
    apply(failed, failed.plan_letter_written(4))
    assert handed(failed) == [6]


def test_a_failure_holds_the_whole_partition_when_asked_to() -> None:
    failed = FailedOffsets()
    plan = report(failed, 6, fails=[fail(4), fail(5)], policy=PARTITION)
    assert plan.verdicts[0].state == "waiting"
    assert failed.full(CAP)
    assert handed(failed) == [4]
    assert handed(failed) == [], "only the lowest"
    report(failed, done=[4], policy=PARTITION)
    assert failed.full(CAP)
    assert handed(failed) == [5]
    report(failed, done=[5], policy=PARTITION)
    assert not failed.full(CAP)


def test_the_partition_goes_on_once_a_letter_is_certain() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4)], policy=PARTITION)
    handed(failed)
    report(failed, fails=[fail(4)], policy=PARTITION)
    assert failed.counts() == {"dead_lettering": 1}
    assert not failed.full(CAP)


def test_without_order_nobody_waits() -> None:
    failed = FailedOffsets()
    report(failed, 9, fails=[fail(4, key=1), fail(6, key=1)], policy=NONE)
    assert handed(failed) == [4, 6]
    assert not failed.full(CAP)


def test_full_is_foretold_for_changes_that_are_not_applied_yet() -> None:
    for policy in (POLICY, PARTITION, NONE, RetryPolicy(max_attempts=1, on_exhausted="pause")):
        failed = FailedOffsets()
        for offset in range(3):
            commit = _commit(offset + 1, offset)
            plan = failed.plan(commit, policy, NOW, lambda: 0.5)
            foretold = failed.full(2, plan.changes)
            apply(failed, plan)
            assert foretold == failed.full(2)
        handed(failed)
        plan = failed.plan(_commit(-1, done=[0, 1, 2]), policy, NOW, lambda: 0.5)
        foretold = failed.full(2, plan.changes)
        apply(failed, plan)
        assert foretold == failed.full(2)


def _commit(offset: int, *fails: int, done: list[int] | None = None) -> CommitPartition:
    return CommitPartition("t", 0, offset, [fail(o) for o in fails], [], done or [])


def test_a_paused_record_stops_every_hand_out() -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(3)])
    report(failed, 5, fails=[fail(5)], policy=RetryPolicy(max_attempts=1, on_exhausted="pause"))
    assert handed(failed) == []
    assert failed.next_due_ms() is None
    assert failed.full(CAP)


@pytest.mark.parametrize("first", [POLICY, PARTITION, NONE])
@pytest.mark.parametrize("second", [POLICY, PARTITION, NONE])
def test_a_policy_that_changes_between_two_failures_moves_the_record_to_the_other_lane(
    first: RetryPolicy, second: RetryPolicy
) -> None:
    failed = FailedOffsets()
    report(failed, 5, fails=[fail(4, key=1)], policy=first)
    assert handed(failed) == [4]
    report(failed, fails=[fail(4, key=1)], policy=RetryPolicy(9, 100, ordering=second.ordering))
    assert failed.full(CAP) == (second is PARTITION)
    assert handed(failed, NOW + 10_000) == [4]
    report(failed, done=[4])
    assert (len(failed), failed.full(CAP), failed.next_due_ms()) == (0, False, None)
