"""Mending a corrupt partition, after `verify` has said what is wrong with it.

The bytes that are no batch are copied to `BASE.POSITION.corrupt` and fsynced first; a file of that name that is there already,
from an earlier repair, is kept beside it. Then each damaged segment is written anew
beside the old one and renamed over it: good batches as they are, intact batches with a wrong stamp restamped, and for offsets
that are lost an empty batch that spans them, as Kafka's cleaner leaves behind. So offsets stay dense, consumers walk over the
hole, and the log passes every later check. Indexes and checkpoint are then made anew by an ordinary recovery.

A crash in between leaves damaged segments to be repaired by another run, and temporary files that recovery removes.
"""

from logsvc.config import TopicConfig
from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.checker import PartitionChecker, PartitionReport, Piece, SegmentFinding
from logsvc.storage.checkpoint import Checkpoint
from logsvc.storage.disk import Disk, File, write_all
from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.storage.scan import SCAN_WINDOW_BYTES
from logsvc.storage.segment import file_name
from logsvc_common.batch import empty, parse_header, stamp
from logsvc_common.errors import StorageFailed

CORRUPT_SUFFIX = ".corrupt"
_OFFSETS_PER_BATCH_MAX = 1 << 31  # the last offset delta is an int32


def repair_partition(disk: Disk, folder: str, checker: PartitionChecker) -> None:
    """Mend what `checker` found and note it in its report. Raises OSError, DiskFull, StorageFailed."""
    report = checker.report
    for finding in checker.findings:
        if finding.damaged:
            _rewrite(disk, folder, finding, report)
    for first, last in report.lost_offsets:
        report.repairs.append(f"offsets {first} to {last} are lost; an empty batch stands for them")
    checkpoints.store(disk, folder, Checkpoint(report.start_offset, 0, (), ()))
    topic, _, number = folder.rpartition("/")[2].rpartition("-")
    log = PartitionLog.open(disk, folder, topic, int(number) if number.isdigit() else 0, TopicConfig())
    if log.state is not PartitionState.ONLINE:
        raise StorageFailed(f"{folder} is still not sound after the repair: {log.state_reason}")
    log.close()
    report.repairs.append("indexes and checkpoint were made anew")


def _rewrite(disk: Disk, folder: str, finding: SegmentFinding, report: PartitionReport) -> None:
    """Write one segment anew and rename it over the old one."""
    repairs = report.repairs
    name = file_name(finding.base_offset)
    path, temporary = f"{folder}/{name}", f"{folder}/{name}.tmp"
    old, new = disk.open(path, create=True), disk.open(temporary, create=True)
    try:
        new.truncate(0)
        size = 0
        for piece in finding.pieces:
            if piece.action == "drop":
                aside = _free_name(disk, folder, file_name(finding.base_offset, f".{piece.position}{CORRUPT_SUFFIX}"))
                _copy_to(disk, f"{folder}/{aside}", old, piece)
                report.quarantined.append(aside)
                repairs.append(f"{piece.end - piece.position} bytes of {name} at {piece.position} moved aside to {aside}")
            else:
                size += _write_piece(old, new, size, piece)
            if piece.action == "restamp":
                repairs.append(f"the batch at byte {piece.position} of {name} is offset {piece.offset} again")
        new.datasync()
    finally:
        old.close()
        new.close()
    disk.sync_dir(folder)  # what was moved aside has a name before the original goes
    disk.rename(temporary, path)
    disk.sync_dir(folder)


def _write_piece(old: File, new: File, at: int, piece: Piece) -> int:
    if piece.action == "fill":
        firsts = range(piece.offset, piece.last_offset + 1, _OFFSETS_PER_BATCH_MAX)
        return write_all(
            new, [empty(first, min(first + _OFFSETS_PER_BATCH_MAX - 1, piece.last_offset)) for first in firsts], at
        )
    if piece.action == "restamp":
        raw = old.pread(piece.end - piece.position, piece.position)
        return write_all(new, stamp(raw, parse_header(raw), piece.offset), at)
    for position in range(piece.position, piece.end, SCAN_WINDOW_BYTES):
        window = old.pread(min(SCAN_WINDOW_BYTES, piece.end - position), position)
        write_all(new, [window], at + position - piece.position)
    return piece.end - piece.position


def _free_name(disk: Disk, folder: str, wanted: str) -> str:
    """`wanted`, with a number behind it when a file has that name: what an earlier repair set aside is never overwritten."""
    name, number = wanted, 1
    while disk.exists(f"{folder}/{name}"):
        number += 1
        name = f"{wanted}.{number}"
    return name


def set_swap_aside(disk: Disk, folder: str, name: str) -> str:
    """Quarantine a compacted segment that is damaged and was about to take its sources' place; its new name.

    The sources are still there unless the swap had begun to remove them; what they lack the check that follows names as lost.
    """
    aside = _free_name(disk, folder, f"{name}{CORRUPT_SUFFIX}")
    disk.rename(f"{folder}/{name}", f"{folder}/{aside}")
    disk.sync_dir(folder)
    return aside


def _copy_to(disk: Disk, path: str, old: File, piece: Piece) -> None:
    copy = disk.open(path, create=True)
    try:
        copy.truncate(0)
        _write_piece(old, copy, 0, Piece("keep", piece.position, piece.end))
        copy.datasync()
    finally:
        copy.close()
