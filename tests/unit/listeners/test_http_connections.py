"""Connections that are left idle, trickle or do not read: each is cut in its time, and none keeps a good client out."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from logsvc.listeners import http_connections
from logsvc.listeners.http import Health, HttpListener
from logsvc.metrics import BrokerMetrics

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "CONNECTIONS_MAX", 8)
    monkeypatch.setattr(http_connections, "REQUEST_SECONDS_MAX", 0.2)


@asynccontextmanager
async def listening() -> AsyncIterator[HttpListener]:
    listener = HttpListener(host="127.0.0.1", port=0, metrics=BrokerMetrics(), health=lambda: Health(recovered=True))
    listener.bind()
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


async def connect(listener: HttpListener, first: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(first)
    return reader, writer


async def is_cut(connection: Connection) -> bool:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while await connection[0].read(65_536):
                pass
    connection[1].close()
    return True


async def answer(connection: Connection, request: bytes = REQUEST) -> bytes:
    connection[1].write(request)
    async with asyncio.timeout(10):
        return await connection[0].readuntil(b"\r\n")


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /heal", REQUEST[:-2], b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"],
    ids=["silent", "half a line", "half a head", "half a body"],
)
def test_a_request_that_does_not_become_whole_is_cut(first: bytes) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            assert await is_cut(await connect(listener, first))

    asyncio.run(scenario())


def test_a_request_that_trickles_is_cut_however_steadily_it_comes() -> None:
    async def scenario() -> None:
        async with listening() as listener:
            connection = await connect(listener)
            assert (await answer(connection)).startswith(b"HTTP/1.1 200")  # also behind one that was answered
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    connection[1].write(b"G")
                    await connection[1].drain()
                    await asyncio.sleep(0.01)
            assert await is_cut(connection)

    asyncio.run(scenario())


def test_more_idle_connections_than_there_may_be_keep_nobody_out() -> None:
    async def scenario(monkey: pytest.MonkeyPatch) -> None:
        monkey.setattr(http_connections, "REQUEST_SECONDS_MAX", 600.0)
        async with listening() as listener:
            # Given ten times as many as there may be, all idle
            idle = [await connect(listener, b"GET /") for _ in range(80)]
            # Then each good client is served, at once,
            for _ in range(20):
                good = await connect(listener)
                assert (await answer(good)).startswith(b"HTTP/1.1 200")
                good[1].close()
            # and the broker holds no more than it may: all but the last few were cut, the oldest first.
            for connection in idle[:70]:
                assert await is_cut(connection)
            for connection in idle[70:]:
                connection[1].close()

    with pytest.MonkeyPatch.context() as monkey:
        asyncio.run(scenario(monkey))


def test_more_unread_answers_than_there_may_be_connections_keep_nobody_out() -> None:
    async def scenario() -> None:
        async with listening() as listener:
            unread = [await connect(listener, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000) for _ in range(8)]
            await asyncio.sleep(1.0)  # all are being answered, for as long as an answer may take
            for _ in range(4):
                good = await connect(listener)
                assert (await answer(good)).startswith(b"HTTP/1.1 200")
                good[1].close()
            for connection in unread:
                connection[1].close()

    asyncio.run(scenario())


def test_a_connection_that_is_used_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "REQUEST_SECONDS_MAX", 2.0)

    async def scenario() -> None:
        async with listening() as listener:
            connection = await connect(listener)
            for _ in range(12):  # longer, together, than a request may take
                connection[1].write(REQUEST)
                async with asyncio.timeout(10):
                    head = await connection[0].readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    await connection[0].readexactly(length)
                await asyncio.sleep(0.2)
            connection[1].close()

    asyncio.run(scenario())


def test_an_answer_that_is_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "ANSWER_SECONDS_MAX", 0.2)

    async def scenario() -> None:
        async with listening() as listener:
            reader, writer = await connect(listener)
            writer.transport.pause_reading()
            # Given a client that asks until its answers are more than all buffers between take, and reads none
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(30):
                    while not writer.transport.is_closing():
                        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
                        await writer.drain()
            assert await is_cut((reader, writer))

    asyncio.run(scenario())


async def everything(connection: Connection) -> bytes:
    async with asyncio.timeout(10):
        return await connection[0].read()


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"],
    ids=["TLS", "0.9", "no colon"],
)
def test_what_is_no_http_gets_an_answer_like_all_others_and_no_more(nonsense: bytes) -> None:
    async def scenario() -> bytes:
        async with listening() as listener:
            return await everything(await connect(listener, nonsense))

    head, _, body = asyncio.run(scenario()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in head
    assert json.loads(body)["error"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
def test_nonsense_after_an_answer_closes_the_connection_without_an_exception(method: bytes) -> None:
    raised: list[dict[str, object]] = []

    async def scenario() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        async with listening() as listener:
            connection = await connect(
                listener, method + b" /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            first = await answer(connection, b"")
            connection[1].write(b"no chunk\r\n\r\n")
            await everything(connection)
            return first

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 ")
    assert raised == []
