"""`make mutants`, or `python -m tests.mutants [--only NAME] [--check] [--write]`: break the source, and see the tests notice.

Each mutant is applied to a copy of the source in a temporary folder, never to the working tree, and the tests it names are
run there. A mutant that survives, a stale one and a test that fails without any mutant are failures. `--check` only says
whether all can be applied; `--write` makes the table of docs/mutants.md from a run of all.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants import delivering, durability, keeping
from tests.mutants.mutant import Mutant, Stale

ROOT = Path(__file__).resolve().parents[2]
MUTANTS: tuple[Mutant, ...] = (*durability.MUTANTS, *keeping.MUTANTS, *delivering.MUTANTS)
COPIED = ("logsvc", "clients", "tests", "pyproject.toml")
PAGE = ROOT / "docs" / "mutants.md"
TEST_SECONDS_MAX = 300  # a mutant may make a test hang: that is noticed too
TESTS_FAILED = 1  # pytest's exit code; others say that it could not run them


class Verdict(NamedTuple):
    """What became of one mutant. `problem` is empty when it was caught."""

    mutant: Mutant
    problem: str
    seconds: float


def copy_source(folder: Path) -> Path:
    """A copy of what tests need, to be broken."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run_tests(folder: Path, tests: str) -> tuple[int, str]:
    """Run these tests against the copy in `folder`: pytest's exit code, the end of its output."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{folder / 'clients'}", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", ""]
    command = [sys.executable, "-m", "pytest", *options, *tests.split()]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return TESTS_FAILED, "it hangs"
    return done.returncode, (done.stdout + done.stderr)[-1_500:]


def judge(mutant: Mutant, folder: Path) -> Verdict:
    """Apply one mutant in `folder`, run its tests, and take it back."""
    began = time.perf_counter()
    path = folder / mutant.file
    source = path.read_text()
    try:
        mutant.check(folder)
        path.write_text(mutant.applied(source))
        code, output = run_tests(folder, mutant.caught_by)
    except Stale as stale:
        return Verdict(mutant, f"stale: {stale}", 0.0)
    finally:
        path.write_text(source)
    problem = "" if code == TESTS_FAILED else f"survives (pytest says {code}): {output}"
    return Verdict(mutant, problem, time.perf_counter() - began)


def judge_all(mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    """The verdicts, in order; so many at a time, each in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="logsvc-mutants-") as root:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            folders.put(copy_source(Path(root) / str(number)))

        def one(mutant: Mutant) -> Verdict:
            folder = folders.get()
            try:
                return judge(mutant, folder)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutants))


def sound(mutants: Sequence[Mutant]) -> str:
    """Empty when the tests named by these pass without any mutant; else what fails."""
    tests = " ".join(dict.fromkeys(test for mutant in mutants for test in mutant.caught_by.split()))
    with tempfile.TemporaryDirectory(prefix="logsvc-mutants-") as root:
        code, output = run_tests(copy_source(Path(root) / "sound"), tests)
    return output if code else ""


def page(verdicts: Sequence[Verdict]) -> str:
    """docs/mutants.md."""
    rows = []
    for mutant, problem, _ in verdicts:
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in mutant.caught_by.split())
        rows.append(f"| {mutant.name} | {mutant.breaks} | `{mutant.file}` | {tests if not problem else '**nothing**'} |")
    caught = sum(not verdict.problem for verdict in verdicts)
    return "\n".join(
        [
            "# Mutants",
            "",
            "A test that cannot fail proves nothing. Each mutant below is one change of the source that breaks one promise; it",
            "is applied to a copy, and the test named beside it must fail. `make mutants` runs all of them, and",
            "`python -m tests.mutants --only NAME` one; one that no longer fits the source is told as stale, not skipped.",
            "`make test` checks that all fit, and runs a part of them. This page is written by `make mutants ARGS=--write`.",
            "",
            f"{caught} of {len(verdicts)} caught.",
            "",
            "| mutant | what it breaks | in | caught by |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="the mutants whose name contains this")
    parser.add_argument("--check", action="store_true", help="only see whether they can be applied")
    parser.add_argument("--write", action="store_true", help="write docs/mutants.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only is None or options.only in mutant.name]
    if options.check:
        for mutant in chosen:
            mutant.check(ROOT)
        print(f"{len(chosen)} mutants fit the source")
        return 0
    if failing := sound(chosen):
        print(f"tests fail without any mutant: {failing}")
        return 1
    began = time.perf_counter()
    verdicts = judge_all(chosen, options.jobs)
    for mutant, problem, seconds in verdicts:
        print(f"{'caught' if not problem else 'NOT CAUGHT'} in {seconds:.1f} s: {mutant.name} {problem}")
    if options.write:
        PAGE.write_text(page(verdicts))
    caught = sum(not verdict.problem for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} mutants caught, {time.perf_counter() - began:.0f} s")
    return int(caught < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
