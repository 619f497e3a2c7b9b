"""A peer that misbehaves as told: a ROUTER in a thread, greeting back unless told otherwise."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import zmq

from logsvc_common.frames import DecodedRequest, decode_request, encode_response
from logsvc_common.messages import Hello, HelloReply

Behaviour = Callable[[DecodedRequest], Sequence[bytes | bytearray | memoryview] | None]
"""The frames to answer a request with; None for silence."""


class FakePeer:
    """Listens at `server`; `requests` collects what arrived, greetings apart from the rest in `greetings`."""

    def __init__(self, behaviour: Behaviour, *, greets: bool = True, bind: str = "tcp://127.0.0.1:*") -> None:
        self.behaviour = behaviour
        self.requests: list[DecodedRequest] = []
        self.greetings = 0
        self._greets = greets
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(bind)
        self.server: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(10):
                continue
            peer, *frames = self._socket.recv_multipart()
            request = decode_request(frames)
            if isinstance(request.body, Hello):
                self.greetings += 1
                reply = encode_response(request.correlation_id, HelloReply("fake", "test", 1 << 20, []))
                answer = reply if self._greets else None
            else:
                self.requests.append(request)
                answer = self.behaviour(request)
            if answer is not None:
                self._socket.send_multipart([peer, *answer])

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()
        self._context.term()


@contextmanager
def fake_peer(behaviour: Behaviour, *, greets: bool = True, bind: str = "tcp://127.0.0.1:*") -> Iterator[FakePeer]:
    """A FakePeer while the block runs."""
    peer = FakePeer(behaviour, greets=greets, bind=bind)
    try:
        yield peer
    finally:
        peer.close()


def answer_with(body: object) -> Behaviour:
    """Every request gets the same body."""
    return lambda request: encode_response(request.correlation_id, body)
