"""The small parts: the bounds on readings and on answers, how bytes are shown, what the process says of itself."""

import asyncio
import socket
import threading

import pytest
from starlette.types import Message

from logsvc.listeners.api import outgoing, process
from logsvc.listeners.api.backend import READERS_MAX, READERS_WAITING_MAX, Threads, allowed_hosts
from logsvc.listeners.api.pile_cache import PILES_MAX, PileCache
from logsvc.listeners.api.shown import Bytes, cut_text, show_bytes, size_of
from logsvc_common.errors import BrokerOverloaded
from logsvc_common.letter_pile import Pile


def test_so_many_read_at_once_so_many_wait_and_more_are_refused() -> None:
    async def scenario() -> None:
        # Given readings that do not end
        threads, gate = Threads(), threading.Event()
        running, most = 0, 0
        lock = threading.Lock()

        def work() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            gate.wait(20)
            with lock:
                running -= 1

        tasks = [asyncio.ensure_future(threads.run(work)) for _ in range(READERS_MAX + READERS_WAITING_MAX)]
        await asyncio.sleep(0)
        # When one more comes, then it is refused, and may try again; those that wait have their turn.
        with pytest.raises(BrokerOverloaded) as refused:
            await threads.run(work)
        assert refused.value.retriable
        gate.set()
        await asyncio.gather(*tasks)
        assert most <= READERS_MAX
        await threads.run(work)

    asyncio.run(scenario())


def test_answers_that_slow_clients_do_not_take_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "OUTGOING_BYTES_MAX", 250_000)

    async def scenario() -> None:
        # Given a large answer whose client takes the first piece only
        held, gate, taken = outgoing.Outgoing(), asyncio.Event(), bytearray()

        async def slow(message: Message) -> None:
            taken.extend(message.get("body", b""))
            if taken:
                await gate.wait()

        async def nothing() -> Message:
            return {"type": "http.disconnect"}

        body = bytes(range(256)) * 800
        answer = asyncio.ensure_future(held.response(body, "text/plain")({"type": "http"}, nothing, slow))
        await asyncio.sleep(0)
        # When more is asked for, then small answers are given, and large ones refused until it has gone.
        held.response(b"small", "text/plain")
        with pytest.raises(BrokerOverloaded):
            held.response(body, "text/plain")
        gate.set()
        await answer
        assert taken == body
        assert held.held_bytes == 0
        # A single one may be larger; and a client that hangs up takes nothing with it.
        larger = held.response(bytes(400_000), "text/plain")

        async def gone(message: Message) -> None:
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            await larger({"type": "http"}, nothing, gone)
        assert held.held_bytes == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (None, None),
        (b"", Bytes(text="")),
        (b"a\tb\r\nc", Bytes(text="a\tb\r\nc")),
        ("é漢🙂".encode(), Bytes(text="é漢🙂")),
        (b"\x00", Bytes(base64="AA==")),
        (b"a\x1bb", Bytes(base64="YRti")),
        (b"\x7f", Bytes(base64="fw==")),
        ("\x85".encode(), Bytes(base64="woU=")),
        (b"\xff", Bytes(base64="/w==")),
        (b"\xc3", Bytes(base64="ww==")),  # the beginning of a character, and not because it was cut
    ],
)
def test_bytes_are_text_only_when_they_are(data: bytes | None, shown: Bytes | None) -> None:
    assert show_bytes(data) == shown


@pytest.mark.parametrize("limit", range(1, 9))
def test_a_cut_through_a_character_leaves_it_out(limit: int) -> None:
    data = "a🙂b🙂".encode()
    shown = show_bytes(data, limit)
    assert shown is not None
    assert shown.cut_bytes == len(data)
    assert isinstance(shown.text, str)
    assert data.startswith(shown.text.encode())
    assert limit - len(shown.text.encode()) < 4


def test_bytes_that_are_cut_and_no_text_are_cut_base64() -> None:
    assert show_bytes(b"\xff" * 10, 3) == Bytes(base64="////", cut_bytes=10)


def test_text_of_others_is_cut_and_sizes_are_those_of_the_whole() -> None:
    assert cut_text("abcdef", 4) == "abc…"
    assert size_of(b"kk", None, [("é", b"123"), ("x", None)]) == 2 + 2 + 3 + 1


def test_only_so_many_piles_are_kept_and_only_of_the_offsets_they_were_counted_from() -> None:
    cache = PileCache()
    for n in range(PILES_MAX + 1):
        cache.put(f"dlq.{n}", ((0, n),), Pile(f"dlq.{n}"))
    assert cache.get("dlq.0", ((0, 0),)) is None
    assert cache.get("dlq.1", ((0, 1),)) is not None
    assert cache.get("dlq.1", ((0, 2),)) is None


def test_hosts_are_named_with_commas_and_brackets_do_not_matter() -> None:
    assert allowed_hosts("::1", " A.example ,b.example,, ") == {"::1", "a.example", "b.example"}


def test_the_process_counts_the_connections_to_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = process.measure(f"tcp://127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port)):
            after = process.measure(f"tcp://127.0.0.1:{port}")
    if before.connected_clients is None:
        pytest.skip("there is no /proc here")
    assert (before.connected_clients, after.connected_clients) == (0, 1)
    assert before.memory_bytes is not None
    assert before.memory_bytes > 1 << 20
