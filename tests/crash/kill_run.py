"""One run under blows: a producer sends without pause, the broker falls again and again, and the history is judged.

    writer thread   send numbered records for some keys, as fast as the producer's small buffer lets it, up to a limit
    this thread     wait until the broker acknowledges again, wait a random moment, strike, restart (in some cycles struck
                    again while it recovers), on the same folder and port
    reader threads  one keeps its own position, one is a member of a group and commits; they poll through all of it
    at the end      flush, let the readers get to the end, read every partition through `RawPeer` (not the client library),
                    hand all to `history`

What a blow is, and where brokers come from, is a `World`: kill -9 of processes here, power cuts in `power`. kill -9 takes the
process, not the page cache: what it shows is that the broker's own order of things is right (nothing acknowledged before it is
written, recovery, idempotence across restarts). What an fsync is worth, the power cuts and the simulated disk show.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from logsvc.testing.process import BrokerProcess, broker_process
from logsvc_client import LogsvcError, Producer, RecordMetadata
from logsvc_common.errors import StartError
from tests.crash.kill_values import found_in, value_of
from tests.crash.nursery import Nursery
from tests.crash.readers import Reader
from tests.e2e.raw_peer import RawPeer
from tests.history.log import Anomaly, Found, Place, Sent, anomalies, counted, reading_anomalies

TOPIC = "kill-run"
PARTITIONS = 4
KEYS = 48
PAUSE_S = (0.0, 0.25)  # from the first ack of a cycle to its kill
FORKED_PAUSE_S = (0.0, 0.1)
RECOVERY_KILL_SHARE = 0.2  # of the cycles: the restarted broker is killed once more before or just after it is ready
RECOVERY_KILL_S = 0.8  # within so long after its start, or twice what starts have taken
RESTARTS_PER_CYCLE_MAX = 5
ACK_TIMEOUT_S = 30.0  # the client recovers by itself within this, or the run fails
FLUSH_TIMEOUT_S = 60.0
# Small segments, so that kills meet rolls, index files and checkpoints too.
TOPIC_CONFIG = {"segment.bytes": str(256 << 10), "index.interval.bytes": "1024"}


class World(Protocol):
    """Where brokers live, and how they fall."""

    pause_s: tuple[float, float]  # from the first ack of a cycle to its blow
    takes_unsynced: bool  # what the broker says from the blow to its death proves nothing, see `power`

    def broker(self, folder: Path) -> AbstractContextManager[BrokerProcess]:
        """A broker with its data somewhere in or below `folder`, started."""

    def strike(self, broker: BrokerProcess) -> None:
        """The blow itself, wherever the broker is at that moment. Called from any thread, also while it starts."""

    def clear(self, broker: BrokerProcess) -> None:
        """What is left of it is gone when this returns, and it can be started again."""


class Kills:
    """kill -9 of `logsvc serve`: a process of its own each time or, with a nursery, a fork."""

    takes_unsynced = False

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._nursery = nursery
        self.pause_s = PAUSE_S if nursery is None else FORKED_PAUSE_S

    def broker(self, folder: Path) -> AbstractContextManager[BrokerProcess]:
        make = broker_process if self._nursery is None else self._nursery.broker
        return make(folder / "data", "--log-level", "warning")

    def strike(self, broker: BrokerProcess) -> None:
        # SIGKILL and nothing else: reaping it is left to the thread that started it, which may be reading from it.
        with contextlib.suppress(RuntimeError, ProcessLookupError):
            os.kill(broker.pid, signal.SIGKILL)

    def clear(self, broker: BrokerProcess) -> None:
        broker.kill()


@dataclass
class Figures:
    """What a run amounted to. Seconds are wall-clock; `ready_s` from the start of a process to its announcement, `away_s` from
    a kill to the next acknowledgement the client saw."""

    seed: int
    cycles: int = 0
    kills: int = 0
    kills_during_recovery: int = 0
    sent: int = 0
    acked: int = 0
    failed: int = 0
    stored: int = 0
    handed_again: int = 0
    unsure: int = 0
    unsure_gone: int = 0
    seconds: float = 0.0
    ready_s: list[float] = field(default_factory=list)
    away_s: list[float] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)

    @property
    def ready_usual_s(self) -> float:
        """Within so long after a start a blow meets recovery, or the first moments after it."""
        return 2 * sorted(self.ready_s)[len(self.ready_s) // 2] if self.ready_s else RECOVERY_KILL_S

    def __str__(self) -> str:
        def spread(values: list[float]) -> str:
            ordered = sorted(values)
            return f"median {ordered[len(ordered) // 2]:.2f} s, longest {ordered[-1]:.2f} s" if ordered else "none"

        return (
            f"seed {self.seed}: {self.cycles} cycles, {self.kills} kills ({self.kills_during_recovery} during recovery), "
            f"{self.sent} sent, {self.acked} acknowledged, {self.failed} failed, {self.stored} stored, "
            f"lost {self.found.get('lost-write', 0)}, duplicates {self.found.get('duplicate', 0)}, "
            f"anomalies {self.found or 'none'}, {self.handed_again} handed to the group's member again; "
            f"{self.unsure} acknowledged in the moment of a blow, {self.unsure_gone} of them gone; "
            f"ready: {spread(self.ready_s)}; kill to next ack: {spread(self.away_s)}; {self.seconds:.1f} s in all"
        )


class Writer:
    """Sends numbered records in a thread of its own, and remembers what was said of each."""

    def __init__(self, server: str, records_max: int, rng: random.Random, *, idempotent: bool) -> None:
        self.sent: list[Sent] = []
        self.acked: dict[int, list[Place]] = {}
        self.failed: dict[int, LogsvcError] = {}
        self.error: BaseException | None = None
        self.unsure: dict[int, Place] = {}  # acknowledged while `doubting`
        self.doubting = False
        self.ack_timeout_s = ACK_TIMEOUT_S
        self._acks = 0
        self._acked_once = threading.Condition()
        self._records_max = records_max
        self._rng = rng
        self._stop = threading.Event()
        # A small buffer keeps the writer close behind the broker: at every kill some batches are in flight.
        self._producer = Producer(
            server,
            linger_ms=1,
            batch_bytes=16 << 10,
            buffer_bytes=128 << 10,
            max_block_ms=round(ACK_TIMEOUT_S * 1_000),
            delivery_timeout_ms=120_000,
            request_timeout_ms=10_000,
            idempotent=idempotent,
        )
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Send no more; wait for what is on its way."""
        self._stop.set()
        self._thread.join(ACK_TIMEOUT_S + 5)
        if self._thread.is_alive():
            raise AssertionError("the writer hangs in send")
        self._producer.flush(FLUSH_TIMEOUT_S)

    def close(self) -> None:
        self._stop.set()
        self._producer.close(1)

    @property
    def acks(self) -> int:
        return self._acks

    def wait_for_ack(self, beyond: int) -> None:
        """Until more than `beyond` records are acknowledged."""
        with self._acked_once:
            if not self._acked_once.wait_for(lambda: self._acks > beyond or self.error is not None, self.ack_timeout_s):
                raise AssertionError(f"no acknowledgement within {self.ack_timeout_s} s after the broker was back")
        if self.error is not None:
            raise AssertionError("the writer ended early") from self.error

    def _run(self) -> None:
        try:
            for number in range(self._records_max):
                if self._stop.is_set():
                    return
                self._send(number)
                if not number % 16:
                    self._stop.wait(self._rng.random() * 0.02)
            raise AssertionError(f"the run used up its {self._records_max} records")
        except BaseException as error:  # noqa: BLE001 it is raised by whoever waits for this thread
            self.error = error
            with self._acked_once:
                self._acked_once.notify_all()

    def _send(self, number: int) -> None:
        key = b"key-%02d" % self._rng.randrange(KEYS)
        self.sent.append(Sent(number, key))

        def told(where: RecordMetadata | None, error: LogsvcError | None) -> None:
            if where is None:
                assert error is not None
                self.failed[number] = error
                return
            place = Place(where.partition, where.offset)
            if self.doubting:
                self.unsure[number] = place
            else:
                self.acked.setdefault(number, []).append(place)
            with self._acked_once:
                self._acks += 1
                self._acked_once.notify_all()

        self._producer.send(TOPIC, value_of(number), key=key, on_delivery=told)


