"""The disk fails: fsync, write, read, no room. Each has one consequence, and other partitions do not notice."""

import errno
import threading
from random import Random

import pytest

from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.errors import DiskFull, StorageFailed
from tests.storage_support import FOLDER, append, append_numbered, filled, new_disk, numbered, open_log, read_all


def append_until_refused(log: PartitionLog, value: bytes = b"") -> None:
    for _ in range(1_000):
        append(log, [value]) if value else append_numbered(log)


def test_a_failed_fsync_is_never_tried_again_and_takes_the_partition_offline() -> None:
    disk = new_disk()
    log = filled(disk, 3)
    append_numbered(log)
    disk.fail("datasync")
    with pytest.raises(StorageFailed, match="fsync failed"):
        log.sync()
    assert log.state is PartitionState.FAILED
    syncs = []
    disk.hook = lambda operation: syncs.append(operation) if operation.kind == "datasync" else None
    for attempt in (log.sync, lambda: append_numbered(log), lambda: log.read(0, 100), lambda: log.trim(1)):
        with pytest.raises(StorageFailed, match="offline until the broker is restarted"):
            attempt()
    assert not syncs
    assert log.durable_offset == 6


def test_after_a_failed_fsync_recovery_keeps_what_was_acknowledged() -> None:
    disk = new_disk()
    log = filled(disk, 3)
    append_numbered(log)
    disk.fail("datasync")
    with pytest.raises(StorageFailed):
        log.sync()
    log.close()
    for seed in range(20):
        survivor = disk.crash(Random(seed), ordered=True)
        assert read_all(open_log(survivor))[:6] == numbered(0, 6)


def test_after_a_failed_fsync_and_a_restart_without_a_reboot_nothing_acknowledged_is_lost() -> None:
    # The pages are there and no longer dirty: an fsync of the next life would succeed and write nothing.
    disk = new_disk()
    log = filled(disk, 3)
    append_numbered(log)
    disk.fail("datasync")
    with pytest.raises(StorageFailed):
        log.sync()
    log.abandon()

    log = open_log(disk.kill())
    assert log.end_offset == 8
    append_numbered(log)
    assert log.sync() == 10
    assert read_all(open_log(disk.crash(Random(1)))) == numbered(0, 10)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_while_rolling_fails_the_append(error: int) -> None:
    disk = new_disk()
    log = open_log(disk, segment_bytes=1_024)
    disk.fail("datasync", error=error)
    with pytest.raises(StorageFailed, match="fsync failed"):
        append_until_refused(log)
    assert log.state is PartitionState.FAILED


@pytest.mark.parametrize("to_bytes", [0, 1, 15, 16, 17, 60, 88])
def test_a_short_write_is_completed(to_bytes: int) -> None:
    disk = new_disk()
    log = filled(disk, 2)
    disk.shorten_write(to_bytes=to_bytes)
    append_numbered(log)
    log.sync()
    assert read_all(log) == numbered(0, 6)


def test_a_write_that_fails_half_way_is_taken_back() -> None:
    disk = new_disk()
    log = filled(disk, 2)
    size = disk.file_size(f"{FOLDER}/{0:020d}.log")
    disk.shorten_write(to_bytes=30)
    disk.fail("write", nth=2, error=errno.ENOSPC)
    with pytest.raises(DiskFull):
        append_numbered(log)
    assert disk.file_size(f"{FOLDER}/{0:020d}.log") == size
    assert log.state is PartitionState.ONLINE
    append_numbered(log)
    log.sync()
    assert read_all(log) == numbered(0, 6)


def test_when_not_even_taking_back_works_the_partition_goes_offline() -> None:
    disk = new_disk()
    log = filled(disk, 2)
    disk.fail("write", error=errno.ENOSPC)
    disk.fail("truncate")
    with pytest.raises(StorageFailed):
        append_numbered(log)
    assert log.state is PartitionState.FAILED


