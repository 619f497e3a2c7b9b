"""Opening a partition after interruptions that the crash simulation seldom meets; batches against the scan windows."""

import pytest

from logsvc.storage import scan
from logsvc.storage.checkpoint import Checkpoint, decode, encode
from logsvc.storage.disk import RealDisk
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionState
from logsvc.storage.scan import BadBatch, batch_after, find_batch, walk_batches, walk_headers
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from tests.storage_support import FOLDER, append, append_numbered, filled, new_disk, numbered, open_log, read_all
from tests.storage_support import encode as encode_batch

FIRST = f"{FOLDER}/{0:020d}.log"


def segment_names(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.listdir(FOLDER) if name.endswith(".log")]


@pytest.mark.parametrize("window", [61, 62, 100, 180, 1_000])
def test_batches_of_any_size_are_scanned_whatever_the_window(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SCAN_WINDOW_BYTES", window)
    disk = new_disk()
    log = open_log(disk, segment_bytes=1 << 20)
    sizes = [0, 1, 50, 500, 3, 2_000, 0, 0, 70, 999]
    for size in sizes:
        append(log, [b"x" * size, b"y"])
    log.sync()
    file = disk.open(FIRST)
    end = file.size()
    checked = [header.base_offset for _, header in walk_batches(file, 0, end, 0)]
    walked = [header.base_offset for _, header in walk_headers(file, 0, end, 0, window)]
    assert checked == walked == list(range(0, 2 * len(sizes), 2))
    positions = [position for position, _ in walk_batches(file, 0, end, 0)]
    for position in range(end):
        found = find_batch(file, position, end, 0)
        expected = next((at for at in positions if at >= position), None)
        assert (found[0] if found else None) == expected
    assert [len(value) for _, value, _ in read_all(open_log(disk.kill(), segment_bytes=1 << 20))][::2] == sizes


@pytest.mark.parametrize("window", [61, 100, 1_000])
def test_a_bad_batch_of_any_size_is_told_with_its_place(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SCAN_WINDOW_BYTES", window)
    disk = new_disk()
    log = open_log(disk, segment_bytes=1 << 20)
    for size in (10, 3_000, 10):
        append(log, [b"x" * size])
    content = bytearray(disk.content(FIRST))
    content[500] ^= 1
    disk.set_content(FIRST, bytes(content))
    file = disk.open(FIRST)
    with pytest.raises(BadBatch) as caught:
        list(walk_batches(file, 0, len(content), 0))
    assert (caught.value.position, caught.value.offset) == (batches.parse_header(content).size, 1)
    found = batch_after(file, caught.value, len(content))
    assert found is not None
    assert found[1].base_offset == 2


def test_bytes_that_look_like_many_large_batches_do_not_keep_recovery_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SEARCH_BYTES_MAX", 100_000)
    disk = new_disk()
    filled(disk, 3, segment_bytes=1 << 20)
    bait = (100).to_bytes(8, "big") + (20_000).to_bytes(4, "big") + b"\x00\x00\x00\x00\x02" + bytes(44)
    disk.set_content(FIRST, disk.content(FIRST) + bait * 1_000)
    disk = disk.kill()
    log = open_log(disk, segment_bytes=1 << 20)
    assert (log.state, log.end_offset) == (PartitionState.ONLINE, 6)
    assert len(disk.content(f"{FOLDER}/{6:020d}.torn")) == len(bait) * 1_000


def test_a_batch_inside_a_record_is_not_taken_for_one_of_the_log() -> None:
    """Someone stores whole batches as values; the outer batch rots; nothing of its inside may be served."""
    disk = new_disk()
    log = open_log(disk, segment_bytes=1 << 20)
    inner = batches.stamp(encode_batch([b"fake"]), batches.parse_header(encode_batch([b"fake"])), 1)
    append(log, [b"first"])
    append(log, [b"".join(map(bytes, inner)) + b"padding"])
    append(log, [b"last"])
    log.sync()
    content = bytearray(disk.content(FIRST))
    content[content.index(b"padding")] ^= 1
    disk.set_content(FIRST, bytes(content))
    log = open_log(disk.kill(), segment_bytes=1 << 20)
    assert log.state is PartitionState.READ_ONLY
    assert [value for _, value, _ in read_all(log, 0, up_to=1)] == [b"first"]
    assert [value for _, value, _ in read_all(log, 2)] == [b"last"]
    assert log.end_offset == 3


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(500)])
def test_a_segment_begun_before_the_crash_and_never_written_is_part_of_the_torn_tail(content: bytes) -> None:
    disk = new_disk()
    log = filled(disk, 30)
    log.close()
    end = log.end_offset
    disk.set_content(f"{FOLDER}/{end + 7:020d}.log", content)
    disk.set_content(f"{FOLDER}/{end + 7:020d}.index", b"12345678")
    log = open_log(disk.kill())
    assert log.state is PartitionState.ONLINE
    assert (log.end_offset, read_all(log)) == (end, numbered(0, end))
    assert disk.exists(f"{FOLDER}/{end + 7:020d}.torn") == bool(content)
    assert not disk.exists(f"{FOLDER}/{end + 7:020d}.index")
    assert append_numbered(log).base_offset == end
    log.sync()
    assert read_all(open_log(disk.kill())) == numbered(0, end + 2)


