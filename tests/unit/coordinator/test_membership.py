"""Members come, go, are late, lie and lose answers; partitions move one by one."""

import pytest

from logsvc.coordinator.events import TopicDeleted, TopicsChanged
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common.errors import (
    FencedMemberEpoch,
    GroupFull,
    InvalidConfig,
    InvalidGroupName,
    InvalidRequest,
    InvalidTopicName,
    UnknownMember,
)
from logsvc_common.messages import GroupHeartbeat
from tests.unit.coordinator.harness import Harness, given


def two_settled_members() -> Harness:
    """`a` reads 0 and 1, `b` reads 2 and 3, both at epoch 2."""
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.beat("a", 1, {0, 1})
    broker.beat("a", 2, {0, 1})
    broker.beat("b", 2, set())
    broker.beat("b", 2, {2, 3})
    return broker


def test_the_first_member_gets_everything_at_once() -> None:
    reply = Harness().join("a")
    assert (reply.member_epoch, given(reply)) == (1, {0, 1, 2, 3})


def test_a_second_member_gets_its_part_only_when_the_first_has_given_it_up() -> None:
    broker = Harness()
    broker.join("a")
    broker.beat("a", 1, {0, 1, 2, 3})

    assert given(broker.join("b")) == set()
    told = broker.beat("a", 1)
    assert (told.member_epoch, given(told)) == (1, {0, 1})
    assert given(broker.beat("b", 2)) == set()

    gave_up = broker.beat("a", 1, {0, 1})
    assert gave_up.member_epoch == 2
    assert given(broker.beat("b", 2)) == {2, 3}
    assert broker.coordinator.describe("g", broker.now).state == "stable"


def test_a_member_that_still_holds_a_partition_blocks_only_that_one() -> None:
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.beat("a", 1, {0, 1, 3})  # 3 is still being worked on

    assert given(broker.beat("b", 2)) == {2}
    broker.beat("a", 1, {0, 1})
    assert given(broker.beat("b", 2)) == {2, 3}


def test_a_heartbeat_without_news_says_nothing_and_writes_nothing() -> None:
    broker = two_settled_members()
    written = len(broker.written)
    assert given(broker.beat("a", 2)) is None
    assert given(broker.beat("b", 2)) is None
    assert len(broker.written) == written


def test_an_answer_that_was_lost_is_given_again() -> None:
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.beat("a", 1, {0, 1})  # the answer, which carried epoch 2, is lost

    again = broker.beat("a", 1, {0, 1})
    assert (again.member_epoch, given(again)) == (2, {0, 1})


def test_the_epoch_before_is_refused_from_one_that_holds_what_it_should_not() -> None:
    broker = two_settled_members()
    with pytest.raises(FencedMemberEpoch):
        broker.beat("a", 1, {0, 1, 2})


@pytest.mark.parametrize("epoch", [3, 99, -3])
def test_an_epoch_the_group_never_gave_is_fenced(epoch: int) -> None:
    with pytest.raises(FencedMemberEpoch):
        two_settled_members().beat("a", epoch)


def test_a_member_that_leaves_hands_its_partitions_to_those_who_stay() -> None:
    broker = two_settled_members()
    broker.leave("b")
    reply = broker.beat("a", 2)
    assert (reply.member_epoch, given(reply)) == (3, {0, 1, 2, 3})


def test_leaving_twice_is_leaving() -> None:
    broker = two_settled_members()
    broker.leave("b")
    written = len(broker.written)
    assert broker.leave("b").member_epoch == -1
    assert len(broker.written) == written


def test_a_member_that_falls_silent_is_removed_after_its_session() -> None:
    broker = Harness()
    broker.join("a", session_timeout_ms=600)
    broker.join("b", session_timeout_ms=60_000)
    assert broker.coordinator.next_deadline_ms() == broker.now.monotonic_ms + 600

    broker.pass_time(599)
    assert len(broker.coordinator.describe("g", broker.now).members) == 2
    broker.pass_time(1)
    assert [member.member_id for member in broker.coordinator.describe("g", broker.now).members] == ["b"]
    with pytest.raises(UnknownMember):
        broker.beat("a", 1)
    assert given(broker.beat("b", 2)) == {0, 1, 2, 3}


