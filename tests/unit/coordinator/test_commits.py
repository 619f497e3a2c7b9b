"""Commits: who may, how far, and what a failure in one comes to."""

import pytest

from logsvc.coordinator.events import RetriesChanged
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common.errors import (
    BrokerOverloaded,
    FencedMemberEpoch,
    GroupNotEmpty,
    InvalidGroupName,
    InvalidRequest,
    OffsetOutOfRange,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from logsvc_common.messages import (
    Commit,
    CommitPartition,
    CommitReply,
    CommitResult,
    DueRecord,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchRetries,
    FetchRetriesReply,
    Parked,
    TopicPartitions,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import Harness, failure


def committed_by(broker: Harness, member: str, epoch: int, *parts: CommitPartition) -> list[CommitResult]:
    reply = broker.handle(Commit("g", member, epoch, list(parts))).reply
    assert isinstance(reply, CommitReply)
    return reply.results


def test_a_commit_is_read_back_and_survives_a_restart() -> None:
    broker = Harness()
    broker.join("a")
    assert broker.commit(7, member="a", epoch=1).committed == 7
    broker.restart()
    assert broker.offsets().committed == 7


def test_committed_offsets_never_go_back_through_a_commit() -> None:
    broker = Harness()
    broker.commit(7)
    written = len(broker.written)
    assert broker.commit(3).committed == 7
    assert broker.commit(-1).committed == 7
    assert len(broker.written) == written


def test_a_consumer_outside_the_membership_commits_only_while_there_is_none() -> None:
    broker = Harness()
    assert broker.commit(7).committed == 7
    broker.join("a")
    with pytest.raises(GroupNotEmpty):
        broker.commit(8)


def test_a_commit_that_changes_nothing_makes_no_group() -> None:
    broker = Harness()
    broker.commit(-1)
    assert broker.coordinator.groups(broker.now) == []


def test_a_stale_epoch_is_fenced() -> None:
    broker = Harness()
    broker.join("a")
    for epoch in (0, 2, -1):
        with pytest.raises(FencedMemberEpoch):
            broker.commit(7, member="a", epoch=epoch)
    with pytest.raises(UnknownMember):
        broker.commit(7, member="b", epoch=1)
    with pytest.raises(UnknownMember):
        Harness().commit(7, member="a", epoch=1)


def test_a_commit_that_crosses_a_heartbeat_counts_for_what_the_member_kept() -> None:
    broker = Harness()
    broker.join("a")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.join("b")
    broker.beat("a", 1)
    broker.beat("a", 1, {0, 1})  # moves a to epoch 2; its commit was on the way with epoch 1

    assert broker.commit(7, member="a", epoch=1, partition=0).error_code == 0
    assert broker.commit(7, member="a", epoch=1, partition=2).error_code == FencedMemberEpoch.code


def test_what_is_being_given_up_can_still_be_committed() -> None:
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})
    assert broker.commit(7, member="a", epoch=1, partition=3).error_code == 0


def test_a_zombie_cannot_commit_what_has_moved_on() -> None:
    broker = Harness(partitions=1)
    broker.join("zombie", session_timeout_ms=600)
    broker.pass_time(600)
    broker.join("heir")
    broker.commit(9, member="heir", epoch=1)
    with pytest.raises(UnknownMember):
        broker.commit(5, member="zombie", epoch=1)
    assert broker.offsets().committed == 9


def test_each_partition_of_a_commit_fails_on_its_own() -> None:
    broker = Harness()
    results = committed_by(
        broker,
        "",
        -1,
        CommitPartition("t", 0, 7),
        CommitPartition("t", 1, 1_001),
        CommitPartition("t", 4, 1),
        CommitPartition("nowhere", 0, 1),
        CommitPartition("t", 2, 5, [failure(1_000)]),
        CommitPartition("t", 3, -2),
    )
    codes = [OffsetOutOfRange.code, UnknownPartition.code, UnknownTopic.code, OffsetOutOfRange.code, OffsetOutOfRange.code]
    assert [result.error_code for result in results] == [0, *codes]
    assert [result.committed for result in results] == [7, -1, -1, -1, -1, -1]


