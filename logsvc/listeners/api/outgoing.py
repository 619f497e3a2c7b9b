"""Large answers on their way out: counted until their clients have taken them, so that slow ones cannot fill the memory.

An answer is written in pieces, each when the one before has left: the web server holds back a send while its buffer to that
client is full. What is not sent yet stays here and counts, all clients together; beyond OUTGOING_BYTES_MAX the next large
answer is refused. Small ones are not counted: the number of connections bounds them.
"""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from logsvc_common.errors import BrokerOverloaded

OUTGOING_BYTES_MAX = 128 << 20  # a single answer may be larger when it is alone: one record may be 64 MiB
COUNTED_BYTES = 64 << 10
PIECE_BYTES = 64 << 10


class Outgoing:
    """How many bytes are on their way."""

    def __init__(self) -> None:
        self.held_bytes = 0

    def response(self, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
        """The response with this body. Raises BrokerOverloaded when too much is on its way already."""
        if len(body) < COUNTED_BYTES:
            return Response(body, headers=headers, media_type=media_type)
        if self.held_bytes and self.held_bytes + len(body) > OUTGOING_BYTES_MAX:
            raise BrokerOverloaded(f"{self.held_bytes} bytes of answers wait for slow clients; try again")
        self.held_bytes += len(body)
        return _Counted(self, body, headers, media_type)


class _Counted(Response):
    def __init__(self, outgoing: Outgoing, body: bytes, headers: Mapping[str, str] | None, media_type: str) -> None:
        super().__init__(body, headers=headers, media_type=media_type)
        self._outgoing = outgoing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for begin in range(0, len(self.body), PIECE_BYTES):
                piece = bytes(self.body[begin : begin + PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": begin + len(piece) < len(self.body)})
        finally:
            self._outgoing.held_bytes -= len(self.body)
