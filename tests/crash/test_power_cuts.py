"""Power cuts under load on real file systems: nothing acknowledged before a cut is lost, indexes and checkpoints are in order.

kill -9 leaves the page cache alone; these do not. That the run sees a missing fsync is shown by brokers that skip theirs.
Five hundred cuts in every `make test` where the machine lets root mount; where not, the tests say so and skip.
"""

from pathlib import Path

import pytest

from tests.crash.kill_run import ACK_TIMEOUT_S, Figures, kill_run
from tests.crash.mounts import drive
from tests.crash.nursery import nursery
from tests.crash.power import ENVIRONMENT, FILESYSTEMS, PowerCuts
from tests.crash.test_kill_nine import seed
from tests.history.log import Anomaly

# A fifth of the cycles have a second cut, while the broker recovers: five hundred in all, in pieces that two cores can share.
PIECES = [("ext4", 57)] * 3 + [("ext4 writeback", 57)] * 3 + [("xfs", 45)] * 2
ATTEMPTS = 3
MUTANT_ACK_TIMEOUT_S = 5.0  # a partition that a mutant has damaged takes no more writes


def cut_run(folder: Path, run: str, cycles: int, seed: int, mutant: str = "") -> tuple[Figures, list[Anomaly], PowerCuts]:
    with nursery(mutant, ENVIRONMENT) as forks, drive(folder, *FILESYSTEMS[run]) as mounted:
        world = PowerCuts(mounted, forks)
        patience_s = MUTANT_ACK_TIMEOUT_S if mutant else ACK_TIMEOUT_S
        figures, wrong = kill_run(folder, cycles=cycles, seed=seed, world=world, ack_timeout_s=patience_s)
    print(f"{run}: {world.cuts} power cuts, {world.torn} torn tails set aside; {figures}")
    return figures, wrong, world


def judged(folder: Path, run: str, cycles: int) -> None:
    figures, wrong, world = cut_run(folder, run, cycles, seed())
    assert wrong == [], f"{figures}\n" + "\n".join(f"{anomaly.kind}: {anomaly.detail}" for anomaly in wrong[:20])
    # The partitions serve, and `logsvc verify` finds nothing wrong with segments, indexes and checkpoints.
    assert world.degraded == []
    assert world.report is not None
    assert world.report.ok, [partition for partition in world.report.partitions if not partition.ok]
    assert world.cuts == figures.kills >= cycles
    assert figures.acked > 20 * cycles, figures


@pytest.mark.parametrize(("run", "cycles"), PIECES)
@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_over_power_cuts(run: str, cycles: int, tmp_path: Path) -> None:
    judged(tmp_path, run, cycles)


@pytest.mark.long
@pytest.mark.parametrize("run", FILESYSTEMS)
@pytest.mark.timeout(1_800)
def test_nothing_acknowledged_is_lost_over_a_thousand_power_cuts(run: str, tmp_path: Path) -> None:
    judged(tmp_path, run, 850)


MUTANTS = {
    "skips the fsync of a segment": "import os; os.fdatasync = lambda fd: None",
    "acknowledges before the fsync has ended": """
import os, threading
synced = os.fdatasync
def later(fd):
    copy = os.dup(fd)
    threading.Timer(0.1, lambda: (synced(copy), os.close(copy))).start()
os.fdatasync = later
""",
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.timeout(120)
def test_a_broker_that_skips_an_fsync_is_caught(mutant: str, tmp_path: Path) -> None:
    found: set[str] = set()
    for attempt in range(ATTEMPTS):  # cuts come at random moments
        folder = tmp_path / str(attempt)
        folder.mkdir()
        _, wrong, world = cut_run(folder, "ext4", 8, attempt, MUTANTS[mutant])
        found = {anomaly.kind for anomaly in wrong} | set(world.degraded)
        if found:
            break
    assert found, f"a broker that {mutant} got through {ATTEMPTS} runs"
