"""HTTP connections that cannot be used up: by being left idle, by a request that trickles in, by an answer that is not read.

uvicorn waits for a first request, and for the rest of one, as long as it takes, and answers everybody with 503 once it has as
many connections as it may. So here each connection has a time for its next request to be there whole, and for its answer
to be taken; and a new one always finds room: the one that has waited longest for a request is cut, or where none waits, the one
whose answer has taken longest.

What is no HTTP is answered as everything else that is wrong, in JSON, and never with an exception in the log.
"""

import asyncio
import itertools
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from logsvc.listeners.api import security
from logsvc.listeners.api.errors import Refusal, error_response

CONNECTIONS_MAX = 64
REQUEST_SECONDS_MAX = 10.0  # from a connection's begin, or its last answer, until a request is there with head and body
ANSWER_SECONDS_MAX = 60.0  # until its answer has been written out

_AWAITED = (h11.IDLE, h11.SEND_BODY)  # the other side owes a request, or the rest of one
_numbers = itertools.count()


class BoundedConnection(H11Protocol):
    """One connection. Times as above; event loop only."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._waits: bool | None = None
        self._since = 0  # a number: of two that wait, or are answered, the one with the lower has been so for longer
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        # Nonsense may also follow a request that is being answered, or has been: then nothing more can be said.
        if self.conn.our_state is h11.IDLE:
            refused = error_response(Refusal(400, "BAD_REQUEST", "this is no HTTP request"))
            headers = [*refused.raw_headers, *security.RAW_HEADERS, (b"connection", b"close")]
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=bytes(refused.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Set the timer anew when it is the other side's turn now."""
        waits = self.conn.their_state in _AWAITED
        if waits is self._waits or self.transport.is_closing():
            return
        self._waits = waits
        self._since = next(_numbers)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(REQUEST_SECONDS_MAX if waits else ANSWER_SECONDS_MAX, self.transport.abort)

    def _make_room(self) -> None:
        there = [one for one in self.connections if isinstance(one, BoundedConnection) and not one.transport.is_closing()]
        if len(there) > CONNECTIONS_MAX:
            others = (one for one in there if one is not self)
            min(others, key=lambda one: (not one._waits, one._since)).transport.abort()
