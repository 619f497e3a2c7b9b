"""How far a member has come in a partition: progress, failures, order by key, redelivery, commits."""

import pytest

from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.keys import murmur2
from logsvc_common.messages import CommitResult, FetchOffsetsResult, Outstanding, Verdict

TP = TopicPartition("t", 0)


def record(offset: int, key: bytes | None = None, attempt: int = 1) -> Record:
    return Record("t", 0, offset, 0, key, b"v", (), attempt)


def at(offset: int) -> PartitionProgress:
    made = PartitionProgress(TP)
    made.located(FetchOffsetsResult(topic="t", partition=0, committed=offset))
    return made


def fail(made: PartitionProgress, failed: Record) -> None:
    made.fail(failed, "no", "E", "trace")


def result(*verdicts: Verdict, full: bool = False) -> CommitResult:
    return CommitResult(topic="t", partition=0, committed=0, verdicts=list(verdicts), full=full)


def test_nothing_is_committed_twice() -> None:
    made = at(5)
    assert made.take_commit() is None
    made.advance(9)
    commit = made.take_commit()
    assert commit is not None
    assert (commit.offset, commit.failed, commit.parked, commit.done) == (9, [], [], [])
    assert made.take_commit() is None
    assert not made.settled
    made.commit_over()
    assert made.settled


def test_failure_travels_with_the_progress_that_passes_it() -> None:
    made = at(0)
    fail(made, record(2, b"k"))
    made.advance(5)
    commit = made.take_commit()
    assert commit is not None
    assert commit.offset == 5
    assert [(f.offset, f.error, f.exception_class, f.key_hash, f.attempt) for f in commit.failed] == [
        (2, "no", "E", murmur2(b"k"), 1)
    ]


def test_failure_is_urgent_and_may_go_ahead_of_progress() -> None:
    made = at(0)
    fail(made, record(2))
    assert made.urgent
    commit = made.take_commit()
    assert commit is not None
    assert (commit.offset, len(commit.failed)) == (-1, 1)
    assert not made.urgent


def test_later_records_of_a_failed_key_wait_and_others_do_not() -> None:
    made = at(0)
    assert made.quiet
    fail(made, record(2, b"bad"))
    assert not made.quiet
    assert made.waits(b"bad")
    assert not made.waits(b"good")
    assert not made.waits(None)


def test_parked_record_keeps_its_key_waiting_after_the_first_is_done() -> None:
    made = at(0)
    fail(made, record(2, b"k"))
    made.park(record(4, b"k"))
    made.redeliver(record(2, b"k", 2), murmur2(b"k"), 10)
    made.finish(record(2, b"k", 2))
    assert made.waits(b"k")
    made.redeliver(record(4, b"k"), murmur2(b"k"), 10)
    made.finish(record(4, b"k"))
    assert not made.waits(b"k")
    commit = made.take_commit()
    assert commit is not None
    assert [parked.offset for parked in commit.parked] == [4]
    assert commit.done == [2, 4]


@pytest.mark.parametrize("state", ["dead_lettered", "discarded", "done"])
def test_final_verdict_lets_the_key_go_on(state: str) -> None:
    made = at(0)
    fail(made, record(2, b"k"))
    made.take_commit()
    made.committed(result(Verdict(2, state, 5)))
    assert not made.failing
    assert not made.waits(b"k")


def test_waiting_verdict_keeps_the_key_waiting_and_full_is_told() -> None:
    made = at(0)
    fail(made, record(2, b"k"))
    made.take_commit()
    made.committed(result(Verdict(2, "waiting", 1, 50), full=True))
    assert made.waits(b"k")
    assert made.full


def test_verdict_does_not_end_a_failure_that_came_after_it() -> None:
    made = at(0)
    fail(made, record(2, b"k"))
    made.take_commit()
    fail(made, record(2, b"k"))
    made.committed(result(Verdict(2, "done", 1)))
    assert made.waits(b"k")