def test_a_full_disk_refuses_writes_serves_reads_and_recovers_when_room_is_made() -> None:
    disk = new_disk()
    log = open_log(disk, segment_bytes=1 << 20)
    disk.capacity_bytes = disk.used_bytes() + 1_000
    with pytest.raises(DiskFull, match="no room"):
        append_until_refused(log)
    written = log.end_offset
    assert written
    for _ in range(3):
        with pytest.raises(DiskFull):
            append_numbered(log)
    log.sync()
    assert read_all(log) == numbered(0, written)
    disk.capacity_bytes += 10_000
    append_numbered(log)
    log.sync()
    assert read_all(log) == numbered(0, written + 2)


def test_a_full_disk_stops_a_roll_and_a_checkpoint_but_loses_nothing() -> None:
    disk = new_disk()
    log = open_log(disk)
    disk.capacity_bytes = disk.used_bytes() + 4_096
    with pytest.raises(DiskFull):
        append_until_refused(log)
    written = log.sync()
    assert written == log.end_offset > 20
    assert read_all(log) == numbered(0, written)
    disk.capacity_bytes += 2_000
    append_numbered(log)
    written += 2
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(DiskFull):
        log.close()
    log = open_log(disk.kill())
    assert log.state in (PartitionState.ONLINE, PartitionState.FAILED)
    disk.capacity_bytes *= 2
    assert read_all(open_log(disk.kill())) == numbered(0, written)


def test_retention_and_trim_make_room_on_a_disk_without_any() -> None:
    disk = new_disk()
    log = open_log(disk, retention_bytes=2_000)
    for _ in range(60):
        append_numbered(log)
    log.sync()
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(DiskFull):
        append_until_refused(log)
    assert log.apply_retention(0) > 2
    start = log.start_offset
    append_numbered(log)
    log.sync()
    assert read_all(open_log(disk.kill())) == numbered(start, log.end_offset)

    log = open_log(disk)
    disk.capacity_bytes = disk.used_bytes()
    log.trim(start + 30)
    assert read_all(log) == numbered(start + 30, log.end_offset)
    assert read_all(open_log(disk.kill())) == numbered(start + 30, log.end_offset)


def test_a_trim_that_deletes_nothing_cannot_be_kept_on_a_full_disk() -> None:
    disk = new_disk()
    log = filled(disk, 3, segment_bytes=1 << 20)
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(DiskFull):
        log.trim(3)
    assert log.start_offset == 0


def test_headroom_is_kept_for_internal_topics() -> None:
    disk = SimulatedDisk(capacity_bytes=20 << 20)
    logs = LogDirectory.open(disk, "d", now_ms=0, reserve_bytes=16 << 20)
    logs.create_topic("t", 1, {})
    logs.create_topic("__internal", 1, {}, internal=True)
    disk.set_content("ballast", bytes(1 << 20))
    with pytest.raises(DiskFull, match="kept in reserve"):
        append_until_refused(logs.partition("t", 0), bytes(1 << 18))
    append(logs.partition("__internal", 0), [b"commit"])
    disk.set_content("ballast", bytes(2 << 20))
    with pytest.raises(DiskFull):
        logs.create_topic("u", 1, {})
    disk.remove("ballast")
    append(logs.partition("t", 0), [b"fits again"])


def test_a_read_error_takes_its_partition_offline_and_no_other() -> None:
    disk = SimulatedDisk()
    logs = LogDirectory.open(disk, "d", now_ms=0)
    logs.create_topic("t", 2, {})
    first, second = logs.partition("t", 0), logs.partition("t", 1)
    for log in (first, second):
        append_numbered(log)
        log.sync()
    disk.fail("read", path_part="t-0")
    with pytest.raises(StorageFailed, match="reading failed"):
        first.read(0, 100)
    assert first.state is PartitionState.FAILED
    assert read_all(second) == numbered(0, 2)
    append_numbered(second)
    logs.apply_retention(0)
    logs.close()
    reopened = LogDirectory.open(disk, "d", now_ms=0)
    assert read_all(reopened.partition("t", 0)) == numbered(0, 2)


