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

Per-record work is C: `aiokafka.record`, which is imported here and nowhere else. Its reader trusts the 61 bytes to be there,
inflates without a limit and may look a few bytes past the end of a record that lies about its lengths. So `decode` reads the
header itself, inflates into a buffer of bounded size, and hands the reader only memory that goes on behind the batch.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import cramjam
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from fastcrc import crc32

from logsvc_common.errors import CorruptBatch, InvalidConfig, InvalidRequest, RecordTooLarge

Buffer = bytes | bytearray | memoryview
Header = tuple[str, bytes | None]

HEADER_BYTES = 61
LENGTH_END = 12  # where the bytes counted by `length` begin
CRC_AT = 17  # where the CRC stands
CRC_START = 21  # where the bytes covered by the CRC begin
_CRC_AT = 17
_LAST_OFFSET_DELTA_AT = 23
PRODUCER_START = 43  # where producer id, epoch and sequence stand
BATCH_BYTES_LIMIT = 1 << 30  # no batch is larger, whatever a length field says
DECODED_BYTES_MAX = 128 << 20  # what the records of one compressed batch may inflate to: twice the largest max.message.bytes

CODECS: dict[str, int] = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CODEC_NAMES: dict[int, str] = {number: name for name, number in CODECS.items()}
CODEC_MASK = 0x07
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20

_INFLATE_FIRST_BYTES = 1 << 20  # room tried first, enough for a producer's usual batch; then more, up to the limit
_INFLATE_GROWTH = 16
_ATTRIBUTES_LOW_BYTE = 22
_XERIAL_MAGIC = b"\x82SNAPPY\x00"  # snappy as Kafka's Java clients frame it: 16 bytes, then blocks, each after its length
_XERIAL_HEADER_BYTES = 16

_HEADER = struct.Struct(">qiibIhiqqqhii")
_BLOCK_LENGTH = struct.Struct(">i")
_STAMP = struct.Struct(">qii")
_PRODUCER = struct.Struct(">qhi")
_CRC = struct.Struct(">I")
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


def split(buffer: Buffer, offset: int | None = None) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The whole batches at the start of `buffer`, as views into it. A batch cut off at the end is left out.

    With `offset`, of a log read from there: the first batch begins there or before, and each where the one before it ends. The
    base offset lies outside the CRC, so this is what keeps a damaged one from being skipped or given another place.

    Raises CorruptBatch at a header that cannot be, or that is not the one that follows.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while end - position >= HEADER_BYTES:
        header = parse_header(view, position)
        if position + header.size > end:
            return
        if offset is not None:
            if header.base_offset > offset or (position and header.base_offset < offset):
                raise CorruptBatch(f"offset {offset} is due, a batch of {header.base_offset} to {header.last_offset} is there")
            offset = header.next_offset
        yield header, view[position : position + header.size]
        position += header.size


