"""Workers in several lanes: a record parked when it is taken, while an earlier one of its key still waits in a lane's queue."""

from logsvc_client.progress import NEVER, UNTOLD_FAILURES_MAX, PartitionProgress
from logsvc_client.records import Record, TopicPartition


def record(offset: int) -> Record:
    return Record("t", 0, offset, 0, b"k", b"value")


def taken(*offsets: int) -> PartitionProgress:
    progress = PartitionProgress(TopicPartition("t", 0))
    progress.begin(offsets[0])
    progress.hand_out([record(offset) for offset in offsets])
    return progress


def parked(progress: PartitionProgress) -> list[int]:
    part = progress.take_commit()
    return [] if part is None else [entry.offset for entry in part.parked]


def test_a_parked_record_is_told_when_all_before_it_are_judged_or_it_would_overtake_them() -> None:
    # Given 5 and 6 in a lane's queue, and 7 parked when it was taken
    progress = taken(5, 6, 7)
    progress.park(record(7))
    assert not progress.urgent
    assert parked(progress) == []
    progress.commit_over()
    # When 5 fails and 6 is parked behind it
    progress.fail(record(5), "broken", "app.Broken", "")
    progress.park(record(6))
    # Then they are told together, in one commit that passes all of them
    assert progress.urgent
    part = progress.take_commit()
    assert part is not None
    assert ([entry.offset for entry in part.parked], part.offset) == ([7, 6], 8)


def test_a_failure_is_told_at_once_and_the_commit_passes_nothing_that_is_in_hand() -> None:
    progress = taken(5, 6, 7)
    progress.fail(record(6), "broken", "app.Broken", "")
    progress.park(record(7))
    part = progress.take_commit()
    assert part is not None
    assert ([entry.offset for entry in part.failed], part.parked, part.offset) == ([6], [], 5)
    assert parked(progress) == []
    progress.commit_over()
    progress.finish(record(5))
    assert parked(progress) == [7]


def test_so_many_may_wait_to_be_told_and_no_more() -> None:
    progress = taken(*range(UNTOLD_FAILURES_MAX + 2))
    for offset in range(1, UNTOLD_FAILURES_MAX + 1):
        assert not progress.overdue
        progress.park(record(offset))
    assert progress.overdue
    assert progress._untold_from == 0 < NEVER