def test_heartbeats_keep_a_session_alive() -> None:
    broker = Harness()
    broker.join("a", session_timeout_ms=600)
    for _ in range(10):
        broker.pass_time(500)
        broker.beat("a", 1)
    assert len(broker.coordinator.describe("g", broker.now).members) == 1


def test_a_session_is_measured_on_the_clock_that_cannot_jump() -> None:
    broker = Harness()
    broker.join("a", session_timeout_ms=600)
    broker.now = broker.now._replace(wall_ms=broker.now.wall_ms + 86_400_000)
    broker.pass_time(1)
    assert len(broker.coordinator.describe("g", broker.now).members) == 1


def test_a_removed_member_joins_again_under_its_id() -> None:
    broker = Harness()
    broker.join("a", session_timeout_ms=600)
    broker.pass_time(600)
    assert given(broker.join("a")) == {0, 1, 2, 3}


def test_joining_again_moves_nothing_and_starts_from_nothing() -> None:
    broker = two_settled_members()
    reply = broker.join("a")
    assert (reply.member_epoch, given(reply)) == (2, {0, 1})
    assert given(broker.beat("b", 2)) is None


def test_a_restart_in_the_middle_of_a_move_goes_on_from_there() -> None:
    broker = Harness()
    broker.join("a")
    broker.join("b")
    broker.beat("a", 1, {0, 1, 2, 3})

    broker.restart()
    assert not given(broker.beat("b", 2, set())), "a has not given anything up yet"
    assert given(broker.beat("a", 1)) == {0, 1}
    broker.beat("a", 1, {0, 1})
    assert given(broker.beat("b", 2)) == {2, 3}


def test_a_restart_gives_every_member_a_full_session() -> None:
    broker = Harness()
    broker.join("a", session_timeout_ms=600)
    broker.pass_time(500)
    broker.restart()
    broker.pass_time(599)
    assert len(broker.coordinator.describe("g", broker.now).members) == 1
    broker.pass_time(1)
    assert broker.coordinator.describe("g", broker.now).members == []


def test_a_partition_that_is_wanted_back_is_given_up_first() -> None:
    broker = Harness()
    broker.join("a")
    broker.beat("a", 1, {0, 1, 2, 3})
    broker.join("b")
    broker.beat("a", 1)  # told to give up 2 and 3
    broker.leave("b")

    assert given(broker.beat("a", 1, {0, 1, 2, 3})) == {0, 1}
    back = broker.beat("a", 1, {0, 1})
    assert (back.member_epoch, given(back)) == (3, {0, 1, 2, 3})


def test_a_topic_that_grows_is_spread_again() -> None:
    broker = two_settled_members()
    broker.logs.topics["t"] += [0, 0]
    broker.handle(TopicsChanged())
    shares = [given(broker.beat("a", 2)), given(broker.beat("b", 2))]
    assert shares == [{0, 1, 4}, {2, 3, 5}]


def test_a_topic_that_comes_later_is_assigned_when_it_comes() -> None:
    broker = Harness()
    assert broker.join("a", topics=["later"]).assignment == []
    broker.logs.topics["later"] = [0]
    broker.handle(TopicsChanged())
    assert [entry.topic for entry in broker.beat("a", 1).assignment or []] == ["later"]


def test_a_topic_that_is_deleted_is_given_up_and_forgotten() -> None:
    broker = two_settled_members()
    broker.commit(5, member="a", epoch=2)
    del broker.logs.topics["t"]
    broker.handle(TopicDeleted("t"))
    assert given(broker.beat("a", 2)) == set()
    assert broker.offsets().committed == -1


