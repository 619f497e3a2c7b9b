"""`logsvc verify DIR [--repair]`: nothing wrong is missed, nothing is thrown away, and what is lost is named."""

import msgspec
import pytest

from logsvc.storage import checker
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionState
from logsvc.storage.verify import verify
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.errors import DataFolderLocked, DataFolderUnusable
from tests.storage_support import FOLDER, append, append_numbered, filled, new_disk, numbered, open_log, read_all

FIRST = f"{FOLDER}/{0:020d}.log"


def segment_names(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.listdir(FOLDER) if name.endswith(".log")]


def flip(disk: SimulatedDisk, path: str, position: int, bit: int = 0) -> None:
    content = bytearray(disk.content(path))
    content[position] ^= 1 << bit
    disk.set_content(path, bytes(content))


def positions(disk: SimulatedDisk, path: str) -> list[int]:
    found, position = [], 0
    for header, _ in batches.split(disk.content(path)):
        found.append(position)
        position += header.size
    return found


def test_a_sound_log_has_no_faults_and_verify_changes_nothing() -> None:
    disk = new_disk()
    filled(disk, 60).close()
    before = {name: disk.content(f"{FOLDER}/{name}") for name in disk.listdir(FOLDER)}
    seen: list[tuple[str, int]] = []
    report = verify(disk, FOLDER, progress=lambda *step: seen.append(step))
    partition = report.partitions[0]
    assert report.ok
    assert not report.repaired
    assert (partition.batches, partition.records, partition.start_offset, partition.end_offset) == (60, 120, 0, 120)
    assert seen[-1] == (FOLDER, partition.bytes)
    assert {name: disk.content(f"{FOLDER}/{name}") for name in disk.listdir(FOLDER)} == before
    assert msgspec.json.decode(msgspec.json.encode(report))["partitions"][0]["faults"] == []


def test_a_killed_broker_leaves_a_sound_log() -> None:
    disk = new_disk()
    filled(disk, 60)
    assert verify(disk.kill(), FOLDER).ok


def test_a_torn_tail_is_told_but_is_no_fault() -> None:
    disk = new_disk()
    filled(disk, 3)
    disk.set_content(FIRST, disk.content(FIRST) + b"half a batch")
    report = verify(disk, FOLDER)
    assert report.ok
    assert [fault.kind for fault in report.partitions[0].faults] == ["torn"]


def test_repair_moves_bad_bytes_aside_and_names_the_lost_offsets() -> None:
    disk = new_disk()
    filled(disk, 60).close()
    victim = segment_names(disk)[2]
    path = f"{FOLDER}/{victim}"
    where = positions(disk, path)[3]
    flip(disk, path, where + 70)
    damaged = disk.content(path)
    first = int(victim.removesuffix(".log")) + 6
    report = verify(disk, FOLDER, repair=True)
    partition = report.partitions[0]
    assert report.repaired
    assert not report.ok
    assert partition.lost_offsets == [(first, first + 1)]
    assert any(f"offsets {first} to {first + 1} are lost" in line for line in partition.repairs)
    aside = f"{path.removesuffix('.log')}.{where}.corrupt"
    assert disk.content(aside) == damaged[where : positions(disk, path)[4] + len(disk.content(aside)) - 61]
    assert verify(disk, FOLDER).ok
    log = open_log(disk)
    assert log.state is PartitionState.ONLINE
    assert read_all(log) == numbered(0, first) + numbered(first + 2, 120)
    assert read_all(log, first, up_to=first + 2) == []
    assert append(log, [b"next"]).base_offset == 120


def test_a_batch_whose_stamp_alone_is_wrong_is_given_its_place_back() -> None:
    disk = new_disk()
    filled(disk, 20, segment_bytes=1 << 20).close()
    good = disk.content(FIRST)
    for position in (*range(8), *range(12, 16)):
        for number in (0, 7, 19):
            flip(disk, FIRST, positions_of(good)[number] + position, bit=2)
        report = verify(disk, FOLDER, repair=True)
        assert {fault.kind for fault in report.partitions[0].faults} == {"stamp"}
        assert report.partitions[0].lost_offsets == []
        assert disk.content(FIRST) == good


