"""`make fuzz INPUTS=N`, or `python -m tests.fuzz --inputs N [--seed S] [--target NAME] [--only NUMBER]`.

Every input has a number; a failure names target, seed and number, and `--only` runs that one alone.
"""

import argparse
import faulthandler
import logging
import resource
import sys
import time

from tests.fuzz.targets import SHARES, TARGETS, Target

HANG_SECONDS = 60  # a thousand inputs take a tenth of a second; one that takes this long hangs
CHUNK = 1_000
SEED = 1
MEMORY_MIB_MAX = 400  # of the process: what inputs may make decoders allocate is bounded


class Failed(Exception):
    """An input got something out of a decoder that must not come out."""


def run(target: Target, first: int, count: int) -> float:
    """Run `count` inputs from `first` on; their rate per second of processor time. Raises Failed naming the input."""
    logging.disable(logging.CRITICAL)  # recovery tells of every torn tail
    try:
        return _run(target, first, count)
    finally:
        faulthandler.cancel_dump_traceback_later()
        logging.disable(logging.NOTSET)


def _run(target: Target, first: int, count: int) -> float:
    began = time.process_time()
    for chunk in range(first, first + count, CHUNK):
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        for number in range(chunk, min(chunk + CHUNK, first + count)):
            try:
                target.run(number)
            except Exception as error:
                alone = f"python -m tests.fuzz --target {target.name!r} --seed {target.seed} --only {number}"
                raise Failed(f"{target.name}, seed {target.seed}, input {number}: {error!r}; alone: {alone}") from error
    return count / (time.process_time() - began)


def memory_mib() -> int:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=3_000_000, help="in all; split over the targets")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--target", choices=[*TARGETS], help="only this one, which then gets all inputs")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one input of --target")
    options = parser.parse_args()
    if options.only is not None:
        TARGETS[options.target](options.seed).run(options.only)
        return 0
    shares = {options.target: 100} if options.target else SHARES
    total, began = 0, time.process_time()
    for name, share in shares.items():
        target, count = TARGETS[name](options.seed), options.inputs * share // 100
        rate = run(target, 0, count)
        total += count
        print(f"{name}: {count} inputs, {target.accepted} accepted, {rate:.0f} a CPU second", flush=True)
    seconds = time.process_time() - began
    rate = total / seconds
    print(f"{total} inputs, seed {options.seed}, {rate:.0f} a CPU second, at most {memory_mib()} MiB: only typed errors")
    return int(memory_mib() > MEMORY_MIB_MAX)


if __name__ == "__main__":
    sys.exit(main())