def test_a_sealed_segment_becomes_the_active_one_when_what_followed_it_was_never_written() -> None:
    """The checkpoint vouches for the sealed segment, the one after it holds nothing good."""
    disk = new_disk()
    log = filled(disk, 40)
    log.close()
    names = segment_names(disk)
    last = int(names[-1].removesuffix(".log"))
    found = decode(disk.content(f"{FOLDER}/checkpoint"))
    assert found is not None
    stale = Checkpoint(0, last, found.segments[:-1], found.producers)
    disk.set_content(f"{FOLDER}/checkpoint", encode(stale))
    disk.set_content(f"{FOLDER}/{names[-1]}", b"")
    disk.rename(f"{FOLDER}/{names[-1]}", f"{FOLDER}/{last + 1:020d}.log")
    log = open_log(disk.kill())
    assert (log.state, log.end_offset) == (PartitionState.ONLINE, last)
    for _ in range(10):
        append_numbered(log)
    log.sync()
    assert read_all(log) == numbered(0, last + 20)
    log.close()
    assert read_all(open_log(disk.kill())) == numbered(0, last + 20)


def test_a_segment_with_good_batches_after_a_hole_is_corruption() -> None:
    disk = new_disk()
    log = filled(disk, 40, sync=True)
    names = segment_names(disk)
    disk.remove(f"{FOLDER}/{names[2]}")
    disk.remove(f"{FOLDER}/checkpoint")
    log = open_log(disk.kill())
    assert log.state is PartitionState.READ_ONLY
    assert "are missing before" in log.state_reason
    assert log.end_offset == 80


def test_a_bad_batch_at_the_end_of_a_segment_is_corruption_when_later_segments_are_good() -> None:
    disk = new_disk()
    filled(disk, 40, sync=True)
    names = segment_names(disk)
    content = bytearray(disk.content(f"{FOLDER}/{names[1]}"))
    content[-1] ^= 1
    disk.set_content(f"{FOLDER}/{names[1]}", bytes(content))
    disk.remove(f"{FOLDER}/checkpoint")
    log = open_log(disk.kill())
    assert log.state is PartitionState.READ_ONLY
    assert log.end_offset == 80
    assert segment_names(disk) == names
    assert disk.content(f"{FOLDER}/{names[1]}") == bytes(content)


def test_leftovers_are_removed_and_foreign_files_are_not() -> None:
    disk = new_disk()
    filled(disk, 3).close()
    for name in ("checkpoint.tmp", f"{9:020d}.index", f"{9:020d}.timeindex", f"{0:020d}.log.cleaned", "notes.txt", "12.log"):
        disk.set_content(f"{FOLDER}/{name}", b"x")
    open_log(disk.kill())
    names = disk.listdir(FOLDER)
    assert {"notes.txt", "12.log"} <= set(names)
    assert not [name for name in names if name.endswith((".tmp", ".cleaned")) or name.startswith(f"{9:020d}")]


def test_a_torn_tail_is_cut_even_when_there_is_no_room_to_keep_it() -> None:
    disk = new_disk()
    filled(disk, 3)
    disk.set_content(FIRST, disk.content(FIRST) + b"half a batch")
    disk = disk.kill()
    disk.fail("write", path_part=".torn", error=28)
    log = open_log(disk)
    assert (log.state, log.end_offset) == (PartitionState.ONLINE, 6)


def test_faults_beyond_a_few_are_counted_not_listed() -> None:
    disk = new_disk()
    filled(disk, 60, segment_bytes=1 << 20)
    content = bytearray(disk.content(FIRST))
    for position, _ in list(walk_headers(disk.open(FIRST), 0, len(content), 0))[:50:2]:
        content[position + 65] ^= 1
    disk.set_content(FIRST, bytes(content))
    log = open_log(disk.kill(), segment_bytes=1 << 20)
    assert log.state is PartitionState.READ_ONLY
    assert len(log.state_reason) < 4_000
    assert read_all(log, 2, up_to=4) == numbered(2, 4)


def test_an_interrupted_compaction_whose_file_is_bad_is_corruption_and_touches_nothing() -> None:
    disk = new_disk()
    filled(disk, 10).close()
    disk.set_content(f"{FOLDER}/{0:020d}.log.swap", b"not a batch, but long enough to look like one" * 3)
    log = open_log(disk)
    assert log.state is PartitionState.READ_ONLY
    assert read_all(log) == numbered(0, 20)


def test_a_real_disk_survives_losing_its_file_descriptors(tmp_path: object) -> None:
    """As after kill -9: nothing closed, everything written is found, offsets go on."""
    path = f"{tmp_path}/data"
    logs = LogDirectory.open(RealDisk(), path, now_ms=0)
    logs.create_topic("t", 1, {"segment.bytes": "2048"})
    for _ in range(100):
        append_numbered(logs.partition("t", 0))
    logs.abandon()
    logs = LogDirectory.open(RealDisk(), path, now_ms=0)
    log = logs.partition("t", 0)
    assert log.segment_count > 3
    assert read_all(log) == numbered(0, 200)
    assert append_numbered(log).base_offset == 200
    logs.close()


def test_a_file_that_ends_before_it_was_said_to_is_a_bad_batch_at_its_end() -> None:
    disk = new_disk()
    log = filled(disk, 3, sync=True)
    size, path = log.size_bytes, f"{FOLDER}/{segment_names(disk)[0]}"
    file = disk.open(path, writable=False)
    with pytest.raises(BadBatch) as caught:
        list(walk_batches(file, 0, size + 200, 0))
    assert (caught.value.position, caught.value.offset) == (size, 6)