def test_a_partition_named_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        committed_by(Harness(), "", -1, CommitPartition("t", 0, 7), CommitPartition("t", 0, 8))


def test_an_illegal_group_name_is_refused() -> None:
    with pytest.raises(InvalidGroupName):
        Harness().handle(Commit("../g", "", -1, [CommitPartition("t", 0, 7)]))


def test_a_failure_comes_back_after_its_backoff_with_its_attempt() -> None:
    broker = Harness()
    verdict = broker.commit(8, failed=[failure(7, key=1)]).verdicts[0]
    assert (verdict.state, verdict.attempts, verdict.due_in_ms) == ("waiting", 1, 1_000)
    assert broker.next_due_ms() == broker.now.wall_ms + 1_000
    assert broker.retries() == []

    broker.pass_time(1_000)
    assert broker.retries() == [DueRecord(7, 2, 1)]
    assert broker.retries() == [], "it is in hand"
    assert broker.next_due_ms() is None

    assert broker.commit(done=[7]).verdicts == []
    assert broker.offsets().outstanding == []


def test_a_failure_says_that_parked_polls_should_look_again() -> None:
    broker = Harness()
    broker.commit(8, failed=[failure(7)])
    assert broker.effects == [RetriesChanged("g")]


def test_what_was_in_the_hands_of_a_member_that_left_is_due_again_unspent() -> None:
    broker = Harness(partitions=1)
    broker.join("a")
    broker.commit(8, member="a", epoch=1, failed=[failure(7)])
    broker.pass_time(1_000)
    assert broker.retries(member="a", epoch=1) == [DueRecord(7, 2)]

    broker.leave("a")
    broker.join("b")
    epoch = broker.coordinator.describe("g", broker.now).epoch
    assert broker.retries(member="b", epoch=epoch) == [DueRecord(7, 2)]


def test_a_member_that_joins_again_gets_again_what_it_was_handed() -> None:
    broker = Harness(partitions=1)
    broker.join("a")
    broker.commit(8, member="a", epoch=1, failed=[failure(7)])
    broker.pass_time(1_000)
    assert broker.retries(member="a", epoch=1) == [DueRecord(7, 2)]
    broker.join("a")
    assert broker.retries(member="a", epoch=1) == [DueRecord(7, 2)]


def test_a_restart_forgets_hand_outs_and_spends_nothing() -> None:
    broker = Harness()
    broker.commit(8, failed=[failure(7)])
    broker.pass_time(1_000)
    assert broker.retries() == [DueRecord(7, 2)]
    broker.restart()
    assert broker.retries() == [DueRecord(7, 2)]


def test_a_hand_out_whose_answer_was_lost_is_repeated_for_the_same_poll() -> None:
    broker = Harness()
    broker.commit(9, failed=[failure(7), failure(8)])
    broker.pass_time(1_000)
    assert broker.retries(poll=4, max_records=1) == [DueRecord(7, 2)]
    assert broker.retries(poll=4, max_records=1) == [DueRecord(7, 2)]
    assert broker.retries(poll=5) == [DueRecord(8, 2)]


def test_a_new_consumer_outside_the_membership_takes_over_what_the_last_one_was_handed() -> None:
    broker = Harness()
    broker.commit(8, failed=[failure(7)])
    broker.pass_time(1_000)
    assert broker.retries(poll=1) == [DueRecord(7, 2)]
    assert broker.retries(poll=2) == []
    assert broker.retries(poll=1) == [DueRecord(7, 2)]


def test_due_records_of_a_partition_that_is_being_taken_away_are_not_handed_out() -> None:
    broker = Harness()
    broker.join("a")
    broker.commit(8, member="a", epoch=1, partition=3, failed=[failure(7)])
    broker.pass_time(1_000)
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})  # told to give up 2 and 3

    assert broker.retries(member="a", epoch=1, partition=3) == []
    partitions = [FetchOffsetsPartition("t", 3)]
    assert broker.next_due_ms(partitions, member="a") is None, "nothing for this member to wait for"
    assert broker.next_due_ms(partitions) is not None


