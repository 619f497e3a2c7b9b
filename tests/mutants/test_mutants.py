"""Every mutant fits the source; some of them are run here, all of them by `make mutants`."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS, PAGE, ROOT, copy_source, judge, page
from tests.mutants.__main__ import Verdict as MutantVerdict
from tests.mutants.mutant import Mutant, Stale

MUTANTS_MIN = 25
EVERY = 10  # in `make test`: the others are run by `make test-long` and by `make mutants`
SAMPLE = MUTANTS[::EVERY]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("mutated"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_fits_the_source(mutant: Mutant) -> None:
    mutant.check(ROOT)


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= MUTANTS_MIN


def test_the_page_is_the_one_a_run_writes_when_all_are_caught() -> None:
    assert PAGE.read_text() == page([MutantVerdict(mutant, "", 0.0) for mutant in MUTANTS]), "run `make mutants ARGS=--write`"


def test_a_mutant_whose_source_has_changed_is_stale() -> None:
    mutant = MUTANTS[0]._replace(old="what was never there")
    with pytest.raises(Stale, match="occurs 0 times"):
        mutant.check(ROOT)
    with pytest.raises(Stale, match="no test"):
        MUTANTS[0]._replace(caught_by="tests/mutants/test_mutants.py::test_of_another_time").check(ROOT)


def test_a_mutant_that_changes_nothing_survives(copy: Path) -> None:
    harmless = Mutant(
        "harmless", "nothing", "logsvc/clock.py", "import time\n", "import time  # as before\n", SAMPLE[3].caught_by
    )
    assert judge(harmless, copy).problem.startswith("survives")


@pytest.mark.parametrize("mutant", SAMPLE, ids=lambda mutant: mutant.name)
@pytest.mark.timeout(400)
def test_a_mutant_is_caught(mutant: Mutant, copy: Path) -> None:
    verdict = judge(mutant, copy)
    assert not verdict.problem, f"{mutant.name}: {verdict.problem}"


@pytest.mark.long
@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant not in SAMPLE], ids=lambda mutant: mutant.name)
@pytest.mark.timeout(400)
def test_every_other_mutant_is_caught_too(mutant: Mutant, copy: Path) -> None:
    verdict = judge(mutant, copy)
    assert not verdict.problem, f"{mutant.name}: {verdict.problem}"
