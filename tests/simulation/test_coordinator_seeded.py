"""Long seeded runs of the group world: deeper than a state machine of forty steps gets, and repeatable by the seed it prints.

What the world asserts as it goes is listed in `tests.property.group_world`; at the end of each run it must come to rest with
every record handled or dead-lettered once.
"""

from random import Random

import pytest

from logsvc_common.retry import RetryPolicy
from tests.property.group_world import PARTITIONS, Client, World

STEPS = 400


def step(world: World, random: Random, failing: float) -> None:
    """One thing happens: mostly clients at work, sometimes what disturbs them."""

    def seldom(chance: float = 0.1) -> bool:
        return random.random() < chance

    def fails(_offset: int) -> bool:
        return random.random() < failing

    client: Client = world.client(random.choice("abc"))
    partition = random.choice(sorted(client.readings)) if client.readings else random.randrange(PARTITIONS)
    what = random.random()
    if what < 0.30:
        world.heartbeat(client, lost=seldom())
        if not seldom(0.2):
            world.reconcile(client)
    elif what < 0.5:
        world.resend(client, lost=seldom())
        world.read(client, partition, random.randint(1, 5), fails, ahead=seldom(0.2), lost=seldom())
    elif what < 0.72:
        world.resend(client, lost=seldom())
        world.retry(client, partition, fails, lost_poll=seldom(), lost=seldom())
    elif what < 0.82:
        world.produce(random.randrange(PARTITIONS), random.randint(1, 4))
    elif what < 0.88:
        world.pass_time(random.choice((10, 200, 300, 500, 700, 900, 3_100)))
    elif what < 0.94:
        world.write_letter(fails=seldom(0.2), reported=not seldom(0.2))
    elif what < 0.945:
        world.leave(client)
    elif what < 0.950:
        client.gone = True
    elif what < 0.953:
        client.drop_everything()
    elif what < 0.968:
        world.die(client, partition)
    elif what < 0.978:
        world.jump_clock(random.choice((-3_600_000, -500, 500, 3_600_000)))
    else:
        world.restart()


def run(seed: int) -> World:
    random = Random(seed)
    policy = RetryPolicy(
        max_attempts=random.randint(1, 4),
        initial_ms=400,
        max_ms=2_000,
        ordering=random.choice(("key", "key", "partition", "none")),
        on_exhausted=random.choice(("dead-letter", "dead-letter", "discard")),
    )
    world = World(policy)
    world.broker.replay_checked_every = 10
    failing = random.choice((0.1, 0.3, 0.6))
    for _ in range(STEPS):
        step(world, random, failing)
        world.check_letters()
    world.drain(by_a_newcomer=random.random() < 0.5)
    return world


@pytest.mark.parametrize("seed", range(40))
def test_a_world_that_misbehaves_comes_to_rest_with_its_promises_kept(seed: int) -> None:
    print(f"seed {seed}")
    run(seed)


def test_the_worlds_above_do_what_they_are_for() -> None:
    """Guards the simulation itself: over a few seeds, everything that should be tried was tried."""
    worlds = [run(seed) for seed in range(1_000, 1_010)]
    assert sum(len(world.letters) for world in worlds) > 20
    assert sum(len(world.handled) for world in worlds) > 500
    assert sum(world.handed_out for world in worlds) > 200
    assert max(world.epochs for world in worlds) > 5
    assert sum(world.deaths for world in worlds) > 10
    assert sum(world.charged for world in worlds) > 2
    assert sum(world.pauses for world in worlds) > 10
