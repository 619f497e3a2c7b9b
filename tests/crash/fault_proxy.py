"""A network that misbehaves, between real clients and a real broker: a TCP proxy on the loopback interface.

    client --> [ proxy: delays, limits, holds, swallows, cuts ] --> broker

A held direction is a network partition: bytes wait, as TCP has them wait, and go on when it heals. Swallowed bytes are gone,
so a reset follows: what a client sees whose request was carried out and whose answer was lost. A cut comes in the middle of a
chunk, which is the middle of a frame. One thread with an event loop of its own; every control may be called from any thread.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

UP = "up"  # from the client to the broker
DOWN = "down"
CHUNK_BYTES = 64 << 10
CONNECT_TIMEOUT_S = 5.0
HOLD_LOOK_S = 0.005
CONTROL_TIMEOUT_S = 10.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: closing sends RST


class Link:
    """One connection through the proxy: two pumps."""

    def __init__(self, proxy: "FaultProxy", client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = {UP: broker, DOWN: client}
        self.held: set[str] = set()
        self.swallowed: set[str] = set()
        self.cut_within: set[str] = set()

    async def pump(self, direction: str, reader: asyncio.StreamReader) -> None:
        writer = self._writers[direction]
        proxy = self._proxy
        while chunk := await reader.read(CHUNK_BYTES):
            if proxy.delay_s:
                await asyncio.sleep(proxy.delay_s)
            if proxy.bytes_per_s:
                await asyncio.sleep(len(chunk) / proxy.bytes_per_s)
            while direction in self.held or direction in proxy.held:  # noqa: ASYNC110 -- set by other threads
                await asyncio.sleep(HOLD_LOOK_S)
            if direction in self.swallowed:
                proxy.swallowed_bytes += len(chunk)
                continue
            if direction in self.cut_within:
                writer.write(chunk[: max(1, len(chunk) // 2)])
                await writer.drain()
                proxy.cuts_within += 1
                return
            writer.write(chunk)
            await writer.drain()

    def reset(self) -> None:
        for writer in self._writers.values():
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class FaultProxy:
    """Made by `fault_proxy`. `server` is the address for clients; the attributes may be changed at any time.

    `delay_s` is added to each chunk, `bytes_per_s` limits each connection and direction, `held` holds what it names (UP,
    DOWN) on every connection, `refusing` resets new ones.
    """

    def __init__(self, broker: str) -> None:
        self._broker = urlsplit(broker)
        self.server = ""
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.held: set[str] = set()
        self.refusing = False
        self.connections = 0
        self.cuts = 0
        self.cuts_within = 0
        self.swallowed_bytes = 0
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_TIMEOUT_S)
        self._loop.close()

    # Faults on the connections there are; those made later are not touched

    def cut(self) -> None:
        """Reset them all."""
        self._on_all(Link.reset)
        self.cuts += 1

    def cut_within(self, direction: str) -> None:
        """Reset each in the middle of the next chunk that goes that way."""
        self._on_all(lambda link: link.cut_within.add(direction))

    def hold(self, *directions: str) -> None:
        """Let nothing through any more: a partition of these connections, never healed."""
        self._on_all(lambda link: link.held.update(directions))

    def swallow(self, direction: str) -> None:
        """Lose what goes that way; `cut` should follow."""
        self._on_all(lambda link: link.swallowed.add(direction))

    def heal(self) -> None:
        """No fault is on any more."""
        self.delay_s, self.bytes_per_s, self.refusing = 0.0, 0, False
        self.held.clear()

    # The loop's side

    def _on_all(self, do: Callable[[Link], object]) -> None:
        async def on_all() -> None:
            for link in list(self._links):
                do(link)

        self._run(on_all())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_TIMEOUT_S)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.server = f"tcp://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.refusing:
                raise ConnectionRefusedError
            connecting = asyncio.open_connection(self._broker.hostname, self._broker.port)
            broker_reader, broker_writer = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        link = Link(self, writer, broker_writer)
        self._links.add(link)
        pumps = [asyncio.create_task(link.pump(*way)) for way in ((UP, reader), (DOWN, broker_reader))]
        try:
            # The end of either, by its peer, a fault or an error of its socket, is the end of both.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            link.reset()
            self._links.discard(link)

    async def _close(self) -> None:
        self._listener.close()
        for link in list(self._links):
            link.reset()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def fault_proxy(broker: str) -> Iterator[FaultProxy]:
    """A proxy to the broker at this address while the block runs."""
    proxy = FaultProxy(broker)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