def test_redelivered_record_that_fails_again_says_which_attempt() -> None:
    made = at(5)
    again = record(2, attempt=3)
    made.redeliver(again, None, 5)
    assert made.is_redelivered(again)
    fail(made, again)
    assert not made.is_redelivered(again)
    made.finish(again)  # settling in bulk comes after: it does not make it done
    commit = made.take_commit()
    assert commit is not None
    assert [(f.offset, f.attempt) for f in commit.failed] == [(2, 3)]
    assert commit.done == []


def test_late_word_about_an_earlier_try_says_nothing_about_the_one_on_its_way() -> None:
    made = at(5)
    first, second = record(2, attempt=2), record(2, attempt=3)
    made.redeliver(first, None, 5)
    fail(made, first)
    made.take_commit()
    made.redeliver(second, None, 5)
    made.finish(first)
    fail(made, first)
    assert not made.is_redelivered(first)
    assert made.is_redelivered(second)
    assert made.take_commit() is None


def test_records_failed_or_done_ahead_of_the_committed_offset_are_skipped_when_read() -> None:
    made = PartitionProgress(TP)
    outstanding = [Outstanding(3, 77, "waiting"), Outstanding(7, None, "waiting"), Outstanding(8, None, "done")]
    made.located(FetchOffsetsResult(topic="t", partition=0, committed=5, outstanding=outstanding, full=True))
    assert [made.skips(offset) for offset in (3, 6, 7, 8)] == [False, False, True, True]
    assert made.failing
    assert made.full
    made.advance(9)
    assert not made.skips(7)


def test_record_done_by_redelivery_before_it_was_read_is_not_read_again() -> None:
    made = at(0)
    made.redeliver(record(4, attempt=2), None, 2)
    made.finish(record(4, attempt=2))
    assert made.skips(4)


def test_progress_one_by_one_stops_at_the_first_unfinished_record() -> None:
    made = at(0)
    for offset in (0, 1, 2, 5):
        made.hand_out([record(offset)])
    made.finish(record(1))
    made.finish(record(2))
    assert made.handled == 0
    assert made.in_hand
    made.finish(record(0))
    assert made.handled == 5  # what lies between was not handed out
    made.finish(record(5))
    assert made.handled == 6
    assert not made.in_hand


def test_failed_and_parked_records_count_as_passed_one_by_one() -> None:
    made = at(0)
    for offset in (0, 1, 2):
        made.hand_out([record(offset)])
    fail(made, record(0, b"k"))
    made.park(record(1, b"k"))
    made.finish(record(2))
    assert made.handled == 3
    assert not made.in_hand


def test_abandoned_record_is_never_passed() -> None:
    made = at(0)
    for offset in (0, 1, 2):
        made.hand_out([record(offset)])
    made.finish(record(0))
    made.abandon(1)
    made.finish(record(2))
    assert made.handled == 1
    assert not made.in_hand


def test_record_removed_by_retention_can_only_fail() -> None:
    made = at(5)
    again = record(2, attempt=2)
    made.redeliver(again, 9, 5)
    made.missing(2, 2, 9)
    commit = made.take_commit()
    assert commit is not None
    assert [(f.offset, f.attempt, f.exception_class) for f in commit.failed] == [(2, 2, "OffsetOutOfRange")]
    assert not made.is_redelivered(again)


def test_first_position_is_committed_so_that_it_holds() -> None:
    made = PartitionProgress(TP)
    made.located(FetchOffsetsResult(topic="t", partition=0))
    made.begin(17)
    commit = made.take_commit()
    assert commit is not None
    assert commit.offset == 17


def test_seeking_back_does_not_take_a_commit_back() -> None:
    made = at(10)
    made.begin(3)
    made.advance(5)
    assert made.take_commit() is None
    made.advance(11)
    commit = made.take_commit()
    assert commit is not None
    assert commit.offset == 11


def test_a_commit_counts_the_new_records_that_were_handled_in_whichever_order() -> None:
    progress = PartitionProgress(TP, 0)
    for offset in range(4):
        progress.hand_out([record(offset)])
    progress.finish(record(2))
    progress.fail(record(1), "no", "E", "")
    first = progress.take_commit()
    assert first is not None
    assert (first.offset, first.handled) == (0, 1)
    progress.commit_over()
    progress.finish(record(0))
    second = progress.take_commit()
    assert second is not None
    assert (second.offset, second.handled) == (3, 1)
