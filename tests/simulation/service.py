"""The whole broker in a simulation: real dispatcher, handlers, coordinator and storage on a simulated disk, one virtual clock.

Nothing runs by itself. `run` takes the next thing that is due (a callback, a sync, a timer) and advances the clock to it, so a
run is a function of its seed. A crash may come at any operation of the disk: what was fsynced is what the next life finds.

A test may talk to the broker by itself (`ask`), or put a network in front of it (`carry`), as `world` does. The wall clock may
be set apart from the virtual one (`wall_offset_ms`): nothing that must not may depend on it.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from logsvc.broker.exchange import Send
from logsvc.broker.loop import Broker, Loop
from logsvc.config import ServerSettings
from logsvc.metrics import BrokerMetrics
from logsvc.storage.log_directory import LogDirectory
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import Buffer
from logsvc_common.frames import DecodedResponse, decode_body, decode_response, encode_request
from logsvc_common.messages import APIS, Message, Request

START_MS = 1_800_000_000_000
TESTER = b"peer"  # the routing id of `ask`


class SimulatedTime:
    """The clock, the event loop and the threads of one machine."""

    def __init__(self) -> None:
        self._now_ms = float(START_MS)
        self.wall_offset_ms = 0
        self._number = 0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._cancelled: set[int] = set()

    # Clock
    @property
    def now_ms(self) -> int:
        return int(self._now_ms)

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self._now_ms = float(now_ms)

    def wall_ms(self) -> int:
        return self.now_ms + self.wall_offset_ms

    def monotonic_ms(self) -> int:
        return self.now_ms - START_MS

    def seconds(self) -> float:
        return self.monotonic_ms() / 1000

    # Loop
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> "_Handle":
        self._number += 1
        heapq.heappush(self._due, (self._now_ms + delay * 1000, self._number, callback, args))
        return _Handle(self._cancelled, self._number)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        return self.call_later(0, callback, *args)

    call_soon_threadsafe = call_soon

    def run(self, until: Callable[[], bool], limit_ms: int = 600_000) -> None:
        """Run until `until()`; at most `limit_ms` of virtual time."""
        end_ms = self.now_ms + limit_ms
        while not until():
            assert self._due, "nothing is due, and it has not come about"
            assert self._due[0][0] <= end_ms, f"it has not come about in {limit_ms} ms"
            self.step()

    def step(self) -> None:
        """Take the next thing that is due."""
        due_ms, number, callback, args = heapq.heappop(self._due)
        if number in self._cancelled:
            self._cancelled.discard(number)
            return
        self._now_ms = max(self._now_ms, due_ms)
        callback(*args)


class Life:
    """The event loop of one process on the clock of all: what it meant to do dies with it."""

    def __init__(self, time: SimulatedTime) -> None:
        self.alive = True
        self._time = time

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> "_Handle":
        return self._time.call_later(delay, self._run, callback, args)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> "_Handle":
        return self.call_later(0, callback, *args)

    call_soon_threadsafe = call_soon

    def _run(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.alive:
            callback(*args)


class _Handle:
    def __init__(self, cancelled: set[int], number: int) -> None:
        self._cancelled, self._number = cancelled, number

    def cancel(self) -> None:
        self._cancelled.add(self._number)


@cache
def _settings(**settings: int) -> ServerSettings:
    """Made once: that takes as long as a simulated life of a few requests."""
    return ServerSettings(**{"http_port": -1, "disk_reserve_bytes": 0, **settings})


class SimulatedService:
    """One life of a broker. `kill` and `power_cut` begin the next one on what the disk kept.

    `loop` and `run_in_thread` take the place of the clock's own, `carry` takes the answers to peers on a network.
    """

    def __init__(
        self,
        seed: int,
        disk: SimulatedDisk | None = None,
        time: SimulatedTime | None = None,
        *,
        loop: Loop | None = None,
        run_in_thread: Callable[[Callable[[], None]], object] | None = None,
        carry: Send | None = None,
        **settings: int,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.disk = disk or SimulatedDisk()
        self.time = time or SimulatedTime()
        self.disk.now_ms = self.time.now_ms
        self.answers: dict[int, DecodedResponse] = {}
        self._correlation_id = 0
        self._carry = carry
        server_settings = _settings(**settings)
        self.logs = LogDirectory.open(
            self.disk,
            "/data",
            now_ms=self.time.wall_ms(),
            reserve_bytes=server_settings.disk_reserve_bytes,
            new_id=lambda: f"{self.rng.getrandbits(128):032x}",
        )
        self.metrics = BrokerMetrics()
        self.broker = Broker(
            server_settings,
            self.logs,
            self.metrics,
            self.time,
            broker_id=f"life-{seed}",
            random_63=lambda: self.rng.getrandbits(62),
            unit=self.rng.random,
            loop=loop or self.time,
            run_in_thread=run_in_thread or self.time.call_soon,
            send=self._take,
            unsaturated=lambda: None,
        )
        self.broker.load()

    def _take(self, peer: bytes, frames: list[Buffer]) -> None:
        if peer != TESTER and self._carry is not None:
            self._carry(peer, frames)
            return
        response = decode_response(frames)
        assert response.correlation_id not in self.answers, "one request, two answers"
        self.answers[response.correlation_id] = response

    def send(self, body: Request, payload: Sequence[Buffer] = ()) -> int:
        self._correlation_id += 1
        self.broker.receive(TESTER, encode_request(self._correlation_id, body, payload))
        return self._correlation_id

    def ask(self, body: Request, payload: Sequence[Buffer] = ()) -> tuple[Message, Sequence[Buffer]]:
        """Send, and run until the answer is there. Raises the broker's error."""
        correlation_id = self.send(body, payload)
        self.time.run(lambda: correlation_id in self.answers)
        response = self.answers.pop(correlation_id)
        return decode_body(response, APIS[body.API].response), response.payload

    def kill(self) -> "SimulatedService":
        """The next life after kill -9."""
        return SimulatedService(self.seed + 1, self.disk.kill(), _later(self.time))

    def power_cut(self, *, ordered: bool = False) -> "SimulatedService":
        """The next life after a power cut; `ordered` on a disk that keeps no write without those before it."""
        return SimulatedService(self.seed + 1, self.disk.crash(self.rng, ordered=ordered), _later(self.time))


def _later(time: SimulatedTime) -> SimulatedTime:
    """The same clock, and nothing of what the dead process meant to do."""
    later = SimulatedTime()
    later.now_ms = time.now_ms
    return later
