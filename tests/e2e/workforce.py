"""The worker processes of a group, started, restarted when they die, stopped; and what their journals say.

A supervisor as systemd or Kubernetes is one: whoever dies is replaced at once by a new process, which joins as a new member.
DEATHS_MAX bounds it: a group that goes on dying is what a test finds, not what hangs it.
"""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from logsvc_client import Admin, Producer
from logsvc_common.errors import UnknownGroup
from logsvc_common.messages import DescribeGroupReply
from tests.e2e.group_worker import Entry, Orders
from tests.e2e.raw_peer import RawPeer

DEATHS_MAX = 30
STOP_TIMEOUT_S = 30.0
LOOK_S = 0.05


class Workforce:
    """`count` workers with the same orders, each with a journal of its own in `folder`."""

    def __init__(self, folder: Path, count: int, orders: Orders) -> None:
        self.folder = folder
        self.deaths: list[int] = []  # exit codes of those that ended unasked
        self._orders = orders
        self._started = 0
        self._workers: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "workers.log").open("ab")
        for _ in range(count):
            self._workers.append(self._start())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        journal = str(self.folder / f"worker-{self._started}.jsonl")
        orders = msgspec.json.encode(msgspec.structs.replace(self._orders, journal=journal)).decode()
        command = [sys.executable, "-m", "tests.e2e.group_worker", orders]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log)

    def supervise(self) -> None:
        """Replace those that have died since the last time. AssertionError after DEATHS_MAX of them."""
        for number, worker in enumerate(self._workers):
            code = worker.poll()
            if code is not None:
                self.deaths.append(code)
                assert len(self.deaths) <= DEATHS_MAX, f"{len(self.deaths)} workers have died: {self.log_end()}"
                self._workers[number] = self._start()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Supervise until `condition` holds; AssertionError when it does not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}\n{self.log_end()}"
            self.supervise()
            time.sleep(LOOK_S)

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        """SIGSTOP, and SIGCONT after the block."""
        assert pid in {worker.pid for worker in self._workers}
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM to all; those that do not drain within STOP_TIMEOUT_S are killed, and that is an error."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.terminate()
        late = 0
        for worker in workers:
            try:
                worker.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                late += 1
                worker.kill()
                worker.wait()
        self._log.close()
        assert not late, f"{late} workers did not end within {STOP_TIMEOUT_S:.0f} s: {self.log_end()}"

    # What they say

    def journal(self) -> list[Entry]:
        """Every entry of every worker, in the order of time."""
        decoder = msgspec.json.Decoder(Entry)
        entries = [
            decoder.decode(line)
            for path in self.folder.glob("worker-*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        return sorted(entries, key=lambda entry: entry.at)

    def log(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")

    def log_end(self) -> str:
        return self.log()[-4_000:]


def produce(server: str, topic: str, values: list[bytes], *, keys: int, partitions: int | None) -> dict[tuple[int, int], bytes]:
    """These values, keyed in turn, into a new topic (with `partitions`) or an old one; each by its partition and offset."""
    if partitions is not None:
        with Admin(server) as admin:
            admin.create_topic(topic, partitions=partitions)
    with Producer(server) as producer:
        deliveries = [(value, producer.send(topic, value, key=b"key-%d" % (n % keys))) for n, value in enumerate(values)]
        producer.flush(30)
        places = [(value, delivery.result(30)) for value, delivery in deliveries]
    return {(where.partition, where.offset): value for value, where in places}


def described(admin: Admin, group: str) -> DescribeGroupReply | None:
    """The group as it is now; None before its first member has joined."""
    try:
        return admin.describe_group(group)
    except UnknownGroup:
        return None


def is_finished(admin: Admin, group: str, partitions: int) -> bool:
    """True when nothing is left: every record passed, no failure under way."""
    found = described(admin, group)
    if found is None or len(found.partitions) < partitions:
        return False
    return all(
        part.committed == part.end_offset and not any(n for state, n in part.failed.items() if state != "dead_lettered")
        for part in found.partitions
    )


class Letter(msgspec.Struct, frozen=True):
    """A dead letter: what it holds, and the headers that say where it came from."""

    partition: int
    value: bytes | None
    headers: dict[str, str]

    @property
    def origin(self) -> tuple[int, int]:
        return int(self.headers["__dlq.errors.partition"]), int(self.headers["__dlq.errors.offset"])


def dead_letters(server: str, topic: str, partitions: int) -> list[Letter]:
    """All letters of a dead-letter topic; none when there is no such topic."""
    with Admin(server) as admin:
        if topic not in {found.topic for found in admin.list_topics()}:
            return []
    with RawPeer(server) as peer:
        return [
            Letter(number, record.value, {name: (value or b"").decode() for name, value in record.headers})
            for number in range(partitions)
            for record in peer.read_all(topic, number)
        ]


def two_owners(entries: list[Entry]) -> list[str]:
    """Partitions that more than one member handled records of in one epoch, in words."""
    members: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for entry in entries:
        members[entry.partition, entry.epoch].add(entry.member)
    return [
        f"partition {partition} in epoch {epoch}: {sorted(found)}"
        for (partition, epoch), found in sorted(members.items())
        if len(found) > 1
    ]
