"""Checking one partition folder byte by byte, and saying what a repair would have to write.

Every batch: header, CRC-32C, offsets without gaps, across segments too. Both indexes of every segment: each entry against the
batch it points at, and the files against what the checkpoint remembers of them. The checkpoint itself.

What is found is a `PartitionReport` of plain structs for people, and for each segment a list of `Piece`s for `repair`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.checkpoint import Checkpoint, SegmentInfo
from logsvc.storage.compaction import SWAP_SUFFIX
from logsvc.storage.disk import Disk, File, read_small_file
from logsvc.storage.index_check import IndexCheck
from logsvc.storage.recovery import segment_offsets
from logsvc.storage.scan import BadBatch, batch_after, walk_batches
from logsvc.storage.segment import file_name
from logsvc_common.batch import HEADER_BYTES, BatchHeader, check_crc, parse_header
from logsvc_common.errors import CorruptBatch

FAULTS_PER_PARTITION_MAX = 1_000
PROGRESS_EVERY_BYTES = 8 << 20
Progress = Callable[[str, int], None]
"""Told the partition folder and how many of its bytes have been checked, now and then and when all are."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong: at byte `position` of `file`, where the batch of `offset` is or an index leads to (-1: of no
    one offset). `lost_first` to `lost_last` are the offsets it makes unreadable; -1 when none.

    `kind`: `batch`, `stamp` (an intact batch with a wrong base offset or epoch), `gap` (offsets missing between segments or at
    the end), `offset_index`, `time_index`, `checkpoint`, `torn`, `swap` (an interrupted compaction; nothing else was
    looked at).
    """

    kind: str
    file: str
    position: int
    message: str
    lost_first: int = -1
    lost_last: int = -1
    offset: int = -1


class PartitionReport(msgspec.Struct):
    """What one partition folder holds. `repairs` says, in sentences, what was done.

    `lost_offsets` are ranges, both ends included, whose records are gone: all of them, also those of `faults_omitted`, which
    counts faults beyond `FAULTS_PER_PARTITION_MAX`. `bad_bytes` are no part of any good batch; `quarantined` names the files,
    beside the segments, that a repair has put them into.
    """

    folder: str
    segments: int = 0
    batches: int = 0
    records: int = 0
    bytes: int = 0
    start_offset: int = 0
    end_offset: int = 0
    faults: list[Fault] = []
    repairs: list[str] = []
    lost_offsets: list[tuple[int, int]] = []
    faults_omitted: int = 0
    bad_bytes: int = 0
    quarantined: list[str] = []

    @property
    def ok(self) -> bool:
        return all(fault.kind == "torn" for fault in self.faults)


@dataclass(frozen=True)
class Piece:
    """A stretch of a segment as repair will write it.

    `keep`: these bytes; `restamp`: these bytes with `offset` as base offset; `drop`: move these bytes aside; `fill`: an empty
    batch for the offsets from `offset` to `last_offset`.
    """

    action: str
    position: int = 0
    end: int = 0
    offset: int = 0
    last_offset: int = 0


@dataclass
class SegmentFinding:
    """What was found in one segment, in file order."""

    base_offset: int
    pieces: list[Piece] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        return any(piece.action != "keep" for piece in self.pieces)


class PartitionChecker:
    """Walks over one partition folder. `findings` is what repair works from."""

    def __init__(self, disk: Disk, folder: str, progress: Progress | None = None) -> None:
        self.report = PartitionReport(folder)
        self.findings: list[SegmentFinding] = []
        self._disk = disk
        self._folder = folder
        self._progress = progress
        self._offset = 0
        self._checkpoint = Checkpoint(0, 0, (), ())
        self._infos: dict[int, SegmentInfo] = {}

    def run(self) -> PartitionReport:
        """Check everything. Raises OSError."""
        self._load_checkpoint()
        names = self._disk.listdir(self._folder)
        if any(name.endswith(SWAP_SUFFIX) for name in names):
            self._fault(Fault("swap", "", 0, "a compaction was interrupted; the next start or --repair completes it"))
            return self.report
        bases = segment_offsets(names)
        start_offset = self._checkpoint.start_offset
        bases = [base for base, following in pairwise(bases) if following > start_offset] + bases[-1:]
        sizes = {base: self._disk.file_size(f"{self._folder}/{file_name(base)}") for base in bases}
        self._offset = bases[0] if bases else start_offset
        report = self.report
        report.start_offset = max(start_offset, self._offset)
        for number, base in enumerate(bases):
            if base != self._offset:
                self._gap(base)
            self._check_segment(base, sizes[base], bases[number + 1 :])
            report.bytes += sizes[base]
            self._tell(report.bytes)
        durable = self._checkpoint.durable_offset
        if self._offset < durable:
            self._gap(durable)
        report.segments, report.end_offset = len(bases), self._offset
        return report

    def _tell(self, checked_bytes: int) -> None:
        if self._progress is not None:
            self._progress(self._folder, checked_bytes)

    def _load_checkpoint(self) -> None:
        try:
            content = read_small_file(self._disk, f"{self._folder}/{checkpoints.FILE_NAME}")
        except FileNotFoundError:
            return
        found = checkpoints.decode(content)
        if found is None:
            position, reason = checkpoints.why_unsound(content)
            self._fault(Fault("checkpoint", checkpoints.FILE_NAME, position, reason))
            return
        self._checkpoint = found
        self._infos = {info.base_offset: info for info in found.segments}
        for fault in found.faults:
            self._fault(Fault("checkpoint", checkpoints.FILE_NAME, 0, f"the broker came upon corruption: {fault}"))

    def _fault(self, fault: Fault) -> None:
        if fault.lost_first >= 0:
            self.report.lost_offsets.append((fault.lost_first, fault.lost_last))
        if len(self.report.faults) < FAULTS_PER_PARTITION_MAX:
            self.report.faults.append(fault)
        else:
            self.report.faults_omitted += 1

    def _gap(self, following: int) -> None:
        """Offsets from the expected one up to `following` are in no segment."""
        name = file_name(self.findings[-1].base_offset) if self.findings else file_name(following)
        if following > self._offset:
            message = f"offsets {self._offset} to {following - 1} are in no segment"
            self._fault(Fault("gap", name, 0, message, self._offset, following - 1, self._offset))
            if not self.findings:
                self.findings.append(SegmentFinding(self._offset))
            self.findings[-1].pieces.append(Piece("fill", offset=self._offset, last_offset=following - 1))
        else:
            self._fault(Fault("gap", name, 0, f"{file_name(following)} begins below offset {self._offset}, where it should"))
        self._offset = following

    def _check_segment(self, base: int, size: int, later: list[int]) -> None:
        finding = SegmentFinding(base)
        self.findings.append(finding)
        file = self._disk.open(f"{self._folder}/{file_name(base)}", writable=False)
        try:
            indexes = IndexCheck(self._disk, self._folder, base, sealed=bool(later))
            position, told = 0, 0
            while position < size:
                good_from = position
                try:
                    for at, header in walk_batches(file, position, size, self._offset):
                        indexes.batch(at, header)
                        self._count(header)
                        position = at + header.size
                        if position - told >= PROGRESS_EVERY_BYTES:
                            told = position
                            self._tell(self.report.bytes + told)
                except BadBatch as bad:
                    if position > good_from:
                        finding.pieces.append(Piece("keep", good_from, position))
                    position = self._bad_batch(file, finding, bad, size, later, indexes)
                    continue
                finding.pieces.append(Piece("keep", good_from, position))
            for kind, name, position, message in indexes.end(self._offset, size, self._infos.get(base) if later else None):
                self._fault(Fault(kind, name, position, message, offset=base))
        finally:
            file.close()

    def _count(self, header: BatchHeader) -> None:
        self.report.batches += 1
        self.report.records += header.record_count
        self._offset = header.next_offset

    def _bad_batch(
        self, file: File, finding: SegmentFinding, bad: BadBatch, size: int, later: list[int], indexes: IndexCheck
    ) -> int:
        """Note what is lost and where good batches go on; the position of the next one, `size` when there is none."""
        name = file_name(finding.base_offset)
        intact = self._only_stamp_is_wrong(file, bad.position, size)
        if intact is not None:
            finding.pieces.append(Piece("restamp", bad.position, bad.position + intact.size, offset=self._offset))
            self._fault(Fault("stamp", name, bad.position, bad.message, offset=self._offset))
            intact = intact._replace(base_offset=self._offset)
            indexes.batch(bad.position, intact)
            self._count(intact)
            return bad.position + intact.size
        found = batch_after(file, bad, size)
        end, following = (found[0], found[1].base_offset) if found else (size, self._offset)
        if found is None:
            following = max(self._offset, later[0] if later else self._checkpoint.durable_offset)
        offset = self._offset
        finding.pieces.append(Piece("drop", bad.position, end, offset=offset))
        self.report.bad_bytes += end - bad.position
        if following > offset:
            finding.pieces.append(Piece("fill", offset=offset, last_offset=following - 1))
            self._fault(Fault("batch", name, bad.position, bad.message, offset, following - 1, offset))
        elif found is not None or later:
            message = f"{end - bad.position} bytes that are no batch: {bad.message}"
            self._fault(Fault("batch", name, bad.position, message, offset=offset))
        else:
            message = f"torn tail of {size - bad.position} bytes: {bad.message}"
            self._fault(Fault("torn", name, bad.position, message, offset=offset))
        indexes.lost(bad.position, end, offset, following - 1)
        self._offset = following
        return end

    def _only_stamp_is_wrong(self, file: File, position: int, size: int) -> BatchHeader | None:
        """The header of a batch whose CRC is right and after which the next one begins where it should; None otherwise.

        Base offset and leader epoch lie outside the CRC, so such a batch can be given back its place.
        """
        try:
            header = parse_header(file.pread(HEADER_BYTES, position))
            if header.size > size - position:
                return None
            check_crc(file.pread(header.size, position), header)
            after = position + header.size
            if after == size:
                return header
            following = parse_header(file.pread(HEADER_BYTES, after))
        except CorruptBatch:
            return None
        return header if following.base_offset == self._offset + header.last_offset_delta + 1 else None
