"""ZMTP 3.1 by hand over a TCP socket: what libzmq on the client's side would not let a test send.

greeting   64 bytes: FF 8*00 7F, version 3.1, mechanism `NULL` in 20 bytes, as-server 0, 31 zeros
frame      flags (1 more, 2 long, 4 command), size in 1 or 8 bytes, body          (https://rfc.zeromq.org/spec/37/)
"""

import contextlib
import socket
from types import TracebackType
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
MORE, LONG, COMMAND = 1, 2, 4
TIMEOUT_S = 10.0


def tcp_address(server: str) -> tuple[str, int]:
    host, _, port = server.removeprefix("tcp://").rpartition(":")
    return host, int(port)


class RawZmtp:
    """A TCP connection to a broker that says what it is told to, byte for byte."""

    def __init__(self, server: str) -> None:
        self.socket = socket.create_connection(tcp_address(server), TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def handshake(self) -> None:
        """Greet and introduce this side as a DEALER, as a good client does."""
        self.socket.sendall(GREETING)
        self._receive(len(GREETING))
        ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
        self.socket.sendall(bytes([COMMAND, len(ready)]) + ready)
        flags, size = self._receive(2)
        assert flags == COMMAND
        self._receive(size)

    def frame(self, body: bytes, *, more: bool = False) -> None:
        self.socket.sendall(bytes([LONG | (MORE if more else 0)]) + len(body).to_bytes(8, "big") + body)

    def claim(self, size: int) -> None:
        """The head of a frame of `size` bytes, without its body."""
        self.socket.sendall(bytes([LONG]) + size.to_bytes(8, "big"))

    def is_cut(self, within_s: float) -> bool:
        """True when the other side ends the connection within that time. What it says meanwhile is read and dropped."""
        self.socket.settimeout(within_s)
        with contextlib.suppress(ConnectionError):
            try:
                while self.socket.recv(65_536):
                    pass
            except TimeoutError:
                return False
        return True

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            piece = self.socket.recv(size - len(received))
            if not piece:
                raise ConnectionError("the other side hung up")
            received += piece
        return received
