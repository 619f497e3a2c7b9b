"""A checked history under faults: real producers, group members and a reader, a real broker, and a mix of what may go wrong.

    producers (2), members (3), reader (1) --> fault proxy --> broker --> disk (a tmpfs, where the machine lets root mount)
          |journals                              ^ this thread: one fault after another, for so many seconds   ^
          v
    at the end: faults off, everything drains, the log and the letters are read without the client library, and the checkers
    of `tests/history` judge: `log` what was sent, acknowledged, stored and read, `groups` what was handled and what died

What is sent is never more than `records_per_s`, so a run's length bounds its disk and memory.
"""

import contextlib
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logsvc.testing.process import BrokerProcess
from logsvc_client import Admin, LogsvcError
from tests.crash.actor import GROUP, TOPIC, Orders
from tests.crash.actors import Cast, handlings, kept_elsewhere, read_letters, read_log, readings, sendings
from tests.crash.fault_proxy import FaultProxy, fault_proxy
from tests.crash.faults import MIXES, Mix, Stage
from tests.crash.mounts import tmpfs
from tests.crash.nursery import ForkedBroker, nursery
from tests.e2e.raw_peer import RawPeer
from tests.history.groups import Event, Standing, Try, group_anomalies
from tests.history.log import Anomaly, Found, Place, anomalies, counted, reading_anomalies

PARTITIONS = 4
PRODUCERS = 2
MEMBERS = 3
MAX_ATTEMPTS = 3
TOPIC_CONFIG = {"segment.bytes": str(256 << 10), "index.interval.bytes": "1024"}
DISK_BYTES = 128 << 20
RESERVE_BYTES = 8 << 20
DRAIN_TIMEOUT_S = 120.0
LOOK_S = 0.25
ADMIN_TIMEOUT_MS = 10_000
HEALED = "healed"


@dataclass
class Outcome:
    """What a run amounted to, and what is wrong."""

    mix: str
    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    acked: int = 0
    failed: int = 0
    unsure: int = 0
    kept_elsewhere: int = 0
    stored: int = 0
    read: int = 0
    tries: int = 0
    letters: int = 0
    redrives: int = 0
    wrong: list[Anomaly] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.mix}, seed {self.seed}: {self.seconds:.0f} s, {self.faults.total()} faults "
            f"({_told(self.faults)}); {self.sent} sent, "
            f"{self.acked} acknowledged, {self.failed} failed, {self.unsure} of killed producers, {self.stored} stored "
            f"({self.kept_elsewhere} of them never acknowledged), {self.read} read, {self.tries} tries, {self.letters} dead "
            f"letters, {self.redrives} redrives; anomalies: {_told(Counter(counted(self.wrong))) or 'none'}"
        )


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def fault_run(folder: Path, mix_name: str, *, seconds: float, seed: int, mutant: str = "") -> Outcome:
    """Run a mix for `seconds`, then drain and judge. Journals and logs stay in `folder`; the data when something is wrong.

    `mutant`: lines of Python that break the broker's promises, see `nursery`.
    """
    mix = MIXES[mix_name]
    outcome = Outcome(mix_name, seed)
    began = time.monotonic()
    with _stage(folder, mix, seed, mutant) as stage:
        standings = _misbehave(stage, mix, began + seconds)
        if mix.heals:
            (folder / HEALED).touch()
            stage.strike("redrive")
        outcome.faults, outcome.redrives = stage.counts, stage.counts["redrive"]
        try:
            log = _drained(stage, outcome)
            outcome.wrong += _judged(stage, mix, log, standings, outcome)
        except (AssertionError, LogsvcError) as error:
            outcome.wrong.append(Anomaly("gave-up", f"{type(error).__name__}: {error}"))
        if outcome.wrong and stage.disk is not None:
            stage.broker.kill()
            shutil.copytree(stage.broker.data_dir, folder / "data")
    outcome.seconds = time.monotonic() - began
    return outcome


@contextmanager
def _stage(folder: Path, mix: Mix, seed: int, mutant: str) -> Iterator[Stage]:
    with ExitStack() as stack:
        disk, small = _disk(stack, folder)
        forks = stack.enter_context(nursery(mutant, {"LOGSVC_DISK_RESERVE_BYTES": str(RESERVE_BYTES)}))
        arguments = ("--log-level", "warning", "--http-port", "-1")
        broker = ForkedBroker(forks, disk / "data", folder / "broker.log", arguments)
        broker.start()
        stack.callback(broker.kill)
        with RawPeer(broker.server) as peer:
            peer.create_topic(TOPIC, PARTITIONS, **TOPIC_CONFIG)
        proxy = stack.enter_context(fault_proxy(broker.server))
        cast = Cast(folder)
        stack.callback(cast.kill_all)
        for role, count in (("producer", PRODUCERS), ("member", MEMBERS), ("reader", 1)):
            for _ in range(count):
                cast.start(_orders(role, mix, proxy, seed, str(folder / HEALED)))
        yield Stage(broker, proxy, cast, random.Random(seed), disk if small else None)


