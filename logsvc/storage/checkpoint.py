"""The checkpoint of a partition: how far its log is known to be durable, so that recovery need not look below.

    file `checkpoint`:  8 bytes "LSVCCKP1", CRC-32C of the rest uint32 big-endian, msgpack of `Checkpoint`

Written after an fsync of the log and never before, to a temporary file that is fsynced and renamed: the file on disk is
always one whole checkpoint, the last or the one before. It is an accelerator with one exception: the log start offset of a
trim inside a segment lives only here. Missing, stale or garbage means a longer scan.

For each segment it keeps the size, the largest timestamp, and length and CRC-32C of both index files as written, which
is why an index file can be trusted without looking at the log: it is the one that was written or it is built anew.
"""

import logging
import struct

import msgspec
from fastcrc import crc32

from logsvc.storage.disk import Disk, read_small_file, replace_file

FILE_NAME = "checkpoint"
_MAGIC = b"LSVCCKP1"
_CRC = struct.Struct(">I")
_LOG = logging.getLogger(__name__)


class SegmentInfo(msgspec.Struct, array_like=True, frozen=True):
    """What is known of one segment's durable part. Timestamps in milliseconds, -1 for none."""

    base_offset: int
    size: int
    max_timestamp_ms: int
    max_timestamp_offset: int
    first_append_ms: int
    modified_ms: int
    offset_index_bytes: int
    offset_index_crc: int
    time_index_bytes: int
    time_index_crc: int


class ProducerBatch(msgspec.Struct, array_like=True, frozen=True):
    """A batch that an idempotent producer may send again."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int


class ProducerEntry(msgspec.Struct, array_like=True, frozen=True):
    """One idempotent producer: its epoch, its last batches, oldest first, and when it was last heard of."""

    producer_id: int
    epoch: int
    last_append_ms: int
    batches: tuple[ProducerBatch, ...]


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """All below `durable_offset` is on disk. `segments` ends with the one that was active, as far as it was durable.

    `faults` are corruptions that reads have come upon: the partition stays read-only until it is repaired.
    Below `cleaned_offset` compaction has been.
    """

    start_offset: int
    durable_offset: int
    segments: tuple[SegmentInfo, ...]
    producers: tuple[ProducerEntry, ...]
    faults: tuple[str, ...] = ()
    cleaned_offset: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Checkpoint)


def checksum(content: bytes) -> int:
    """CRC-32C, as the checkpoint remembers it of index files."""
    return crc32.iscsi(content)


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint file."""
    body = _ENCODER.encode(checkpoint)
    return _MAGIC + _CRC.pack(crc32.iscsi(body)) + body


def decode(content: bytes) -> Checkpoint | None:
    """The checkpoint in a file's bytes, None when they are not one."""
    body = content[len(_MAGIC) + _CRC.size :]
    if not body or content[: len(_MAGIC)] != _MAGIC or _CRC.unpack_from(content, len(_MAGIC))[0] != crc32.iscsi(body):
        return None
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError:
        return None


def why_unsound(content: bytes) -> tuple[int, str]:
    """(byte, reason) of bytes that `decode` does not take: where they stop being a checkpoint."""
    for position, byte in enumerate(_MAGIC):
        if content[position : position + 1] != bytes([byte]):
            return position, f"not a checkpoint: it does not begin with {_MAGIC.decode()}"
    if len(content) < len(_MAGIC) + _CRC.size:
        return len(content), "not a checkpoint: the file ends here"
    return len(_MAGIC), "not the checkpoint that was written: the CRC that stands here is not that of what follows"


def load(disk: Disk, folder: str) -> Checkpoint | None:
    """The checkpoint of a partition folder; None when there is none or it is garbage, which is logged."""
    try:
        content = read_small_file(disk, f"{folder}/{FILE_NAME}")
    except FileNotFoundError:
        return None
    found = decode(content)
    if found is None:
        _LOG.warning("the checkpoint of %s is garbage (%d bytes); the whole log is scanned instead", folder, len(content))
    return found


def store(disk: Disk, folder: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint, durably. Raises DiskFull, OSError; the old one then stays."""
    replace_file(disk, folder, FILE_NAME, encode(checkpoint))
