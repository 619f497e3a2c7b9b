"""Frames in, the right handler called. Whatever arrives, nothing but an answer leaves here: never an exception."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from logsvc.broker.exchange import Ended, Exchange, LocalAnswer, LocalExchange, Send
from logsvc.metrics import BrokerMetrics
from logsvc_common.batch import Buffer
from logsvc_common.errors import BY_CODE, InternalError, LogsvcError, UnknownError
from logsvc_common.frames import FrameError, decode_request, encode_error, encode_request
from logsvc_common.messages import Api, Message, MetadataReply, Request, Result

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange[Any]], None]

NO_CORRELATION_ID = 0  # clients count from 1: an answer with 0 belongs to no request


class Dispatcher:
    """Decodes requests and hands each to the handler of its api. `idle` is set while none is unanswered."""

    def __init__(self, handlers: Mapping[Api, Handler], send: Send, metrics: BrokerMetrics) -> None:
        missing = set(Api) - set(handlers)
        assert not missing, f"apis without a handler: {missing}"
        self._handlers = handlers
        self._send = send
        self._metrics = metrics
        self.open_requests = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.undecodable = 0

    def receive(self, peer: bytes, frames: Sequence[Buffer]) -> None:
        """Handle one message. `frames` come without the routing id, which is `peer`."""
        try:
            request = decode_request(frames)
        except FrameError as error:
            self.undecodable += 1
            self._metrics.request_error(None, error.cause)
            self._send(peer, encode_error(error.correlation_id or NO_CORRELATION_ID, error.cause))
            return
        exchange: Exchange[Any] = Exchange(
            peer, request.api, request.correlation_id, request.body, request.payload, self._send, self._begin(request.api)
        )
        guarded(self._handlers[request.api], exchange)

    def call(self, body: Request, payload: Sequence[Buffer] = ()) -> "asyncio.Future[LocalAnswer]":
        """Handle a request of this process, in a running event loop. The future has its answer, or the typed error.

        It passes the decoder that requests of peers pass, so that every limit of a message holds for it too.
        """
        answer: asyncio.Future[LocalAnswer] = asyncio.get_running_loop().create_future()
        try:
            request = decode_request(encode_request(NO_CORRELATION_ID, body, payload))
        except FrameError as error:
            answer.set_exception(error.cause)
            return answer
        exchange = LocalExchange(request.api, request.body, request.payload, answer, self._begin(request.api))
        guarded(self._handlers[request.api], exchange)
        return answer

    def _begin(self, api: Api) -> Ended:
        """Count a request; what comes back is called when it has been answered."""
        started = time.perf_counter()

        def ended(answer: Message | LogsvcError) -> None:
            self.open_requests -= 1
            if not self.open_requests:
                self.idle.set()
            self._metrics.request_seconds(api).observe(time.perf_counter() - started)
            for error in _errors_in(answer):
                self._metrics.request_error(api, error)

        self.open_requests += 1
        self.idle.clear()
        return ended


def _errors_in(answer: Message | LogsvcError) -> Iterable[LogsvcError | type[LogsvcError]]:
    """What an answer refuses: the request, or some of its parts."""
    if isinstance(answer, LogsvcError):
        return (answer,)
    parts: Sequence[Result] = answer.topics if isinstance(answer, MetadataReply) else getattr(answer, "results", ())
    return [BY_CODE.get(part.error_code, UnknownError) for part in parts if part.error_code]


def guarded(handler: Handler, exchange: Exchange[Any]) -> None:
    """Run `handler`; an error it raises becomes the answer. A fault of ours is logged and answered as InternalError."""
    try:
        handler(exchange)
    except LogsvcError as error:
        exchange.refuse(error)
    except Exception as error:
        logger.exception("handling %s failed", exchange.api.name)
        if exchange.is_open:
            exchange.refuse(InternalError(f"{exchange.api.name} failed in the broker: {type(error).__name__}; see its log"))