class RawRecord(Protocol):
    """What the codec hands out for one record; it lives in C."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]


class _HasOffset(Protocol):
    @property
    def offset(self) -> int: ...


RecordT = TypeVar("RecordT", bound=_HasOffset)


def decode(batch: Buffer) -> list[RawRecord]:
    """Every record of one whole batch, decompressed, their offsets within the header's. The CRC is not checked here: see
    `check_crc`.

    Raises CorruptBatch for records that do not parse, or that would inflate to more than DECODED_BYTES_MAX bytes.
    """
    return decode_into(batch, list)


def decode_into(
    batch: Buffer,
    build: Callable[[Iterable[RawRecord]], list[RecordT]],
    *,
    inflated_bytes_max: int | None = None,
) -> list[RecordT]:
    """As `decode`, of what `build` makes of the records while they are read; it need not take them all. `inflated_bytes_max`
    lowers the limit.

    The garbage collector tracks the codec's own records. A `build` that turns each into something it does not track, before
    it takes the next, spares it from walking thousands of them; that halves the cost of reading.
    """
    header = parse_header(batch)
    if header.size != len(batch):
        raise CorruptBatch(f"a batch of {header.size} bytes in {len(batch)} bytes")
    try:
        limit = inflated_bytes_max or DECODED_BYTES_MAX
        records = build(DefaultRecordBatch(_inflate(batch, header.codec, limit) if header.codec else _followed(batch)))
    except CorruptBatch:
        raise
    except Exception as error:
        raise CorruptBatch(f"the records of a batch do not decode: {type(error).__name__}: {error}") from error
    if records and not header.base_offset <= records[0].offset <= records[-1].offset <= header.last_offset:
        raise CorruptBatch(
            f"records {records[0].offset} to {records[-1].offset} in a batch of {header.base_offset} to {header.last_offset}"
        )
    return records


def _followed(batch: Buffer) -> Buffer:
    """`batch` in memory that goes on behind it. CPython ends bytes and bytearrays with a zero byte of its own, and the
    reader stops there at the latest; other memory, such as that of a ZeroMQ frame, may end at the edge of a page."""
    if isinstance(batch, memoryview) and not isinstance(batch.obj, (bytes, bytearray)):
        return bytes(batch)
    return batch


def _inflate(batch: Buffer, codec: int, bytes_max: int) -> memoryview:
    """The same batch with its records uncompressed. Length and CRC in its header are still those of the compressed one."""
    if codec not in _DECOMPRESSORS:
        raise CorruptBatch(f"codec {codec} is not known")
    decompress, ratio_max = _DECOMPRESSORS[codec]
    packed = memoryview(batch)[HEADER_BYTES:]
    room_max = min(len(packed) * ratio_max, bytes_max)
    room = min(_INFLATE_FIRST_BYTES, room_max)
    while True:
        plain = bytearray(HEADER_BYTES + room)
        try:
            used = decompress(packed, memoryview(plain)[HEADER_BYTES:])
        except cramjam.DecompressionError:
            # Too little room and bad input are told apart only by trying again.
            if room >= room_max:
                raise
            room = min(room * _INFLATE_GROWTH, room_max)
            continue
        plain[:HEADER_BYTES] = batch[:HEADER_BYTES]
        plain[_ATTRIBUTES_LOW_BYTE] &= ~CODEC_MASK
        return memoryview(plain)[: HEADER_BYTES + used]


def _decompress_snappy(packed: memoryview, plain: memoryview) -> int:
    if packed[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return int(cramjam.snappy.decompress_raw_into(packed, plain))
    position, used = _XERIAL_HEADER_BYTES, 0
    while position < len(packed):
        (length,) = _BLOCK_LENGTH.unpack_from(packed, position)
        position += _BLOCK_LENGTH.size
        if not 0 < length <= len(packed) - position:
            raise CorruptBatch(f"a snappy block of {length} bytes where {len(packed) - position} are left")
        used += cramjam.snappy.decompress_raw_into(packed[position : position + length], plain[used:])
        position += length
    return used


# Each with the most one byte can inflate to in its format. For zstd: a block of 128 KiB, repeated, takes 4 bytes.
_DECOMPRESSORS: dict[int, tuple[Callable[[memoryview, memoryview], int], int]] = {
    CODECS["gzip"]: (cramjam.gzip.decompress_into, 1_032),
    CODECS["snappy"]: (_decompress_snappy, 64),
    CODECS["lz4"]: (cramjam.lz4.decompress_into, 255),
    CODECS["zstd"]: (cramjam.zstd.decompress_into, 32_768),
}


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
    """An empty batch that takes records up to `batch_bytes` uncompressed bytes. Offsets given to `append` count from 0;
    timestamps are 0 or later (the codec takes -1 for "none yet" and would shift the others). A batch above
    DECODED_BYTES_MAX could not be read again: whoever appends bounds the size of a record."""
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
    """One batch of all `records`: for the broker's own records and for tests. The clients' hot path uses `builder`.

    Raises InvalidRequest without records, since a batch must have an offset, and RecordTooLarge beyond BATCH_BYTES_LIMIT.
    """
    made = builder(codec, BATCH_BYTES_LIMIT)
    count = 0
    for count, record in enumerate(records, start=1):
        if made.append(count - 1, record.timestamp_ms, record.key, record.value, list(record.headers)) is None:
            raise RecordTooLarge(f"record {count} does not fit into a batch of {BATCH_BYTES_LIMIT} bytes")
    if not count:
        raise InvalidRequest("a batch without records")
    made.set_producer_state(producer_id, producer_epoch, base_sequence)
    batch = made.build()
    struct.pack_into(">q", batch, 0, base_offset)
    return bytes(batch)


def restamp_producer(batch: bytearray, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
    """Give an encoded batch another producer state, in place, and the CRC that goes with it.

    Needed only when a producer starts a new epoch (KIP-360); nothing is encoded again.
    """
    _PRODUCER.pack_into(batch, PRODUCER_START, producer_id, producer_epoch, base_sequence)
    _CRC.pack_into(batch, CRC_AT, _crc32c(memoryview(batch)[CRC_START:]))


def empty(first_offset: int, last_offset: int) -> bytes:
    """A batch without records that spans offsets, as Kafka's cleaner leaves behind: it keeps the offsets of a log dense.

    At most 2**31 offsets, because the last offset delta is an int32.
    """
    delta = last_offset - first_offset
    batch = bytearray(_HEADER.pack(first_offset, HEADER_BYTES - LENGTH_END, 0, 2, 0, 0, delta, -1, -1, -1, -1, -1, 0))
    _seal(batch)
    return bytes(batch)


def retain(header: BatchHeader, records: Sequence[RawRecord]) -> bytes:
    """The batch of `header` with only some of its records, at least one: same offsets, producer, sequence and codec.

    It spans the offsets it spanned before, as after Kafka's cleaner. Leader epoch 0.
    """
    made = builder(header.codec, BATCH_BYTES_LIMIT)
    for record in records:
        made.append(record.offset - header.base_offset, record.timestamp, record.key, record.value, record.headers)
    made.set_producer_state(header.producer_id, header.producer_epoch, header.base_sequence)
    batch = made.build()
    _STAMP.pack_into(batch, 0, header.base_offset, len(batch) - LENGTH_END, 0)
    struct.pack_into(">i", batch, _LAST_OFFSET_DELTA_AT, header.last_offset_delta)
    _seal(batch)
    return bytes(batch)


def _seal(batch: bytearray) -> None:
    struct.pack_into(">I", batch, _CRC_AT, _crc32c(bytes(memoryview(batch)[CRC_START:])))