def kill_run(
    folder: Path,
    *,
    cycles: int,
    seed: int,
    idempotent: bool = True,
    records_per_cycle_max: int = 4_000,
    world: World | None = None,
    ack_timeout_s: float = ACK_TIMEOUT_S,
) -> tuple[Figures, list[Anomaly]]:
    """Run `cycles` blows (kills, if no other `world` is given) and judge the history; a client that does not recover by itself
    is an anomaly too.

    With `idempotent` off, duplicates are what must be found: a way to see that the run puts retries to the test at all.
    """
    figures = Figures(seed)
    world = world or Kills()
    began = time.monotonic()
    rng = random.Random(seed)
    with world.broker(folder) as broker:
        with RawPeer(broker.server) as peer:
            peer.create_topic(TOPIC, PARTITIONS, **TOPIC_CONFIG)
        writer = Writer(broker.server, cycles * records_per_cycle_max, random.Random(seed + 1), idempotent=idempotent)
        writer.ack_timeout_s = ack_timeout_s
        # A reader may have read what only seemed to be synced, and errors of the disk: it is for blows that take no data.
        readers = [] if world.takes_unsynced else [Reader(broker.server, TOPIC, group) for group in (None, "readers")]
        for thread in (*readers, writer):
            thread.start()
        gave_up: list[Anomaly] = []
        try:
            with _noting(gave_up):
                writer.wait_for_ack(0)
                for _ in range(cycles):
                    _cycle(world, broker, writer, figures, rng)
                writer.finish()
            log = _read_back(broker, gave_up)
            for reader in readers:
                with _noting(gave_up):
                    reader.finish({partition: len(records) for partition, records in log.items()})
        finally:
            for thread in (*readers, writer):
                thread.close()
        figures.sent, figures.acked, figures.failed = len(writer.sent), len(writer.acked), len(writer.failed)
        figures.stored = sum(map(len, log.values()))
        figures.unsure = len(writer.unsure)
        kept = {Place(partition, record.offset): record.number for partition, records in log.items() for record in records}
        figures.unsure_gone = sum(kept.get(place) != number for number, place in writer.unsure.items())
        wrong = gave_up + anomalies(writer.sent, writer.acked, {*writer.failed, *writer.unsure}, log)
        for reader in readers:
            figures.handed_again += len(reader.polled) - figures.stored
            wrong += reading_anomalies(reader.polled, log, again_allowed=reader.group is not None)
    figures.found, figures.seconds = counted(wrong), time.monotonic() - began
    return figures, wrong


