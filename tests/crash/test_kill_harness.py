"""The kill harness itself is put to the test: a broker that breaks a promise does not get through it.

Each mutant breaks one promise, and what is found carries the name of that.
"""

import sys
from pathlib import Path

import pytest

from tests.crash.kill_run import kill_run
from tests.crash.mutants import MUTANTS, mutated

CYCLES = 6
ATTEMPTS = 3  # kills come at random moments: a mutant may be lucky once


def noticed(folder: Path) -> set[str]:
    """What a run finds wrong."""
    figures, wrong = kill_run(folder, cycles=CYCLES, seed=7)
    print(figures)
    for anomaly in wrong[:5]:
        print(f"  {anomaly.kind}: {anomaly.detail}")
    return {anomaly.kind for anomaly in wrong} | ({"failed"} if figures.failed else set())


LAZY = "acknowledges what it has not written"
EXPECTED = {
    LAZY: {"lost-write", "inconsistent-offset"},
    "forgets producers": {"duplicate"},
    "cuts off a good batch": {"lost-write", "inconsistent-offset"},
}


@pytest.mark.parametrize("mutant", [LAZY, *[pytest.param(name, marks=pytest.mark.long) for name in MUTANTS if name != LAZY]])
@pytest.mark.timeout(600)
def test_a_broker_that_breaks_a_promise_is_caught(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: set[str] = set()
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", mutated(folder, mutant))
            found = noticed(folder)
        if found & EXPECTED[mutant]:
            break
    assert found & EXPECTED[mutant], f"a broker that {mutant} got through {ATTEMPTS} runs; found {found or 'nothing'}"
