"""A broker killed by strace at its Nth write, fsync, rename or the like, before that call does anything.

Where `kill_run` kills at random moments, this kills between any two things the broker does to its disk, at the first start
and once more while it recovers. strace counts calls for each thread on its own, so N is a place to try, not the N-th overall.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logsvc_client import Admin, LogsvcError, Producer, RecordMetadata
from logsvc_common.errors import TopicExists
from tests.crash.kill_values import found_in, value_of
from tests.e2e.raw_peer import RawPeer
from tests.history.log import Anomaly, Place, Sent, anomalies

# What changes a disk; the write goes by one of three names, as the kernel and the C library have it.
WRITES = "pwritev2,pwritev,pwrite64"
CALLS = (WRITES, "fdatasync", "fsync", "ftruncate", "rename", "mkdir")
TOPIC = "swept"
PARTITIONS = 2
RECORDS = 120
# Tiny segments: the run rolls several times, writes indexes and checkpoints.
TOPIC_CONFIG = {"segment.bytes": "2048", "index.interval.bytes": "256"}
DEADLINE_S = 60.0


def skip_without_strace() -> None:
    """strace must be there and be allowed to trace its own child (ptrace(2) may be forbidden in a container)."""
    if shutil.which("strace") is None:
        pytest.skip("the broker was NOT killed at system calls: there is no `strace` on this machine")
    tried = subprocess.run(["strace", "-f", "-qq", "-e", "trace=fsync", "true"], capture_output=True, check=False, timeout=30)
    if tried.returncode:
        pytest.skip(f"the broker was NOT killed at system calls: strace may not trace here: {tried.stderr.decode()[:200]}")


@dataclass
class Outcome:
    """One broker's life: how often it was killed at a call, and what became of the records."""

    kills: int = 0
    acked: int = 0
    stored: int = 0
    wrong: list[Anomaly] = field(default_factory=list)


class _Broker:
    """`logsvc serve` in a process group of its own, under strace or not."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, call: str | None = None, number: int = 0) -> None:
        """Start it. With `call`, SIGKILL takes it at the entry of its `number`-th such call."""
        where = ["--data-dir", str(self._folder / "data"), "--bind", f"tcp://127.0.0.1:{self._port}", "--http-port", "-1"]
        command = [sys.executable, "-m", "logsvc.cli.main", "serve", *where, "--log-level", "warning"]
        if call is not None:
            tracing = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", "-o", os.devnull]
            command = ["strace", "-f", "-qq", *tracing, *command]
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def is_dead(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End what runs, strace and the broker under it, which are one process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None


class _Client(threading.Thread):
    """Makes the topic, writes the records, and is told what became of each; outlives the broker's deaths."""

    def __init__(self, server: str) -> None:
        super().__init__(daemon=True)
        self.sent: list[Sent] = []
        self.acked: dict[int, list[Place]] = {}
        self.failed: dict[int, LogsvcError] = {}
        self.error: BaseException | None = None
        self._server = server

    def run(self) -> None:
        try:
            with Admin(self._server) as admin, contextlib.suppress(TopicExists):
                admin.create_topic(TOPIC, partitions=PARTITIONS, config=TOPIC_CONFIG)
            with Producer(self._server, linger_ms=0, max_block_ms=30_000) as producer:
                for number in range(RECORDS):
                    self._send(producer, number)
                    if not number % 5:
                        producer.flush(30)
        except BaseException as error:  # noqa: BLE001 it is raised by the thread that waits for this one
            self.error = error

    def _send(self, producer: Producer, number: int) -> None:
        key = b"key-%d" % (number % 7)
        self.sent.append(Sent(number, key))

        def told(where: RecordMetadata | None, error: LogsvcError | None) -> None:
            if where is not None:
                self.acked.setdefault(number, []).append(Place(where.partition, where.offset))
            elif error is not None:
                self.failed[number] = error

        producer.send(TOPIC, value_of(number), key=key, on_delivery=told)


def killed_at(folder: Path, call: str, number: int, recovery: tuple[str, int] | None = None) -> Outcome:
    """Run a broker that dies at its `number`-th `call` (and at `recovery`'s while it starts again), then one that lives.

    Raises AssertionError when the client does not get through within DEADLINE_S.
    """
    outcome = Outcome()
    port = _free_port()
    broker, client = _Broker(folder, port), _Client(f"tcp://127.0.0.1:{port}")
    deaths: Iterator[tuple[str | None, int]] = iter([(call, number), *([recovery] if recovery else [])])
    try:
        broker.start(*next(deaths))
        client.start()
        deadline = time.monotonic() + DEADLINE_S
        while client.is_alive():
            assert time.monotonic() < deadline, f"the client did not get through: {len(client.acked)} acknowledged"
            if broker.is_dead():
                outcome.kills += 1
                assert outcome.kills <= 2, (folder / "broker.log").read_text()[-2_000:]
                broker.stop()
                broker.start(*next(deaths, (None, 0)))
            client.join(0.01)
        if client.error is not None:
            raise AssertionError(f"killed at {call} {number}: the client gave up") from client.error
        if broker.is_dead():  # at the very last call
            broker.start()
        with RawPeer(f"tcp://127.0.0.1:{port}") as peer:
            log = {p: [found_in(record) for record in peer.read_all(TOPIC, p)] for p in range(PARTITIONS)}
    finally:
        broker.stop()
    outcome.acked, outcome.stored = len(client.acked), sum(map(len, log.values()))
    outcome.wrong = anomalies(client.sent, client.acked, client.failed, log)
    assert not client.failed, next(iter(client.failed.values()))
    return outcome


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port
