"""Thousands of kills of the storage code on a real file system, by forks of a warm process: two to four milliseconds a cycle.

A child opens two partitions, an ordinary one and a compacted one, and appends, syncs, rolls, trims, compacts, writes
checkpoints, closes and opens again, until SIGKILL takes it: at a random moment, or before, half-way through or after a chosen
operation of the disk. What it was promised it notes in shared memory, which outlives it. The parent recovers both and holds
them against the notes; the next child goes on there. A record says its own offset, so that whatever is read can be checked.

`python -m tests.crash.forked_kills --cycles 5000` is a process of its own: one with threads must not fork.
"""

import argparse
import gc
import logging
import mmap
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NoReturn

from logsvc.storage.disk import RealDisk, RealFile
from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc_common.batch import Buffer, RecordData, encode, parse_header
from tests.storage_support import config, consume, numbered, read_all

CYCLES_PER_FOLDER = 40
MOMENT_SECONDS_MAX = 0.004  # a child is killed at the latest so long after its fork
OPERATION_MAX = 120  # or at one of so many operations
HANG_SECONDS = 30
KEYS = 5
RECORDS_KEPT = 60
NOTES = ("written", "acked", "trim_begun", "trimmed", "table_written", "table_acked", "operations")


class Notes:
    """Eight-byte numbers in memory that parent and children share: what was begun, what was promised."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def clear(self) -> None:
        for number in range(len(NOTES)):
            self._cells[number] = 0

    def __getitem__(self, name: str) -> int:
        return self._cells[NOTES.index(name)]

    def __setitem__(self, name: str, value: int) -> None:
        self._cells[NOTES.index(name)] = value


class Death:
    """Kills this process at the operation it was given: `before` it, `after` it, or when the next write is `half` done. Never
    for operation 0."""

    def __init__(self, notes: Notes, operation: int, moment: str) -> None:
        self.notes = notes
        self.countdown = operation or 1 << 62
        self.moment = moment

    def due(self, moment: str) -> bool:
        if moment == "before":
            self.countdown -= 1
            self.notes["operations"] += 1
        return self.countdown <= 0 and moment == self.moment

    def strike(self, moment: str) -> None:
        if self.due(moment):
            die()


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class MortalFile(RealFile):
    __slots__ = ("death",)
    death: Death

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        self.death.strike("before")
        if self.death.due("half"):
            data = b"".join(buffers)
            super().pwritev([data[: len(data) // 2]], position)
            die()
        written = super().pwritev(buffers, position)
        self.death.strike("after")
        return written

    def truncate(self, size: int) -> None:
        self.death.strike("before")
        super().truncate(size)
        self.death.strike("after")

    def datasync(self) -> None:
        self.death.strike("before")
        super().datasync()
        self.death.strike("after")


class MortalDisk(RealDisk):
    """The real disk; each operation that changes something may be the last."""

    def __init__(self, death: Death) -> None:
        self._death = death

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> MortalFile:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
        self._death.strike("before")
        file = MortalFile(os.open(path, flags, 0o600))
        file.death = self._death
        self._death.strike("after")
        return file

    def rename(self, source: str, target: str) -> None:
        self._death.strike("before")
        super().rename(source, target)
        self._death.strike("after")

    def unlink(self, path: str) -> None:
        self._death.strike("before")
        super().unlink(path)
        self._death.strike("after")

    def sync_dir(self, path: str) -> None:
        self._death.strike("before")
        super().sync_dir(path)
        self._death.strike("after")


def key_of(offset: int) -> bytes:
    return b"key %d" % (offset * 7 % KEYS)


def open_both(disk: RealDisk, folder: str) -> tuple[PartitionLog, PartitionLog]:
    log = PartitionLog.open(disk, f"{folder}/log-0", "log", 0, config())
    return log, PartitionLog.open(disk, f"{folder}/table-0", "table", 0, config(cleanup_policy="compact"))


def batch_at(offset: int, count: int, *, keyed: bool = False) -> bytes:
    """A batch whose records say their offsets. Its producer's sequences are the offsets too."""
    records = [RecordData(b"value %d" % n, key_of(n) if keyed else None, n) for n in range(offset, offset + count)]
    return encode(records, producer_id=7, producer_epoch=0, base_sequence=offset)


def live(folder: str, notes: Notes, rng: Random, death: Death) -> NoReturn:
    """A child's life: it ends by SIGKILL only."""
    disk = MortalDisk(death)
    log, table = open_both(disk, folder)
    while True:
        for _ in range(rng.randrange(1, 4)):
            count = rng.randrange(1, 4)
            notes["written"] = log.end_offset + count
            raw = batch_at(log.end_offset, count)
            log.append(raw, parse_header(raw), 0)
        notes["acked"] = log.sync()
        raw = batch_at(table.end_offset, 2, keyed=True)
        notes["table_written"] = table.end_offset + 2
        table.append(raw, parse_header(raw), 0)
        notes["table_acked"] = table.sync()
        what = rng.random()
        if log.end_offset - log.start_offset > RECORDS_KEPT and what < 0.5:
            notes["trim_begun"] = log.end_offset - RECORDS_KEPT // 2
            notes["trimmed"] = log.trim(notes["trim_begun"])
        elif what < 0.2:
            work = table.compaction(0)
            if work is not None:
                work.run()
                table.finish_compaction(work)
        elif what > 0.95:
            log.close()
            table.close()
            log, table = open_both(disk, folder)


