"""The data folder: lock, topics, partitions, what is left of interrupted work. On the real disk too."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from logsvc.storage.disk import RealDisk
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionState
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.errors import (
    DataFolderLocked,
    DataFolderUnusable,
    InvalidConfig,
    InvalidPartitions,
    InvalidTopicName,
    StorageFailed,
    TopicExists,
    UnknownPartition,
    UnknownTopic,
)
from tests.storage_support import append, append_numbered, numbered, read_all


def open_logs(disk: SimulatedDisk) -> LogDirectory:
    return LogDirectory.open(disk, "d", now_ms=0)


def test_topics_and_records_are_there_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "data")
    logs = LogDirectory.open(RealDisk(), path, now_ms=0)
    logs.create_topic("t", 2, {"segment.bytes": "1024", "index.interval.bytes": "0"})
    log = logs.partition("t", 1)
    for _ in range(50):
        append_numbered(log)
    assert log.sync() == 100
    logs.close()
    logs = LogDirectory.open(RealDisk(), path, now_ms=0)
    topic = logs.topics["t"]
    assert topic.overrides == {"segment.bytes": "1024", "index.interval.bytes": "0"}
    assert topic.config.segment_bytes == 1024
    assert len(topic.topic_id) == 32
    assert read_all(logs.partition("t", 1)) == numbered(0, 100)
    assert logs.partition("t", 1).trim(100) == 100
    assert logs.partition("t", 0).end_offset == 0
    logs.delete_topic("t")
    logs.close()
    assert sorted(os.listdir(path)) == [".lock", "topics"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_many_partitions_are_opened_and_closed_in_threads(tmp_path: Path) -> None:
    logs = LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    logs.create_topic("t", 60, {})
    for log in logs.all_partitions():
        append_numbered(log, 1 + log.partition)
        log.sync()
    logs.abandon()
    logs = LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    assert [log.partition for log in logs.all_partitions()] == list(range(60))
    assert [log.end_offset for log in logs.all_partitions()] == [1 + partition for partition in range(60)]
    logs.close()
    logs = LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    assert [log.high_watermark for log in logs.all_partitions()] == [1 + partition for partition in range(60)]
    logs.close()


def test_a_second_broker_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    logs = LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    with pytest.raises(DataFolderLocked, match=rf"process {os.getpid()}.*--data-dir"):
        LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    logs.close()
    LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0).close()


def test_a_folder_that_cannot_be_used_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataFolderUnusable, match=r"cannot use .*file"):
        LogDirectory.open(RealDisk(), str(tmp_path / "file" / "data"), now_ms=0)
    with pytest.raises(DataFolderUnusable):
        LogDirectory.open(RealDisk(), "/proc/logsvc-data", now_ms=0)


def test_unknown_names_say_what_to_do() -> None:
    logs = open_logs(SimulatedDisk())
    with pytest.raises(UnknownTopic, match="logsvc topic create nope"):
        logs.partition("nope", 0)
    logs.create_topic("t", 2, {})
    for partition in (-1, 2):
        with pytest.raises(UnknownPartition, match="partitions 0 to 1"):
            logs.partition("t", partition)


@pytest.mark.parametrize("name", ["../x", "", "a" * 250, "a\n", ".", "..", "a/b"])
def test_illegal_names_never_reach_the_disk(name: str) -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    before = disk.operations
    with pytest.raises(InvalidTopicName):
        logs.create_topic(name, 1, {})
    assert disk.operations == before


def test_bad_requests_change_nothing() -> None:
    logs = open_logs(SimulatedDisk())
    logs.create_topic("t", 2, {})
    with pytest.raises(TopicExists):
        logs.create_topic("t", 1, {})
    for count in (0, -1, 10_001):
        with pytest.raises(InvalidPartitions):
            logs.create_topic("u", count, {})
    with pytest.raises(InvalidConfig):
        logs.create_topic("u", 1, {"retention.mss": "1"})
    with pytest.raises(InvalidPartitions):
        logs.add_partitions("t", 1)
    with pytest.raises(InvalidConfig):
        logs.alter_topic("t", {"flush": "never"})
    assert list(logs.topics) == ["t"]
    assert logs.topics["t"].config.flush == "always"


def test_the_longest_name_works_and_goes_away_again(tmp_path: Path) -> None:
    logs = LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0)
    logs.create_topic("n" * 249, 1, {})
    append(logs.partition("n" * 249, 0), [b"x"])
    logs.delete_topic("n" * 249)
    logs.close()
    assert sorted(os.listdir(tmp_path)) == [".lock", "topics"]


def test_settings_change_and_go_back_to_their_defaults() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.create_topic("t", 1, {"retention.ms": "5"})
    logs.alter_topic("t", {"flush": "os", "retention.ms": None})
    logs.close()
    topic = open_logs(disk).topics["t"]
    assert topic.overrides == {"flush": "os"}
    assert topic.partitions[0].config.flush == "os"


def test_a_topic_can_be_made_again_after_deletion_and_is_empty() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    first = logs.create_topic("t", 2, {})
    append_numbered(logs.partition("t", 0))
    logs.delete_topic("t")
    second = logs.create_topic("t", 1, {})
    assert first.topic_id != second.topic_id
    assert logs.partition("t", 0).end_offset == 0
    assert disk.open_files == 2  # the lock and the one active segment


def test_a_partition_folder_that_is_gone_is_offline_and_not_silently_empty() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.create_topic("t", 2, {})
    logs.close()
    for name in disk.listdir("d/t-1"):
        disk.unlink(f"d/t-1/{name}")
    disk.rmdir("d/t-1")
    logs = open_logs(disk)
    assert [log.state for log in logs.all_partitions()] == [PartitionState.ONLINE, PartitionState.FAILED]


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_records_of_a_topic_whose_file_is_lost_are_adopted(damage: str) -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    topic = logs.create_topic("t", 2, {"flush": "os"})
    append_numbered(logs.partition("t", 1))
    logs.close()
    if damage == "missing":
        disk.remove(f"d/topics/{topic.topic_id}.json")
    else:
        disk.set_content(f"d/topics/{topic.topic_id}.json", b"{")
    logs = open_logs(disk)
    assert read_all(logs.partition("t", 1)) == numbered(0, 2)
    assert logs.topics["t"].overrides == {}
    logs.close()
    assert read_all(open_logs(disk).partition("t", 1)) == numbered(0, 2)


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes-1").write_text("mine")
    (tmp_path / "t-01").mkdir()
    (tmp_path / "photos-2024").mkdir()
    (tmp_path / "photos-2024" / "cat.jpg").write_bytes(b"miaow")
    LogDirectory.open(RealDisk(), str(tmp_path), now_ms=0).close()
    assert (tmp_path / "notes-1").read_text() == "mine"
    assert (tmp_path / "t-01").exists()
    assert (tmp_path / "photos-2024" / "cat.jpg").exists()


def test_retention_runs_over_all_partitions() -> None:
    logs = open_logs(SimulatedDisk())
    logs.create_topic("t", 2, {"retention.ms": "10", "segment.ms": "100"})
    for log in logs.all_partitions():
        append(log, [b"x"], timestamp_ms=0, now_ms=0)
        log.sync()
    assert logs.apply_retention(1_000) == 2


def test_internal_topics_stay_internal() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.create_topic("__groups", 1, {}, internal=True)
    logs.close()
    assert open_logs(disk).topics["__groups"].internal


@pytest.mark.parametrize("operation", ["sync_dir", "rename"])
def test_a_topic_made_again_after_the_disk_has_refused_it_is_one_topic(operation: str) -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    disk.fail(operation, path_part="d/topics")
    with pytest.raises(StorageFailed):
        logs.create_topic("t", 2, {})
    logs.create_topic("t", 1, {})
    logs.close()
    assert [log.partition for log in open_logs(disk.kill()).all_partitions()] == [0]


def test_a_topic_that_a_killed_broker_had_half_made_is_durable_before_anyone_is_told_of_it() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    disk.fail("sync_dir", path_part="d/topics")
    with pytest.raises(StorageFailed):
        logs.create_topic("t", 1, {"retention.ms": "1"})
    reborn = open_logs(disk.kill())
    assert "t" in reborn.topics
    after_a_power_cut = open_logs(disk.crash(Random(1)))
    assert after_a_power_cut.topics["t"].overrides == {"retention.ms": "1"}


@pytest.mark.parametrize("operation", ["rename", "sync_dir", "unlink"])
def test_after_half_a_deletion_a_topic_of_that_name_is_a_new_one_and_stays(operation: str) -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.create_topic("t", 1, {})
    append_numbered(logs.partition("t", 0))
    logs.partition("t", 0).sync()
    disk.fail(operation, nth=2 if operation in ("rename", "sync_dir") else 1)
    with pytest.raises(StorageFailed):
        logs.delete_topic("t")
    with pytest.raises(UnknownTopic):
        logs.delete_topic("t")
    logs.create_topic("t", 1, {})
    assert logs.partition("t", 0).end_offset == 0
    append(logs.partition("t", 0), [b"new"])
    logs.partition("t", 0).sync()
    reborn = open_logs(disk.kill())
    assert [value for _, value, _ in read_all(reborn.partition("t", 0))] == [b"new"]


def test_a_deletion_that_did_not_begin_leaves_the_topic() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.create_topic("t", 1, {})
    disk.fail("rename")
    with pytest.raises(StorageFailed, match="not deleted"):
        logs.delete_topic("t")
    append(logs.partition("t", 0), [b"still served"])
    logs.partition("t", 0).sync()
    assert open_logs(disk.kill()).partition("t", 0).end_offset == 1


class Thread:
    """A worker that does its jobs when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def work(self) -> int:
        """Do everything; how many jobs there were."""
        done = 0
        while self.jobs:
            self.jobs.pop(0)()
            done += 1
        return done


