"""One request and its way back.

A handler answers exactly once, now or later: a produce waits for its fsync, a long poll for data. Answering twice is a
bug and asserts.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from logsvc_common.batch import Buffer
from logsvc_common.errors import LogsvcError
from logsvc_common.frames import encode_error, encode_response
from logsvc_common.messages import Api, Message, Request

RequestT = TypeVar("RequestT", bound=Request, covariant=True)

Send = Callable[[bytes, list[Buffer]], None]
"""Carries frames to the peer with that routing id; never blocks, never raises."""

Ended = Callable[[Message | LogsvcError], None]
"""Told what a request was answered with."""


class Exchange(Generic[RequestT]):
    """`body` and `payload` as they came from `peer`, an address; `reply` or `refuse` ends it."""

    __slots__ = ("_correlation_id", "_ended", "_send", "api", "body", "payload", "peer")

    def __init__(
        self,
        peer: bytes,
        api: Api,
        correlation_id: int,
        body: RequestT,
        payload: Sequence[Buffer],
        send: Send,
        ended: Ended,
    ) -> None:
        self.peer = peer
        self._correlation_id = correlation_id
        self._send = send
        self._ended: Ended | None = ended
        self.api = api
        self.body = body
        self.payload = payload

    def reply(self, body: Message, payload: Sequence[Buffer] = ()) -> None:
        self._end(body)
        self._send(self.peer, encode_response(self._correlation_id, body, payload))

    def refuse(self, error: LogsvcError) -> None:
        self._end(error)
        self._send(self.peer, encode_error(self._correlation_id, error))

    def _end(self, answer: Message | LogsvcError) -> None:
        assert self._ended is not None, f"{self.api.name} was answered twice"
        self._ended(answer)
        self._ended = None

    @property
    def is_open(self) -> bool:
        """True until it is answered."""
        return self._ended is not None


class LocalAnswer(NamedTuple):
    """What a handler replied to a caller in this process."""

    body: Any
    payload: Sequence[Buffer]


class LocalExchange(Exchange[RequestT]):
    """A request of this process: its answer goes into a future, as it is, instead of into frames.

    A caller that has given up, by cancelling the future, is not told any more.
    """

    __slots__ = ("_answer",)

    def __init__(
        self,
        api: Api,
        body: RequestT,
        payload: Sequence[Buffer],
        answer: "asyncio.Future[LocalAnswer]",
        ended: Ended,
    ) -> None:
        super().__init__(b"", api, 0, body, payload, _send_nothing, ended)
        self._answer = answer

    def reply(self, body: Message, payload: Sequence[Buffer] = ()) -> None:
        self._end(body)
        if not self._answer.done():
            self._answer.set_result(LocalAnswer(body, payload))

    def refuse(self, error: LogsvcError) -> None:
        self._end(error)
        if not self._answer.done():
            self._answer.set_exception(error)


def _send_nothing(_peer: bytes, _frames: list[Buffer]) -> None:
    raise AssertionError("an answer inside the process is not sent")
