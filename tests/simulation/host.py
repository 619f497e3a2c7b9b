"""The machine the broker runs on, in a simulation: its lives, its disk, and the person who restarts it.

A death comes at an operation of the disk, in the middle of whatever the broker was doing: `kill` leaves what was written,
`power cut` what was fsynced and any luck with the rest. Recovery may die too. A partition that has gone offline after a disk
error comes back with the next start, so somebody restarts the broker when they see one.
"""

from collections.abc import Callable
from random import Random

from logsvc.storage.partition_log import PartitionState
from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc_common.errors import LogsvcError
from tests.simulation.network import Network
from tests.simulation.service import Life, SimulatedService, SimulatedTime
from tests.simulation.trace import Trace

WATCH_MS = 2_000  # how often somebody looks whether all partitions are online
DOWN_MS = (10, 2_500)
RECOVERY_DEATHS = 0.3  # of restarts after a death
SYNC_MS = (0.05, 0.4)
SETTINGS = {"retention_check_ms": 3_000}


class Host:
    """`service` is None while the broker is down."""

    def __init__(self, seed: int, rng: Random, time: SimulatedTime, network: Network, trace: Trace) -> None:
        self.disk = SimulatedDisk()
        self.service: SimulatedService | None = None
        self.lives = self.deaths = 0
        self.slow_until_ms = 0
        self.calm = False  # nothing goes wrong any more
        self.recovered: list[Callable[[SimulatedService], None]] = []
        self._seed, self._rng, self._time, self._network, self._trace = seed, rng, time, network, trace
        self._life = Life(time)
        self._operations = 0
        self._dies_at = -1  # an operation of the disk
        self._death = "kill"
        self._time.call_later(WATCH_MS / 1_000, self._watch)

    # Its life

    def start(self) -> None:
        if self.service is not None:
            return
        self.lives += 1
        self._life = Life(self._time)
        self.disk.now_ms = self._time.now_ms
        self.disk.hook = self._operation
        if self._dies_at < 0 and self.lives > 1 and not self.calm and self._rng.random() < RECOVERY_DEATHS:
            self.die_soon(self._rng.choice(["kill", "power cut"]), self._rng.randint(1, 60))
        try:
            service = SimulatedService(
                self._rng.getrandbits(60),
                self.disk,
                self._time,
                loop=self._life,
                run_in_thread=self._in_thread,
                carry=self._network.answer,
                **SETTINGS,
            )
        except LogsvcError as error:
            self._trace("broker", f"cannot start: {error}")
            self.die("kill")
            return
        self.service = service
        self._trace("broker", f"life {self.lives} begins after {self._operations} disk operations")
        for tell in self.recovered:
            tell(service)
        self._network.broker_up(service.broker.receive)

    def die_soon(self, death: str, operations: int) -> None:
        """After so many operations of the disk, at the next one."""
        self._death, self._dies_at = death, self._operations + operations

    def die(self, death: str) -> None:
        """Now. It starts again after a while."""
        self.deaths += 1
        self._trace("broker", f"dies: {death}")
        self._life.alive = False
        self.service = None
        self._dies_at = -1
        self._network.broker_down()
        if death == "kill":
            self.disk.kill()
        else:
            self.disk = self.disk.crash(self._rng, ordered=True)
        self._time.call_later(self._rng.uniform(*DOWN_MS) / 1_000, self.start)

    def step(self) -> None:
        """One turn of the clock, and what becomes of the broker in it."""
        try:
            self._time.step()
        except SimulatedCrash:
            self.die(self._death)

    def _watch(self) -> None:
        self._time.call_later(WATCH_MS / 1_000, self._watch)
        if self.service is not None and (ill := self.ill()):
            self._trace("operator", f"restarts the broker: {ill}")
            self.disk.heal()
            self.die("kill")

    def ill(self) -> str:
        """What is not online, in words."""
        assert self.service is not None
        logs = self.service.logs.all_partitions()
        return "; ".join(f"{log!r}: {log.state_reason}" for log in logs if log.state is PartitionState.FAILED)

    # Its disk

    def _operation(self, operation: Operation) -> None:
        self._operations += 1
        self._trace("disk", f"{operation.kind} {operation.path}")
        if self._time.now_ms < self.slow_until_ms and operation.kind in ("write", "datasync", "sync_dir"):
            self._time.now_ms += round(self._rng.random() ** 2 * 60)  # the event loop waits for it
        if self._operations == self._dies_at:
            raise SimulatedCrash(f"at {operation}", written=self._rng.random() if self._death == "kill" else 0.0)

    def _in_thread(self, job: Callable[[], None]) -> object:
        """An fsync on a thread: it takes its time, and others go on."""
        if self._time.now_ms < self.slow_until_ms:
            return self._life.call_later(self._rng.random() ** 2 * 0.8, job)
        return self._life.call_later(self._rng.uniform(*SYNC_MS) / 1_000, job)
