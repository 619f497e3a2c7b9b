"""Three million inputs to the decoders and to recovery, two minutes of one core in all; `make fuzz` goes on from there."""

import pytest

from tests.fuzz.__main__ import SEED, run
from tests.fuzz.targets import TARGETS

PARTS = 3  # so that several cores share them
COUNTS = {"frames": 340_000, "batches": 260_000, "compressed batches": 40_000, "scan": 260_000, "recovery": 100_000}


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(300)
def test_whatever_comes_only_typed_errors_leave(name: str, part: int) -> None:
    target, count = TARGETS[name](SEED), COUNTS[name]
    rate = run(target, part * count, count)
    print(f"{name}: {count} inputs from {part * count}, seed {SEED}, {target.accepted} accepted, {rate:.0f} a CPU second")
    assert target.accepted, "nothing was ever accepted: the mutations destroy everything, and prove nothing"
    assert target.accepted < count, "nothing was ever refused"
