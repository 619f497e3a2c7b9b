"""Static members: an `instance_id` keeps its partitions while its process is restarted, and only the last one has it."""

import pytest

from logsvc_common.errors import FencedInstanceId, InvalidRequest, UnknownMember
from logsvc_common.messages import (
    JOIN_EPOCH,
    STATIC_LEAVE_EPOCH,
    GroupHeartbeat,
    GroupHeartbeatReply,
    TopicPartitions,
)
from tests.unit.coordinator.harness import Harness, failure, given

SESSION_MS = 6_000


def beat(broker: Harness, member: str, epoch: int, instance: str | None, owned: set[int] | None = None) -> GroupHeartbeatReply:
    joins = epoch == JOIN_EPOCH
    request = GroupHeartbeat(
        "g",
        member,
        epoch,
        instance_id=instance,
        topics=["t"] if joins else None,
        session_timeout_ms=SESSION_MS if joins else None,
        owned=None if owned is None else [TopicPartitions("t", sorted(owned))],
    )
    reply = broker.handle(request).reply
    assert isinstance(reply, GroupHeartbeatReply)
    return reply


def two_static_members() -> Harness:
    broker = Harness()
    beat(broker, "a", JOIN_EPOCH, "one")
    beat(broker, "b", JOIN_EPOCH, "two")
    beat(broker, "a", 1, "one", {0, 1, 2, 3})
    beat(broker, "a", 1, "one", {0, 1})
    beat(broker, "b", 2, "two", {2, 3})
    assert broker.coordinator.describe("g", broker.now).state == "stable"
    return broker


def members(broker: Harness) -> dict[str, str | None]:
    return {member.member_id: member.instance_id for member in broker.coordinator.describe("g", broker.now).members}


@pytest.mark.parametrize("leaves", [True, False])
def test_a_restarted_process_gets_its_partitions_back_at_once_and_nobody_else_moves(leaves: bool) -> None:
    broker = two_static_members()
    epoch = broker.coordinator.describe("g", broker.now).epoch
    if leaves:
        assert beat(broker, "a", STATIC_LEAVE_EPOCH, "one").member_epoch == STATIC_LEAVE_EPOCH
        assert given(beat(broker, "b", 2, "two")) is None, "nothing moves while it is away"

    reply = beat(broker, "a2", JOIN_EPOCH, "one")
    assert given(reply) == {0, 1}
    assert members(broker) == {"a2": "one", "b": "two"}
    view = broker.coordinator.describe("g", broker.now)
    assert (view.epoch, view.state) == (epoch, "stable")
    assert given(beat(broker, "b", 2, "two")) is None


def test_the_one_that_was_replaced_is_told_for_good() -> None:
    broker = two_static_members()
    reply = beat(broker, "a2", JOIN_EPOCH, "one")
    with pytest.raises(FencedInstanceId):
        beat(broker, "a", 2, "one")
    with pytest.raises(UnknownMember):
        broker.commit(5, member="a", epoch=2)
    assert broker.commit(5, member="a2", epoch=reply.member_epoch).committed == 5


def test_what_the_one_before_had_in_hand_is_due_again() -> None:
    broker = two_static_members()
    broker.commit(5, member="a", epoch=2, failed=[failure(4)])
    broker.pass_time(1_000)
    assert [record.offset for record in broker.retries(member="a", epoch=2)] == [4]
    reply = beat(broker, "a2", JOIN_EPOCH, "one")
    assert [record.offset for record in broker.retries(member="a2", epoch=reply.member_epoch)] == [4]


def test_one_that_does_not_come_back_in_its_session_loses_its_place_without_having_died() -> None:
    broker = two_static_members()
    beat(broker, "a", STATIC_LEAVE_EPOCH, "one")
    for _ in range(5):
        broker.pass_time(SESSION_MS // 5)
        beat(broker, "b", 2, "two")
    assert members(broker) == {"b": "two"}
    assert [partition.deaths for partition in broker.coordinator.describe("g", broker.now).partitions] == [0] * 4


def test_one_that_was_replaced_before_it_had_left_has_died() -> None:
    broker = two_static_members()
    beat(broker, "a2", JOIN_EPOCH, "one")
    deaths = {p.partition: p.deaths for p in broker.coordinator.describe("g", broker.now).partitions}
    assert deaths == {0: 1, 1: 1, 2: 0, 3: 0}


def test_one_that_comes_back_with_another_subscription_is_assigned_anew() -> None:
    broker = two_static_members()
    broker.logs.topics["u"] = [10, 10]
    request = GroupHeartbeat("g", "a2", JOIN_EPOCH, instance_id="one", topics=["u"])
    reply = broker.handle(request).reply
    assert isinstance(reply, GroupHeartbeatReply)
    assert reply.assignment == [TopicPartitions("u", [0, 1])]
    assert given(beat(broker, "b", 2, "two", {2, 3})) == {0, 1, 2, 3}


def test_what_the_one_before_was_giving_up_is_free() -> None:
    broker = Harness()
    beat(broker, "a", JOIN_EPOCH, "one")
    beat(broker, "b", JOIN_EPOCH, "two")
    assert given(beat(broker, "a", 1, "one", {0, 1, 2, 3})) == {0, 1}
    assert given(beat(broker, "b", 2, "two", set())) in (None, set()), "a has not given it up"
    assert given(beat(broker, "a2", JOIN_EPOCH, "one")) == {0, 1}
    assert given(beat(broker, "b", 2, "two", set())) == {2, 3}


def test_an_away_member_that_heartbeats_on_must_join_again() -> None:
    broker = two_static_members()
    beat(broker, "a", STATIC_LEAVE_EPOCH, "one")
    with pytest.raises(UnknownMember):
        beat(broker, "a", 2, "one")
    assert given(beat(broker, "a", JOIN_EPOCH, "one")) == {0, 1}


def test_leaving_for_good_frees_the_place_at_once() -> None:
    broker = two_static_members()
    broker.leave("a")
    assert given(beat(broker, "b", 2, "two", {2, 3})) == {0, 1, 2, 3}


def test_only_one_with_an_instance_id_can_say_that_it_will_be_back() -> None:
    broker = Harness()
    broker.join("a")
    with pytest.raises(InvalidRequest):
        beat(broker, "a", STATIC_LEAVE_EPOCH, None)


def test_a_restart_of_the_broker_remembers_who_is_away() -> None:
    broker = two_static_members()
    beat(broker, "a", STATIC_LEAVE_EPOCH, "one")
    broker.restart()
    assert members(broker) == {"a": "one", "b": "two"}
    assert given(beat(broker, "a2", JOIN_EPOCH, "one")) == {0, 1}
    assert [partition.deaths for partition in broker.coordinator.describe("g", broker.now).partitions] == [0] * 4
