"""Apache Kafka's `DumpLogSegments` reads our files: every codec, the records themselves, and both indexes.

It checks of a log that offsets follow one another and CRCs are right; of an offset index, that each entry's position holds a
batch that ends at its offset; of a time index, that each timestamp is the largest of the batch at its offset, and ascends.
Needs Java and Maven: skipped without them (see `kafka_tools`).
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from logsvc.config import TopicConfig
from logsvc.storage.disk import RealDisk
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import CODECS, RecordData, encode, parse_header
from tests.e2e.kafka_tools import Dump, dump_log_segments

pytestmark = pytest.mark.kafka

NOW_MS = 1_700_000_000_000
# Small enough that a few hundred batches make several segments, each with several index entries.
CONFIG = TopicConfig(segment_bytes=24_000, index_interval_bytes=600, retention_ms=-1)


def written(folder: Path, batches: Sequence[bytes], config: TopicConfig = CONFIG) -> PartitionLog:
    folder.mkdir(parents=True, exist_ok=True)
    log = PartitionLog.open(RealDisk(), str(folder), "orders", 0, config)
    for number, batch in enumerate(batches):
        log.append(batch, parse_header(batch), NOW_MS + number)
        if number % 37 == 0:
            log.sync()
    log.sync()
    return log


def mixed_batches(count: int, seed: int = 7) -> list[bytes]:
    """Batches of all codecs and sizes; timestamps that go forwards on the whole, and backwards now and then."""
    rng = random.Random(seed)
    batches, sequence = [], 0
    for number in range(count):
        records = [
            RecordData(
                value=b"value %d.%d " % (number, place) + b"x" * rng.randrange(60),
                key=b"key%d" % rng.randrange(9),
                timestamp_ms=NOW_MS + number * 10 + rng.randrange(-300, 300),
                headers=[("trace", b"%d" % number)],
            )
            for place in range(rng.randrange(1, 9))
        ]
        codec = number % len(CODECS)
        batches.append(encode(records, codec=codec, producer_id=4, producer_epoch=0, base_sequence=sequence))
        sequence += len(records)
    return batches


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def assert_sound(dump: Dump, of: Sequence[Path]) -> None:
    """The tool went through every file and complained of nothing: what it says of a bad one is printed, not an exit code."""
    assert dump.exit_code == 0, dump.text
    said = dump.files()
    assert list(said) == [path.name for path in of]
    for complaint in (
        "Mismatch",
        "mismatch",
        "not found",
        "out of order",
        "Non-consecutive",
        "non-consecutive",
        "isvalid: false",
    ):
        assert complaint not in dump.text, dump.text[-3_000:]


def assert_indexes_sound(folder: Path) -> None:
    indexes = [*files(folder, ".index"), *files(folder, ".timeindex")]
    assert len(indexes) == 2 * len(files(folder, ".log"))
    sane = dump_log_segments(indexes, "--index-sanity-check")
    assert_sound(sane, indexes)
    empty = sum(not path.stat().st_size for path in indexes)  # the offset index of a segment with a batch or two
    assert (sane.text.count("passed sanity check"), sane.text.count("is empty.")) == (len(indexes) - empty, empty)
    verified = dump_log_segments(indexes, "--verify-index-only")
    assert_sound(verified, indexes)
    # Silence about each file is what "verified" looks like.
    for name, text in verified.files().items():
        assert [
            line for line in text.splitlines() if line and not line.startswith("SLF4J") and not line.endswith("is empty.")
        ] == [], name


def test_kafka_reads_the_records_of_every_codec(tmp_path: Path) -> None:
    # Given one partition for each codec, its records all in it
    segments = []
    for codec, number in CODECS.items():
        batches = [
            encode(
                [
                    RecordData(f"{codec} {i}.{j}".encode(), b"k%d" % j, NOW_MS + i, [("codec", codec.encode())])
                    for j in range(3)
                ],
                codec=number,
            )
            for i in range(20)
        ]
        written(tmp_path / codec, batches, TopicConfig()).close()
        segments += files(tmp_path / codec, ".log")
    assert len(segments) == len(CODECS)
    # When Kafka dumps them, records and all
    dump = dump_log_segments(segments, "--deep-iteration", "--print-data-log")
    # Then it complains of nothing, and has found every one, at its offset, with key, value and header.
    assert dump.exit_code == 0, dump.text
    parts = re.split(r"^Dumping .*\n", dump.text, flags=re.MULTILINE)[1:]
    for codec, text in zip(CODECS, parts, strict=True):
        assert text.count(f"compresscodec: {codec}") == text.count("isvalid: true") == 20
        assert "isvalid: false" not in text
        found = re.findall(
            r"^\| offset: (\d+) CreateTime: (\d+) .* headerKeys: \[codec\] key: (\S+) payload: (.*)$", text, re.M
        )
        assert found == [(str(3 * i + j), str(NOW_MS + i), f"k{j}", f"{codec} {i}.{j}") for i in range(20) for j in range(3)]


def test_kafka_finds_segments_and_indexes_sound_after_many_rolls(tmp_path: Path) -> None:
    folder = tmp_path / "orders-0"
    log = written(folder, mixed_batches(400))
    end_offset = log.end_offset
    log.close()
    # Given at least three segments, and indexes with several entries each
    assert len(files(folder, ".log")) >= 3
    assert all(path.stat().st_size >= 3 * 8 for path in files(folder, ".index")[:-1])
    assert all(path.stat().st_size >= 3 * 12 for path in files(folder, ".timeindex")[:-1])
    dump = dump_log_segments(files(folder, ".log"), "--deep-iteration", "--print-data-log")
    assert_sound(dump, files(folder, ".log"))
    offsets = [int(offset) for offset in re.findall(r"^\| offset: (\d+) ", dump.text, re.M)]
    assert offsets == list(range(end_offset))
    assert_indexes_sound(folder)


@pytest.mark.parametrize("damage", ["deleted", "scrambled", "checkpoint lost", "torn tail"])
def test_kafka_finds_indexes_sound_that_recovery_has_rebuilt(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "orders-0"
    written(folder, mixed_batches(300)).close()
    names = {path.name for path in folder.iterdir()}
    logs = files(folder, ".log")
    for path in folder.iterdir():
        if damage == "deleted" and path.suffix in (".index", ".timeindex"):
            path.unlink()
        elif damage == "scrambled" and path.suffix in (".index", ".timeindex"):
            path.write_bytes(random.Random(3).randbytes(path.stat().st_size))
        elif damage in ("checkpoint lost", "torn tail") and path.suffix != ".log":
            path.unlink()
    if damage == "torn tail":
        logs[-1].write_bytes(logs[-1].read_bytes()[:-10])
    # When the partition is opened and read from end to end, and closed
    log = PartitionLog.open(RealDisk(), str(folder), "orders", 0, CONFIG)
    offset = log.start_offset
    while data := log.read(offset, 1 << 20):
        offset = parse_header(data).next_offset
    for number in range(0, 3_000, 100):
        log.offset_for_time(NOW_MS + number)
    assert offset == log.end_offset
    log.close()
    # Then every index is there again, and Kafka finds it sound.
    assert names <= {path.name for path in folder.iterdir()}
    assert_indexes_sound(folder)


def test_kafka_finds_the_indexes_of_a_single_batch_sound(tmp_path: Path) -> None:
    folder = tmp_path / "orders-0"
    written(folder, mixed_batches(1)).close()
    assert [path.stat().st_size for path in files(folder, ".index")] == [0]
    assert_indexes_sound(folder)


def test_the_proof_itself_notices_a_bad_crc_and_an_index_that_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "orders-0"
    written(folder, mixed_batches(300)).close()
    segment, index = files(folder, ".log")[1], files(folder, ".index")[1]
    # Given one byte of a record changed, and one entry of an index moved on by an offset
    changed = bytearray(segment.read_bytes())
    changed[70] ^= 1
    moved = bytearray(index.read_bytes())
    moved[3] += 1
    index.write_bytes(moved)
    with pytest.raises(AssertionError):
        assert_indexes_sound(folder)
    segment.write_bytes(changed)
    with pytest.raises(AssertionError):
        assert_sound(dump_log_segments([segment]), [segment])
