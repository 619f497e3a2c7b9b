"""`logsvc verify` on folders of a real broker: sound, damaged, in use, and none at all."""

from pathlib import Path

import pytest

from logsvc.cli.positions import Kind, Position
from logsvc.cli.reading import find_spans, read
from logsvc.testing import embedded_broker
from logsvc_client import Admin, Producer
from tests.e2e.cli_runner import Runner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one topic, 30 batches of one record each, whose broker has stopped."""
    with embedded_broker(tmp_path / "data", http_port=-1) as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders")
        with Producer(broker.server, linger_ms=0) as producer:
            for number in range(30):
                producer.send("orders", b"%d" % number * 100).result(timeout=10)
    return tmp_path / "data"


def segment(folder: Path) -> Path:
    [path] = (folder / "orders-0").glob("*.log")
    return path


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_sound_folder_passes(alone: Runner, folder: Path) -> None:
    report = alone.json("verify", str(folder))
    assert report["ok"]
    [partition] = [partition for partition in report["partitions"] if partition["folder"].endswith("orders-0")]
    assert (partition["records"], partition["end_offset"], partition["faults"]) == (30, 30, [])


def test_text_ends_with_the_verdict(alone: Runner, folder: Path) -> None:
    outcome = alone("verify", str(folder / "orders-0"))
    assert outcome.code == 0
    assert outcome.out.decode().splitlines()[-1].endswith("1 partition, all is as it was written")


def test_a_flipped_bit_is_found_named_and_repaired(alone: Runner, folder: Path) -> None:
    flip_bit(segment(folder), segment(folder).stat().st_size // 2)

    found = alone("verify", str(folder), "--format", "json")
    assert found.code == 1
    [partition] = [partition for partition in found.document["partitions"] if not partition["ok"]]
    [[first, last]] = partition["lost_offsets"]
    assert first == last
    assert "--repair" in found.err
    assert alone("verify", str(folder)).code == 1

    mended = alone.json("verify", str(folder), "--repair")
    assert mended["repaired"]
    assert alone("verify", str(folder)).code == 0
    assert list((folder / "orders-0").glob("*.corrupt"))

    with embedded_broker(folder, http_port=-1) as broker, Admin(broker.server) as admin:
        spans = find_spans(admin, ["orders"], Position(Kind.START))
        offsets = [record.offset for records in read(broker.server, spans, to_end=True) for record in records]
    assert offsets == [offset for offset in range(30) if offset != first]


def test_a_folder_in_use_is_refused(alone: Runner, tmp_path: Path) -> None:
    with embedded_broker(tmp_path / "data", http_port=-1):
        outcome = alone("verify", str(tmp_path / "data"))
    assert (outcome.code, outcome.out) == (1, b"")
    assert "another broker" in outcome.err


def test_what_is_no_data_folder_is_refused(alone: Runner, tmp_path: Path) -> None:
    outcome = alone("verify", str(tmp_path))
    assert (outcome.code, outcome.out) == (1, b"")
    assert "Traceback" not in outcome.err
    assert alone("verify", str(tmp_path / "missing")).code == 2
