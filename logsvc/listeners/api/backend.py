"""What the API is given: the broker to ask, the time, and who may write."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from logsvc.broker.history import History
from logsvc.clock import Clock
from logsvc.listeners.api.pile_cache import PileCache
from logsvc.listeners.http import Health
from logsvc_common.batch import Buffer
from logsvc_common.errors import BrokerOverloaded, from_wire
from logsvc_common.messages import Message, Request, Result

ReplyT = TypeVar("ReplyT", bound=Message)
ResultT = TypeVar("ResultT", bound=Result)
MadeT = TypeVar("MadeT")

READERS_MAX = 2  # threads that decode records at the same time, so many batches are held inflated at once
READERS_WAITING_MAX = 32


class Answer(Protocol):
    """An answer of the broker: a message, and the frames beside it."""

    @property
    def body(self) -> Any: ...
    @property
    def payload(self) -> Sequence[Buffer]: ...


class Call(Protocol):
    """Asks the broker, by the same handlers as a request over ZeroMQ. Raises the typed error."""

    def __call__(self, body: Request, payload: Sequence[Buffer] = ()) -> Awaitable[Answer]: ...


class Threads:
    """Runs what takes long beside the event loop: at most READERS_MAX at once; READERS_WAITING_MAX wait, more are refused."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(READERS_MAX)
        self._waiting = 0

    async def run(self, work: Callable[[], MadeT]) -> MadeT:
        """What `work` returns, or raises. Raises BrokerOverloaded."""
        if self._waiting >= READERS_WAITING_MAX:
            raise BrokerOverloaded(f"{READERS_WAITING_MAX} readings of records wait already; try again")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await asyncio.to_thread(work)
        finally:
            self._free.release()


def allowed_hosts(bound: str, more: str = "") -> frozenset[str]:
    """Names that `Host` may have beside the loopback ones: the host bound, and `more`, separated by commas."""
    return frozenset(name.strip().lower().strip("[]") for name in (bound, *more.split(",")) if name.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """`token` is what a write must carry, `writes` whether there are any. `hosts`: names allowed beside those of loopback.
    `disk_space()` is (free, size, reserve) of the data folder's file system, in bytes."""

    call: Call
    clock: Clock
    endpoint: str
    hosts: Collection[str]
    writes: bool
    token: str
    health: Callable[[], Health]
    history: History
    disk_space: Callable[[], tuple[int, int, int]]
    threads: Threads = field(default_factory=Threads)
    piles: PileCache = field(default_factory=PileCache)

    async def ask(self, body: Request, expected: type[ReplyT]) -> ReplyT:
        """The broker's reply to a request without payload. Raises the typed error."""
        reply = (await self.call(body)).body
        assert isinstance(reply, expected)
        return reply


def checked(result: ResultT) -> ResultT:
    """The part of an answer as it is, or the error it carries."""
    if result.error_code:
        raise from_wire(result.error_code, result.error_message)
    return result
