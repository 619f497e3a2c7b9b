"""Three minutes of history under faults, checked: nothing acknowledged lost, nothing silent, whatever mix of faults.

The three mixes run beside each other, a minute each: most of a fault is waiting.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.fault_run import Outcome, fault_run
from tests.crash.faults import MIXES
from tests.crash.mutants import MUTANTS
from tests.crash.test_kill_nine import seed

SECONDS = 60.0
SECONDS_LONG = 600.0


def judged(folder: Path, seconds: float) -> None:
    first = seed()

    def run(number: int, mix: str) -> Outcome:
        (folder / str(number)).mkdir()
        return fault_run(folder / str(number), mix, seconds=seconds, seed=first + number)

    with ThreadPoolExecutor(len(MIXES)) as pool:
        outcomes = list(pool.map(run, range(len(MIXES)), MIXES))
    for outcome in outcomes:
        print(outcome)
    for outcome in outcomes:
        assert outcome.wrong == [], f"{outcome}\n" + "\n".join(f"{each.kind}: {each.detail}" for each in outcome.wrong[:20])
        assert outcome.read == outcome.stored >= outcome.acked > 20 * seconds, outcome
        assert outcome.faults.total() > seconds / 10
        assert outcome.letters > 0


@pytest.mark.timeout(300)
def test_three_minutes_of_history_under_faults(tmp_path: Path) -> None:
    judged(tmp_path, SECONDS)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_half_an_hour_of_history_under_faults(tmp_path: Path) -> None:
    judged(tmp_path, SECONDS_LONG)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_broker_that_forgets_its_producers_is_caught(tmp_path: Path) -> None:
    mix = "kills and a bad network"
    outcome = fault_run(tmp_path, mix, seconds=SECONDS, seed=seed(), mutant=MUTANTS["forgets producers"])
    print(outcome)
    assert "duplicate" in {anomaly.kind for anomaly in outcome.wrong}
    # What it found stays for whoever looks: journals, the broker's log, the data.
    assert list(tmp_path.glob("*.jsonl"))
    assert (tmp_path / "data").is_dir() or (tmp_path / "broker.log").exists()
