"""What the storage tests share: batches, logs on a simulated disk, and a reader that checks like a consumer."""

from collections.abc import Iterable
from random import Random

from logsvc.config import TopicConfig
from logsvc.storage.disk import Disk
from logsvc.storage.partition_log import AppendResult, PartitionLog
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.batch import BatchHeader, RecordData
from logsvc_common.errors import CorruptBatch

FOLDER = "data/t-0"
Stored = tuple[int, bytes, int]  # offset, value, timestamp


def encode(
    values: Iterable[bytes], *, timestamp_ms: int = 0, step_ms: int = 0, producer: tuple[int, int, int] = (-1, -1, -1)
) -> bytes:
    """A batch of values; `producer` is (id, epoch, base sequence)."""
    records = [RecordData(value, timestamp_ms=timestamp_ms + number * step_ms) for number, value in enumerate(values)]
    return batches.encode(records, producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2])


def append(log: PartitionLog, values: Iterable[bytes], *, now_ms: int = 0, **how: object) -> AppendResult:
    raw = encode(values, **how)  # type: ignore[arg-type]
    return log.append(raw, batches.parse_header(raw), now_ms)


def config(**settings: object) -> TopicConfig:
    """Small segments and a dense index, so that little data crosses many boundaries."""
    return TopicConfig(**{"segment_bytes": 1_024, "index_interval_bytes": 200, **settings})  # type: ignore[arg-type]


def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    for folder in ("data", FOLDER):
        disk.make_dirs(folder)
    disk.sync_dir("")
    disk.sync_dir("data")
    disk.operations = 0
    return disk


def open_log(disk: Disk, folder: str = FOLDER, **settings: object) -> PartitionLog:
    return PartitionLog.open(disk, folder, "t", 0, config(**settings))


def filled(disk: SimulatedDisk, count: int, *, records: int = 2, sync: bool = True, **settings: object) -> PartitionLog:
    """A log of `count` batches; record values say their offset."""
    log = open_log(disk, **settings)
    for _ in range(count):
        append_numbered(log, records)
    if sync:
        log.sync()
    return log


def append_numbered(log: PartitionLog, records: int = 2) -> AppendResult:
    """A batch whose records say their own offset, at one millisecond an offset."""
    first = log.end_offset
    return append(log, [b"value %d" % (first + number) for number in range(records)], timestamp_ms=first, step_ms=1)


def consume(data: bytes, expected: int) -> tuple[list[Stored], int]:
    """Records of fetched bytes, as a consumer takes them: CRC of every batch, offsets without gaps. Raises CorruptBatch."""
    found: list[Stored] = []
    used = 0
    for header, view in batches.split(data):
        batches.check_crc(view, header)
        if used and header.base_offset != expected:
            raise CorruptBatch(f"expected offset {expected}, a batch of {header.base_offset} came")
        found += [(r.offset, bytes(r.value or b""), r.timestamp) for r in batches.decode(bytes(view))]
        expected = header.next_offset
        used += header.size
    if used != len(data):
        raise CorruptBatch(f"{len(data) - used} bytes after the last whole batch")
    return found, expected


def read_all(log: PartitionLog, offset: int | None = None, *, max_bytes: int = 400, up_to: int | None = None) -> list[Stored]:
    """Every record from `offset` (the start when None) as a consumer sees it."""
    position = log.start_offset if offset is None else offset
    first, found = position, []
    while data := log.read(position, max_bytes, up_to=up_to):
        records, following = consume(data, position)
        assert following > position, "a read must move on"
        found += [record for record in records if record[0] >= first]
        position = following
    return found


def numbered(start: int, end: int) -> list[Stored]:
    """What `append_numbered` leaves between two offsets."""
    return [(offset, b"value %d" % offset, offset) for offset in range(start, end)]


def header_of(raw: bytes) -> BatchHeader:
    return batches.parse_header(raw)


def crashed(disk: SimulatedDisk, seed: int, *, ordered: bool = False) -> SimulatedDisk:
    return disk.crash(Random(seed), ordered=ordered)
