"""The machine stops at every disk operation of a workload, many times with different luck: nothing acknowledged may be lost.

Acknowledged means `sync` returned. After each crash the partition is opened again, by which recovery itself crashes too, and
is compared with what had been acknowledged and what had been written.
"""

from collections.abc import Callable
from random import Random

import pytest

from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc_common.errors import PartitionCorrupt
from tests.storage_support import append, append_numbered, new_disk, numbered, open_log, read_all

SEEDS_PER_STEP = 10
OPERATIONS_MAX = 2_000


class Journal:
    """What the world outside was told, kept while the workload runs."""

    def __init__(self) -> None:
        self.written = 0  # offsets handed out, acknowledged or not
        self.acked = 0
        self.trimmed = 0  # the highest trim that was begun
        self.start = 0  # the highest trim that was acknowledged


def workload(disk: SimulatedDisk, journal: Journal) -> None:
    """Appends of one to three records over several segments, syncs, rolls, a trim, retention, a clean restart."""
    log = open_log(disk, segment_bytes=1_024)
    for number in range(40):
        journal.written = log.end_offset + 1 + number % 3
        append_numbered(log, 1 + number % 3)
        if number % 3 == 2:
            journal.acked = max(journal.acked, log.sync())
        if number == 20:
            journal.trimmed = 15
            journal.start = log.trim(15)
        if number == 25:
            log.close()
            journal.acked = log.end_offset
            log = open_log(disk, segment_bytes=1_024)
        if number == 34:
            journal.trimmed = log.high_watermark
            journal.start = log.trim(log.high_watermark)
    log.close()
    journal.acked = log.end_offset


def stop_at(disk: SimulatedDisk, number: int) -> None:
    def hook(operation: Operation) -> None:
        if operation.number == number:
            raise SimulatedCrash(f"at {operation}")

    disk.hook = hook


def run_until(number: int, make_disk: Callable[[], SimulatedDisk] = new_disk) -> tuple[SimulatedDisk, Journal, bool]:
    """The workload stopped before operation `number`; True when it ended before that."""
    disk, journal = make_disk(), Journal()
    stop_at(disk, number)
    try:
        workload(disk, journal)
    except SimulatedCrash:
        return disk, journal, False
    return disk, journal, True


def check(log: PartitionLog, journal: Journal, *, ordered: bool) -> None:
    """Everything acknowledged is there, once, in order; nothing is there that was never written."""
    if ordered:
        assert log.state is PartitionState.ONLINE, log.state_reason
    assert log.end_offset >= journal.acked
    assert journal.start <= log.start_offset <= max(journal.trimmed, journal.start)
    if log.state is PartitionState.ONLINE:
        assert log.end_offset <= journal.written
        assert log.high_watermark == log.end_offset
        assert read_all(log) == numbered(log.start_offset, log.end_offset)
        assert append(log, [b"next"]).base_offset == log.end_offset - 1
    else:
        # Unsynced writes reached the disk out of order: a good batch after a bad one looks like corruption, and is treated so.
        begin = log.start_offset
        found = [record for record in read_until_corrupt(log, begin) if record[0] >= begin]  # a trim may cut into a batch
        assert found[: max(0, journal.acked - begin)] == numbered(begin, journal.acked)


def read_until_corrupt(log: PartitionLog, offset: int) -> list[tuple[int, bytes, int]]:
    found: list[tuple[int, bytes, int]] = []
    while offset < log.end_offset:
        try:
            step = read_all(log, offset, up_to=None, max_bytes=1) if not found else read_all(log, offset, max_bytes=1)
        except PartitionCorrupt:
            step = one_batch_at_a_time(log, offset)
            return found + step
        found += step
        offset = found[-1][0] + 1 if found else log.end_offset
    return found


def one_batch_at_a_time(log: PartitionLog, offset: int) -> list[tuple[int, bytes, int]]:
    from tests.storage_support import consume

    found: list[tuple[int, bytes, int]] = []
    while offset < log.high_watermark:
        try:
            records, offset = consume(log.read(offset, 1), offset)
        except PartitionCorrupt:
            break
        found += records
    return found


@pytest.mark.parametrize("ordered", [True, False], ids=["prefix-survives", "any-subset-survives"])
def test_nothing_acknowledged_is_lost_by_a_power_cut_at_any_operation(ordered: bool) -> None:
    done, number = False, 0
    while not done:
        number += 1
        assert number < OPERATIONS_MAX
        disk, journal, done = run_until(number)
        for seed in range(SEEDS_PER_STEP):
            survivor = disk.crash(Random(number * 1_000 + seed), ordered=ordered)
            check(open_log(survivor), journal, ordered=ordered)
    print(f"{number} crash points, {number * SEEDS_PER_STEP} disks")
    assert number > 150


def test_nothing_written_is_lost_by_killing_the_process_at_any_operation() -> None:
    done, number = False, 0
    while not done:
        number += 1
        disk, journal, done = run_until(number)
        log = open_log(disk.kill())
        check(log, journal, ordered=True)


