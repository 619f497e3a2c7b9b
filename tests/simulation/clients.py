"""Processes in a simulation: the client library's cores without its threads, and a producer made of them.

`SimulatedTransport` takes the place of `logsvc_client.transport.Transport`: the same `Connection`, the same services stepped in
the same way, but a simulated network below and the virtual clock for its thread. A process may be frozen (SIGSTOP) or killed.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from logsvc_client.accumulator import Accumulator
from logsvc_client.connection import Connection, Phase, Reply
from logsvc_client.producer_batch import BatchSettings, NewRecord, Wait
from logsvc_client.records import RecordMetadata
from logsvc_client.sender import Sender
from logsvc_client.transport import IDLE_MS, Call, Calls
from logsvc_common.batch import Buffer
from logsvc_common.errors import ClientClosed, InvalidRequest, LogsvcError
from logsvc_common.messages import Hello, Message, Request
from tests.simulation.network import Frames, Link, Network

Observe = Callable[[str, Request, Message | LogsvcError | None, int], None]
"""Told of every request as it is sent (no answer yet) and as it ends: who, what, the answer, and when it was sent."""


def _unobserved(_who: str, _body: Request, _answer: Message | LogsvcError | None, _sent_ms: int) -> None:
    pass


class SimulatedTransport:
    """The connection of one process; `name` is unique to it."""

    server = "simulated"

    def __init__(
        self, network: Network, rng: Random, name: str, *, request_timeout_ms: int, observe: Observe = _unobserved
    ) -> None:
        self.name, self.request_timeout_ms = name, request_timeout_ms
        self.connection = Connection(Hello(client_id=name), request_timeout_ms)
        self.alive = True
        self.frozen_until_ms = 0
        self._network, self._time, self._rng, self._observe = network, network.time, rng, observe
        self._calls = Calls(self)  # type: ignore[arg-type]
        self._services: list[object] = [self._calls]
        self._posted: deque[Callable[[], None]] = deque()
        self._link: Link | None = None
        self._stepping = self._woken = False
        self._turn_ms = -1  # when the next step is due, -1: none is planned
        self._turns = 0

    def start(self, *services: object) -> None:
        self._services.extend(services)
        self.wake()

    # What the library uses of a transport

    def now_ms(self) -> int:
        return self._time.now_ms

    @property
    def ready(self) -> bool:
        return self.connection.phase is Phase.READY

    def post(self, work: Callable[[], None]) -> None:
        if not self.alive:
            raise self.failure()
        self._posted.append(work)
        self.wake()

    def wake(self) -> None:
        self._woken = True
        if not self._stepping:
            self._plan(self._time.now_ms)

    def failure(self) -> LogsvcError:
        return ClientClosed("this client is closed")

    def submit(self, body: Request, expected: type[Message], timeout_ms: int = 30_000):  # type: ignore[no-untyped-def]
        call = Call(body, self.now_ms() + timeout_ms, timeout_ms)
        call.future.set_running_or_notify_cancel()
        self.post(lambda: self._calls.add(call))
        return call.future

    def send(self, body: Request, payload: Sequence[Buffer], reply: Reply, timeout_ms: int | None = None) -> None:
        sent_ms = self.now_ms()

        def answered(answer: Message | LogsvcError, frames: Sequence[Buffer]) -> None:
            if self.alive:
                self._observe(self.name, body, answer, sent_ms)
                reply(answer, frames)

        self._observe(self.name, body, None, sent_ms)
        frames = self.connection.request(body, payload, answered, sent_ms, timeout_ms)
        if frames is not None and self._link is not None:
            self._link.send(frames)

    # The thread

    def _plan(self, at_ms: int) -> None:
        """Have a step at this time at the latest."""
        at_ms = max(at_ms, self.frozen_until_ms)
        if 0 <= self._turn_ms <= at_ms or not self.alive:
            return
        self._turn_ms = at_ms
        self._turns += 1
        self._time.call_later(max(0, at_ms - self._time.now_ms) / 1_000, self._turn, self._turns)

    def _turn(self, number: int) -> None:
        if number != self._turns or not self.alive:
            return
        self._turn_ms = -1
        if self._time.now_ms < self.frozen_until_ms:
            self._plan(self.frozen_until_ms)
            return
        now_ms, self._woken, self._stepping = self._time.now_ms, False, True
        due_ms = self._step(now_ms)
        self._stepping = False
        self._plan(now_ms if self._woken else max(due_ms, now_ms + 1))

    def _step(self, now_ms: int) -> int:
        while self._posted:
            self._posted.popleft()()
        connection = self.connection
        if connection.phase is Phase.WAITING:
            if now_ms >= connection.retry_at_ms:
                self._link = self._network.connect(self.name, self._arrived, self._broken)
                self._link.send(connection.opened(now_ms))
        elif (why := connection.overdue(now_ms)) is not None:
            self._break(why)
        due_ms = now_ms + IDLE_MS
        for service in self._services:
            due_ms = min(due_ms, service.step(now_ms))  # type: ignore[attr-defined]
        return min(due_ms, connection.next_deadline_ms())

    def _arrived(self, frames: Frames) -> None:
        if not self.alive:
            return
        if self._time.now_ms < self.frozen_until_ms:
            wait_ms = self.frozen_until_ms - self._time.now_ms
            self._time.call_later(wait_ms / 1_000, self._thawed, self._link, frames)
            return
        try:
            self.connection.received(frames)
        except InvalidRequest as error:
            raise AssertionError(f"{self.name} was answered with nonsense: {error}") from error
        self.wake()

    def _thawed(self, link: Link | None, frames: Frames) -> None:
        if link is self._link:
            self._arrived(frames)

    def _broken(self, why: str) -> None:
        if not self.alive:
            return
        if self._time.now_ms < self.frozen_until_ms:
            self._time.call_later((self.frozen_until_ms - self._time.now_ms) / 1_000, self._broken, why)
        elif self._link is not None and not self._link.open:
            self._break(why)

    def _break(self, why: str) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self.connection.broken(why, self._time.now_ms, self._rng.random())
        self.wake()

    # What happens to processes

    def freeze(self, ms: int) -> None:
        """SIGSTOP now, SIGCONT after so long."""
        self.frozen_until_ms = self._time.now_ms + ms
        self._turn_ms = -1
        self._plan(self.frozen_until_ms)

    def kill(self) -> None:
        """kill -9, or the end of the process."""
        self.alive = False
        if self._link is not None:
            self._link.close()
            self._link = None


class SimulatedProducer:
    """One producer process: the real accumulator and sender. `send` never blocks; what must wait keeps its order."""

    def __init__(
        self,
        transport: SimulatedTransport,
        settings: BatchSettings,
        choose: Callable[[], int],
        ended: Callable[[int, RecordMetadata | None, LogsvcError | None], None],
    ) -> None:
        self.transport = transport
        self._accumulator = Accumulator(settings, choose)
        self._sender = Sender(transport, self._accumulator, settings.batch_bytes)  # type: ignore[arg-type]
        self._ended = ended
        self._waiting: deque[NewRecord] = deque()
        transport.start(self._sender)

    def send(self, number: int, topic: str, value: bytes, key: bytes) -> None:
        """Record `number`; `ended` is told what became of it."""

        def on_delivery(metadata: RecordMetadata | None, error: LogsvcError | None) -> None:
            self._ended(number, metadata, error)

        wall_ms = self.transport._time.wall_ms()
        self._waiting.append(NewRecord(topic, value, key, [("number", b"%d" % number)], None, wall_ms, on_delivery))
        self._add()

    def _add(self) -> None:
        while self._waiting and self.transport.alive:
            record = self._waiting[0]
            with self._sender.lock:
                added = self._accumulator.add(record, self.transport.now_ms())
                if added is Wait.ROOM:
                    self._sender.wait_room(self._add_soon)
            self.transport.wake()
            if added is Wait.TOPIC:
                learned = self._sender.learn(record.topic, 60_000)
                learned.add_done_callback(lambda _learned: self._add_soon())
            if isinstance(added, Wait):
                return
            self._waiting.popleft()

    def _add_soon(self) -> None:
        self.transport._time.call_soon(self._add)
