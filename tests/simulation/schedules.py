"""Crash schedules of the storage, as many as there are: small random workloads, cut off before each operation of their disk.

A *schedule* is a workload, the operation before which the power went, and what was left of everything not yet fsynced: which of
the pending writes and renames made it, and where the one under way was torn. Before each operation all such remainders are
enumerated (tears at the first byte, in the middle, before the last, and by sectors); where there are more than
`COMBINATIONS_MAX`, that many are drawn. Remainders that leave the same bytes are one schedule. Each is recovered and
compared with what had been acknowledged. One in `AGAIN_EVERY` is cut off a second time while it recovers, which makes it a
schedule more.

A workload runs once: the disk is forked, not the run.
"""

import hashlib
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from logsvc.storage.partition_log import PartitionLog
from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc.testing.simulated_nodes import FileNode, Node
from tests.simulation.test_storage_crash import Journal, check, stop_at
from tests.storage_support import append_numbered, new_disk, open_log

COMBINATIONS_MAX = 40
AGAIN_EVERY = 8
STEPS = 24
FATES = (0.2, 0.5, 0.7, 0.9)  # of a change: kept, torn at a byte, torn by sectors, lost; see `FileNode.after_crash`


class Tally(NamedTuple):
    workloads: int
    points: int
    schedules: int
    twice: int  # of the schedules, those cut off again while recovering

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]
        return Tally(*(mine + others for mine, others in zip(self, other, strict=True)))


class Everything(Random):
    """Not random: each choice in its turn. `next_turn` goes on to the next combination, until there are no more."""

    def __init__(self) -> None:
        super().__init__(0)
        self._script: list[tuple[int, int]] = []  # what was chosen, of how many
        self._at = 0

    def _choose(self, options: int) -> int:
        if self._at == len(self._script):
            self._script.append((0, options))
        self._at += 1
        return self._script[self._at - 1][0]

    def random(self) -> float:
        return FATES[self._choose(len(FATES))]

    def randrange(self, stop: int) -> int:  # type: ignore[override]
        options = sorted({0, stop // 2, stop - 1})
        return options[self._choose(len(options))]

    def next_turn(self) -> bool:
        self._at = 0
        while self._script:
            chosen, options = self._script.pop()
            if chosen + 1 < options:
                self._script.append((chosen + 1, options))
                return True
        return False


def remainders(disk: SimulatedDisk, rng: Random, *, ordered: bool) -> Iterator[SimulatedDisk]:
    """What a power cut now may leave, each once."""
    seen: set[bytes] = set()
    every = Everything()
    found = []
    complete = False
    for _ in range(COMBINATIONS_MAX):
        if complete:
            break
        survivor = disk.crash(every, ordered=ordered)
        if (print_ := fingerprint(survivor)) not in seen:
            seen.add(print_)
            found.append(survivor)
        complete = not every.next_turn()
    if not complete:
        # Too many: what comes first in the enumeration is no fair sample of them.
        seen.clear()
        found = []
        for _ in range(COMBINATIONS_MAX):
            survivor = disk.crash(rng, ordered=ordered)
            if (print_ := fingerprint(survivor)) not in seen:
                seen.add(print_)
                found.append(survivor)
    yield from found


def fingerprint(disk: SimulatedDisk) -> bytes:
    """Of everything that is on it."""
    digest = hashlib.blake2b(digest_size=16)

    def add(name: str, node: Node) -> None:
        if isinstance(node, FileNode):
            digest.update(b"%s:%d:" % (name.encode(), len(node.durable)))
            digest.update(node.durable)
            return
        digest.update(b"%s{" % name.encode())
        for below in sorted(node.durable):
            add(below, node.durable[below])
        digest.update(b"}")

    add("", disk._root)
    return digest.digest()


def workload(disk: SimulatedDisk, journal: Journal, rng: Random) -> None:
    """Appends, syncs, trims and clean restarts, over a few segments."""
    log = open_log(disk, segment_bytes=1_024)
    for _ in range(STEPS):
        act = rng.random()
        if act < 0.62:
            count = rng.randint(1, 6)
            journal.written = log.end_offset + count
            append_numbered(log, count)
        elif act < 0.88:
            journal.acked = max(journal.acked, log.sync())
        elif act < 0.95:
            journal.trimmed = rng.randint(log.start_offset, log.high_watermark)
            journal.start = log.trim(journal.trimmed)
        else:
            log = reopened(disk, log, journal)
    log.close()
    journal.acked = log.end_offset


def reopened(disk: SimulatedDisk, log: PartitionLog, journal: Journal) -> PartitionLog:
    log.close()
    journal.acked = log.end_offset
    return open_log(disk, segment_bytes=1_024)


def run_workload(seed: int, make_disk: "type[SimulatedDisk] | None" = None) -> Tally:
    """Every schedule of one workload. AssertionError when one of them loses something."""
    rng, luck = Random(f"workload/{seed}"), Random(f"luck/{seed}")
    ordered = seed % 2 == 0
    disk, journal = new_disk(), Journal()
    if make_disk is not None:
        mutant = make_disk()
        mutant._root, disk = disk._root, mutant
    points = schedules = twice = 0

    def cut(operation: Operation) -> None:
        nonlocal points, schedules, twice
        points += 1
        for survivor in remainders(disk, luck, ordered=ordered):
            schedules += 1
            try:
                if schedules % AGAIN_EVERY == 0 and (again := recovering(survivor, luck)) is not None:
                    twice += 1
                    survivor = again
                check(open_log(survivor), journal, ordered=ordered)
            except Exception as error:
                raise AssertionError(f"workload {seed}, before {operation}: {error!r}") from error

    disk.hook = cut
    workload(disk, journal, rng)
    return Tally(1, points, schedules + twice, twice)


def recovering(disk: SimulatedDisk, luck: Random) -> SimulatedDisk | None:
    """The disk after a second power cut, at some operation of its recovery; None when recovery had fewer."""
    copy = disk.crash(luck)  # everything on it is durable
    stop_at(copy, copy.operations + luck.randint(1, 40))
    try:
        open_log(copy)
    except SimulatedCrash:
        return copy.crash(luck, ordered=True)
    return None


def run_workloads(first: int, count: int) -> Tally:
    total = Tally(0, 0, 0, 0)
    for seed in range(first, first + count):
        total += run_workload(seed)
    return total