@contextlib.contextmanager
def _noting(gave_up: list[Anomaly]) -> Iterator[None]:
    """A client that does not recover is one more anomaly: the log says what else is wrong."""
    try:
        yield
    except AssertionError as error:
        gave_up.append(Anomaly("gave-up", f"{error} {error.__cause__ or ''}".strip()))


def _cycle(world: World, broker: BrokerProcess, writer: Writer, figures: Figures, rng: random.Random) -> None:
    time.sleep(rng.uniform(*world.pause_s))
    writer.doubting = world.takes_unsynced
    world.strike(broker)
    struck = time.monotonic()
    world.clear(broker)
    writer.doubting = False
    figures.cycles += 1
    figures.kills += 1
    for attempt in range(RESTARTS_PER_CYCLE_MAX):
        again = attempt == 0 and rng.random() < RECOVERY_KILL_SHARE
        strike_after_s = rng.random() * figures.ready_usual_s if again else None
        writer.doubting = again and world.takes_unsynced
        ready = _restart(world, broker, figures, strike_after_s)
        writer.doubting = False
        if not ready:
            continue
        writer.wait_for_ack(writer.acks)
        figures.away_s.append(time.monotonic() - struck)
        return
    raise AssertionError(f"the broker did not come back within {RESTARTS_PER_CYCLE_MAX} starts")


def _restart(world: World, broker: BrokerProcess, figures: Figures, strike_after_s: float | None) -> bool:
    """Start it; with `strike_after_s`, strike it that long after, wherever it is then. True when it runs."""
    started = time.monotonic()
    if strike_after_s is None:
        broker.start()
        figures.ready_s.append(time.monotonic() - started)
        return True
    blow = threading.Timer(strike_after_s, world.strike, (broker,))
    blow.start()
    # Struck before it was ready: `start` says that it did not start, which was the point.
    with contextlib.suppress(StartError):
        broker.start()
    blow.join()
    world.clear(broker)
    figures.kills += 1
    figures.kills_during_recovery += 1
    return False


def _read_back(broker: BrokerProcess, gave_up: list[Anomaly]) -> Mapping[int, list[Found]]:
    log: dict[int, list[Found]] = {}
    with RawPeer(broker.server) as peer:
        for partition in range(PARTITIONS):
            found = log[partition] = []
            try:
                found.extend(found_in(record) for record in peer.read_all(TOPIC, partition))
            except LogsvcError as error:
                gave_up.append(Anomaly("unreadable", f"partition {partition}: {error}"))
    return log