def test_the_files_of_a_deleted_topic_go_in_the_background_and_a_new_one_of_that_name_is_not_touched() -> None:
    disk, thread = SimulatedDisk(), Thread()
    logs = open_logs(disk)
    logs.removals.run_in_thread = thread.jobs.append
    logs.create_topic("t", 40, {})
    disk.hook = lambda operation: pytest.fail(f"{operation} on the event loop") if operation.kind == "rmdir" else None
    logs.delete_topic("t")
    disk.hook = None
    logs.create_topic("t", 40, {})
    append(logs.partition("t", 0), [b"new"])
    logs.partition("t", 0).sync()
    assert len([name for name in disk.listdir("d") if name.endswith("-delete")]) == 40
    assert thread.work() > 2, "other jobs have their turn in between"
    assert not [name for name in disk.listdir("d") if name.endswith("-delete")]
    reborn = open_logs(disk.kill())
    assert [value for _, value, _ in read_all(reborn.partition("t", 0))] == [b"new"]


def test_a_crash_before_the_background_has_removed_a_topic_leaves_its_successor_alone() -> None:
    disk = SimulatedDisk()
    logs = open_logs(disk)
    logs.removals.run_in_thread = lambda job: None
    logs.create_topic("t", 3, {})
    append(logs.partition("t", 0), [b"old"])
    logs.partition("t", 0).sync()
    logs.delete_topic("t")
    logs.create_topic("t", 3, {})
    append(logs.partition("t", 0), [b"new"])
    logs.partition("t", 0).sync()
    for survivor in [disk.crash(Random(seed)) for seed in range(20)] + [disk.kill()]:
        reborn = open_logs(survivor)
        assert [value for _, value, _ in read_all(reborn.partition("t", 0))] == [b"new"]
        assert not [name for name in survivor.listdir("d") if name.endswith("-delete")]
        reborn.close()


def test_a_segment_that_retention_removes_is_unlinked_in_the_background() -> None:
    disk, thread = SimulatedDisk(), Thread()
    logs = open_logs(disk)
    logs.removals.run_in_thread = thread.jobs.append
    logs.create_topic("t", 1, {"segment.bytes": "1024", "retention.bytes": "1024"})
    for _ in range(60):
        append_numbered(logs.partition("t", 0))
    logs.partition("t", 0).sync()
    disk.hook = lambda operation: pytest.fail(f"{operation} on the event loop") if operation.kind == "unlink" else None
    assert logs.apply_retention(now_ms=1) > 3
    disk.hook = None
    put_away = [name for name in disk.listdir("d/t-0") if name.endswith(".deleted")]
    assert len(put_away) > 9
    survivor = disk.crash(Random(3))
    thread.work()
    assert not [name for name in disk.listdir("d/t-0") if name.endswith(".deleted")]
    reborn = open_logs(survivor)
    assert not [name for name in survivor.listdir("d/t-0") if name.endswith(".deleted")]
    assert reborn.partition("t", 0).start_offset == logs.partition("t", 0).start_offset > 0
