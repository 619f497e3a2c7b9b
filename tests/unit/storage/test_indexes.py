"""Both indexes against naive lookups, and against what Apache Kafka's DumpLogSegments checks."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from logsvc.storage.offset_index import OffsetIndex
from logsvc.storage.time_index import TimeIndex
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from tests.storage_support import FOLDER, append, new_disk, open_log

steps = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9_000)), max_size=40)


@given(steps, st.integers(0, 1 << 40), st.integers(-10, 3_000), st.integers(0, 400_000))
def test_the_offset_index_finds_the_last_entry_at_or_below(
    gaps: list[tuple[int, int]], base: int, wanted: int, position: int
) -> None:
    index, entries = OffsetIndex(base), []
    offset, at = base, 0
    for offset_step, position_step in gaps:
        offset, at = offset + offset_step, at + position_step
        index.append(offset, at)
        entries.append((offset, at))
    assert [index.entry(number) for number in range(len(index))] == entries
    assert index.lookup(base + wanted) == max((entry for entry in entries if entry[0] <= base + wanted), default=None)
    below = [entry[1] for entry in entries if entry[1] <= position]
    assert index.batch_at_or_before(position) == max(below, default=None)
    assert index.why_unsound(offset + 1, at + 1) is None
    again = OffsetIndex(base, bytes(index.content))
    assert again.content == index.content


@given(st.lists(st.tuples(st.integers(-1, 100), st.integers(1, 5)), max_size=40), st.integers(-2, 101))
def test_the_time_index_finds_where_everything_before_is_older(batch_times: list[tuple[int, int]], wanted: int) -> None:
    index, offset, newest, newest_at = TimeIndex(0), -1, -1, 0
    for time, count in batch_times:
        offset += count
        if time > newest:
            newest, newest_at = time, offset
        index.maybe_append(newest, newest_at)
    found = index.offset_before(wanted)
    offset = -1
    for time, count in batch_times:
        offset += count
        assert offset > found or time < wanted, "a record that is not older lies at or below the answer"
    assert index.why_unsound(offset + 1) is None


def test_the_bytes_are_kafkas() -> None:
    index = OffsetIndex(1_000)
    index.append(1_007, 4_242)
    assert bytes(index.content) == struct.pack(">ii", 7, 4_242)
    times = TimeIndex(1_000)
    times.maybe_append(1_700_000_000_123, 1_009)
    assert bytes(times.content) == struct.pack(">qi", 1_700_000_000_123, 9)


def test_unsound_indexes_are_told() -> None:
    index = OffsetIndex(10, struct.pack(">iiii", 5, 100, 4, 200))
    assert index.why_unsound(100, 1_000) == "entries do not ascend"
    assert OffsetIndex(10, b"123").why_unsound(100, 1_000) == "3 bytes are not a multiple of 8"
    assert "beyond" in str(OffsetIndex(10, struct.pack(">ii", 5, 100)).why_unsound(15, 1_000))
    assert "before" in str(OffsetIndex(10, struct.pack(">ii", -5, 100)).why_unsound(15, 1_000))
    assert TimeIndex(10, struct.pack(">qiqi", 5, 1, 5, 2)).why_unsound(100) == "entries do not ascend"
    assert "outside" in str(TimeIndex(10, struct.pack(">qi", 5, 90)).why_unsound(100))


def dump_log_segments(disk: SimulatedDisk, base: int) -> list[str]:
    """The checks of Kafka's `DumpLogSegments` (`dumpIndex`, `dumpTimeIndex`) on one segment; what it would complain about."""
    content = disk.content(f"{FOLDER}/{base:020d}.log")
    by_position, position = {}, 0
    for header, view in batches.split(content):
        times = [record.timestamp for record in batches.decode(bytes(view))]
        by_position[position] = (header.last_offset, max(times))
        position += header.size
    complaints = []
    raw = disk.content(f"{FOLDER}/{base:020d}.index")
    entries = [(base + offset, at) for offset, at in struct.iter_unpack(">ii", raw)]
    complaints += [f"index {entry}" for entry in entries if by_position.get(entry[1], (None,))[0] != entry[0]]
    previous = -1
    for time, relative in struct.iter_unpack(">qi", disk.content(f"{FOLDER}/{base:020d}.timeindex")):
        start = max((at for offset, at in entries if offset <= base + relative), default=0)
        found = next((batch for at, batch in sorted(by_position.items()) if at >= start and batch[0] >= base + relative), None)
        if found is None or found[0] != base + relative:
            complaints.append(f"shallow offset {base + relative} not found")
        elif found[1] != time:
            complaints.append(f"time {time} is not {found[1]}")
        if previous >= time:
            complaints.append(f"time {time} after {previous}")
        previous = time
    return complaints


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10_000)), min_size=1, max_size=120), st.sampled_from([0, 300, 4_096])
)
def test_kafkas_own_checks_find_every_segment_sound(content: list[tuple[int, int]], interval: int) -> None:
    disk = new_disk()
    log = open_log(disk, segment_bytes=2_048, index_interval_bytes=interval)
    for count, time in content:
        append(log, [b"value"] * count, timestamp_ms=time, step_ms=3)
    log.close()
    for name in disk.listdir(FOLDER):
        if name.endswith(".log"):
            assert dump_log_segments(disk, int(name.removesuffix(".log"))) == []
            assert disk.exists(f"{FOLDER}/{name.removesuffix('.log')}.index")


def test_an_offset_too_far_for_kafkas_layout_is_left_out_and_found_by_walking() -> None:
    far = 1 << 31
    index, times = OffsetIndex(0), TimeIndex(0)
    index.append(7, 100)
    index.append(far, 200)
    times.maybe_append(5, far)
    assert index.lookup(far + 1) == (7, 100)
    assert len(times) == 0
