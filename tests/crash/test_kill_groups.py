"""kill -9 of the broker under a working group: nothing unhandled, one dead letter for each that cannot be."""

from pathlib import Path

import pytest

from tests.crash.group_run import group_run
from tests.crash.test_kill_nine import seed


def judged(folder: Path, kills: int, records: int) -> None:
    figures = group_run(folder, kills=kills, records=records, seed=seed())
    print(figures)
    assert figures.wrong == [], figures
    assert figures.letters == figures.failing > 0
    assert figures.handled == figures.records - figures.failing


@pytest.mark.timeout(150)
def test_a_group_ends_well_through_eight_kills(tmp_path: Path) -> None:
    judged(tmp_path, kills=8, records=1_600)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_group_ends_well_through_a_hundred_kills(tmp_path: Path) -> None:
    judged(tmp_path, kills=100, records=20_000)
