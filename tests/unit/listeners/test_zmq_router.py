"""What peers that do not read make the router hold: counted to the byte, bounded for each and for all, given back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import zmq

from logsvc.listeners import zmq_router
from logsvc.listeners.zmq_router import ZmqRouter

MIB = 1 << 20
# Far more than the buffers of a loopback connection take, about 10 MiB.
PEER_BYTES = 64 * MIB
ALL_BYTES = 192 * MIB
ANSWER = bytes(4 * MIB)


class World:
    """A router, and DEALERs that greet it. `addresses` are theirs, in the order in which they greeted."""

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []  # one that nobody holds would be closed
        self.router = ZmqRouter(
            "tcp://127.0.0.1:0",
            lambda peer, _: self.addresses.append(peer),
            lambda: False,
            frame_bytes_max=MIB,
            peer_queue_bytes_max=PEER_BYTES,
            queue_bytes_max=ALL_BYTES,
        )

    async def dealer(self, *, receive_high_water: int = 1) -> tuple["zmq.Socket[bytes]", bytes]:
        socket = self.context.socket(zmq.DEALER)
        self.sockets.append(socket)
        socket.linger = 0
        socket.rcvhwm = receive_high_water
        socket.connect(self.router.endpoint)
        known = len(self.addresses)
        socket.send(b"hello")
        await until(lambda: len(self.addresses) > known)
        return socket, self.addresses[-1]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    made.router.start()
    try:
        yield made
    finally:
        made.router.stop(linger_ms=0)
        made.context.destroy(linger=0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


def test_a_peer_that_reads_owes_nothing_in_the_end() -> None:
    async def scenario() -> None:
        async with world() as made:
            socket, peer = await made.dealer(receive_high_water=1_000)
            for _ in range(20):
                made.router.send(peer, [b"head", ANSWER])
            for _ in range(20):
                await until(lambda: bool(socket.poll(0)))
                socket.recv_multipart()
            await until(lambda: made.router.held_bytes == 0)

    run(scenario)


def test_peers_that_do_not_read_hold_what_all_may_and_no_more() -> None:
    async def scenario() -> None:
        async with world() as made:
            peers = [(await made.dealer())[1] for _ in range(20)]
            # Given twenty peers with 80 MiB for each, of which none reads
            for _ in range(20):
                for peer in peers:
                    made.router.send(peer, [ANSWER])
                    assert made.router.held_bytes <= ALL_BYTES
                await asyncio.sleep(0)
            assert made.router.held_bytes > ALL_BYTES // 2
            # Then a small answer still reaches who reads.
            socket, good = await made.dealer(receive_high_water=1_000)
            made.router.send(good, [b"small"])
            await until(lambda: bool(socket.poll(0)))

    run(scenario)


def test_who_holds_most_is_cut_off_first() -> None:
    async def scenario() -> None:
        async with world() as made:
            # Given one peer with much in its queue, and others, until all of what may be held is
            greedy = (await made.dealer())[1]
            others = [(await made.dealer())[1] for _ in range(12)]
            for _ in range(15):
                made.router.send(greedy, [ANSWER])
            for _ in range(7):
                for peer in others:
                    made.router.send(peer, [ANSWER])
            # Then it is the greedy one that went first.
            assert next(iter(made.router._cut_off)) == greedy

    run(scenario)


def test_a_peer_that_leaves_gives_back_what_was_held_for_it() -> None:
    async def scenario() -> None:
        async with world() as made:
            socket, peer = await made.dealer()
            for _ in range(12):
                made.router.send(peer, [ANSWER])
            assert made.router.held_bytes > 4 * MIB
            socket.close()
            # It is noticed when something is sent, and by and by libzmq lets go.
            await until(lambda: bool(made.router.send(peer, [b"gone?"])) or made.router.held_bytes == 0)

    run(scenario)


def test_a_connection_that_takes_nothing_is_closed_and_its_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_router, "STALLED_MS", 1_000)

    async def scenario() -> None:
        async with world() as made:
            _socket, peer = await made.dealer()
            # Given a peer that reads nothing, cut off with megabytes inside libzmq
            for _ in range(40):
                made.router.send(peer, [ANSWER])
            assert peer in made.router._cut_off
            assert made.router.held_bytes > 0
            # Then they are free once the system has given the connection up, though the peer never hung up.
            await until(lambda: made.router.held_bytes == 0)

    run(scenario)
