"""Many peers at once, cheaply: DEALER sockets of one context, polled together; and what a good client experiences meanwhile."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import zmq

from logsvc_client import Producer
from logsvc_common.batch import Buffer
from logsvc_common.errors import LogsvcError
from logsvc_common.frames import encode_request
from logsvc_common.messages import Hello, Request
from tests.e2e.unharmed import GOOD_TOPIC

ANSWERS_WITHIN_S = 60.0
PAUSE_S = 0.005  # between the sends of a good client


def open_files(pid: int) -> int:
    """File descriptors a process has open (proc(5))."""
    return len(os.listdir(Path(f"/proc/{pid}/fd")))


class Crowd:
    """`count` connections to a broker. What one asks, all ask."""

    def __init__(self, server: str, count: int, *, client_id: str = "crowd", receive_high_water: int = 1_000) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, count + 100)
        self._client_id = client_id
        self._correlation_id = 0
        self.sockets: list[zmq.Socket[bytes]] = []
        for _ in range(count):
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.rcvhwm = receive_high_water
            socket.connect(server)
            self.sockets.append(socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()
        self._context.term()

    def greet(self) -> float:
        """Every one says hello and hears back. Returns how many seconds that took all of them."""
        started = time.monotonic()
        self.tell(lambda _: Hello(self._client_id, "tests"))
        self.hear()
        return time.monotonic() - started

    def tell(self, request: Callable[[int], Request], payload: Sequence[Buffer] = ()) -> None:
        """Every one sends `request(its number)` and does not wait."""
        self._correlation_id += 1
        for number, socket in enumerate(self.sockets):
            assert socket.poll(10_000, zmq.POLLOUT)
            socket.send_multipart(encode_request(self._correlation_id, request(number), payload), zmq.DONTWAIT)

    def hear(self, within_s: float = ANSWERS_WITHIN_S) -> None:
        """Every one takes an answer."""
        deadline = time.monotonic() + within_s
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        waiting = len(self.sockets)
        while waiting:
            assert time.monotonic() < deadline, f"{waiting} of {len(self.sockets)} have no answer after {within_s} s"
            for socket, _ in poller.poll(100):
                socket.recv_multipart(zmq.DONTWAIT)
                poller.unregister(socket)
                waiting -= 1


class Felt(NamedTuple):
    """What a good producer felt: from `send` to the durable ack."""

    acks: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


class GoodClient:
    """A producer in a thread of its own that sends one record after another and times each ack."""

    def __init__(self, server: str, client_id: str) -> None:
        self._taken_ms: list[float] = []
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._error: LogsvcError | None = None
        self._thread = threading.Thread(target=self._run, args=(server, client_id), daemon=True)

    def _run(self, server: str, client_id: str) -> None:
        try:
            with Producer(server, client_id=client_id, linger_ms=0) as producer:
                producer.send(GOOD_TOPIC, b"first").result(timeout=30)
                self._begun.set()
                while not self._stop.is_set():
                    started = time.monotonic()
                    producer.send(GOOD_TOPIC, b"good").result(timeout=30)
                    self._taken_ms.append((time.monotonic() - started) * 1_000)
                    time.sleep(PAUSE_S)
        except LogsvcError as error:
            self._error = error

    def start(self) -> None:
        """Returns when it is connected and served."""
        self._thread.start()
        self._begun.wait(60)

    def felt(self) -> Felt:
        """Stop, and tell. Raises what a send ended in."""
        self._stop.set()
        self._thread.join(60)
        if self._error is not None:
            raise self._error
        taken = sorted(self._taken_ms)
        assert taken, "no ack came"
        return Felt(len(taken), taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)], taken[-1])


@contextlib.contextmanager
def good_client(server: str, told: Callable[[Felt], None]) -> Iterator[None]:
    """A good client that is there before the block and until its end; `told` hears then what it felt."""
    client = GoodClient(server, "good")
    client.start()
    yield
    told(client.felt())
