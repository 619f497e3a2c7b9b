"""Faults that a run may have, by name, and the mixes of them.

Each fault lasts a bounded time and is over when its function returns; `settle` undoes what may be left. Which fault comes next
is drawn from the run's seed; what the machine does in between is its own.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from logsvc.testing.process import BrokerProcess
from logsvc_client import Admin, LogsvcError
from logsvc_common.errors import StartError
from tests.crash.actor import GROUP
from tests.crash.actors import Actor, Cast
from tests.crash.fault_proxy import DOWN, UP, FaultProxy

STARTS_MAX = 5
RECOVERY_KILL_SHARE = 0.25
FILL_CHUNK_BYTES = 1 << 20
FULL_LEFT_BYTES = 4 << 20  # below the reserve of a run's broker
FSYNC_DELAY_US = 100_000
TRACER_TIMEOUT_S = 10.0


@dataclass
class Stage:
    """All that a fault may touch. `disk`: a disk of its own for the data, which may be filled."""

    broker: BrokerProcess
    proxy: FaultProxy
    cast: Cast
    rng: random.Random
    disk: Path | None
    counts: Counter[str] = field(default_factory=Counter)

    def strike(self, name: str) -> None:
        """Have this fault now; not counted when the machine cannot."""
        self.counts[name] += FAULTS[name](self)

    def settle(self) -> None:
        """Everything runs, nothing is in the way."""
        self.proxy.heal()
        self.proxy.cut()  # a connection that was held for good
        for actor in self.cast.actors:
            actor.signal(signal.SIGCONT)
        self.started()

    def started(self) -> None:
        """The broker runs."""
        for _ in range(STARTS_MAX):
            try:
                _ = self.broker.pid
                return
            except RuntimeError:
                with contextlib.suppress(StartError):
                    self.broker.start()
        raise AssertionError(f"the broker does not start: {self.broker.log_path.read_text()[-2_000:]}")


def _kill_broker(stage: Stage) -> int:
    kills = 1
    stage.broker.kill()
    if stage.rng.random() < RECOVERY_KILL_SHARE:
        killer = threading.Timer(stage.rng.uniform(0.0, 0.15), _kill_starting, (stage.broker,))
        killer.start()
        with contextlib.suppress(StartError):
            stage.broker.start()
        killer.join()
        stage.broker.kill()
        kills += 1
    stage.started()
    return kills


def _kill_starting(broker: BrokerProcess) -> None:
    with contextlib.suppress(RuntimeError, ProcessLookupError):
        os.kill(broker.pid, signal.SIGKILL)


def _cut(stage: Stage) -> int:
    stage.proxy.cut()
    return 1


def _cut_within(stage: Stage) -> int:
    stage.proxy.cut_within(stage.rng.choice((UP, DOWN)))
    return 1


def _lose_answers(stage: Stage) -> int:
    stage.proxy.swallow(DOWN)
    time.sleep(stage.rng.uniform(0.02, 0.2))
    stage.proxy.cut()
    return 1


def _hold_connections(stage: Stage) -> int:
    stage.proxy.hold(*stage.rng.choice(((UP,), (DOWN,), (UP, DOWN))))
    time.sleep(stage.rng.uniform(0.5, 4.0))
    return 1


def _partition(stage: Stage) -> int:
    stage.proxy.held.update(stage.rng.choice(((UP,), (DOWN,), (UP, DOWN))))
    time.sleep(stage.rng.uniform(0.2, 3.0))
    stage.proxy.heal()
    return 1


def _refuse(stage: Stage) -> int:
    stage.proxy.refusing = True
    stage.proxy.cut()
    time.sleep(stage.rng.uniform(0.1, 1.5))
    stage.proxy.heal()
    return 1


def _slow_network(stage: Stage) -> int:
    stage.proxy.delay_s, stage.proxy.bytes_per_s = stage.rng.uniform(0.0, 0.2), stage.rng.choice((50_000, 500_000))
    time.sleep(stage.rng.uniform(0.5, 3.0))
    stage.proxy.heal()
    return 1


def _stall(stage: Stage, signaled: Callable[[int], None], longest_s: float) -> int:
    signaled(signal.SIGSTOP)
    time.sleep(stage.rng.uniform(0.1, 1.0) if stage.rng.random() < 0.5 else stage.rng.uniform(1.0, longest_s))
    signaled(signal.SIGCONT)
    return 1


def _stall_broker(stage: Stage) -> int:
    pid = stage.broker.pid
    return _stall(stage, lambda number: os.kill(pid, number), 6.0)


def _stall_actor(stage: Stage) -> int:
    actors = [actor for role in ("producer", "member", "reader") for actor in stage.cast.alive(role)]
    return _stall(stage, stage.rng.choice(actors).signal, 6.0)


def _replace(stage: Stage, role: str) -> int:
    actor: Actor = stage.rng.choice(stage.cast.alive(role))
    actor.signal(signal.SIGKILL)
    actor.process.wait()
    actor.died_at = time.monotonic()
    stage.cast.start(actor.orders)
    return 1


def _slow_disk(stage: Stage) -> int:
    """Each fdatasync takes a tenth of a second longer."""
    if shutil.which("strace") is None:
        return 0
    command = ["strace", "-f", "-qq", "-p", str(stage.broker.pid), "-o", "/dev/null", "-e", "trace=fdatasync"]
    tracer = subprocess.Popen(
        [*command, "-e", f"inject=fdatasync:delay_enter={FSYNC_DELAY_US}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(stage.rng.uniform(0.5, 2.0))
    refused = tracer.poll() is not None
    tracer.send_signal(signal.SIGINT)  # it lets go of the broker
    tracer.wait(TRACER_TIMEOUT_S)
    return 0 if refused else 1


def _full_disk(stage: Stage) -> int:
    """Somebody else fills the disk, and clears it again."""
    if stage.disk is None:
        return 0
    filling = stage.disk / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while shutil.disk_usage(stage.disk).free > FULL_LEFT_BYTES:
            file.write(bytes(FILL_CHUNK_BYTES))
    time.sleep(stage.rng.uniform(0.5, 3.0))
    filling.unlink()
    return 1


def _redrive(stage: Stage) -> int:
    # Counted when it may have begun: an answer may be lost.
    with contextlib.suppress(LogsvcError), Admin(stage.broker.server, timeout_ms=5_000) as admin:
        admin.redrive(GROUP)
    return 1


FAULTS: Mapping[str, Callable[[Stage], int]] = {
    "broker kill": _kill_broker,
    "cut": _cut,
    "cut within a frame": _cut_within,
    "answers lost": _lose_answers,
    "dead connections": _hold_connections,
    "partition": _partition,
    "refusal": _refuse,
    "slow network": _slow_network,
    "broker stall": _stall_broker,
    "client stall": _stall_actor,
    "member kill": lambda stage: _replace(stage, "member"),
    "producer kill": lambda stage: _replace(stage, "producer"),
    "slow disk": _slow_disk,
    "full disk": _full_disk,
    "redrive": _redrive,
}


class Mix(NamedTuple):
    """Weights of faults, the pause between two, and what is asked of the group."""

    faults: Mapping[str, int]
    pause_s: tuple[float, float] = (0.3, 1.5)
    keyed: bool = True  # the order of keys is judged: not where members lose their sessions while they handle
    bad_every: int = 23
    heals: bool = False  # at the end handlers can handle everything, and all letters are redriven
    session_timeout_ms: int = 10_000
    records_per_s: int = 200


NETWORK = {
    "cut": 2,
    "cut within a frame": 3,
    "answers lost": 3,
    "dead connections": 1,
    "partition": 2,
    "refusal": 1,
    "slow network": 1,
}
MIXES: Mapping[str, Mix] = {
    "kills and a bad network": Mix({"broker kill": 8, "producer kill": 1, **NETWORK}),
    "stalls, a slow and a full disk": Mix(
        {"broker stall": 3, "client stall": 4, "slow disk": 2, "full disk": 2, "broker kill": 1},
        keyed=False,
        session_timeout_ms=4_000,
    ),
    "dead letters, redrives and kills": Mix(
        {"redrive": 4, "broker kill": 5, "member kill": 2, "answers lost": 1}, keyed=False, bad_every=7, heals=True
    ),
}
