"""A partition to let rot: a sealed segment of 64 KiB, one after it, their indexes and checkpoint, on a disk of plain bytes.

`Shelf` is the thinnest disk that storage runs on. Reading from it costs a slice, so that half a million flipped bits can each
be looked for by the real checker and the real reader.
"""

import errno
from collections.abc import Sequence

from logsvc.storage.disk import File
from logsvc.storage.partition_log import PartitionLog
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.batch import BatchHeader, Buffer, RecordData
from tests.storage_support import FOLDER, new_disk, open_log

SEGMENT_BYTES = 64 << 10
VALUE_BYTES = 1_300
RECORDS = 3
SETTINGS = {"segment_bytes": SEGMENT_BYTES, "index_interval_bytes": 4_096}


class _Bytes:
    """An open file of a `Shelf`."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content

    def pread(self, length: int, position: int) -> bytes:
        return bytes(self._content[position : position + length])

    def size(self) -> int:
        return len(self._content)

    def close(self) -> None:
        pass

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        raise OSError(errno.EROFS, "this disk is read only")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EROFS, "this disk is read only")

    def datasync(self) -> None:
        raise OSError(errno.EROFS, "this disk is read only")


class Shelf:
    """The files of one partition folder, to be read; a test changes `files` in place."""

    def __init__(self, files: dict[str, bytes | bytearray]) -> None:
        self.files = files

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> File:
        return _Bytes(self._content(path))

    def _content(self, path: str) -> bytes | bytearray:
        try:
            return self.files[path.rpartition("/")[2]]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from None

    def exists(self, path: str) -> bool:
        return path.rpartition("/")[2] in self.files

    def file_size(self, path: str) -> int:
        return len(self._content(path))

    def modified_ms(self, path: str) -> int:
        return 0

    def listdir(self, path: str) -> list[str]:
        return sorted(self.files)


def partition() -> tuple[SimulatedDisk, dict[str, bytes]]:
    """The closed partition on a simulated disk, and its files by name. The first segment is exactly 64 KiB long."""
    disk = new_disk()
    log = open_log(disk, **SETTINGS)
    while log.segment_count == 1:
        room = SEGMENT_BYTES - log.size_bytes
        _put(log, VALUE_BYTES if room > 3 * RECORDS * VALUE_BYTES or room <= 0 else _value_that_fits(log, room))
    for _ in range(4):
        _put(log, VALUE_BYTES)
    log.close()
    files = {name: disk.content(f"{FOLDER}/{name}") for name in disk.listdir(FOLDER)}
    assert len(files[f"{0:020d}.log"]) == SEGMENT_BYTES
    return disk, files


def _batch(log: PartitionLog, value_bytes: int) -> bytes:
    first = log.end_offset
    records = [
        RecordData(bytes((first * 7 + place) % 251 for place in range(value_bytes)), timestamp_ms=1_000_000 + first + number)
        for number in range(RECORDS)
    ]
    return batches.encode(records)


def _value_that_fits(log: PartitionLog, room: int) -> int:
    """Half of the room, or what fills it to the byte; the lengths inside a batch take a byte more now and then."""
    if room > 2 * RECORDS * VALUE_BYTES:
        return room // 2 // RECORDS
    for value_bytes in range(room // RECORDS, 0, -1):
        if len(_batch(log, value_bytes)) == room:
            return value_bytes
    return VALUE_BYTES // 3


def _put(log: PartitionLog, value_bytes: int) -> None:
    raw = _batch(log, value_bytes)
    log.append(raw, batches.parse_header(raw), 5_000)


def layout(content: bytes) -> list[tuple[int, BatchHeader]]:
    """(position, header) of each batch."""
    found, position = [], 0
    for header, _ in batches.split(content):
        found.append((position, header))
        position += header.size
    return found