def positions_of(content: bytes) -> list[int]:
    found, position = [], 0
    for header, _ in batches.split(content):
        found.append(position)
        position += header.size
    return found


@pytest.mark.parametrize("number", [1, -1])
def test_a_segment_file_that_is_gone_becomes_a_hole(number: int) -> None:
    disk = new_disk()
    filled(disk, 60).close()
    names = segment_names(disk)
    first = int(names[number].removesuffix(".log"))
    end = int(names[number + 1].removesuffix(".log")) if number == 1 else 120
    disk.remove(f"{FOLDER}/{names[number]}")
    report = verify(disk, FOLDER, repair=True)
    assert report.partitions[0].lost_offsets == [(first, end - 1)]
    log = open_log(disk)
    assert log.state is PartitionState.ONLINE
    assert read_all(log) == numbered(0, first) + numbered(end, 120)
    assert append(log, [b"next"]).base_offset == 120


def test_the_last_batch_of_a_segment_costs_no_more_than_itself() -> None:
    disk = new_disk()
    filled(disk, 60).close()
    victim, following = segment_names(disk)[1:3]
    flip(disk, f"{FOLDER}/{victim}", positions(disk, f"{FOLDER}/{victim}")[-1] + 70)
    end = int(following.removesuffix(".log"))
    report = verify(disk, FOLDER, repair=True)
    assert report.partitions[0].lost_offsets == [(end - 2, end - 1)]
    assert verify(disk, FOLDER).ok
    log = open_log(disk)
    assert log.state is PartitionState.ONLINE
    assert read_all(log) == numbered(0, end - 2) + numbered(end, 120)


def test_repairing_twice_at_one_place_keeps_what_the_first_repair_set_aside() -> None:
    disk = new_disk()
    filled(disk, 10, segment_bytes=1 << 20).close()
    for _ in range(2):
        flip(disk, FIRST, 70)
        assert verify(disk, FOLDER, repair=True).repaired
    aside = [name for name in disk.listdir(FOLDER) if ".corrupt" in name]
    assert len(aside) == 2
    assert verify(disk, FOLDER).ok


def test_a_damaged_segment_of_an_interrupted_compaction_is_quarantined_and_its_sources_serve() -> None:
    disk = new_disk()
    filled(disk, 60).close()
    swap = f"{FOLDER}/{segment_names(disk)[0]}.swap"
    damaged = bytearray(disk.content(FIRST))
    damaged[70] ^= 1
    disk.set_content(swap, bytes(damaged))
    assert open_log(disk).state is PartitionState.READ_ONLY
    report = verify(disk, FOLDER, repair=True).partitions[0]
    [aside] = report.quarantined
    assert disk.content(f"{FOLDER}/{aside}") == damaged
    assert verify(disk, FOLDER).ok
    log = open_log(disk)
    assert log.state is PartitionState.ONLINE
    assert read_all(log) == numbered(0, 120)


