"""kill -9 under load: no acknowledged record lost, offsets without gaps, none twice, each key in order, and the client goes on.

The seed is printed with the figures; a run is repeated with LOGSVC_TEST_SEED (the moments of the kills are random, what
happens between them is the machine's).
"""

import os
import random
from pathlib import Path

import pytest

from tests.crash.kill_run import Kills, World, kill_run
from tests.crash.kill_values import found_in, value_of
from tests.crash.nursery import nursery
from tests.e2e.raw_peer import Stored


def seed() -> int:
    return int(os.environ.get("LOGSVC_TEST_SEED") or random.SystemRandom().randrange(1 << 31))


def judged(folder: Path, cycles: int, world: World | None = None) -> None:
    figures, wrong = kill_run(folder, cycles=cycles, seed=seed(), world=world)
    print(figures)
    assert wrong == [], f"{figures}\n" + "\n".join(f"{anomaly.kind}: {anomaly.detail}" for anomaly in wrong[:20])
    assert figures.failed == 0, figures
    assert figures.cycles == cycles
    # Every cycle had acknowledged records in it, and all that was sent is in the log.
    assert figures.acked == figures.sent == figures.stored, figures
    assert figures.acked > 20 * cycles, figures


@pytest.mark.timeout(150)
def test_ten_kills_of_a_broker_started_as_people_start_it(tmp_path: Path) -> None:
    judged(tmp_path, 10)


@pytest.mark.parametrize("part", range(2))
@pytest.mark.timeout(240)
def test_two_hundred_kills_of_brokers_forked_ready_to_run(tmp_path: Path, part: int) -> None:
    # Two parts, for two cores
    with nursery() as forks:
        judged(tmp_path, 95, Kills(forks))


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_two_hundred_kills_lose_nothing_and_duplicate_nothing(tmp_path: Path) -> None:
    judged(tmp_path, 200)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_without_idempotence_the_same_run_finds_duplicates(tmp_path: Path) -> None:
    # What shows that batches are in flight at the kills, and that a duplicate would not go unnoticed
    figures, wrong = kill_run(tmp_path, cycles=40, seed=seed(), idempotent=False)
    print(figures)
    assert figures.found.get("duplicate", 0) > 0, figures
    assert {anomaly.kind for anomaly in wrong} <= {"duplicate", "nonmonotonic-send"}, figures


def test_a_value_tells_its_number_and_whether_it_is_intact() -> None:
    for number in (0, 1, 57, 58, 4_000):
        value = value_of(number)
        assert found_in(Stored(5, 0, b"k", value)) == (number, b"k", 5, True)
        assert not found_in(Stored(5, 0, b"k", value[:-1])).intact
        assert not found_in(Stored(5, 0, b"k", value + b"x")).intact
    assert not found_in(Stored(5, 0, None, None)).intact
    assert not found_in(Stored(5, 0, None, b"noise")).intact
