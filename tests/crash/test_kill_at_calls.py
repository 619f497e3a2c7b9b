"""kill -9 between any two things the broker does to its disk (strace); nothing acknowledged is lost, nothing is there twice."""

from pathlib import Path

import pytest

from tests.crash.strace_kill import CALLS, RECORDS, WRITES, killed_at, skip_without_strace

# A taste of the sweep for every run: the first calls of a start, of a topic, of a roll, and of a recovery.
SAMPLE = [
    (WRITES, 1, None),
    (WRITES, 9, (WRITES, 1)),
    ("fdatasync", 3, None),
    ("fsync", 6, ("fsync", 2)),
    ("ftruncate", 4, ("ftruncate", 1)),
    ("rename", 3, ("rename", 1)),
    ("mkdir", 4, None),
]
SWEPT_MAX = 60  # calls of one kind tried; more of them are more of the same


@pytest.fixture(autouse=True)
def _strace() -> None:
    skip_without_strace()


@pytest.mark.parametrize(
    ("call", "number", "recovery"), SAMPLE, ids=[f"{call.split(',')[0]} {number}" for call, number, _ in SAMPLE]
)
@pytest.mark.timeout(90)
def test_killed_at_a_call(tmp_path: Path, call: str, number: int, recovery: tuple[str, int] | None) -> None:
    outcome = killed_at(tmp_path, call, number, recovery)
    assert outcome.wrong == []
    assert outcome.kills >= 1
    assert outcome.acked == outcome.stored == RECORDS


@pytest.mark.long
@pytest.mark.parametrize("call", CALLS, ids=[call.split(",")[0] for call in CALLS])
@pytest.mark.timeout(1_800)
def test_killed_at_every_call_of_a_kind_and_again_while_recovering(tmp_path: Path, call: str) -> None:
    kills = 0
    for number in range(1, SWEPT_MAX + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = killed_at(folder, call, number, (CALLS[number % len(CALLS)], 1 + number // len(CALLS)))
        assert outcome.wrong == [], (call, number)
        assert outcome.acked == outcome.stored == RECORDS
        if not outcome.kills:
            break  # the run has fewer such calls in one thread
        kills += outcome.kills
    print(f"{call}: {number} runs, {kills} kills, nothing lost, nothing twice")
    assert kills
