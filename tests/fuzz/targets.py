"""What is fuzzed: the frame decoder, the batch decoder, the recovery scan and recovery as a whole.

A target makes the input of a number, alone of that number and the seed, and runs it. Only typed errors may come out. What is
accepted is held against what it must be: a batch that was accepted is within its header, a scan yields what was good before the
first change and nothing that has a wrong checksum, a recovery loses no good batch that stands before the first bad byte.
"""

import struct
from abc import ABC, abstractmethod
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import ClassVar

import msgspec

from logsvc.storage.checkpoint import FILE_NAME, Checkpoint
from logsvc.storage.checkpoint import encode as encode_checkpoint
from logsvc.storage.recovery import recover
from logsvc.storage.scan import BadBatch, batch_after, find_batch, walk_batches, walk_headers
from logsvc.storage.segment import file_name
from logsvc_common import batch as batches
from logsvc_common.batch import CODECS, CRC_AT, CRC_START, HEADER_BYTES, RecordData
from logsvc_common.errors import CorruptBatch, LogsvcError
from logsvc_common.frames import FrameError, decode_body, decode_request, decode_response, encode_request, encode_response
from logsvc_common.messages import APIS
from tests.e2e.test_request_fuzz import Fuzz
from tests.fuzz.mutations import NUMBERS, STEPS_MAX, mutate_bytes, mutate_tree, nested
from tests.storage_support import FOLDER, config, new_disk

CORPUS_SEED = 7
SAMPLES_PER_API = 12
FRAME_BYTES_MAX = 2_000  # of samples: small ones take less time to change
SEGMENTS = 24  # sound segments that inputs of the scan are made from
INFLATED_BYTES_MAX = 1 << 20  # the limit a reader of untrusted batches sets: what is fuzzed is that it holds
# (position, format) of the fields of a batch header.
FIELDS = ((0, ">q"), (8, ">i"), (12, ">i"), (16, ">b"), (21, ">h"), (23, ">i"), (27, ">q"), (35, ">q"), (43, ">q"), (57, ">i"))
_WIDTHS = {">q": 64, ">i": 32, ">h": 16, ">b": 8}


class Target(ABC):
    """`run` raises whatever must not come out, and counts in `accepted` how many inputs were taken for good."""

    name: ClassVar[str]

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random()
        self.accepted = 0

    def run(self, number: int) -> None:
        self.rng.seed(self.seed * 1_000_000_007 + number)
        self.one()

    @abstractmethod
    def one(self) -> None: ...


class Frames(Target):
    """Requests and answers: msgpack trees and bytes, mutated."""

    name = "frames"

    @cached_property
    def corpus(self) -> list[bytes]:
        made = Fuzz(CORPUS_SEED)
        found = []
        for entry in APIS.values():
            for _ in range(SAMPLES_PER_API):
                try:
                    frames = [encode_request(1, made.message(entry.request)), encode_response(1, made.message(entry.response))]
                except (LogsvcError, UnicodeEncodeError):
                    continue  # a value that no message may hold
                found += [bytes(frame[0]) for frame in frames if len(frame[0]) < FRAME_BYTES_MAX]
        return found

    def one(self) -> None:
        rng = self.rng
        frame = rng.choice(self.corpus)
        if rng.random() < 0.5:
            tree = msgspec.msgpack.decode(frame)
            for _ in range(rng.randrange(1, STEPS_MAX + 1)):
                tree = mutate_tree(rng, tree)
            frame = msgspec.msgpack.encode(tree)
        if rng.random() < 0.6:
            data = bytearray(frame)
            for _ in range(rng.randrange(1, STEPS_MAX + 1)):
                mutate_bytes(rng, data, rng.choice(self.corpus))
            frame = bytes(data)
        if rng.random() < 0.001:
            at = rng.randrange(len(frame) + 1)
            frame = frame[:at] + nested(rng.choice((100, 1_000, 100_000))) + frame[at:]
        frames = [frame] if rng.random() < 0.9 else [frame] * rng.choice((0, 2, 5_000))
        try:
            decode_request(frames)
            self.accepted += 1
        except FrameError:
            pass
        try:
            answer = decode_response(frames)
            decode_body(answer, rng.choice(_RESPONSES))
        except LogsvcError:
            return


