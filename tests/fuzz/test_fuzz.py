"""Millions of inputs go to the decoders and to recovery by `make fuzz`; here as many as CI has time for; the seed is fixed."""

import pytest

from tests.fuzz.__main__ import SEED, run
from tests.fuzz.targets import TARGETS

# Twenty seconds of one core in all.
COUNTS = {"frames": 100_000, "batches": 100_000, "compressed batches": 15_000, "scan": 50_000, "recovery": 15_000}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(300)
def test_whatever_comes_only_typed_errors_leave(name: str) -> None:
    target = TARGETS[name](SEED)
    rate = run(target, 0, COUNTS[name])
    print(f"{name}: {COUNTS[name]} inputs, seed {SEED}, {target.accepted} accepted, {rate:.0f} a CPU second")
    assert target.accepted, "nothing was ever accepted: the mutations destroy everything, and prove nothing"
    assert target.accepted < COUNTS[name], "nothing was ever refused"
