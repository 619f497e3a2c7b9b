"""The real disk, and the simulated one held against it: the same calls must show the same files."""

import errno
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc.storage.disk import Disk, RealDisk, make_folder, read_small_file, replace_file, write_all, write_file
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.errors import DiskFull

names = st.sampled_from(["a", "b", "c"])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.integers(0, 40), st.binary(max_size=20)),
        st.tuples(st.just("truncate"), names, st.integers(0, 60), st.just(b"")),
        st.tuples(st.just("rename"), names, st.integers(0, 2), st.just(b"")),
        st.tuples(st.just("unlink"), names, st.just(0), st.just(b"")),
        st.tuples(st.just("replace"), names, st.just(0), st.binary(max_size=20)),
    ),
    max_size=25,
)


def perform(disk: Disk, root: str, action: tuple[str, str, int, bytes]) -> object:
    kind, name, number, data = action
    path = f"{root}/{name}"
    try:
        if kind == "write":
            file = disk.open(path, create=True)
            written = file.pwritev([data[:3], data[3:]], number)
            found = (written, file.size(), file.pread(100, 0), file.pread(5, 3))
            file.close()
            return found
        if kind == "truncate":
            file = disk.open(path)
            file.truncate(number)
            file.datasync()
            file.close()
        elif kind == "rename":
            disk.rename(path, f"{root}/{'abc'[number]}")
        elif kind == "unlink":
            disk.unlink(path)
        else:
            replace_file(disk, root, name, data)
    except OSError as error:
        return error.errno
    return {name: read_small_file(disk, f"{root}/{name}") for name in disk.listdir(root)}


@settings(deadline=None)
@given(actions)
def test_the_simulated_disk_behaves_like_the_real_one(tmp_path_factory: pytest.TempPathFactory, wanted: list) -> None:  # type: ignore[type-arg]
    root = str(tmp_path_factory.mktemp("disk"))
    real, simulated = RealDisk(), SimulatedDisk()
    simulated.make_dirs(root)
    for action in wanted:
        assert perform(simulated, root, action) == perform(real, root, action)


def test_what_was_not_synced_may_be_gone_after_a_crash_and_what_was_is_not() -> None:
    outcomes = set()
    for seed in range(60):
        disk = SimulatedDisk()
        make_folder(disk, "d")
        file = disk.open("d/f", create=True)
        file.pwritev([b"synced"], 0)
        file.datasync()
        disk.sync_dir("d")
        file.pwritev([b"-lost?"], 6)
        content = disk.crash(Random(seed)).content("d/f")
        assert content.startswith(b"synced")
        # Of what was caught by the crash a sector may be missing: zeros, as the file system has it.
        assert len(content) <= 12
        assert all(found in (written, 0) for found, written in zip(content, b"synced-lost?", strict=False))
        outcomes.add(content)
    assert len(outcomes) > 4


def test_a_rename_that_was_not_synced_is_the_old_file_or_the_new_one() -> None:
    outcomes = set()
    for seed in range(40):
        disk = SimulatedDisk()
        make_folder(disk, "d")
        replace_file(disk, "d", "f", b"old")
        write_file(disk, "d/f.tmp", b"new", durable=True)
        disk.rename("d/f.tmp", "d/f")
        outcomes.add(disk.crash(Random(seed)).content("d/f"))
    assert outcomes == {b"old", b"new"}


def test_a_datasync_that_failed_saves_nothing_even_if_the_next_one_succeeds() -> None:
    disk = SimulatedDisk()
    make_folder(disk, "d")
    file = disk.open("d/f", create=True)
    disk.sync_dir("d")
    file.pwritev([b"data"], 0)
    disk.fail("datasync")
    with pytest.raises(OSError, match="Input/output"):
        file.datasync()
    file.datasync()
    assert file.pread(10, 0) == b"data"
    assert disk.crash(Random(0)).content("d/f") == b""


def test_a_process_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        write_all(file, [bytes(6_000)], 0)
        with pytest.raises(DiskFull):
            write_all(file, [bytes(1_000), bytes(5_000)], 6_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert file.size() == 6_000
    file.close()


def test_files_are_private_and_folders_too(tmp_path: Path) -> None:
    make_folder(RealDisk(), str(tmp_path / "x" / "y"))
    RealDisk().open(str(tmp_path / "x" / "y" / "f"), create=True).close()
    assert os.stat(tmp_path / "x" / "y").st_mode & 0o777 == 0o700
    assert os.stat(tmp_path / "x" / "y" / "f").st_mode & 0o077 == 0


def test_a_file_too_large_to_be_read_whole_is_refused() -> None:
    disk = SimulatedDisk()
    disk.set_content("big", bytes((64 << 20) + 1))
    with pytest.raises(OSError, match="at most") as caught:
        read_small_file(disk, "big")
    assert caught.value.errno == errno.EFBIG


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "f"), create=True)
    file.close()
    file.close()
