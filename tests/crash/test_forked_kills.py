"""5,000 kills of the storage code on a real disk, by forks: see `forked_kills`. In processes of their own, because this one has
threads (of pytest-xdist), and a process with threads must not fork."""

import subprocess
import sys

import pytest

RUNS = 5
CYCLES = 1_000  # a run


@pytest.mark.parametrize("seed", range(1, RUNS + 1))
@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_by_a_thousand_kills(seed: int) -> None:
    command = [sys.executable, "-m", "tests.crash.forked_kills", "--cycles", str(CYCLES), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
