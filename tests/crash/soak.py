"""`make soak MINUTES=N`: kills, power cuts and checked histories in turns for N minutes, a table that grows, a verdict.

Each round has a seed and a folder of its own. A round that finds nothing wrong leaves nothing behind; one that does leaves its
folder (journals, broker log, data or disk image) with the seed and the anomalies in `verdict.txt`, and the name of the folder
is printed. Bounded: the rounds by the minutes, a round by its own time limits, the disk by one round and FAILURES_MAX folders.

Exit code: 0 nothing wrong, 5 something was found.
"""

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.crash.fault_run import fault_run
from tests.crash.faults import MIXES
from tests.crash.group_run import group_run
from tests.crash.kill_run import Figures, Kills, kill_run
from tests.crash.mounts import drive
from tests.crash.nursery import nursery
from tests.crash.power import ENVIRONMENT, FILESYSTEMS, PowerCuts
from tests.history.log import Anomaly

KILL_CYCLES = 40
CUT_CYCLES = 30
GROUP_KILLS, GROUP_RECORDS = 8, 1_600
HISTORY_S = 45.0
FAILURES_MAX = 5
SOMETHING_WRONG = 5  # exit code, as of `logsvc verify`
FREE_BYTES_MIN = 2 << 30  # a soak ends before it fills the disk of its host


@dataclass
class Found:
    """What a round came to. `blows` are kills, cuts or faults."""

    blows: int = 0
    acked: int = 0
    stored: int = 0
    letters: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Row:
    """A line of the table: all rounds of one kind."""

    rounds: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    skipped: str = ""

    def add(self, found: Found, seconds: float) -> None:
        self.rounds += 1
        self.seconds += seconds
        self.counts.update(blows=found.blows, acked=found.acked, stored=found.stored, letters=found.letters)
        self.wrong += len(found.wrong)


def _told(wrong: list[Anomaly]) -> list[str]:
    return [f"{anomaly.kind}: {anomaly.detail}" for anomaly in wrong]


def _of(figures: Figures, wrong: list[Anomaly]) -> Found:
    return Found(figures.kills, figures.acked, figures.stored, 0, _told(wrong))


def kills(folder: Path, seed: int) -> Found:
    with nursery() as forks:
        return _of(*kill_run(folder, cycles=KILL_CYCLES, seed=seed, world=Kills(forks)))


def cuts(filesystem: str, folder: Path, seed: int) -> Found:
    with nursery(environment=ENVIRONMENT) as forks, drive(folder, *FILESYSTEMS[filesystem]) as mounted:
        mounted.keep = True
        world = PowerCuts(mounted, forks)
        found = _of(*kill_run(folder, cycles=CUT_CYCLES, seed=seed, world=world))
        found.wrong += world.degraded
        if world.report is None or not world.report.ok:
            found.wrong.append(f"logsvc verify: {world.report}")
        mounted.keep = bool(found.wrong)
        return found


def group(folder: Path, seed: int) -> Found:
    figures = group_run(folder, kills=GROUP_KILLS, records=GROUP_RECORDS, seed=seed)
    return Found(figures.kills, figures.records, figures.records, figures.letters, figures.wrong)


def history(mix: str, folder: Path, seed: int) -> Found:
    outcome = fault_run(folder, mix, seconds=HISTORY_S, seed=seed)
    return Found(outcome.faults.total(), outcome.acked, outcome.stored, outcome.letters, _told(outcome.wrong))


ROUNDS: Mapping[str, Callable[[Path, int], Found]] = {
    "kill -9": kills,
    **{f"power cuts, {name}": partial(cuts, name) for name in FILESYSTEMS},
    "kill -9 under a group": group,
    **{f"history: {mix}": partial(history, mix) for mix in MIXES},
}


class Soak:
    """The table, and the evidence."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = {name: Row() for name in ROUNDS}
        self.evidence: list[Path] = []

    def round(self, name: str, seed: int) -> None:
        """Run one; what is wrong stays."""
        folder = self.folder / f"{name.replace(' ', '-').replace(',', '').replace(':', '')}-{seed}"
        folder.mkdir()
        began = time.monotonic()
        try:
            found = ROUNDS[name](folder, seed)
        except pytest.skip.Exception as skipped:
            self.rows[name].skipped = str(skipped)
            found = Found()
        except Exception:  # noqa: BLE001 -- a round that breaks is a finding like any other
            found = Found(wrong=[traceback.format_exc()])
        seconds = time.monotonic() - began
        self.rows[name].add(found, seconds)
        print(self.line(name, found, seconds, seed), flush=True)
        if found.wrong:
            (folder / "verdict.txt").write_text(f"{name}, seed {seed}\n" + "\n".join(found.wrong) + "\n")
            self.evidence.append(folder)
            print(f"    WRONG: {found.wrong[0].strip().splitlines()[-1][:300]}\n    evidence: {folder}", flush=True)
        else:
            shutil.rmtree(folder)

    def line(self, name: str, found: Found, seconds: float, seed: int) -> str:
        if self.rows[name].skipped:
            return f"{name:<46} {self.rows[name].skipped}"
        verdict = f"{len(found.wrong)} WRONG" if found.wrong else "nothing wrong"
        return (
            f"{name:<46} {found.blows:>6} {found.acked:>9,} {found.stored:>9,} {found.letters:>7,} {seconds:>7.0f}  "
            f"{verdict}, seed {seed}"
        )

    def summary(self) -> str:
        lines = [
            "",
            "| what | rounds | blows | acknowledged | stored | dead letters | anomalies | seconds |",
            "|---|" + "---|" * 7,
        ]
        for name, row in self.rows.items():
            if row.skipped or not row.rounds:
                lines.append(f"| {name} | {row.skipped or 'no time for it'} | | | | | | |")
                continue
            counts = row.counts
            lines.append(
                f"| {name} | {row.rounds} | {counts['blows']} | {counts['acked']:,} | {counts['stored']:,} | "
                f"{counts['letters']:,} | {row.wrong} | {row.seconds:.0f} |"
            )
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--only", action="append", choices=ROUNDS, help="these rounds alone; may be given more than once")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)  # the clients tell of every fault, which is what they are there for
    until = time.monotonic() + asked.minutes * 60
    soak = Soak(Path(tempfile.mkdtemp(prefix="logsvc-soak-")))
    print(f"{'':<46} {'blows':>6} {'acked':>9} {'stored':>9} {'letters':>7} {'seconds':>7}", flush=True)
    seed = asked.seed
    names = asked.only or list(ROUNDS)
    while time.monotonic() < until and len(soak.evidence) < FAILURES_MAX:
        if shutil.disk_usage(soak.folder).free < FREE_BYTES_MIN:
            print("the disk of this machine is nearly full: ended early")
            break
        live = [name for name in names if not soak.rows[name].skipped]
        if not live:
            break
        soak.round(live[(seed - asked.seed) % len(live)], seed)
        seed += 1
    print(soak.summary())
    if soak.evidence:
        print(f"\nverdict: {len(soak.evidence)} rounds found something wrong; see {soak.folder}")
        sys.exit(SOMETHING_WRONG)
    shutil.rmtree(soak.folder)
    print(f"\nverdict: nothing acknowledged was lost, nothing was silent (seeds {asked.seed} to {seed - 1})")


if __name__ == "__main__":
    main()
