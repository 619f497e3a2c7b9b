"""Checking a data folder, or one partition folder, without a broker: `logsvc verify DIR [--repair]`.

See `checker` for what is checked and `repair` for how it is mended. Nothing is thrown away, and every offset that is lost is
named in the report.
"""

import msgspec

from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.checker import PartitionChecker, PartitionReport, Progress
from logsvc.storage.compaction import SWAP_SUFFIX, complete_swaps
from logsvc.storage.disk import Disk
from logsvc.storage.recovery import segment_offsets
from logsvc.storage.repair import repair_partition, set_swap_aside
from logsvc.storage.scan import BadBatch
from logsvc.storage.segment import file_name
from logsvc_common.errors import DataFolderUnusable


class Report(msgspec.Struct):
    """The whole result; `msgspec.to_builtins` makes it JSON. `repaired`: faults were found and mended, the log is sound now."""

    path: str
    partitions: list[PartitionReport] = []
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """True when nothing was wrong in the first place. A torn tail is not wrong: the next start cuts it."""
        return all(partition.ok for partition in self.partitions)


def verify(disk: Disk, path: str, *, repair: bool = False, progress: Progress | None = None) -> Report:
    """Check everything below `path`, a data folder or a partition folder.

    Raises DataFolderLocked while a broker runs on it, DataFolderUnusable when it is neither kind of folder or cannot be
    read (or, with `repair`, written).
    """
    path = path.rstrip("/") or "/"
    try:
        folders, root = _partition_folders(disk, path)
        lock_path = f"{root}/.lock"
        lock = disk.lock(lock_path) if repair or disk.exists(lock_path) else None
        try:
            report = Report(path)
            for folder in folders:
                aside = _settle_swaps(disk, folder) if repair else []
                checker = PartitionChecker(disk, folder, progress)
                found = checker.run()
                report.partitions.append(found)
                found.quarantined += aside
                found.repairs += [f"a compacted segment that is damaged was moved aside to {name}" for name in aside]
                if repair and (found.faults or aside):
                    repair_partition(disk, folder, checker)
                    report.repaired = True
            return report
        finally:
            if lock is not None:
                lock.close()
    except OSError as error:
        raise DataFolderUnusable(f"cannot check {path}: {error}") from error


def size_bytes(disk: Disk, path: str) -> int:
    """How many bytes of segments `verify` will read below `path`. Raises what it raises."""
    try:
        folders, _ = _partition_folders(disk, path.rstrip("/") or "/")
        return sum(
            disk.file_size(f"{folder}/{file_name(base)}")
            for folder in folders
            for base in segment_offsets(disk.listdir(folder))
        )
    except OSError as error:
        raise DataFolderUnusable(f"cannot check {path}: {error}") from error


def _settle_swaps(disk: Disk, folder: str) -> list[str]:
    """Complete the compactions that a crash interrupted. Those that are damaged are moved aside: their new names."""
    aside = []
    for name in disk.listdir(folder):
        if name.endswith(SWAP_SUFFIX):
            try:
                complete_swaps(
                    disk, folder, [name, *(other for other in disk.listdir(folder) if not other.endswith(SWAP_SUFFIX))]
                )
            except BadBatch:
                aside.append(set_swap_aside(disk, folder, name))
    return aside


def _partition_folders(disk: Disk, path: str) -> tuple[list[str], str]:
    """The partition folders at or below `path`, and the data folder they belong to."""
    names = disk.listdir(path)
    if segment_offsets(names):
        return [path], path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    found = []
    for name in names:
        try:
            below = disk.listdir(f"{path}/{name}")
        except NotADirectoryError:
            continue
        if segment_offsets(below) or checkpoints.FILE_NAME in below:
            found.append(f"{path}/{name}")
    if not found and "topics" not in names:
        raise DataFolderUnusable(f"{path} is neither a data folder nor a partition folder of logsvc")
    return found, path