class Wrong(Exception):
    """A promise was broken."""


def require(true: bool, what: str) -> None:
    if not true:
        raise Wrong(what)


def check(folder: str, notes: Notes) -> None:
    """Recover, and compare with what the dead children were promised."""
    log, table = open_both(RealDisk(), folder)
    for found in (log, table):
        require(found.state is PartitionState.ONLINE, f"{found}: {found.state_reason}")
        require(found.high_watermark == found.end_offset, f"{found}: not all of it is durable after recovery")
    ends = f"it ends at {log.end_offset}, {notes['acked']} were acknowledged, {notes['written']} written"
    require(notes["acked"] <= log.end_offset <= notes["written"], ends)
    start = f"it starts at {log.start_offset}; trimmed to {notes['trimmed']}, perhaps to {notes['trim_begun']}"
    require(notes["trimmed"] <= log.start_offset <= notes["trim_begun"], start)
    require(read_all(log) == numbered(log.start_offset, log.end_offset), "records lost, doubled or changed")
    if notes["acked"] > log.start_offset:
        again = log.append(*known_batch(log), 0)
        require(again.duplicate, "the producer is forgotten: its last batch was taken again")
    check_table(table, notes)
    notes["acked"] = notes["written"] = log.end_offset
    notes["trimmed"] = notes["trim_begun"] = log.start_offset
    notes["table_acked"] = notes["table_written"] = table.end_offset
    log.abandon()
    table.abandon()


def known_batch(log: PartitionLog):  # type: ignore[no-untyped-def]
    """The last batch there is, as its producer sent it."""
    data = log.read(log.end_offset - 1, 1)
    header = parse_header(data)
    raw = batch_at(header.base_offset, header.record_count)
    return raw, parse_header(raw)


def check_table(table: PartitionLog, notes: Notes) -> None:
    ends = f"the table ends at {table.end_offset}, {notes['table_acked']} were acknowledged, {notes['table_written']} written"
    require(notes["table_acked"] <= table.end_offset <= notes["table_written"], ends)
    found: set[int] = set()
    position = 0
    while data := table.read(position, 400):
        records, position = consume(data, position)
        for offset, value, _ in records:
            require(value == b"value %d" % offset, f"{value!r} at offset {offset}")
            found.add(offset)
    last = {key_of(offset): offset for offset in range(table.end_offset)}
    missing = set(last.values()) - found
    require(not missing, f"the last records of keys at {missing} are gone")


def cycle(folder: str, notes: Notes, rng: Random) -> str:
    """One child, its death, what it leaves; how it died."""
    chosen = rng.random() < 0.5
    death = Death(notes, rng.randrange(1, OPERATION_MAX) if chosen else 0, rng.choice(("before", "half", "after")))
    seed = rng.getrandbits(32)
    child = os.fork()
    if not child:
        try:
            signal.alarm(HANG_SECONDS)
            live(folder, notes, Random(seed), death)
        except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code, whatever happens
            traceback.print_exc()
        finally:
            os._exit(3)
    if not chosen:
        time.sleep(rng.random() * MOMENT_SECONDS_MAX)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    require(ended == -signal.SIGKILL, f"the child was not killed, it ended with {ended}")
    check(folder, notes)
    return death.moment if chosen else "a random moment"


def run(cycles: int, seed: int, root: Path) -> Counter[str]:
    """So many cycles; how often each kind of death struck. Raises Wrong with the cycle in its text."""
    assert threading.active_count() == 1, "a process with threads must not fork"
    notes, deaths, operations = Notes(), Counter[str](), 0
    gc.freeze()
    for number in range(cycles):
        if number % CYCLES_PER_FOLDER == 0:
            folder = root / f"run-{number}"
            for name in ("log-0", "table-0"):
                (folder / name).mkdir(parents=True)
            notes.clear()
            check(str(folder), notes)
        notes["operations"] = 0
        try:
            deaths[cycle(str(folder), notes, Random(seed * 1_000_003 + number))] += 1
        except Exception as error:
            raise Wrong(f"cycle {number} of seed {seed} ({folder}): {type(error).__name__}: {error}") from error
        operations += notes["operations"]
    deaths["operations of the disk"] = operations
    return deaths


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.forked_kills", description=__doc__)
    parser.add_argument("--cycles", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="logsvc-kills-") as root:
        deaths = run(options.cycles, options.seed, Path(root))
    seconds = time.perf_counter() - began
    told = ", ".join(f"{name}: {count}" for name, count in sorted(deaths.items()))
    each_ms = 1000 * seconds / options.cycles
    print(f"{options.cycles} kill cycles, seed {options.seed}, {each_ms:.1f} ms each ({told}): nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
