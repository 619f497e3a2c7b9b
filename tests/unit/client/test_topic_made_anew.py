"""A topic that is deleted and made anew between two heartbeats: nobody takes its partitions away, and yet they are others."""

from collections import Counter

import pytest

from logsvc_common.delivery import FailedOffsets
from logsvc_common.errors import UnknownTopic
from logsvc_common.messages import Commit, CommitReply, CommitResult, Fetch, FetchReply, FetchResult
from tests.property.client_world import PARTITIONS, RECORDS, TOPIC, Answer, World
from tests.unit.client.test_lost_membership import exchange


def make_anew(world: World) -> None:
    """The broker forgets what the group had read; whoever fetches or commits meanwhile hears that there is no such topic."""
    world.broker.failed = {number: FailedOffsets() for number in range(PARTITIONS)}
    fetch, commit, error = world.broker._fetch, world.broker._commit, UnknownTopic("no topic t")

    def gone(request: Fetch) -> Answer:
        results = [
            FetchResult(topic=TOPIC, partition=asked.partition, error_code=error.code, error_message=str(error))
            for asked in request.partitions
        ]
        return FetchReply(results), [b""] * len(results)

    def refused(request: Commit, _now_ms: int) -> CommitReply:
        return CommitReply(
            [
                CommitResult(topic=TOPIC, partition=part.partition, error_code=error.code, error_message=str(error))
                for part in request.partitions
            ]
        )

    world.broker._fetch, world.broker._commit = gone, refused  # type: ignore[method-assign]
    for progress in world.engine.progress.values():
        partition = world.engine.fetcher.partitions[progress.tp]
        partition.move(partition.position)  # it has nothing buffered
    exchange(world)
    world.broker._fetch, world.broker._commit = fetch, commit  # type: ignore[method-assign]


def work(world: World) -> None:
    exchange(world)
    world.take(4)
    while world.hand:
        world.handle(0)
    exchange(world)


@pytest.mark.parametrize("ordering", ["key", "partition", "none"])
@pytest.mark.parametrize("one_by_one", [True, False], ids=["run", "iteration"])
def test_its_records_are_all_handled(ordering: str, one_by_one: bool) -> None:
    # Given a group that has handled some records of each partition, and failed at some
    fails = {(number, offset): 2 for number in range(PARTITIONS) for offset in (0, 2)}
    world = World(ordering, one_by_one=one_by_one, fails=fails)
    for _ in range(4):
        work(world)
    assert world.handled
    world.take(3)
    world.hand.clear()
    # When the topic is made anew, with as many records
    before = Counter(world.handled)
    make_anew(world)
    world.fails.clear()
    world.settle()
    # Then each is handled as if nobody had ever read the old one
    again = Counter(world.handled) - before
    assert set(again) == {(number, offset) for number in range(PARTITIONS) for offset in range(RECORDS)}
    assert not any(progress.failing for progress in world.engine.progress.values())
