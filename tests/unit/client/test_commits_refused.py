"""A commit that the broker cannot record, because its disk fails: nothing it said is forgotten, and nobody hammers it."""

from logsvc_client.commits import REFUSED_RETRY_MS, Commits
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.errors import FencedMemberEpoch, LogsvcError, StorageFailed, UnknownTopic
from logsvc_common.messages import Commit, CommitPartition, CommitReply, CommitResult
from logsvc_common.retry import RetryPolicy
from tests.unit.client.test_commits import POLICY, heartbeat, membership, request, well

TP = TopicPartition("t", 0)


def failing() -> PartitionProgress:
    """All below 5 is handled but record 4, which has failed; record 3 is parked."""
    progress = PartitionProgress(TP)
    progress.begin(0)
    progress.fail(Record("t", 0, 4, 0, b"k", b"value"), "broken", "app.Broken", "")
    progress.park(Record("t", 0, 3, 0, b"k", b"value"))
    progress.advance(5)
    return progress


def refused(error: LogsvcError, *, whole: bool) -> tuple[Commits, PartitionProgress, Commit]:
    progress, commits = failing(), Commits("g", membership())
    assert commits.begin([progress], POLICY)
    sent = request(commits)
    result = CommitResult(topic="t", partition=0, error_code=error.code, error_message=str(error))
    assert commits.answered(sent, error if whole else CommitReply([result]), 1_000) is not None
    assert not commits.busy
    return commits, progress, sent


def said(part: CommitPartition) -> tuple[int, list[int], list[int]]:
    return part.offset, [failure.offset for failure in part.failed], [parked.offset for parked in part.parked]


def test_what_was_refused_goes_with_the_next_commit_or_the_record_would_be_lost() -> None:
    for whole in (True, False):
        # Given a commit of a failure, refused because the groups' log has failed
        commits, progress, sent = refused(StorageFailed("offline"), whole=whole)
        # When more is handled, and it is time for the next one
        progress.advance(9)
        assert commits.begin([progress], POLICY)
        # Then it passes the failure only by naming it
        assert said(request(commits, 5_000).partitions[0]) == (9, [4], [3])
        assert said(sent.partitions[0]) == (5, [4], [3])


def test_a_redelivered_record_that_was_done_is_said_again() -> None:
    progress, commits = PartitionProgress(TP), Commits("g", membership())
    progress.begin(9)
    record = Record("t", 0, 4, 0, b"k", b"value", (), 2)
    progress.redeliver(record, None, 9, keyed=True)
    progress.finish(record)
    assert commits.begin([progress], POLICY)
    sent = request(commits)
    commits.answered(sent, StorageFailed("offline"), 0)
    assert commits.begin([progress], POLICY)
    assert request(commits, 5_000).partitions[0].done == [4]


def test_a_later_word_about_a_record_stands() -> None:
    commits, progress, _sent = refused(StorageFailed("offline"), whole=True)
    progress.fail(Record("t", 0, 4, 0, b"k", b"value"), "broken again", "app.Broken", "")
    assert commits.begin([progress], POLICY)
    assert [failure.error for failure in request(commits, 5_000).partitions[0].failed] == ["broken again"]


def test_the_next_commit_waits_a_while() -> None:
    commits, _progress, _sent = refused(StorageFailed("offline"), whole=True)
    assert not commits.may_begin(1_000)
    assert commits.next_due_ms() == 1_000 + REFUSED_RETRY_MS
    assert commits.may_begin(1_000 + REFUSED_RETRY_MS)


def test_a_partition_that_is_gone_has_nothing_to_be_told() -> None:
    for error in (UnknownTopic("gone"), FencedMemberEpoch("another's")):
        progress, commits = failing(), Commits("g", None)
        assert commits.begin([progress], POLICY)
        sent = request(commits)
        assert commits.answered(sent, error, 0) == [error]
        assert progress.settled
        assert commits.may_begin(0)


def test_a_commit_that_was_recorded_is_not_said_again() -> None:
    progress, member = failing(), membership()
    commits = Commits("g", member)
    assert commits.begin([progress], RetryPolicy())
    sent = request(commits)
    heartbeat(member, 4)
    assert commits.answered(sent, well(sent), 0) == []
    assert progress.settled
