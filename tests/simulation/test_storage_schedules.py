"""As many crash schedules of the storage as fit: before every operation, whatever the disk may have kept. See `schedules`."""

import logging
import time
from collections.abc import Iterator

import pytest

from logsvc.testing.simulated_disk import SimulatedDisk
from tests.simulation.schedules import Everything, Tally, run_workload, run_workloads

CASES = 8
WORKLOADS_PER_CASE = 8
LONG_CASES = 10
LONG_WORKLOADS_PER_CASE = 100


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Recovery says what it finds, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def told(first: int, count: int) -> Tally:
    begun = time.process_time()
    tally = run_workloads(first, count)
    seconds = time.process_time() - begun
    print(
        f"{tally.schedules} crash schedules ({tally.twice} of them cut off twice) at {tally.points} points of "
        f"{tally.workloads} workloads, {seconds:.1f} s of CPU, {tally.schedules / seconds:.0f}/s"
    )
    return tally


@pytest.mark.parametrize("block", range(CASES))
def test_no_schedule_loses_what_was_acknowledged(block: int) -> None:
    tally = told(block * WORKLOADS_PER_CASE, WORKLOADS_PER_CASE)
    assert tally.schedules > 5_000


@pytest.mark.long
@pytest.mark.parametrize("block", range(LONG_CASES))
def test_hundreds_of_thousands_of_schedules(block: int) -> None:
    told(10_000 + block * LONG_WORKLOADS_PER_CASE, LONG_WORKLOADS_PER_CASE)


class LyingDisk(SimulatedDisk):
    """Its datasync does nothing."""

    def sync_file(self, node: object) -> None:
        pass


class ForgetfulFolders(SimulatedDisk):
    """Its sync_dir does nothing."""

    def sync_dir(self, path: str) -> None:
        self.step("sync_dir", path)


@pytest.mark.parametrize("mutant", [LyingDisk, ForgetfulFolders])
def test_a_disk_that_only_pretends_to_sync_is_caught(mutant: type[SimulatedDisk]) -> None:
    caught = 0
    for seed in range(0, 10, 2):
        try:
            run_workload(seed, mutant)
        except AssertionError:
            caught += 1
    assert caught > 0


def test_everything_is_enumerated_once() -> None:
    every = Everything()
    found = []
    while True:
        choice = every.random()
        found.append((choice, every.randrange(5) if choice > 0.6 else None))
        if not every.next_turn():
            break
    assert found == [(0.2, None), (0.5, None), (0.7, 0), (0.7, 2), (0.7, 4), (0.9, 0), (0.9, 2), (0.9, 4)]