def test_a_topic_that_was_deleted_as_the_broker_died_is_forgotten_by_the_next_one() -> None:
    broker = two_settled_members()
    broker.commit(5, member="a", epoch=2)
    del broker.logs.topics["t"]
    broker.restart()
    broker.logs.topics["t"] = [0] * 4
    assert broker.offsets().committed == -1


def test_other_groups_are_not_disturbed_by_a_topic_they_do_not_read() -> None:
    broker = two_settled_members()
    written = len(broker.written)
    broker.logs.topics["other"] = [0]
    broker.handle(TopicsChanged())
    assert len(broker.written) == written


def test_a_new_subscription_changes_what_a_member_gets() -> None:
    broker = Harness()
    broker.logs.topics["u"] = [0]
    broker.join("a")
    broker.beat("a", 1, {0, 1, 2, 3})
    reply = broker.beat("a", 1, topics=["t", "u"])
    assert [entry.topic for entry in reply.assignment or []] == ["t", "u"]


def test_the_assignor_most_members_ask_for_is_used() -> None:
    broker = Harness()
    broker.join("a", assignor="range")
    assert broker.coordinator.describe("g", broker.now).assignor == "range"
    broker.join("b", assignor="sticky")
    broker.join("c", assignor="sticky")
    assert broker.coordinator.describe("g", broker.now).assignor == "sticky"


def test_a_group_that_committed_nothing_is_forgotten_with_its_last_member() -> None:
    broker = Harness()
    broker.join("a")
    broker.leave("a")
    assert broker.coordinator.groups(broker.now) == []
    assert list(broker.coordinator.snapshot()) == []


def test_a_group_with_progress_outlives_its_members() -> None:
    broker = Harness()
    broker.join("a")
    broker.commit(7, member="a", epoch=1)
    broker.leave("a")
    view = broker.coordinator.describe("g", broker.now)
    assert (view.state, view.partitions[0].committed) == ("empty", 7)


def test_what_a_join_may_not_say() -> None:
    broker = Harness(limits=CoordinatorLimits(topics_per_member_max=2))
    with pytest.raises(InvalidRequest):
        broker.beat("a", 0)  # no topics
    with pytest.raises(InvalidRequest):
        broker.join("")
    with pytest.raises(InvalidRequest):
        broker.join("a" * 257)
    with pytest.raises(InvalidRequest):
        broker.join("a", topics=["t", "u", "v"])
    with pytest.raises(InvalidTopicName):
        broker.join("a", topics=["../x"])
    with pytest.raises(InvalidConfig):
        broker.join("a", assignor="best")
    with pytest.raises(InvalidConfig):
        broker.join("a", session_timeout_ms=99)
    with pytest.raises(InvalidConfig):
        broker.join("a", session_timeout_ms=1_800_001)
    with pytest.raises(InvalidGroupName):
        broker.handle(GroupHeartbeat("../g", "a", 0, topics=["t"]))
    with pytest.raises(UnknownMember):
        broker.beat("a", 1)
    assert broker.written == []


def test_groups_and_members_have_limits() -> None:
    broker = Harness(limits=CoordinatorLimits(groups_max=1, members_per_group_max=1))
    broker.join("a")
    with pytest.raises(GroupFull):
        broker.join("b")
    with pytest.raises(GroupFull):
        broker.handle(GroupHeartbeat("other", "a", 0, topics=["t"]))
    broker.join("a")  # it is in already


def test_a_member_that_waits_for_partitions_is_asked_to_come_back_soon() -> None:
    broker = Harness()
    assert broker.join("a").heartbeat_interval_ms == 1_000
    assert broker.join("b").heartbeat_interval_ms == 200
    assert broker.join("c", session_timeout_ms=300).heartbeat_interval_ms == 100


def test_a_join_whose_records_were_never_written_is_forgotten() -> None:
    broker = Harness()
    broker.coordinator.handle(GroupHeartbeat("g", "a", 0, topics=["t"]), broker.now)  # and the append is refused
    broker.pass_time(10_000)
    assert broker.coordinator.next_deadline_ms() is None
