"""Commits, one at a time: collected, sent again as they were, fenced, given up."""

from logsvc_client.commits import COMMIT_RETRY_MS, EPOCH_RETRIES_MAX, Commits
from logsvc_client.membership import Membership
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.errors import (
    BrokerOverloaded,
    Disconnected,
    FencedMemberEpoch,
    InvalidRequest,
)
from logsvc_common.messages import Commit, CommitReply, CommitResult, GroupHeartbeatReply
from logsvc_common.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=3)


def progress(number: int = 0, handled: int = 5) -> PartitionProgress:
    made = PartitionProgress(TopicPartition("t", number))
    made.advance(handled)
    return made


def membership(epoch: int = 4) -> Membership:
    made = Membership("g", "m", ["t"])
    heartbeat(made, epoch)
    return made


def heartbeat(made: Membership, epoch: int) -> None:
    sent = made.next_heartbeat(1_000_000)
    assert sent is not None
    made.answered(GroupHeartbeatReply("m", epoch, 1_000), sent, 0)


def request(made: Commits, now_ms: int = 0) -> Commit:
    sent = made.next_request(now_ms)
    assert sent is not None
    return sent


def well(sent: Commit) -> CommitReply:
    return CommitReply([CommitResult(topic=part.topic, partition=part.partition) for part in sent.partitions])


def test_all_partitions_with_something_to_say_travel_together() -> None:
    made = Commits("g", membership())
    assert made.begin([progress(0), progress(1), progress(2, handled=-1)], POLICY)
    sent = request(made)
    assert [(part.partition, part.offset) for part in sent.partitions] == [(0, 5), (1, 5)]
    assert (sent.member_id, sent.member_epoch, sent.retry) == ("m", 4, None)
    assert made.next_request(0) is None
    assert made.answered(sent, well(sent), 0) == []
    assert not made.busy


def test_nothing_to_say_is_no_commit() -> None:
    made = Commits("g", membership())
    assert not made.begin([progress(handled=-1)], POLICY)


def test_policy_travels_with_failures() -> None:
    made, failing = Commits("g", membership()), progress()
    failing.fail(Record("t", 0, 2, 0, None, b""), "no", "", "")
    made.begin([failing], POLICY)
    assert request(made).retry == POLICY


def test_consumer_outside_a_membership_says_so() -> None:
    made = Commits("g", None)
    made.begin([progress()], POLICY)
    sent = request(made)
    assert (sent.member_id, sent.member_epoch) == ("", -1)


def test_lost_commit_is_sent_again_as_it_was() -> None:
    made = Commits("g", membership())
    made.begin([progress()], POLICY)
    sent = request(made)
    assert made.answered(sent, Disconnected(), 10) is None
    assert request(made, 10) == sent


def test_overloaded_broker_is_tried_again_later() -> None:
    made = Commits("g", membership())
    made.begin([progress()], POLICY)
    sent = request(made)
    assert made.answered(sent, BrokerOverloaded(), 10) is None
    assert made.next_request(10) is None
    assert made.next_due_ms() == 10 + COMMIT_RETRY_MS
    assert request(made, 10 + COMMIT_RETRY_MS).partitions == sent.partitions


def test_commit_that_crossed_a_new_epoch_is_sent_again_under_it() -> None:
    member = membership(epoch=4)
    made = Commits("g", member)
    made.begin([progress()], POLICY)
    sent = request(made)
    assert made.answered(sent, FencedMemberEpoch(), 0) is None
    assert made.next_request(0) is None  # the heartbeat decides
    heartbeat(member, epoch=5)
    assert request(made).member_epoch == 5


def test_fenced_partition_is_given_up_after_a_few_heartbeats() -> None:
    member = membership()
    made, mine = Commits("g", member), progress()
    made.begin([mine], POLICY)
    for _ in range(EPOCH_RETRIES_MAX):
        fenced = CommitReply([CommitResult(topic="t", partition=0, error_code=FencedMemberEpoch.code)])
        assert made.answered(request(made), fenced, 0) is None
        heartbeat(member, epoch=4)
    errors = made.answered(request(made), FencedMemberEpoch(), 0)
    assert errors is not None
    assert isinstance(errors[0], FencedMemberEpoch)
    assert not made.busy
    assert mine.settled


def test_other_refusals_end_the_commit() -> None:
    made = Commits("g", membership())
    made.begin([progress()], POLICY)
    errors = made.answered(request(made), InvalidRequest("no"), 0)
    assert errors is not None
    assert str(errors[0]) == "no"


def test_answer_to_a_commit_given_up_is_not_taken_for_the_next_ones() -> None:
    made = Commits("g", membership())
    made.begin([progress(0)], POLICY)
    old = request(made)
    made.give_up()
    made.begin([progress(1)], POLICY)
    assert made.answered(old, well(old), 0) is None
    assert made.busy
    assert [part.partition for part in request(made).partitions] == [1]


def test_nothing_is_sent_while_the_member_is_out_of_the_group() -> None:
    made = Commits("g", Membership("g", "m", ["t"]))
    made.begin([progress()], POLICY)
    assert made.next_request(0) is None
