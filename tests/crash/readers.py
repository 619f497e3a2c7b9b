"""Readers that go on while the broker is killed: one that keeps its own position, and a member of a group that commits."""

import threading
import time

from logsvc_client import Consumer
from tests.crash.kill_values import found_in
from tests.e2e.raw_peer import Stored
from tests.history.log import Polled

POLL_MS = 200
END_TIMEOUT_S = 60.0


class Reader:
    """Polls a topic in a thread of its own and remembers what it was handed, in order."""

    def __init__(self, server: str, topic: str, group: str | None) -> None:
        self.polled: list[Polled] = []
        self.error: BaseException | None = None
        self.group = group
        self._stop = threading.Event()
        self._consumer = Consumer(
            topic, group_id=group, server=server, auto_commit_interval_ms=50, fetch_max_wait_ms=100, request_timeout_ms=10_000
        )
        self._thread = threading.Thread(target=self._run, name=f"reader {group}", daemon=True)
        self._reached: dict[int, int] = {}

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for record in self._consumer.poll(POLL_MS):
                    stored = Stored(record.offset, record.timestamp_ms, record.key, record.value)
                    self.polled.append(Polled(record.partition, found_in(stored)))
                    self._reached[record.partition] = record.offset + 1
        except BaseException as error:  # noqa: BLE001 it is raised by `finish`
            self.error = error

    def finish(self, ends: dict[int, int]) -> None:
        """Let it read up to these end offsets, then stop it. AssertionError when it does not get there."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while self.error is None and any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"reader {self.group} stands at {self._reached}, the log ends at {ends}"
            time.sleep(0.02)
        self.close()
        if self.error is not None:
            raise AssertionError(f"reader {self.group} gave up") from self.error

    def close(self) -> None:
        self._stop.set()
        self._thread.join(END_TIMEOUT_S)
        self._consumer.close()
