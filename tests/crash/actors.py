"""The actors of a run: processes that are started, stopped, stalled, killed and replaced, and what their journals say."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from logsvc_common.letters import parse_letter
from logsvc_common.names import dead_letter_topic
from tests.crash.actor import GROUP, TOPIC, Orders
from tests.crash.kill_values import found_in
from tests.e2e.raw_peer import RawPeer, Stored
from tests.history.groups import DeadLetter, Event, Try
from tests.history.log import Found, Place, Polled, Sent

NUMBERS_EACH = 10_000_000  # a producer's numbers begin at a multiple of this
STOP_TIMEOUT_S = 150.0


@dataclass
class Actor:
    """One process. `died_at` (CLOCK_MONOTONIC): killed by the run."""

    orders: Orders
    process: "subprocess.Popen[bytes]"
    died_at: float | None = None
    stalled: bool = False

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)


@dataclass
class Cast:
    """All actors of a run, with a journal each in `folder`."""

    folder: Path
    actors: list[Actor] = field(default_factory=list)

    def start(self, orders: Orders) -> Actor:
        number = len(self.actors)
        first = number * NUMBERS_EACH if orders.role == "producer" else 0
        journal = self.folder / f"{orders.role}-{number}.jsonl"
        orders = msgspec.structs.replace(orders, journal=str(journal), first=first, seed=orders.seed + number)
        command = [sys.executable, "-m", "tests.crash.actor", msgspec.json.encode(orders).decode()]
        with (self.folder / "actors.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        self.actors.append(Actor(orders, process))
        return self.actors[-1]

    def alive(self, role: str) -> list[Actor]:
        return [actor for actor in self.actors if actor.orders.role == role and actor.process.poll() is None]

    def stop(self, *roles: str) -> list[str]:
        """End these in good order; who did not end well."""
        ending = [actor for actor in self.actors if actor.orders.role in roles and actor.died_at is None]
        for actor in ending:
            actor.signal(signal.SIGCONT)
            actor.signal(signal.SIGTERM)
        wrong = []
        for actor in ending:
            try:
                code = actor.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                wrong.append(f"{Path(actor.orders.journal).stem} ended with {code}")
        return wrong

    def kill_all(self) -> None:
        for actor in self.actors:
            actor.signal(signal.SIGKILL)
            actor.process.wait(STOP_TIMEOUT_S)

    def entries(self, role: str) -> Iterator[tuple[Actor, list[Any]]]:
        """Every line of every journal of a role; a last line cut short by a kill is none."""
        for actor in self.actors:
            journal = Path(actor.orders.journal)
            if actor.orders.role == role and journal.exists():
                for line in journal.read_bytes().split(b"\n")[:-1]:
                    yield actor, msgspec.json.decode(line)


@dataclass
class Sendings:
    """What producers say: `unsure` are those of killed producers, which nobody was told about."""

    sent: list[Sent]
    acked: dict[int, list[Place]]
    failed: set[int]
    unsure: set[int]


def sendings(cast: Cast) -> Sendings:
    said = Sendings([], {}, set(), set())
    for actor, (what, _, number, *more) in cast.entries("producer"):
        match what:
            case "sent":
                said.sent.append(Sent(number, more[0].encode()))
                if actor.died_at is not None:
                    said.unsure.add(number)
            case "acked":
                said.acked.setdefault(number, []).append(Place(*more))
            case "failed":
                said.failed.add(number)
    said.unsure -= said.acked.keys() | said.failed
    return said


def readings(cast: Cast) -> dict[str, list[Polled]]:
    """What each reader was handed, in its order."""
    polled: dict[str, list[Polled]] = defaultdict(list)
    for actor, (what, _, *more) in cast.entries("reader"):
        if what == "polled":
            partition, offset, number, key, intact = more
            polled[actor.orders.journal].append(Polled(partition, Found(number, key.encode(), offset, intact)))
    return polled


def handlings(cast: Cast) -> list[tuple[float, Event]]:
    """What handlers did, and when; a handler whose process was killed has died there and then."""
    events: list[tuple[float, Event]] = []
    for actor in [actor for actor in cast.actors if actor.orders.role == "member"]:
        open_tries: dict[Place, Try] = {}
        one = Cast(cast.folder, [actor])
        for _, (what, at, member, *more) in one.entries("member"):
            if what == "error":
                continue
            partition, offset, number, key, attempt = more
            place = Place(partition, offset)
            tried = Try(member, place, number, key.encode(), attempt, None if what == "began" else what)
            events.append((at, tried))
            if what == "began":
                open_tries[place] = tried
            else:
                open_tries.pop(place, None)
        if actor.died_at is not None:
            events += [(actor.died_at, tried._replace(outcome="died")) for tried in open_tries.values()]
    return events


def read_log(server: str, partitions: int) -> dict[int, list[Found]]:
    with RawPeer(server) as peer:
        return {partition: [found_in(record) for record in peer.read_all(TOPIC, partition)] for partition in range(partitions)}


def read_letters(server: str, partitions: int) -> list[DeadLetter]:
    """Every letter of the group; none before the first made the topic."""
    letters = []
    topic = dead_letter_topic(TOPIC, GROUP)
    with RawPeer(server) as peer:
        for partition in range(partitions):
            for record in peer.read_all(topic, partition):
                letter = parse_letter(record.offset, record.timestamp_ms, record.key, record.value, record.headers)
                place = Place(letter.partition or 0, -1 if letter.offset is None else letter.offset)
                number = found_in(Stored(record.offset, 0, letter.key, letter.value)).number
                letters.append(DeadLetter(place, number, letter.attempts or 0, letter.redrives or 0))
    return letters


def kept_elsewhere(said: Sendings, log: Mapping[int, Sequence[Found]]) -> int:
    """Records reported failed, or never reported, that are in the log all the same: allowed, and counted."""
    stored = {record.number for records in log.values() for record in records}
    return len(stored & (said.failed | said.unsure))