def _disk(stack: ExitStack, folder: Path) -> tuple[Path, bool]:
    """Where the data goes, and whether that is a disk of its own that may be filled."""
    try:
        return stack.enter_context(tmpfs(folder / "disk", DISK_BYTES)), True
    except pytest.skip.Exception:
        return folder, False


def _orders(role: str, mix: Mix, proxy: FaultProxy, seed: int, healed: str) -> Orders:
    return Orders(
        role=role,
        server=proxy.server,
        journal="",
        records_per_s=mix.records_per_s,
        bad_every=mix.bad_every,
        healed=healed,
        max_attempts=MAX_ATTEMPTS,
        ordering="key" if mix.keyed else "none",
        session_timeout_ms=mix.session_timeout_ms,
        seed=seed,
    )


def _misbehave(stage: Stage, mix: Mix, until: float) -> list[tuple[float, Event]]:
    """One fault after another; between them, where the group stands."""
    standings: list[tuple[float, Event]] = []
    names = list(mix.faults)
    while time.monotonic() < until:
        time.sleep(stage.rng.uniform(*mix.pause_s))
        name = stage.rng.choices(names, [mix.faults[each] for each in names])[0]
        stage.strike(name)
        standings += _standing(stage.broker)
    stage.settle()
    return standings


def _standing(broker: BrokerProcess) -> list[tuple[float, Event]]:
    """Where the group stands: at least as far as it ever did."""
    events: list[tuple[float, Event]] = []
    with contextlib.suppress(LogsvcError), Admin(broker.server, timeout_ms=ADMIN_TIMEOUT_MS) as admin:
        for where, result in admin.committed_offsets(GROUP).items():
            place = Place(where.partition, result.committed)
            events += [(time.monotonic(), Standing(place, asked=True)), (time.monotonic(), Standing(place, asked=False))]
    return events


def _drained(stage: Stage, outcome: Outcome) -> dict[int, list[Found]]:
    """Let everybody come to an end. AssertionError when somebody does not; the log as it then is."""
    stuck = stage.cast.stop("producer")
    log = read_log(stage.broker.server, PARTITIONS)
    ends = {partition: len(found) for partition, found in log.items()}
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while waits := _waits_for(stage, ends):
        assert time.monotonic() < deadline, f"not drained within {DRAIN_TIMEOUT_S} s: {waits}"
        time.sleep(LOOK_S)
    stuck += stage.cast.stop("member", "reader")
    outcome.wrong += [Anomaly("gave-up", who) for who in stuck]
    return log


def _waits_for(stage: Stage, ends: Mapping[int, int]) -> str:
    """What is not over yet; empty when all is."""
    with Admin(stage.broker.server, timeout_ms=ADMIN_TIMEOUT_MS) as admin:
        try:
            if any(redrive.state == "running" for redrive in admin.redrives(GROUP)):
                return "a redrive"
            group = admin.describe_group(GROUP)
        except LogsvcError as error:
            return str(error)
    lag = sum(part.lag for part in group.partitions) if len(group.partitions) == len(ends) else -1
    held = sum(count for part in group.partitions for state, count in part.failed.items() if state != "dead_lettered")
    if lag or held:
        members = [
            (member.member_id[:6], member.client_id, [owned.partitions for owned in member.owned]) for member in group.members
        ]
        behind = [part for part in group.partitions if part.lag or part.failed]
        return f"lag {lag}, {held} failures open, {group.state}, breaker {group.breaker.state}, members {members}, {behind}"
    for polled in readings(stage.cast).values():
        reached: dict[int, int] = {}
        for entry in polled:
            reached[entry.partition] = max(reached.get(entry.partition, 0), entry.found.offset + 1)
        if any(reached.get(partition, 0) < end for partition, end in ends.items()):
            return f"the reader stands at {reached}, the log ends at {dict(ends)}"
    return ""


def _judged(
    stage: Stage, mix: Mix, log: Mapping[int, list[Found]], standings: list[tuple[float, Event]], outcome: Outcome
) -> list[Anomaly]:
    said, letters, polls = sendings(stage.cast), read_letters(stage.broker.server, PARTITIONS), readings(stage.cast)
    events = [event for _, event in sorted([*handlings(stage.cast), *standings], key=lambda entry: entry[0])]
    outcome.sent, outcome.acked, outcome.failed = len(said.sent), len(said.acked), len(said.failed)
    outcome.unsure, outcome.kept_elsewhere = len(said.unsure), kept_elsewhere(said, log)
    outcome.stored, outcome.letters = sum(map(len, log.values())), len(letters)
    outcome.read = sum(map(len, polls.values()))
    outcome.tries = sum(isinstance(event, Try) and event.outcome is None for event in events)
    wrong = anomalies(said.sent, said.acked, said.failed | said.unsure, log)
    for polled in polls.values():
        wrong += reading_anomalies(polled, log, again_allowed=False)
    wrong += group_anomalies(events, letters, log, attempts_max=MAX_ATTEMPTS, keyed=mix.keyed, redrives=outcome.redrives)
    return wrong