def test_a_file_cut_below_its_durable_end_is_filled_up() -> None:
    disk = new_disk()
    filled(disk, 10, segment_bytes=1 << 20).close()
    content = disk.content(FIRST)
    disk.set_content(FIRST, content[: len(content) // 2])
    report = verify(disk, FOLDER, repair=True)
    assert report.partitions[0].lost_offsets == [(10, 19)]
    log = open_log(disk, segment_bytes=1 << 20)
    assert read_all(log) == numbered(0, 10)
    assert append(log, [b"next"]).base_offset == 20


def test_every_flipped_byte_can_be_repaired_and_costs_at_most_its_batch() -> None:
    disk = new_disk()
    filled(disk, 6, segment_bytes=1 << 20).close()
    before = {name: disk.content(f"{FOLDER}/{name}") for name in disk.listdir(FOLDER)}
    starts = positions_of(before[FIRST.rpartition("/")[2]])
    for position in range(len(disk.content(FIRST))):
        for name, content in before.items():
            disk.set_content(f"{FOLDER}/{name}", content)
        flip(disk, FIRST, position, bit=position % 8)
        assert verify(disk, FOLDER, repair=True).repaired
        assert verify(disk, FOLDER).ok
        log = open_log(disk, segment_bytes=1 << 20)
        bad = 2 * (sum(start <= position for start in starts) - 1)
        assert read_all(log) in (numbered(0, 12), numbered(0, bad) + numbered(bad + 2, 12))
        assert log.end_offset == 12
        log.abandon()


def test_repair_keeps_the_start_and_forgets_no_producer() -> None:
    disk = new_disk()
    log = filled(disk, 40)
    log.trim(13)
    for number in range(5):
        append(log, [b"p"], producer=(9, 0, number))
    log.close()
    flip(disk, f"{FOLDER}/{segment_names(disk)[1]}", 80)
    verify(disk, FOLDER, repair=True)
    log = open_log(disk)
    assert log.start_offset == 13
    assert append(log, [b"p"], producer=(9, 0, 4)).duplicate


def test_repair_may_crash_anywhere_and_be_run_again() -> None:
    from random import Random

    from logsvc.testing.simulated_disk import Operation, SimulatedCrash

    number = 0
    while True:
        number += 1
        disk = new_disk()
        filled(disk, 30).close()
        flip(disk, FIRST, 100)
        stop = disk.operations + number

        def hook(operation: Operation, stop: int = stop) -> None:
            if operation.number == stop:
                raise SimulatedCrash

        disk.hook = hook
        try:
            verify(disk, FOLDER, repair=True)
            break
        except SimulatedCrash:
            survivor = disk.crash(Random(number), ordered=True)
        log = open_log(survivor)  # a broker that starts in between must not take harm from it
        log.close()
        verify(survivor, FOLDER, repair=True)
        assert verify(survivor, FOLDER).ok
        log = open_log(survivor)
        assert log.state is PartitionState.ONLINE
        assert read_all(log) == numbered(0, 2) + numbered(4, 60)
    assert number > 20


def test_a_whole_data_folder_is_checked_and_a_running_broker_refused() -> None:
    disk = SimulatedDisk()
    logs = LogDirectory.open(disk, "d", now_ms=0)
    logs.create_topic("a", 2, {})
    logs.create_topic("b", 1, {})
    for log in logs.all_partitions():
        append_numbered(log)
    for target in ("d", "d/a-0"):
        with pytest.raises(DataFolderLocked):
            verify(disk, target)
    logs.close()
    report = verify(disk, "d/")
    assert [partition.folder for partition in report.partitions] == ["d/a-0", "d/a-1", "d/b-0"]
    assert report.ok
    flip(disk, f"d/b-0/{0:020d}.log", 40)
    assert [partition.ok for partition in verify(disk, "d").partitions] == [True, True, False]


def test_every_lost_offset_is_named_even_when_faults_are_too_many_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "FAULTS_PER_PARTITION_MAX", 3)
    disk = new_disk()
    filled(disk, 20, segment_bytes=1 << 20).close()
    for position in positions(disk, FIRST)[::2]:
        flip(disk, FIRST, position + 70)
    report = verify(disk, FOLDER, repair=True).partitions[0]
    assert len(report.faults) == 3
    assert report.faults_omitted >= 7
    assert report.lost_offsets == [(offset, offset + 1) for offset in range(0, 40, 4)]
    assert verify(disk, FOLDER).ok


def test_a_folder_that_holds_no_log_is_refused() -> None:
    disk = SimulatedDisk()
    disk.make_dirs("empty")
    with pytest.raises(DataFolderUnusable, match="neither a data folder nor a partition folder"):
        verify(disk, "empty")
    with pytest.raises(DataFolderUnusable):
        verify(disk, "missing")


def test_a_garbage_checkpoint_is_reported_and_mended() -> None:
    disk = new_disk()
    filled(disk, 10).close()
    flip(disk, f"{FOLDER}/checkpoint", 30)
    report = verify(disk, FOLDER, repair=True)
    assert [fault.kind for fault in report.partitions[0].faults] == ["checkpoint"]
    assert verify(disk, FOLDER).ok