def test_retries_are_for_those_who_may_commit() -> None:
    broker = Harness()
    assert broker.retries() == []
    with pytest.raises(UnknownMember):
        broker.retries(member="a", epoch=1)
    broker.join("a")
    with pytest.raises(GroupNotEmpty):
        broker.retries()
    with pytest.raises(UnknownMember):
        broker.retries(member="b", epoch=1)
    with pytest.raises(FencedMemberEpoch):
        broker.retries(member="a", epoch=7)


def test_a_full_partition_says_so_in_every_answer_until_there_is_room() -> None:
    broker = Harness(limits=CoordinatorLimits(failures_per_partition_max=2))
    assert not broker.commit(1, failed=[failure(0)]).full
    assert broker.commit(2, parked=[Parked(1, 5)]).full
    assert broker.offsets().full
    reply = broker.handle(FetchRetries("g", "", -1, [FetchOffsetsPartition("t", 0)], 0)).reply
    assert isinstance(reply, FetchRetriesReply)
    assert reply.full == [TopicPartitions("t", [0])]
    assert not broker.commit(done=[1]).full
    assert not broker.offsets().full


def test_a_consumer_that_does_not_stop_at_full_is_stopped() -> None:
    broker = Harness(limits=CoordinatorLimits(failures_per_partition_refused=2))
    broker.commit(2, failed=[failure(0), failure(1)])
    refused = broker.commit(3, failed=[failure(2)])
    assert (refused.error_code, refused.committed) == (BrokerOverloaded.code, 2)


def test_a_pause_holds_the_partition() -> None:
    broker = Harness()
    policy = RetryPolicy(max_attempts=1, on_exhausted="pause")
    broker.commit(5, parked=[Parked(4, 9)])
    result = broker.commit(8, failed=[failure(7)], retry=policy)
    assert (result.verdicts[0].state, result.full) == ("paused", True)
    assert broker.retries() == []


def test_all_a_group_has_committed_can_be_listed() -> None:
    broker = Harness()
    broker.commit(7, partition=2)
    broker.commit(3, partition=1, failed=[failure(2, key=8)])
    reply = broker.handle(FetchOffsets("g")).reply
    assert isinstance(reply, FetchOffsetsReply)
    assert [(result.partition, result.committed) for result in reply.results] == [(1, 3), (2, 7)]
    assert [(entry.offset, entry.key_hash, entry.state) for entry in reply.results[0].outstanding] == [(2, 8, "waiting")]


def test_a_group_nobody_knows_has_committed_nothing() -> None:
    broker = Harness()
    assert broker.offsets().committed == -1
    assert broker.handle(FetchOffsets("g")).reply == FetchOffsetsReply([])
    with pytest.raises(UnknownGroup):
        broker.coordinator.describe("g", broker.now)


def test_a_clock_that_went_back_delays_nobody_beyond_the_backoff() -> None:
    broker = Harness()
    broker.commit(8, failed=[failure(7)])
    broker.now = broker.now._replace(wall_ms=broker.now.wall_ms - 3_600_000)
    assert broker.retries() == []
    broker.pass_time(1_000)
    assert broker.retries() == [DueRecord(7, 2)]


def test_a_clock_that_went_back_during_a_restart_delays_nobody_either() -> None:
    broker = Harness()
    broker.commit(8, failed=[failure(7)])
    broker.now = broker.now._replace(wall_ms=broker.now.wall_ms - 3_600_000)
    broker.restart()
    broker.pass_time(1_000)
    assert broker.retries() == [DueRecord(7, 2)]


def test_a_view_counts_what_is_outstanding_by_state() -> None:
    broker = Harness()
    broker.join("a")
    broker.commit(9, member="a", epoch=1, failed=[failure(6), failure(7, key=1)], parked=[Parked(8, 1)])
    broker.pass_time(1_000)
    broker.retries(member="a", epoch=1, max_records=1)
    view = broker.coordinator.describe("g", broker.now)
    assert view.partitions[0].failed == {"waiting": 1, "parked": 1, "delivered": 1}
    assert (view.failed, view.partitions[0].member_id, view.state) == (3, "a", "stable")