_RESPONSES = sorted({entry.response for entry in APIS.values()}, key=lambda message: message.__name__)


def _records(rng: Random) -> list[RecordData]:
    made = []
    for _ in range(rng.randrange(1, 6)):
        headers = [("h" * rng.randrange(4), rng.choice((None, b"", b"v" * 5))) for _ in range(rng.randrange(3))]
        key = rng.choice((None, b"", b"key"))
        made.append(RecordData(rng.choice((None, b"", rng.randbytes(rng.randrange(90)))), key, rng.randrange(1 << 40), headers))
    return made


def seal(data: bytearray) -> None:
    """Give a batch the length and the CRC that its bytes have, so that a decoder looks further."""
    if len(data) >= HEADER_BYTES:
        struct.pack_into(">i", data, 8, len(data) - batches.LENGTH_END)
        struct.pack_into(">I", data, CRC_AT, batches._crc32c(bytes(data[CRC_START:])))


def mutate_batch(rng: Random, data: bytearray, donor: bytes) -> None:
    """A field of the header, or any bytes."""
    if rng.random() < 0.4 and len(data) >= HEADER_BYTES:
        at, form = rng.choice(FIELDS)
        width = _WIDTHS[form]
        value = rng.choice(NUMBERS) & ((1 << width) - 1)
        data[at : at + width // 8] = value.to_bytes(width // 8, "big")
    else:
        mutate_bytes(rng, data, donor)


class Batches(Target):
    """One batch: header, checksum, splitting, decompression, records."""

    name = "batches"
    codecs: ClassVar[tuple[int, ...]] = (0,)

    @cached_property
    def corpus(self) -> list[bytes]:
        rng = Random(CORPUS_SEED)
        return [batches.encode(_records(rng), codec=rng.choice(self.codecs)) for _ in range(200)]

    def one(self) -> None:
        rng = self.rng
        data = bytearray(rng.choice(self.corpus))
        for _ in range(rng.randrange(1, STEPS_MAX + 1)):
            mutate_batch(rng, data, rng.choice(self.corpus))
        if rng.random() < 0.6:
            seal(data)
        batch = bytes(data)
        try:
            header = batches.parse_header(batch)
            for _, view in batches.split(batch):
                assert len(view) >= HEADER_BYTES
            batches.check_crc(batch, header)
        except CorruptBatch:
            pass
        try:
            records = batches.decode_into(batch, list, inflated_bytes_max=INFLATED_BYTES_MAX)
        except CorruptBatch:
            return
        self.accepted += 1
        held = sum(len(record.key or b"") + len(record.value or b"") for record in records)
        assert held <= max(len(batch), INFLATED_BYTES_MAX), f"{held} bytes of records in a batch of {len(batch)}"


class CompressedBatches(Batches):
    name = "compressed batches"
    codecs = tuple(number for number in CODECS.values() if number)


class MemoryFile:
    """The `File` of a scan, on bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def pread(self, length: int, position: int) -> bytes:
        assert length <= 1 << 30, f"a read of {length} bytes"
        return self.content[position : position + length]


class Scan(Target):
    """A segment: walks with and without checksums, and the search for the next good batch."""

    name = "scan"

    @cached_property
    def corpus(self) -> list[list[bytes]]:
        rng = Random(CORPUS_SEED)
        found = []
        for _ in range(SEGMENTS):
            segment, offset = [], 0
            for _ in range(rng.randrange(1, 7)):
                batch = batches.encode(_records(rng))
                header = batches.parse_header(batch)
                segment.append(b"".join(batches.stamp(batch, header, offset)))
                offset += header.next_offset
            found.append(segment)
        return found

    def mutated(self) -> tuple[bytes, list[bytes], int]:
        """(content, the sound batches, how many of them stand untouched at the start)."""
        rng = self.rng
        segment = rng.choice(self.corpus)
        sound = b"".join(segment)
        kind = rng.randrange(8)
        if kind == 0:
            shuffled = rng.sample(segment, len(segment))
            content = b"".join(shuffled)
        elif kind == 1:
            at = rng.randrange(len(sound))
            content = sound[:at] + bytes(len(sound) - at + rng.randrange(200))
        elif kind == 2:
            content = sound + rng.randbytes(rng.randrange(1, 200))
        elif kind == 3:
            content = sound + b"".join(rng.choice(self.corpus))
        else:
            data = bytearray(sound)
            for _ in range(rng.randrange(1, STEPS_MAX + 1)):
                mutate_batch(rng, data, b"".join(rng.choice(self.corpus)))
            content = bytes(data)
        ends = list(accumulate(map(len, segment)))
        same = sum(content[:end] == sound[:end] for end in ends)
        return content, segment, same

    def one(self) -> None:
        content, _, same = self.mutated()
        file, end = MemoryFile(content), len(content)
        if self.rng.random() < 0.05:
            end += self.rng.randrange(100)  # a file that was cut or swapped after its size was taken
        seen, bad = 0, None
        try:
            for position, header in walk_batches(file, 0, end, 0):  # type: ignore[arg-type]
                batches.check_crc(content, header, position)
                assert position + header.size <= end
                seen += 1
        except BadBatch as error:
            bad = error
        assert seen >= same, f"{seen} batches found where the first {same} are sound"
        self.accepted += bad is None
        try:
            for _ in walk_headers(file, 0, end, 0):  # type: ignore[arg-type]
                continue
        except BadBatch:
            pass
        if bad is not None:
            found = batch_after(file, bad, end)  # type: ignore[arg-type]
            if found is not None:
                batches.check_crc(content, found[1], found[0])
                assert found[0] > bad.position
        find_batch(file, 0, end, 0)  # type: ignore[arg-type]


class Recovery(Scan):
    """The same segment in a partition folder, with a checkpoint that may be sound, stale or garbage: opened as at a start."""

    name = "recovery"

    @cached_property
    def settings(self):  # type: ignore[no-untyped-def]
        return config()

    def one(self) -> None:
        content, segment, same = self.mutated()
        disk = new_disk()
        name = f"{FOLDER}/{file_name(0)}"
        disk.set_content(name, content)
        checkpoint = self.checkpoint(segment)
        if checkpoint is not None:
            disk.set_content(f"{FOLDER}/{FILE_NAME}", checkpoint)
        if self.rng.random() < 0.3:
            disk.set_content(f"{FOLDER}/{file_name(0, '.index')}", self.rng.randbytes(self.rng.randrange(64)))
        out = recover(disk, FOLDER, self.settings)
        sound = batches.parse_header(segment[same - 1]).next_offset if same else 0
        assert out.end_offset >= sound, f"it ends at {out.end_offset}, {sound} offsets stand there sound"
        after = disk.content(name)
        kept = sum(map(len, segment[:same]))
        assert after[:kept] == content[:kept], "recovery has changed sound batches"
        assert content.startswith(after), "recovery has changed what it has kept"
        if after != content:
            torn = [disk.content(f"{FOLDER}/{entry}") for entry in disk.listdir(FOLDER) if entry.endswith(".torn")]
            assert torn == [content[len(after) :]], "a tail was cut and not kept"
        self.accepted += not out.faults

    def checkpoint(self, segment: list[bytes]) -> bytes | None:
        rng = self.rng
        kind = rng.randrange(4)
        if kind == 0:
            return None
        ends = batches.parse_header(rng.choice(segment)).next_offset
        made = bytearray(encode_checkpoint(Checkpoint(0, ends, (), ())))
        if kind == 1:
            mutate_bytes(rng, made, b"checkpoint")
        return bytes(made)


TARGETS: dict[str, type[Target]] = {target.name: target for target in (Frames, Batches, CompressedBatches, Scan, Recovery)}
# Of a hundred inputs, how many go to each.
SHARES = {"frames": 34, "batches": 26, "compressed batches": 4, "scan": 26, "recovery": 10}