def test_a_partition_that_cannot_be_recovered_is_offline_and_the_others_serve() -> None:
    disk = SimulatedDisk()
    logs = LogDirectory.open(disk, "d", now_ms=0)
    logs.create_topic("t", 2, {})
    for log in logs.all_partitions():
        append_numbered(log)
    logs.close()
    disk.fail("read", path_part="t-0", forever=True)
    logs = LogDirectory.open(disk, "d", now_ms=0)
    states = [log.state for log in logs.all_partitions()]
    assert states == [PartitionState.FAILED, PartitionState.ONLINE]
    assert "recovering failed" in logs.partition("t", 0).state_reason
    logs.close()
    assert disk.open_files == 0
    disk.heal()
    logs = LogDirectory.open(disk, "d", now_ms=0)
    assert read_all(logs.partition("t", 0)) == numbered(0, 2)


def every_operation_fails(error: int, *, forever: bool) -> int:
    """Run a small workload with its nth operation failing, for every n, as SQLite does: what was acknowledged survives."""
    number = 0
    while True:
        number += 1
        disk = new_disk()
        total = 0

        def hook(operation: object, number: int = number) -> None:
            nonlocal total
            total += 1
            if total == number or (forever and total > number):
                raise OSError(error, "injected")

        disk.hook = hook
        acked = [0]
        try:
            log = open_log(disk)
            for _ in range(12):
                append_numbered(log)
                acked[0] = max(acked[0], log.sync())
            log.trim(4)
            log.close()
        except (StorageFailed, DiskFull):
            pass
        for survivor in (disk.crash(Random(number), ordered=True), disk.kill()):
            reopened = open_log(survivor)
            assert reopened.state is PartitionState.ONLINE
            assert reopened.end_offset >= acked[0]
            assert read_all(reopened) == numbered(reopened.start_offset, reopened.end_offset)
        if total < number:
            return number


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_any_operation_may_fail_and_nothing_acknowledged_is_lost(error: int, forever: bool) -> None:
    points = every_operation_fails(error, forever=forever)
    print(f"{points} operations failed in turn")
    assert points > 40


def test_appending_and_reading_go_on_while_a_sync_is_under_way() -> None:
    """The worker thread is held inside its fsync; the event-loop thread appends, rolls, reads and retires a file meanwhile."""
    disk = new_disk()
    log = filled(disk, 3)
    append_numbered(log)
    inside, go_on = threading.Event(), threading.Event()

    def hold(node: object) -> None:
        if threading.current_thread() is worker and not inside.is_set():
            inside.set()
            assert go_on.wait(10)
        SimulatedDisk.sync_file(disk, node)  # type: ignore[arg-type]

    disk.sync_file = hold  # type: ignore[assignment]
    results: list[int] = []
    worker = threading.Thread(target=lambda: results.append(log.sync()))
    worker.start()
    assert inside.wait(10)
    assert log.high_watermark == 6
    for _ in range(40):
        append_numbered(log)
    assert log.segment_count > 3
    assert read_all(log) == numbered(0, log.high_watermark)
    rolled_to = log.durable_offset
    assert rolled_to > 8, "rolling makes the sealed segments durable"
    go_on.set()
    worker.join(10)
    assert results == [log.durable_offset] == [rolled_to]
    assert log.sync() == 88
    assert read_all(log) == numbered(0, 88)
    log.close()
    assert disk.open_files == 0


def test_many_threads_of_one_partition_lose_nothing() -> None:
    """A worker syncs as fast as it can while the event-loop thread appends, trims and applies retention."""
    disk = new_disk()
    log = open_log(disk)
    stop = threading.Event()
    errors: list[BaseException] = []

    def worker() -> None:
        try:
            while not stop.is_set():
                before = log.end_offset
                assert log.sync() >= before
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            errors.append(error)

    thread = threading.Thread(target=worker)
    thread.start()
    try:
        for number in range(1_500):
            append_numbered(log)
            if number % 200 == 199:
                log.trim(log.high_watermark)
            if number % 90 == 0:
                log.apply_retention(number)
    finally:
        stop.set()
        thread.join(10)
    assert not errors
    log.sync()
    assert read_all(log) == numbered(log.start_offset, 3_000)
    log.close()
    assert open_log(disk).end_offset == 3_000
