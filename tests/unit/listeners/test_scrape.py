"""A scrape beside other work: it lets it run, one at a time, and leaves nothing behind when its reader goes."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from logsvc.listeners import scrape
from logsvc.listeners.scrape import TURN_SECONDS, Scrapes
from logsvc.metrics import BrokerMetrics, DiskSample, Sample

STEPS = 40


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def slow_source() -> Iterator[Sample | None]:
    """Steps that each take a turn's time."""
    for _ in range(STEPS):
        until = time.perf_counter() + TURN_SECONDS
        while time.perf_counter() < until:
            pass
        yield None
    yield DiskSample(1, 2, 3)


async def body(scrapes: Scrapes, accept: str = "") -> bytes:
    answer = await scrapes.answer(accept)
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive_nothing, send)
    assert int(answer.headers["content-length"]) == sum(map(len, sent))
    return b"".join(sent)


async def receive_nothing() -> Any:
    await asyncio.sleep(60)


def test_whoever_has_something_to_do_gets_the_loop_after_every_slow_step() -> None:
    async def scenario() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        working = asyncio.create_task(other())
        text = await body(Scrapes(BrokerMetrics(source=slow_source)))
        working.cancel()
        assert b"logsvc_disk_free_bytes 1\n" in text
        assert turns >= STEPS

    run(scenario)


def test_two_scrapes_at_once_are_both_whole_and_made_one_after_the_other() -> None:
    async def scenario() -> None:
        going: list[str] = []

        def source() -> Iterator[Sample | None]:
            going.append("begin")
            yield from slow_source()
            going.append("end")

        scrapes = Scrapes(BrokerMetrics(source=source))
        texts = await asyncio.gather(*(body(scrapes) for _ in range(3)))
        assert [b"logsvc_disk_free_bytes 1\n" in text for text in texts] == [True] * 3
        assert going == ["begin", "end"] * 3

    run(scenario)


def test_the_interpreter_switches_as_before_when_a_scrape_is_over() -> None:
    async def scenario() -> None:
        before_seconds = sys.getswitchinterval()
        during: list[float] = []

        def source() -> Iterator[Sample | None]:
            during.append(sys.getswitchinterval())
            yield None

        await body(Scrapes(BrokerMetrics(source=source)))
        assert during[0] < before_seconds
        assert sys.getswitchinterval() == before_seconds

    run(scenario)


def test_readers_that_do_not_read_hold_up_nobody_and_are_limited_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "HELD_MAX", 3)
    monkeypatch.setattr(scrape, "SEND_SECONDS_MAX", 0.5)

    async def scenario() -> None:
        scrapes = Scrapes(BrokerMetrics(source=lambda: [DiskSample(1, 2, 3)]))

        async def never(_message: Any) -> None:
            await asyncio.Event().wait()

        async def stuck() -> None:
            await (await scrapes.answer(""))({"type": "http", "asgi": {"spec_version": "2.4"}}, receive_nothing, never)

        stalled = [asyncio.create_task(stuck()) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert b"logsvc_disk_free_bytes 1\n" in await body(scrapes)
        stalled.append(asyncio.create_task(stuck()))
        await asyncio.sleep(0.05)
        assert (await scrapes.answer("")).status_code == 503
        await asyncio.gather(*stalled)  # they have been cut off
        assert b"logsvc_disk_free_bytes 1\n" in await body(scrapes)

    run(scenario)
