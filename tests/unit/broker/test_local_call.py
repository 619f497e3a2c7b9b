"""A request of this process: the handlers and limits of a peer's, the answer as it is."""

import asyncio
from collections.abc import Iterator

import pytest

from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import BrokerStopping, InvalidRequest, UnknownTopic
from logsvc_common.messages import (
    CreateTopic,
    DeleteTopic,
    Fetch,
    FetchPartition,
    Metadata,
    MetadataReply,
    Produce,
    ProducePartition,
    RedriveFilter,
    StartRedrive,
)
from tests.unit.listeners.api.world import World, world


@pytest.fixture(scope="module")
def broker() -> Iterator[World]:
    with world() as running:
        yield running


def test_it_is_answered_with_the_message_and_its_frames(broker: World) -> None:
    broker.topic("t")
    batch = encode([RecordData(b"v")])
    broker.produce_batch("t", batch)
    assert isinstance(broker.ask(Metadata()), MetadataReply)
    answer = broker.run(broker.broker.call(Fetch([FetchPartition("t", 0, 0)])))
    assert [len(frame) for frame in answer.payload] == [len(batch)]


def test_a_refusal_is_raised_as_the_typed_error(broker: World) -> None:
    with pytest.raises(UnknownTopic):
        broker.ask(DeleteTopic("nope"))


def test_the_limits_of_a_message_hold(broker: World) -> None:
    with pytest.raises(InvalidRequest):
        broker.ask(StartRedrive("g", where=RedriveFilter(error_contains=["x" * 2_000])))
    with pytest.raises(InvalidRequest):
        broker.ask(CreateTopic("t2", 1 << 63))


def test_it_waits_for_what_comes_later(broker: World) -> None:
    broker.topic("later")

    async def scenario() -> int:
        poll = asyncio.ensure_future(broker.broker.call(Fetch([FetchPartition("later", 0, 0)], max_wait_ms=20_000)))
        await asyncio.sleep(0)
        assert not poll.done()
        await broker.broker.call(Produce([ProducePartition("later", 0)]), [encode([RecordData(b"v")])])
        return len((await poll).payload)

    assert broker.run(scenario()) == 1


def test_a_caller_that_gives_up_leaves_nothing_behind(broker: World) -> None:
    broker.topic("given-up")

    async def scenario() -> None:
        poll = asyncio.ensure_future(broker.broker.call(Fetch([FetchPartition("given-up", 0, 0)], max_wait_ms=20_000)))
        await asyncio.sleep(0)
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll
        # The poll is still parked; its answer finds nobody, and that is all right.
        await broker.broker.call(Produce([ProducePartition("given-up", 0)]), [encode([RecordData(b"v")])])

    broker.run(scenario())
    assert broker.broker._dispatcher.open_requests == 0


def test_a_broker_that_stops_says_so() -> None:
    with world() as stopping:
        stopping.run(stopping.broker.stop())
        with pytest.raises(BrokerStopping):
            stopping.ask(Metadata())
        answer = stopping.get("/api/v1/topics")
        assert (answer.status, answer.code, answer.json["error"]["retriable"]) == (503, "BROKER_STOPPING", True)
        assert answer.headers["retry-after"] == "1"
