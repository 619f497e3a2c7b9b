"""`make simulate SEEDS=n [FIRST=seed]` and `make simulate SEED=seed`: run many simulations, or one with its trace.

python -m tests.simulation.simulate --seeds 1000 --first 1
python -m tests.simulation.simulate --seed 4711
"""

import argparse
import sys
import time

from tests.simulation.world import World

PROGRESS_SECONDS = 0.5


def run_one(seed: int) -> int:
    """With its trace; 1 when something is wrong."""
    world = World(seed, show=print)
    wrong = world.run()
    for anomaly in wrong:
        print(f"ANOMALY {anomaly.kind}: {anomaly.detail}")
    print(f"seed {seed}: {len(wrong)} anomalies, {world.trace.lines} lines, trace {world.trace.hash}")
    return 1 if wrong else 0


def run_many(first: int, count: int, *, keep_going: bool) -> int:
    """With a line of progress; stops at the first seed that shows an anomaly."""
    begun = shown = time.monotonic()
    virtual_ms = deaths = failed = 0
    for done, seed in enumerate(range(first, first + count), 1):
        world = World(seed)
        try:
            wrong = world.run()
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]  # type: ignore[list-item]
            if not keep_going:
                print(f"\nseed {seed} failed. To see it alone: make simulate SEED={seed}", file=sys.stderr)
                raise
        virtual_ms += world.time.monotonic_ms()
        deaths += world.host.deaths
        now = time.monotonic()
        if now - shown > PROGRESS_SECONDS or done == count or wrong:
            shown = now
            rate = done / (now - begun)
            end = "\n" if done == count or wrong or not sys.stderr.isatty() else "\r"
            days = f"{virtual_ms / 3_600_000:.1f} virtual hours, {deaths} deaths of the broker"
            print(f"{done} of {count} seeds, {rate:.1f}/s, {days}, {failed} failed", file=sys.stderr, end=end)
        if wrong:
            failed += 1
            print(f"seed {seed}: {len(wrong)} anomalies")
            for anomaly in wrong[:5]:
                print(f"  {anomaly if isinstance(anomaly, str) else f'{anomaly.kind}: {anomaly.detail}'}")
            print(f"  to see it alone: make simulate SEED={seed}", flush=True)
            if not keep_going:
                return 1
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate the whole service: clients, network, broker, disk, from seeds.")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first that fails")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return run_one(arguments.seed)
    return run_many(arguments.first, arguments.seeds, keep_going=arguments.keep_going)


if __name__ == "__main__":
    sys.exit(main())