def test_recovery_may_crash_at_any_of_its_own_operations() -> None:
    """Crash the workload, then crash recovery at each step, with a power cut each time, then recover."""
    for number in range(8, 200, 6):
        disk, journal, _ = run_until(number)
        first = disk.crash(Random(number), ordered=True)
        for step in range(1, OPERATIONS_MAX):
            again = first.crash(Random(step))  # everything on it is durable: a plain copy
            stop_at(again, step)
            try:
                open_log(again)
            except SimulatedCrash:
                check(open_log(again.crash(Random(step * 7), ordered=True)), journal, ordered=True)
                continue
            break


class LyingDisk(SimulatedDisk):
    """A mutant: its datasync does nothing."""

    def sync_file(self, node: object) -> None:
        pass


class ForgetfulFolders(SimulatedDisk):
    """A mutant: its sync_dir does nothing."""

    def sync_dir(self, path: str) -> None:
        self.step("sync_dir", path)


@pytest.mark.parametrize("mutant", [LyingDisk, ForgetfulFolders])
def test_a_disk_that_only_pretends_to_sync_is_caught(mutant: type[SimulatedDisk]) -> None:
    """The harness is tested too: with such a disk the checks above must fail."""

    def make_disk() -> SimulatedDisk:
        healthy = new_disk()
        disk = mutant()
        disk._root = healthy._root
        return disk

    caught = 0
    for number in range(20, 200, 20):
        disk, journal, _ = run_until(number, make_disk)
        try:
            check(open_log(disk.crash(Random(number), ordered=True)), journal, ordered=True)
        except AssertionError:
            caught += 1
    assert caught > 0


def directory_workload(disk: SimulatedDisk, done: set[str]) -> None:
    logs = LogDirectory.open(disk, "root/data", now_ms=0)
    logs.create_topic("keep", 2, {"retention.ms": "-1"})
    done.add("keep")
    append(logs.partition("keep", 1), [b"precious"])
    logs.partition("keep", 1).sync()
    done.add("precious")
    logs.create_topic("gone", 3, {})
    done.add("gone")
    append(logs.partition("gone", 0), [b"old"])
    logs.partition("gone", 0).sync()
    logs.add_partitions("keep", 3)
    done.add("grown")
    logs.alter_topic("keep", {"retention.ms": None, "flush": "os"})
    done.add("altered")
    done.add("deleting")
    logs.delete_topic("gone")
    done.add("deleted")
    logs.create_topic("gone", 1, {})
    done.add("again")
    logs.close()


@pytest.mark.parametrize("ordered", [True, False], ids=["prefix-survives", "any-subset-survives"])
def test_topics_are_made_grown_altered_and_deleted_wholly_or_not_at_all(ordered: bool) -> None:
    finished, number = False, 0
    while not finished:
        number += 1
        disk, done = SimulatedDisk(), set[str]()
        stop_at(disk, number)
        try:
            directory_workload(disk, done)
            finished = True
        except SimulatedCrash:
            pass
        for seed in range(SEEDS_PER_STEP):
            survivor = disk.crash(Random(number * 1_000 + seed), ordered=ordered)
            logs = LogDirectory.open(survivor, "root/data", now_ms=0)
            topics = logs.topics
            assert "keep" in topics or "keep" not in done
            if "precious" in done:
                assert [value for _, value, _ in read_all(logs.partition("keep", 1))] == [b"precious"]
            if "keep" in topics:
                keep = topics["keep"]
                assert len(keep.partitions) == 3 or ("grown" not in done and len(keep.partitions) == 2)
                assert keep.config.flush == "os" or "altered" not in done
            if "again" in done:
                assert len(topics["gone"].partitions) == 1
            elif "deleted" in done:
                assert "gone" not in topics or len(topics["gone"].partitions) == 1
            elif "gone" in done and "deleting" not in done:
                assert [value for _, value, _ in read_all(logs.partition("gone", 0))] in ([b"old"], [])
            if "gone" in topics and len(topics["gone"].partitions) == 1:
                assert logs.partition("gone", 0).end_offset == 0
            for log in logs.all_partitions():
                assert log.state is PartitionState.ONLINE
            names = survivor.listdir("root/data")
            assert not [name for name in names if name.endswith("-delete")]
            logs.close()
    assert number > 60


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
def test_many_random_workloads_with_power_cuts_in_a_row(block: int) -> None:
    """Hours of bad luck: each disk is used, cut off at a random operation, recovered and used again, twenty times."""
    for seed in range(block * 50, block * 50 + 50):
        rng = Random(seed)
        disk, acked, start = new_disk(), 0, 0
        for _ in range(20):
            stop_at(disk, disk.operations + rng.randrange(1, 300))
            try:
                log = open_log(disk)
                assert log.state is PartitionState.ONLINE, f"seed {seed}: {log.state_reason}"
                assert log.end_offset >= acked, f"seed {seed}"
                assert read_all(log) == numbered(log.start_offset, log.end_offset), f"seed {seed}"
                acked = log.end_offset
                while True:
                    append_numbered(log, rng.randrange(1, 4))
                    if rng.random() < 0.4:
                        acked = log.sync()
                    if rng.random() < 0.02:
                        start = log.trim(rng.randint(log.start_offset, log.high_watermark))
                    if rng.random() < 0.01:
                        log.close()
                        log = open_log(disk)
                        acked = log.end_offset
            except SimulatedCrash:
                pass
            disk = disk.crash(rng, ordered=True)
        assert open_log(disk).start_offset >= start, f"seed {seed}"
