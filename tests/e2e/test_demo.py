"""`logsvc demo`: on its own log, on any file, twice on one folder; and that it notices when numbers do not add up."""

import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from logsvc.cli.access_log import host_of, parse, sample_lines
from logsvc.cli.demo import DEAD_LETTERS, GROUP, TOPIC, Report
from logsvc.cli.letters import letter_document
from logsvc.cli.positions import Kind, Position
from logsvc.cli.reading import find_spans, read
from logsvc.testing import embedded_broker
from logsvc_client import Admin, Record
from tests.e2e.cli_runner import Logsvc, Runner

HEADERS = {
    "__dlq.errors.topic",
    "__dlq.errors.partition",
    "__dlq.errors.offset",
    "__dlq.errors.group",
    "__dlq.errors.delivery.count",
    "__dlq.errors.message",
    "logsvc.dlq.exception.class",
    "logsvc.dlq.exception.stacktrace",
    "logsvc.dlq.original.timestamp",
    "logsvc.dlq.first.failure.timestamp",
    "logsvc.dlq.redrive.count",
}


def broken(lines: list[bytes]) -> list[bytes]:
    found = []
    for line in lines:
        try:
            parse(line)
        except ValueError:
            found.append(line)
    return found


def all_records(server: str, topic: str) -> list[Record]:
    with Admin(server) as admin:
        spans = find_spans(admin, [topic], Position(Kind.START))
    return [record for records in read(server, spans, to_end=True) for record in records]


def test_without_a_file_it_shows_its_own_log_and_the_numbers_add_up() -> None:
    outcome = Logsvc()("demo", "--format", "json")
    assert outcome.code == 0, outcome.err
    found = outcome.document
    assert (found["records_in"], found["handled"], found["dead_lettered"], found["lag"]) == (1_000, 960, 40, 0)
    assert found["retried"] == 80


def test_people_get_a_table_and_where_to_look_next(alone: Runner, tmp_path: Path) -> None:
    outcome = alone("demo", "--data-dir", str(tmp_path / "data"))
    assert outcome.code == 0, outcome.err
    text = outcome.out.decode()
    assert re.search(r"^dead-lettered\t40$", text, re.MULTILINE)
    assert f"logsvc serve --data-dir {tmp_path / 'data'}" in text
    assert f"logsvc dlq show {DEAD_LETTERS}" in text


def test_every_dead_letter_is_its_line_and_says_where_it_came_from(alone: Runner, tmp_path: Path) -> None:
    lines = list(sample_lines(400, broken_every=10))
    (tmp_path / "access.log").write_bytes(b"".join(line + b"\n" for line in lines))
    found = alone.json("demo", "--file", str(tmp_path / "access.log"), "--data-dir", str(tmp_path / "data"))
    assert (found["records_in"], found["handled"], found["dead_lettered"]) == (400, 360, 40)

    with embedded_broker(tmp_path / "data", http_port=-1) as broker:
        records = {(record.partition, record.offset): record for record in all_records(broker.server, TOPIC)}
        letters = all_records(broker.server, DEAD_LETTERS)
    assert Counter(letter.value for letter in letters) == Counter(broken(lines))
    for letter in letters:
        document = letter_document(letter)
        source = records[document["source"]["partition"], document["source"]["offset"]]
        assert {name for name, _ in letter.headers} == HEADERS
        assert (letter.value, letter.key, letter.partition) == (source.value, source.key, source.partition)
        assert (document["source"]["topic"], document["group"]) == (TOPIC, GROUP)
        assert document["source"]["timestamp_ms"] == source.timestamp_ms
        assert (document["attempts"], document["redrives"]) == (3, 0)
        assert "does not match" in document["error"]
        assert document["exception_class"].endswith("ValueError")
        assert "parse" in document["stacktrace"]
        assert source.timestamp_ms <= document["first_failure_ms"] <= letter.timestamp_ms
    # Per host, what is in the topic stands in the order of the file.
    by_host = [(host_of(record.value or b""), record.value) for _, record in sorted(records.items())]
    for host in {host for host, _ in by_host}:
        assert [value for owner, value in by_host if owner == host] == [line for line in lines if host_of(line) == host]


@pytest.mark.parametrize(
    ("content", "records", "handled"),
    [
        (b"", 0, 0),
        (b"\n\n\n", 3, 0),
        (bytes(range(256)) * 20, 21, 0),
        (b"x" * 3_000_000 + b"\nno newline at the end", 2, 0),
        (b'h - - [t] "GET /" 200 1\r\nh - - [t] "GET /" 200 1', 2, 1),
    ],
    ids=["empty", "empty lines", "binary", "a huge line", "carriage return"],
)
def test_any_file_will_do(alone: Runner, tmp_path: Path, content: bytes, records: int, handled: int) -> None:
    (tmp_path / "file").write_bytes(content)
    outcome = alone("demo", "--file", str(tmp_path / "file"), "--format", "json")
    assert outcome.code == 0, outcome.err
    found = outcome.document
    assert (found["records_in"], found["handled"], found["dead_lettered"]) == (records, handled, records - handled)


def test_twice_on_one_folder_each_run_counts_its_own(alone: Runner, tmp_path: Path) -> None:
    for _ in range(2):
        found = alone.json("demo", "--data-dir", str(tmp_path / "data"))
        assert (found["records_in"], found["left_over"], found["handled"], found["dead_lettered"]) == (1_000, 0, 960, 40)


def test_a_file_that_is_not_there_is_a_usage_error(alone: Runner) -> None:
    outcome = alone("demo", "--file", "/does/not/exist")
    assert (outcome.code, outcome.out) == (2, b"")
    assert "/does/not/exist" in outcome.err


def test_kept_the_folder_can_be_served(alone: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = alone("demo", "--keep")
    assert outcome.code == 0, outcome.err
    [folder] = re.findall(r"--data-dir (\S+) &", outcome.out.decode())
    with embedded_broker(folder, http_port=-1) as broker:
        assert len(all_records(broker.server, DEAD_LETTERS)) == 40


class TestTheCheck:
    def test_numbers_that_add_up_are_no_problem(self) -> None:
        report = Report(records_in=5, left_over=1, handled=4, exhausted=2, dead_lettered=2)
        report.check()
        assert report.document()["ok"]

    @pytest.mark.parametrize(
        "report",
        [
            Report(records_in=5, handled=4),
            Report(records_in=5, handled=5, dead_lettered=1, exhausted=1),
            Report(records_in=5, handled=4, dead_lettered=1),
            Report(records_in=5, handled=5, exhausted=1),
            Report(records_in=5, handled=5, lag=1),
            Report(records_in=5, handled=5, outstanding=1),
        ],
    )
    def test_any_other_sum_is_one(self, report: Report) -> None:
        report.check()
        document = json.loads(json.dumps(report.document()))
        assert not document["ok"]
        assert document["problems"]
