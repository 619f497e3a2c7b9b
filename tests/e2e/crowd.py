"""Many peers at once, cheaply: DEALER sockets of one context, polled together; and what a good client experiences meanwhile."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import zmq

from logsvc_common.batch import Buffer
from logsvc_common.frames import encode_request
from logsvc_common.messages import Hello, Request
from tests.e2e.good_client import Felt

ROOT = Path(__file__).parents[2]
ANSWERS_WITHIN_S = 60.0


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


@contextlib.contextmanager
def good_client(server: str, told: Callable[[Felt], None]) -> Iterator[None]:
    """A good client in a process of its own, there before the block and until its end; `told` hears then what it felt."""
    command = [sys.executable, "-m", "tests.e2e.good_client", server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == b"begun\n", "the good client was not served"
            yield
            out, _ = client.communicate(timeout=ANSWERS_WITHIN_S)
        finally:
            client.kill()
    assert client.returncode == 0, "the good client was refused"
    told(msgspec.json.decode(out, type=Felt))
