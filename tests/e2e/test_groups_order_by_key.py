"""The demo, watched: among the lines of a host that has a broken one, outcomes come in the order of the file.

An outcome is a line that was handled, or one that failed for the last time and goes to the dead letters. Once on a made-up log,
so that there is always something to see, and once on a real one where it lies beside the repository.
"""

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logsvc.cli import demo
from logsvc.cli.access_log import host_of, parse, sample_lines
from logsvc_client import Record
from tests.e2e.cli_runner import Runner

REAL_LOG = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasa_access_log_aug95_1930.log"


class Outcome(NamedTuple):
    line: bytes
    handled: bool


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """The demo's handlers tell what each record came to, in the order it did; a record delivered again is told again."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    class Watched(demo.Handlers):
        def _end(self, record: Record, *, handled: bool) -> None:
            with lock:
                outcomes.append(Outcome(record.value or b"", handled))
            super()._end(record, handled=handled)

    monkeypatch.setattr(demo, "Handlers", Watched)
    return outcomes


def is_sound(line: bytes) -> bool:
    try:
        parse(line)
    except ValueError:
        return False
    return True


def judge(lines: list[bytes], outcomes: list[Outcome], found: dict[str, Any]) -> None:
    sound = [line for line in lines if is_sound(line)]
    assert found["ok"], found
    assert (found["records_in"], found["handled"]) == (len(lines), len(sound))
    assert found["dead_lettered"] == len(lines) - len(sound) > 0
    of_file: defaultdict[bytes, list[Outcome]] = defaultdict(list)
    for line in lines:
        of_file[host_of(line) or b""].append(Outcome(line, is_sound(line)))
    seen: defaultdict[bytes, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        seen[host_of(outcome.line) or b""].append(outcome)
    troubled = {host for host, expected in of_file.items() if host and not all(outcome.handled for outcome in expected)}
    behind = sum(
        len(of_file[host]) - 1 - next(n for n, outcome in enumerate(of_file[host]) if not outcome.handled) for host in troubled
    )
    print(f"{len(troubled)} hosts with broken lines; {behind} of their lines come after the first broken one")
    assert troubled
    assert behind > 0
    for host in troubled:
        assert seen[host] == of_file[host], host


def test_outcomes_of_each_host_come_in_the_order_of_a_made_up_log(
    alone: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = list(sample_lines(3_000, broken_every=20, seed=7))
    (tmp_path / "access.log").write_bytes(b"".join(line + b"\n" for line in lines))
    outcomes = watch(monkeypatch)
    judge(lines, outcomes, alone.json("demo", "--file", str(tmp_path / "access.log")))


@pytest.mark.skipif(
    not REAL_LOG.exists(), reason=f"the real log is not there: {'/'.join(REAL_LOG.parts[-3:])} beside the repository"
)
def test_outcomes_of_each_host_come_in_the_order_of_a_real_log(alone: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in REAL_LOG.read_bytes().split(b"\n") if line]
    outcomes = watch(monkeypatch)
    judge(lines, outcomes, alone.json("demo", "--file", str(REAL_LOG)))
