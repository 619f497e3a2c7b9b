"""A group member, seen from the member: joining, following the assignment, being fenced, leaving."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc_client.membership import RETRY_MS, Membership, grouped, ungrouped
from logsvc_client.records import TopicPartition
from logsvc_common.errors import Disconnected, FencedInstanceId, FencedMemberEpoch, GroupFull, UnknownMember
from logsvc_common.messages import GroupHeartbeat, GroupHeartbeatReply, TopicPartitions
from logsvc_common.retry import RetryPolicy

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


def member() -> Membership:
    return Membership("g", "m", ["a", "b"], assignor="range", session_timeout_ms=6_000, client_id="c")


def heartbeat(made: Membership, now_ms: int) -> GroupHeartbeat:
    sent = made.next_heartbeat(now_ms)
    assert sent is not None
    return sent


def answer(
    made: Membership, sent: GroupHeartbeat, now_ms: int, epoch: int = 1, assignment: list[TopicPartitions] | None = None
) -> None:
    made.answered(GroupHeartbeatReply("m", epoch, 1_000, assignment), sent, now_ms)


def joined() -> Membership:
    made = member()
    answer(made, heartbeat(made, 0), 0, assignment=grouped([A0, A1]))
    return made


def test_joins_with_all_there_is_to_say_and_then_says_little() -> None:
    made = member()
    join = heartbeat(made, 0)
    assert (join.member_epoch, join.topics, join.assignor, join.session_timeout_ms) == (0, ["a", "b"], "range", 6_000)
    answer(made, join, 0, assignment=grouped([A0]))
    assert made.joined
    following = heartbeat(made, 1_000)
    assert (following.member_epoch, following.topics, following.assignor) == (1, None, None)


def test_one_heartbeat_is_under_way_at_a_time_and_the_next_is_due_after_the_interval() -> None:
    made = member()
    join = heartbeat(made, 0)
    assert made.next_heartbeat(10_000) is None
    assert made.next_due_ms() is None
    answer(made, join, 20)
    assert made.next_due_ms() == 1_020
    assert made.next_heartbeat(1_019) is None


def test_what_was_taken_is_reported_at_once() -> None:
    made = joined()
    assert made.target == {A0, A1}
    made.set_owned({A0, A1}, 5)
    sent = heartbeat(made, 5)
    assert sent.owned == [TopicPartitions("a", [0, 1])]


def test_what_is_owned_is_repeated_until_an_answer_without_assignment() -> None:
    made = joined()
    made.set_owned({A0, A1}, 5)
    answer(made, heartbeat(made, 5), 6, epoch=2, assignment=grouped([A0]))
    assert made.target == {A0}
    again = heartbeat(made, 2_000)
    assert again.owned == [TopicPartitions("a", [0, 1])]
    answer(made, again, 2_000, epoch=2)
    assert heartbeat(made, 4_000).owned is None


def test_change_while_a_heartbeat_is_under_way_is_reported_right_after() -> None:
    made = joined()
    made.set_owned({A0, A1}, 5)
    sent = heartbeat(made, 5)
    made.set_owned({A0}, 6)
    answer(made, sent, 7)
    following = heartbeat(made, 7)
    assert following.owned == [TopicPartitions("a", [0])]


def test_fenced_member_starts_from_nothing() -> None:
    for error in (FencedMemberEpoch(), UnknownMember()):
        made = joined()
        made.set_owned({A0}, 0)
        heartbeat(made, 0)
        assert made.refused(error, 10)
        assert not made.joined
        assert made.target is None
        join = heartbeat(made, 10)
        assert (join.member_epoch, join.owned, join.topics) == (0, [], ["a", "b"])


def test_lost_heartbeat_is_sent_again_soon_and_nothing_is_given_up() -> None:
    made = joined()
    heartbeat(made, 1_000)
    assert not made.refused(Disconnected(), 1_000)
    assert made.joined
    assert made.next_due_ms() == 1_000 + RETRY_MS


def test_refused_join_is_tried_again_without_hammering() -> None:
    made = member()
    heartbeat(made, 0)
    assert not made.refused(GroupFull(), 0)
    assert made.next_due_ms() == 1_000
    heartbeat(made, 1_000)
    assert not made.refused(UnknownMember(), 1_000)
    assert made.next_due_ms() == 2_000


def test_asking_for_a_verdict_sends_a_heartbeat_at_once() -> None:
    made = joined()
    before = made.ask_again(10)
    assert made.answers == before
    answer(made, heartbeat(made, 10), 11)
    assert made.answers == before + 1


def test_static_member_says_that_it_will_be_back() -> None:
    made = Membership("g", "m", ["a"], instance_id="worker-1")
    answer(made, heartbeat(made, 0), 0)
    farewell = made.leave()
    assert farewell is not None
    assert (farewell.member_epoch, farewell.instance_id) == (-2, "worker-1")


def test_static_member_whose_place_was_taken_does_not_join_again() -> None:
    made = Membership("g", "m", ["a"], instance_id="worker-1")
    answer(made, heartbeat(made, 0), 0)
    heartbeat(made, 1_000)
    assert made.refused(FencedInstanceId(), 1_000)
    assert not made.joined
    assert made.next_heartbeat(1_000_000) is None
    assert made.leave() is None


def test_policy_for_records_that_kill_their_member_is_told_when_joining_and_when_it_changes() -> None:
    first, second = RetryPolicy(max_attempts=2), RetryPolicy(max_attempts=3)
    made = Membership("g", "m", ["a"], retry=first)
    join = heartbeat(made, 0)
    assert join.retry == first
    answer(made, join, 0)
    assert heartbeat(made, 1_000).retry is None
    made.refused(Disconnected(), 1_000)
    made.set_retry(second, 1_050)
    changed = heartbeat(made, 1_050)
    assert changed.retry == second
    made.refused(Disconnected(), 1_050)
    assert heartbeat(made, 2_000).retry == second  # until it is answered


def test_leaves_once_and_only_when_it_was_in() -> None:
    assert member().leave() is None
    made = joined()
    farewell = made.leave()
    assert farewell is not None
    assert farewell.member_epoch == -1
    assert made.next_heartbeat(1_000_000) is None
    assert made.leave() is None


@given(st.sets(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 20)).map(lambda each: TopicPartition(*each))))
def test_grouping_by_topic_and_back_is_the_identity(partitions: set[TopicPartition]) -> None:
    assert ungrouped(grouped(partitions)) == partitions
