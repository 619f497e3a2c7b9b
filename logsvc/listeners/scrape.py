"""GET /metrics: a scrape, streamed while it is made, in the event loop and between the broker's other work.

A scrape of 150,000 series is some 50 ms of work on the state that the event loop owns. A thread beside the loop would fight it
for the interpreter at every switch, and a loop that did it in one go would keep every producer waiting. So it is done in
turns: as many steps as fit `TURN_SECONDS`, then whatever else is ready. One scrape at a time; the next one waits.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from logsvc.metrics import BrokerMetrics

if TYPE_CHECKING:
    from starlette.responses import Response

TURN_SECONDS = 0.0001  # steps are begun for so long before others get the event loop; one step takes about as long again
CHUNK_BYTES = 64 << 10
# A worker that ends its fsync needs the interpreter three times until the ack is out; meanwhile the loop has no pause.
SWITCH_SECONDS = 0.0005


class Scrapes:
    """Answers scrapes of one broker's metrics."""

    def __init__(self, metrics: BrokerMetrics) -> None:
        self._metrics = metrics
        self._one = asyncio.Lock()

    def answer(self, accept: str) -> "Response":
        """The response to a scraper that accepts `accept`; its body is made while it is sent."""
        from starlette.responses import StreamingResponse

        content_type, steps = self._metrics.scrape(accept)
        return StreamingResponse(self._body(steps), headers={"content-type": content_type})

    async def _body(self, steps: Iterator[bytes]) -> AsyncIterator[bytes]:
        async with self._one:
            before_seconds = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_SECONDS)
            try:
                async for part in _in_turns(steps):
                    yield part
            finally:
                sys.setswitchinterval(before_seconds)


async def _in_turns(steps: Iterator[bytes]) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    size = 0
    until = time.perf_counter() + TURN_SECONDS
    for text in steps:
        if text:
            parts.append(text)
            size += len(text)
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + TURN_SECONDS
    if parts:
        yield b"".join(parts)
