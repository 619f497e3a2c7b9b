"""A group under kill -9: two members handle records, some of which always fail; the broker is killed again and again.

What must come of it: every record that can be handled was handled at least once; every one that cannot is in the dead-letter
topic exactly once, with its bytes, its origin and the attempts of the policy.
"""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.batch import RawRecord, check_crc, decode, split
from logsvc_common.names import dead_letter_topic
from tests.e2e.raw_peer import RawPeer

TOPIC = "work"
GROUP = "workers"
PARTITIONS = 4
FAILING_SHARE = 0.05
MAX_ATTEMPTS = 3
PAUSE_S = (0.1, 0.6)
END_TIMEOUT_S = 60.0


@dataclass
class Figures:
    """What a run amounted to."""

    seed: int
    kills: int = 0
    records: int = 0
    handled: int = 0
    handled_again: int = 0
    failing: int = 0
    letters: int = 0
    attempts_max: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class _Member:
    """One consumer in a thread of its own."""

    def __init__(self, server: str, calls: Counter[tuple[int, int]], failing: set[bytes], lock: threading.Lock) -> None:
        self._calls = calls
        self._failing = failing
        self._lock = lock
        self.error: BaseException | None = None
        self._consumer = Consumer(TOPIC, group_id=GROUP, server=server, auto_commit_interval_ms=100, fetch_max_wait_ms=100)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._consumer.run(
                self._handle, retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, initial_ms=20, max_ms=200, ordering="key")
            )
        except BaseException as error:  # noqa: BLE001 it is raised by whoever stops this member
            self.error = error

    def _handle(self, record: Record) -> None:
        with self._lock:
            self._calls[record.partition, record.offset] += 1
        if record.value in self._failing:
            raise ValueError(f"cannot handle {record.value!r}")

    def stop(self) -> None:
        self._consumer.stop()
        self._thread.join(20)
        self._consumer.close()
        if self.error is not None:
            raise AssertionError("a member gave up") from self.error


def group_run(folder: Path, *, kills: int, records: int, seed: int) -> Figures:
    """Run it and say what is wrong. AssertionError when the group does not get to the end by itself."""
    figures = Figures(seed, records=records)
    began = time.monotonic()
    rng = random.Random(seed)
    calls: Counter[tuple[int, int]] = Counter()
    written = [b"record %d" % number for number in range(records)]
    failing = {value for value in written if rng.random() < FAILING_SHARE}
    figures.failing = len(failing)
    with broker_process(folder / "data", "--log-level", "warning") as broker:
        with Admin(broker.server) as admin:
            admin.create_topic(TOPIC, partitions=PARTITIONS)
        lock = threading.Lock()
        members = [_Member(broker.server, calls, failing, lock) for _ in range(2)]
        try:
            places = _write_and_kill(broker, written, kills, rng)
            figures.kills = kills
            _wait_for_the_end(broker, len(failing))
        finally:
            for member in members:
                member.stop()
        letters = _letters(broker)
    _judge(figures, places, calls, failing, letters)
    figures.seconds = time.monotonic() - began
    return figures


def _write_and_kill(
    broker: BrokerProcess, written: list[bytes], kills: int, rng: random.Random
) -> dict[bytes, tuple[int, int]]:
    """Write the records in as many parts as there are kills; where each one went."""
    places: dict[bytes, tuple[int, int]] = {}
    with Producer(broker.server, linger_ms=1) as producer:
        share = -(-len(written) // kills)
        for part in range(kills):
            deliveries = [
                (value, producer.send(TOPIC, value, key=b"key %d" % rng.randrange(30)))
                for value in written[part * share : (part + 1) * share]
            ]
            time.sleep(rng.uniform(*PAUSE_S))
            broker.kill()
            broker.start()
            for value, delivery in deliveries:
                where = delivery.result(timeout=30)
                places[value] = (where.partition, where.offset)
    return places


def _wait_for_the_end(broker: BrokerProcess, letters: int) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    with Admin(broker.server) as admin:
        while True:
            group = admin.describe_group(GROUP)
            lag = sum(partition.lag for partition in group.partitions)
            open_failures = sum(
                count for partition in group.partitions for state, count in partition.failed.items() if state != "dead_lettered"
            )
            if not lag and not open_failures and len(group.partitions) == PARTITIONS:
                return
            assert time.monotonic() < deadline, f"lag {lag}, failures {open_failures}, {letters} letters expected: {group}"
            time.sleep(0.05)


def _letters(broker: BrokerProcess) -> list[RawRecord]:
    topic = dead_letter_topic(TOPIC, GROUP)
    letters: list[RawRecord] = []
    with RawPeer(broker.server) as peer:
        for partition in range(PARTITIONS):
            offset = 0
            while True:
                _, payload = peer.fetch(topic, partition, offset)
                if not payload or not payload[0]:
                    break
                for header, batch in split(payload[0]):
                    check_crc(batch, header)
                    letters += decode(batch)
                    offset = header.next_offset
    return letters


def _judge(
    figures: Figures,
    places: dict[bytes, tuple[int, int]],
    calls: Counter[tuple[int, int]],
    failing: set[bytes],
    letters: list[RawRecord],
) -> None:
    wrong = figures.wrong
    found: Counter[bytes | None] = Counter(letter.value for letter in letters)
    figures.letters = len(letters)
    for value, place in places.items():
        count = calls[place]
        if value in failing:
            figures.attempts_max = max(figures.attempts_max, count)
            if found[value] != 1:
                wrong.append(f"{value!r} at {place} has {found[value]} dead letters after {count} calls")
        else:
            figures.handled += bool(count)
            figures.handled_again += max(0, count - 1)
            if not count:
                wrong.append(f"{value!r} at {place} was never handled")
            if found[value]:
                wrong.append(f"{value!r} at {place} did not fail and is in the dead letters")
    for letter in letters:
        headers = {name: (value or b"").decode() for name, value in letter.headers}
        origin = (int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"]))
        if letter.value is None or origin != places.get(letter.value):
            wrong.append(f"the letter of {letter.value!r} says it comes from {origin}")
        if headers["__dlq.errors.topic"] != TOPIC or headers["__dlq.errors.group"] != GROUP:
            wrong.append(f"the letter of {letter.value!r} says {headers}")
        if headers["__dlq.errors.delivery.count"] != str(MAX_ATTEMPTS):
            wrong.append(f"the letter of {letter.value!r} says {headers['__dlq.errors.delivery.count']} attempts")
