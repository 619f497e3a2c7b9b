"""Apache Kafka's RecordBatch v2: the unit that is encoded once, travels, is stored and is fetched, unchanged.

    offset  bytes  field                     offset  bytes  field
    0       8      base offset               27      8      first timestamp, ms
    8       4      length of what follows    35      8      max timestamp, ms
    12      4      partition leader epoch    43      8      producer id, -1 for none
    16      1      magic = 2                 51      2      producer epoch
    17      4      CRC-32C of bytes 21..     53      4      base sequence
    21      2      attributes                57      4      number of records
    23      4      last offset delta         61      ..     records, compressed as a whole

All numbers are big-endian. The CRC starts after the base offset and the leader epoch, so a broker stamps both without
decoding a record or computing a checksum. The length is outside the CRC, and a run of zeros has CRC 0: magic, length and
counts are checked before the CRC is believed. (Kafka's documentation, "Record Batch"; KIP-98.)

Per-record work is C: `aiokafka.record`, which is imported here and nowhere else.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from fastcrc import crc32

from logsvc_common.errors import CorruptBatch, InvalidConfig

Buffer = bytes | bytearray | memoryview
Header = tuple[str, bytes | None]

HEADER_BYTES = 61
LENGTH_END = 12  # where the bytes counted by `length` begin
CRC_START = 21  # where the bytes covered by the CRC begin
BATCH_BYTES_LIMIT = 1 << 30  # no batch is larger, whatever a length field says

CODECS: dict[str, int] = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CODEC_NAMES: dict[int, str] = {number: name for name, number in CODECS.items()}
CODEC_MASK = 0x07
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20

_HEADER = struct.Struct(">qiibIhiqqqhii")
_STAMP = struct.Struct(">qii")
_crc32c = crc32.iscsi


class BatchHeader(NamedTuple):
    """The 61 bytes before the records, in the order they are written."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return LENGTH_END + self.length

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; sequences wrap at 2**31 as in Kafka."""
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK


def parse_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`, its fields checked against each other; the CRC is not looked at.

    Raises CorruptBatch when the buffer is too short for a header, the magic is not 2, the length is impossible or the
    counts contradict each other. The batch itself may still reach beyond the buffer: compare `size`.
    """
    if len(buffer) - position < HEADER_BYTES:
        raise CorruptBatch(f"{len(buffer) - position} bytes are too few for a batch header of {HEADER_BYTES}")
    header = BatchHeader._make(_HEADER.unpack_from(buffer, position))
    if header.magic != 2:
        raise CorruptBatch(f"magic is {header.magic}, only 2 is known")
    if not HEADER_BYTES - LENGTH_END <= header.length <= BATCH_BYTES_LIMIT:
        raise CorruptBatch(f"batch length {header.length} is impossible")
    # Compaction may leave fewer records than offsets, never more.
    if header.record_count < 0 or header.last_offset_delta < 0 or header.record_count > header.last_offset_delta + 1:
        raise CorruptBatch(f"{header.record_count} records cannot end at offset delta {header.last_offset_delta}")
    return header


def check_crc(buffer: Buffer, header: BatchHeader, position: int = 0) -> None:
    """Raise CorruptBatch unless the whole batch at `position` is in the buffer and its CRC-32C is right."""
    end = position + header.size
    if end > len(buffer):
        raise CorruptBatch(f"batch of {header.size} bytes, only {len(buffer) - position} are there")
    found = _crc32c(memoryview(buffer)[position + CRC_START : end])
    if found != header.crc:
        raise CorruptBatch(f"CRC-32C is {found:#010x}, the header says {header.crc:#010x}")


def stamp(batch: Buffer, header: BatchHeader, base_offset: int, leader_epoch: int = 0) -> tuple[bytes, memoryview]:
    """The batch as it goes to disk, in two pieces for a gathering write: 16 stamped bytes, and the rest untouched."""
    return _STAMP.pack(base_offset, header.length, leader_epoch), memoryview(batch)[16:]


def split(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The whole batches at the start of `buffer`, as views into it. A batch cut off at the end is left out.

    Raises CorruptBatch at a header that cannot be.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while end - position >= HEADER_BYTES:
        header = parse_header(view, position)
        if position + header.size > end:
            return
        yield header, view[position : position + header.size]
        position += header.size


class RawRecord(Protocol):
    """What the codec hands out for one record; it lives in C."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]


def decode(batch: Buffer) -> list[RawRecord]:
    """Every record of one whole batch, decompressed. The CRC is not checked here: see `check_crc`.

    Raises CorruptBatch for records that do not parse.
    """
    try:
        return list(DefaultRecordBatch(batch))
    except (CorruptRecordException, UnsupportedCodecError) as error:
        raise CorruptBatch(f"the records of a batch do not decode: {error}") from error
    except Exception as error:
        raise CorruptBatch(f"the records of a batch do not decode: {type(error).__name__}: {error}") from error


class Builder(Protocol):
    """The codec's builder. `append` returns None when the batch is full; the first record always fits."""

    def append(
        self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: list[Header]
    ) -> object | None: ...
    def size(self) -> int: ...
    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None: ...
    def build(self) -> bytearray: ...


def codec_number(name: str) -> int:
    """The number of a codec by name; InvalidConfig names those there are."""
    try:
        return CODECS[name]
    except KeyError:
        raise InvalidConfig(f"unknown compression {name!r}; there are {', '.join(CODECS)}") from None


def builder(codec: int = 0, batch_bytes: int = 1 << 20) -> Builder:
    """An empty batch that takes records up to `batch_bytes` uncompressed bytes. Offsets given to `append` count from 0."""
    made: Any = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=batch_bytes,
    )
    return made  # type: ignore[no-any-return]


class RecordData(NamedTuple):
    """One record before it has an offset."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = 0
    headers: Sequence[Header] = ()


def encode(
    records: Iterable[RecordData],
    *,
    codec: int = 0,
    base_offset: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes:
    """One batch of all `records`: for the broker's own records and for tests. The clients' hot path uses `builder`."""
    made = builder(codec, BATCH_BYTES_LIMIT)
    for delta, record in enumerate(records):
        made.append(delta, record.timestamp_ms, record.key, record.value, list(record.headers))
    made.set_producer_state(producer_id, producer_epoch, base_sequence)
    batch = made.build()
    struct.pack_into(">q", batch, 0, base_offset)
    return bytes(batch)
