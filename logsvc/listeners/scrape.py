"""GET /metrics: a scrape, made in the event loop, between the broker's other work, and then sent.

A scrape of 150,000 series is some 50 ms of work on the state that the event loop owns. A thread beside the loop would fight it
for the interpreter at every switch, and a loop that did it in one go would keep every producer waiting. So it is done in
turns: as many steps as fit `TURN_SECONDS`, then whatever else is ready. One scrape is made at a time; the next one waits.

It is made whole before it is sent: somebody who reads slowly (`curl ... | less`) holds up nobody else. What is held for readers
is limited in number and in time.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from logsvc.metrics import BrokerMetrics

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.0001  # steps are begun for so long before others get the event loop; one step takes about as long again
CHUNK_BYTES = 64 << 10
HELD_MAX = 8  # scrapes that are being made or sent
SEND_SECONDS_MAX = 30.0  # for a reader to take its scrape
# A worker that ends its fsync needs the interpreter three times until the ack is out; meanwhile the loop has no pause.
SWITCH_SECONDS = 0.00005


class Scrapes:
    """Answers scrapes of one broker's metrics."""

    def __init__(self, metrics: BrokerMetrics) -> None:
        self._metrics = metrics
        self._one = asyncio.Lock()
        self._held = 0

    async def answer(self, accept: str) -> "Response":
        """The response to a scraper that accepts `accept`."""
        from starlette.responses import PlainTextResponse

        if self._held >= HELD_MAX:
            return PlainTextResponse(f"{HELD_MAX} scrapes are being answered; try again\n", 503, {"retry-after": "1"})
        self._held += 1
        try:
            async with self._one:
                content_type, steps = self._metrics.scrape(accept)
                parts = await _make(steps)
        except BaseException:
            self._held -= 1
            raise
        return _sending(parts, content_type, self._sent)

    def _sent(self) -> None:
        self._held -= 1


async def _make(steps: Iterator[bytes]) -> list[bytes]:
    """The text, in chunks."""
    chunks: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    before_seconds = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        until = time.perf_counter() + TURN_SECONDS
        for text in steps:
            parts.append(text)
            size += len(text)
            if size >= CHUNK_BYTES:
                chunks.append(b"".join(parts))
                parts, size = [], 0
            if time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + TURN_SECONDS
    finally:
        sys.setswitchinterval(before_seconds)
    return [*chunks, b"".join(parts)]


def _sending(chunks: Sequence[bytes], content_type: str, sent: Callable[[], None]) -> "Response":
    from starlette.responses import StreamingResponse

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
            await asyncio.sleep(0)

    class Sending(StreamingResponse):
        """Is cut off when it is not read within SEND_SECONDS_MAX."""

        async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS_MAX):
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                logger.warning("a scrape was not read within %.0f s: its connection is closed", SEND_SECONDS_MAX)
            finally:
                sent()

    size = sum(map(len, chunks))
    return Sending(body(), headers={"content-type": content_type, "content-length": str(size)})
