"""What a commit says when the partitions have gone to others before it was made."""

import pytest

from logsvc_client.records import Record
from logsvc_common.errors import UnknownMember
from tests.property.client_world import World


def exchange(world: World) -> None:
    """Everything on its way arrives and is answered, until there is nothing more to say but long polls."""
    for _ in range(20):
        world.now_ms += 200
        world.step()
        for _ in range(len(world.transport.in_flight)):
            world.arrive()
        for _ in range(len(world.transport.in_flight)):
            world.answer(0)


def world_with_records_in_hand() -> tuple[World, list[Record]]:
    world = World("key", one_by_one=False, fails={})
    records: list[Record] = []
    for _ in range(20):
        exchange(world)
        records = world.handout.take(3)
        if records:
            return world, records
    raise AssertionError("nothing came")


def test_a_commit_after_the_membership_was_lost_says_so_once() -> None:
    world, _ = world_with_records_in_hand()
    world.broker.expel()
    exchange(world)
    with world.engine.lock:
        first, second = world.engine.commit(), world.engine.commit()
    with pytest.raises(UnknownMember):
        first.result(0)
    exchange(world)
    assert second.result(0) is None


def test_records_taken_since_can_be_committed() -> None:
    world, _ = world_with_records_in_hand()
    world.broker.expel()
    exchange(world)
    for _ in range(20):
        if world.handout.take(3):
            break
        exchange(world)
    with world.engine.lock:
        told = world.engine.commit()
    exchange(world)
    assert told.result(0) is None
