"""A whole broker behind its HTTP application, without sockets: real handlers and coordinator, logs on a simulated disk.

The event loop runs in a thread; `request` hands the application one request, as a web server would, and every answer is checked
against the OpenAPI document on its way back (`contract`). What the broker holds is made by the messages of clients.
"""

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec

from logsvc.broker.loop import Broker
from logsvc.broker.sync_threads import SyncThreads
from logsvc.clock import SystemClock
from logsvc.config import ServerSettings
from logsvc.listeners.api.backend import Backend, allowed_hosts
from logsvc.listeners.http import DegradedPartition, Health, build_app
from logsvc.metrics import BrokerMetrics
from logsvc.storage.log_directory import LogDirectory
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import Buffer, RecordData, encode
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CreateTopic,
    Failure,
    Metadata,
    Produce,
    ProducePartition,
    Request,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.listeners.api.contract import check_answer

TOKEN = "the-token-of-this-start"
HOST = "127.0.0.1:9293"
WAIT_SECONDS = 30
T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        code: str = self.json["error"]["code"]
        return code

    @property
    def message(self) -> str:
        message: str = self.json["error"]["message"]
        return message


class World:
    """Made by `world`. Public attributes belong to the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, writes: bool, hosts: str, disk: SimulatedDisk) -> None:
        self._loop = loop
        self.writes = writes
        self.hosts = hosts
        self.disk = disk
        self.degraded: list[DegradedPartition] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it in the event loop, and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def start(self) -> None:
        settings = ServerSettings(http_port=-1, disk_reserve_bytes=0)
        clock = SystemClock()
        self.logs = LogDirectory.open(self.disk, "/data", now_ms=clock.wall_ms())
        self.threads = SyncThreads(2)
        self.metrics = BrokerMetrics()
        self.broker = Broker(
            settings,
            self.logs,
            self.metrics,
            clock,
            broker_id="one",
            random_63=lambda: random.getrandbits(62),
            unit=random.random,
            loop=self._loop,
            run_in_thread=self.threads.submit,
            send=lambda peer, frames: None,
            unsaturated=lambda: None,
        )
        self.broker.load()
        self.backend = Backend(
            call=self.broker.call,
            clock=clock,
            endpoint="tcp://127.0.0.1:9",
            hosts=allowed_hosts("127.0.0.1", self.hosts),
            writes=self.writes,
            token=TOKEN,
            health=self.health,
            history=self.broker.history,
            disk_space=self.logs.disk_space,
        )
        self.app = build_app(self.metrics, self.health, self.backend)

    def health(self) -> Health:
        return Health(recovered=True, started_ms=1_000, degraded=self.degraded)

    async def stop(self) -> None:
        await self.broker.stop()
        self.threads.stop()
        self.logs.close()

    # What clients do

    def ask(self, body: Request, payload: Sequence[Buffer] = ()) -> Any:
        """The broker's reply."""
        return self.run(self.broker.call(body, payload)).body

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        self.ask(CreateTopic(name, partitions, {key.replace("_", "."): value for key, value in config.items()}))
        return name

    def produce(self, topic: str, records: Sequence[RecordData], *, partition: int = 0, codec: int = 0) -> None:
        """One batch."""
        self.produce_batch(topic, encode(records, codec=codec), partition=partition)

    def produce_batch(self, topic: str, batch: bytes, *, partition: int = 0) -> None:
        (result,) = self.ask(Produce([ProducePartition(topic, partition)]), [batch]).results
        assert result.error_code == 0, result.error_message

    def fail(self, topic: str, group: str, failures: Mapping[int, str], *, partition: int = 0, upto: int | None = None) -> str:
        """`group` handles a partition up to `upto`; the records of `failures`, by offset, end as dead letters."""
        end = max(failures) + 1 if upto is None else upto
        reports = [Failure(offset, error, error.partition(":")[0]) for offset, error in sorted(failures.items())]
        dead = f"dlq.{topic}.{group}"
        before = self.records_of(dead)
        part = CommitPartition(topic=topic, partition=partition, offset=end, failed=reports)
        (result,) = self.ask(Commit(group, "", NO_MEMBER_EPOCH, [part], RetryPolicy(max_attempts=1))).results
        assert result.error_code == 0, result.error_message
        self.run(self._until_letters(dead, before + len(failures)))
        return dead

    async def _until_letters(self, topic: str, count: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self._records_of(topic) < count:  # noqa: ASYNC110 the broker tells nobody
                await asyncio.sleep(0.002)

    def _records_of(self, topic: str) -> int:
        found = self.logs.topics.get(topic)
        return sum(log.high_watermark - log.start_offset for log in found.partitions) if found else 0

    def records_of(self, topic: str) -> int:
        async def count() -> int:
            return self._records_of(topic)

        return self.run(count())

    def partitions(self, topic: str) -> list[Any]:
        parts: list[Any] = self.ask(Metadata([topic], True)).topics[0].partitions
        return parts

    # What browsers do

    def get(self, target: str, **headers: str) -> Answer:
        """Headers are given as `sec_fetch_site=...`."""
        return self.request("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, target: str, body: object = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        """As the console does; headers given as `sec_fetch_site=...` are added, those given as empty are left out."""
        usual = {"x-logsvc-token": TOKEN, "content-type": "application/json", "origin": f"http://{HOST}"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = msgspec.json.encode({} if body is None else body) if raw is None else raw
        return self.request("POST", target, usual | given, data)

    def request(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request; a header with an empty value is left out."""
        answer = self.run(self._request(method, target, {"host": HOST, **(headers or {})}, body))
        check_answer(method, target, answer.status, answer.headers, answer.body)
        return answer

    async def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return await ask_app(self.app, method, target, headers, body)


async def ask_app(
    app: Any, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, leaves: bool = False
) -> Answer:
    """One request to an ASGI application, its body in two parts; who `leaves` is gone before the second."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": _unquoted(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items() if value],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 9293),
    }
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    if leaves:
        parts[1] = {"type": "http.disconnect"}
    sent: list[Any] = []

    async def receive() -> Any:
        if parts:
            return parts.pop(0)
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


def _unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


@contextmanager
def world(*, writes: bool = True, hosts: str = "", disk: SimulatedDisk | None = None) -> Iterator[World]:
    """A broker that runs while the block does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="world", daemon=True)
    thread.start()
    made = World(loop, writes=writes, hosts=hosts, disk=disk or SimulatedDisk())
    try:
        made.run(made.start())
        try:
            yield made
        finally:
            made.run(made.stop())
            made.run(loop.shutdown_default_executor())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_SECONDS)
        loop.close()
