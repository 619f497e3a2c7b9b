"""Who is woken when: the I/O thread sleeps until something is due, so whatever changes what is due has to wake it."""

from logsvc_client.engine import TOGETHER_MS
from tests.property.client_world import World
from tests.unit.client.test_lost_membership import exchange


def watched(world: World) -> list[bool]:
    """Whether the user waited for records at each wake-up from now on."""
    woken: list[bool] = []
    world.transport.wake = lambda: woken.append(world.engine.hungry)  # type: ignore[method-assign]
    return woken


def test_whoever_is_woken_for_a_user_who_waits_sees_that_it_waits() -> None:
    world = World("key", one_by_one=False, fails={})
    world.engine.set_hungry(False)
    woken = watched(world)
    world.engine.set_hungry(True)
    assert woken == [True]


def test_a_retry_that_was_handled_is_told_soon_while_there_are_other_records_too() -> None:
    # Given a consumer that polls, with records of both partitions at hand, one of which has failed and come back
    world = World("none", one_by_one=False, fails={})
    exchange(world)
    assert not world.handout.take(1)  # It takes over its partitions.
    exchange(world)
    (first,) = world.handout.take(1)
    assert world.handout.take(1)[0].partition != first.partition
    world.handout.fail(first, "broken")
    exchange(world)
    (again,) = world.handout.take(1)
    assert (again.partition, again.offset, again.attempt) == (first.partition, first.offset, 2)
    exchange(world)
    # When its handling is over, and there are more to handle
    world.now_ms += 10 * TOGETHER_MS
    woken = watched(world)
    assert world.handout.take(1)
    # Then the broker is to hear of it now, not with the next commit for the time's sake
    assert any(progress.urgent for progress in world.engine.progress.values())
    assert woken
