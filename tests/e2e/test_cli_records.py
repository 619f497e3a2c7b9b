"""`logsvc produce` and `logsvc consume` against a real broker: exact bytes, keys, positions, groups."""

import base64
import re
import select
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from logsvc.cli.access_log import host_of, sample_lines
from logsvc_client import Producer
from tests.e2e.cli_runner import Logsvc, Runner

NASTY = [b"", b" x ", b"a\r", b"\x00\xff", "é\u2028".encode(), b"a\x0bb\x0c", b'{"a":1}', b"last, without a newline"]


def values(documents: list[Any]) -> list[bytes]:
    return [base64.b64decode(d["value"]) if d.get("value_encoding") == "base64" else d["value"].encode() for d in documents]


def everything(logsvc: Runner, topic: str, *arguments: str) -> list[Any]:
    outcome = logsvc("consume", topic, "-e", "--format", "json", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome.documents


def fill(logsvc: Runner, topic: str, count: int, *, partitions: int = 1, first: int = 0) -> None:
    logsvc("topic", "create", topic, "--partitions", str(partitions), "--if-not-exists")
    outcome = logsvc("produce", topic, input=b"".join(b"%d\n" % number for number in range(first, first + count)))
    assert outcome.code == 0, outcome.err


class TestProduce:
    def test_every_line_keeps_its_exact_bytes(self, command: Logsvc) -> None:
        command("topic", "create", "nasty")
        produced = command("produce", "nasty", input=b"\n".join(NASTY))
        assert (produced.code, produced.out) == (0, b"")
        assert "8 records" in produced.err
        assert values(everything(command, "nasty")) == NASTY
        assert command("consume", "nasty", "-e").out == b"\n".join(NASTY) + b"\n"

    def test_a_file_keyed_by_its_first_field_keeps_the_order_of_each_key(self, logsvc: Runner, tmp_path: Path) -> None:
        lines = list(sample_lines(500))
        (tmp_path / "access.log").write_bytes(b"".join(line + b"\n" for line in lines))
        logsvc("topic", "create", "by-host", "--partitions", "4")
        summary = logsvc.json("produce", "by-host", "--key-regex", r"^(\S+)", "--file", str(tmp_path / "access.log"))
        assert (summary["records"], summary["bytes"]) == (500, sum(map(len, lines)))
        found = everything(logsvc, "by-host")
        assert sorted(values(found)) == sorted(lines)
        expected, seen = defaultdict(list), defaultdict(list)
        for line in lines:
            expected[host_of(line)].append(line)
        for document, value in zip(found, values(found), strict=True):
            assert host_of(value) == document["key"].encode()
            seen[host_of(value)].append(value)
        assert seen == expected
        assert len({document["partition"] for document in found}) == 4

    def test_a_line_the_key_regex_does_not_match_has_no_key(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "keys")
        logsvc("produce", "keys", "--key-regex", "id=([0-9]+)", input=b"id=7 x\nnothing\n")
        assert [document["key"] for document in everything(logsvc, "keys")] == ["7", None]

    def test_key_headers_and_partition_are_as_given(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "given", "--partitions", "3")
        logsvc("produce", "given", "--key", "k", "-H", "trace=1", "-H", "empty=", "--partition", "2", input=b"v\n")
        [document] = everything(logsvc, "given")
        assert (document["key"], document["partition"]) == ("k", 2)
        assert document["headers"] == [{"name": "trace", "value": "1"}, {"name": "empty", "value": ""}]

    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    def test_compressed_records_come_back_the_same(self, logsvc: Runner, codec: str) -> None:
        logsvc("topic", "create", codec)
        lines = list(sample_lines(300))
        logsvc("produce", codec, "--compression", codec, input=b"\n".join(lines))
        assert values(everything(logsvc, codec)) == lines

    def test_an_empty_input_is_no_record_and_no_error(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "nothing")
        assert logsvc("produce", "nothing").code == 0
        assert everything(logsvc, "nothing") == []

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("nope",), 4),
            (("one", "--partition", "1"), 4),
            (("one", "--file", "/does/not/exist"), 2),
            (("one", "--key-regex", "("), 2),
            (("one", "--key-regex", "no group"), 2),
            (("one", "--key-regex", "(x)", "--key", "y"), 2),
            (("one", "--compression", "rar"), 2),
            (("one", "--header", "novalue"), 2),
        ],
    )
    def test_what_cannot_be_meant_says_so(self, logsvc: Runner, arguments: tuple[str, ...], code: int) -> None:
        logsvc("topic", "create", "one", "--if-not-exists")
        outcome = logsvc("produce", *arguments, input=b"x\n")
        assert (outcome.code, outcome.out) == (code, b"")
        assert outcome.err
        assert "Traceback" not in outcome.err

    def test_a_record_above_the_topics_limit_fails_the_command(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "small", "-c", "max.message.bytes=1000")
        outcome = logsvc("produce", "small", input=b"x" * 5_000 + b"\n")
        assert outcome.code == 1
        assert "Traceback" not in outcome.err
        assert everything(logsvc, "small") == []


class TestConsume:
    def test_positions(self, logsvc: Runner) -> None:
        fill(logsvc, "positions", 10)
        assert values(everything(logsvc, "positions", "-o", "start")) == [b"%d" % number for number in range(10)]
        assert values(everything(logsvc, "positions", "-o", "7")) == [b"7", b"8", b"9"]
        assert values(everything(logsvc, "positions", "-o", "-2")) == [b"8", b"9"]
        assert everything(logsvc, "positions", "-o", "end") == []
        assert len(everything(logsvc, "positions", "-o", "start", "-n", "4")) == 4
        assert everything(logsvc, "positions", "-n", "0") == []

    def test_a_position_by_time(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "times")
        with Producer(logsvc.server) as producer:
            for second in range(10):
                producer.send("times", b"%d" % second, timestamp_ms=1_700_000_000_000 + second * 1_000)
        assert values(everything(logsvc, "times", "-o", "@1700000007000")) == [b"7", b"8", b"9"]
        assert values(everything(logsvc, "times", "-o", "@2023-11-14T22:13:28Z")) == [b"8", b"9"]
        assert everything(logsvc, "times", "-o", "@2040-01-01") == []
        assert len(everything(logsvc, "times", "-o", "@2001-01-01")) == 10

    def test_a_record_shows_everything_it_has(self, logsvc: Runner) -> None:
        logsvc("topic", "create", "whole")
        with Producer(logsvc.server) as producer:
            headers = [("twice", b"1"), ("twice", b"\xff"), ("none", None)]
            producer.send("whole", None, key=b"\xfe", headers=headers, timestamp_ms=1_700_000_000_000)
        assert everything(logsvc, "whole") == [
            {
                "topic": "whole",
                "partition": 0,
                "offset": 0,
                "timestamp_ms": 1_700_000_000_000,
                "key": base64.b64encode(b"\xfe").decode(),
                "key_encoding": "base64",
                "value": None,
                "headers": [
                    {"name": "twice", "value": "1"},
                    {"name": "twice", "value": base64.b64encode(b"\xff").decode(), "value_encoding": "base64"},
                    {"name": "none", "value": None},
                ],
            }
        ]

    def test_several_topics_and_chosen_partitions(self, logsvc: Runner) -> None:
        for topic in ("first", "second"):
            logsvc("topic", "create", topic, "--partitions", "2")
            for partition in ("0", "1"):
                logsvc("produce", topic, "--partition", partition, input=f"{topic}-{partition}\n".encode())
        outcome = logsvc("consume", "first", "second", "-e", "--format", "json")
        assert sorted(values(outcome.documents)) == [b"first-0", b"first-1", b"second-0", b"second-1"]
        assert values(everything(logsvc, "first", "--partition", "1")) == [b"first-1"]

    def test_without_an_end_it_goes_on_with_what_comes(self, logsvc: Runner, command: Logsvc) -> None:
        fill(logsvc, "tail", 2)
        with command.start("consume", "tail", "-o", "end") as process:
            assert process.stdout is not None
            # Nobody says when it has found out where the end is: send until something arrives.
            while not re.search(rb"\d", line := _line_or_nothing(process, logsvc)):
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert int(line) >= 2
        assert process.returncode == 130

    def test_a_reader_that_leaves_is_no_error_message(self, logsvc: Runner, command: Logsvc) -> None:
        fill(logsvc, "head", 20_000)
        with command.start("consume", "head", "-e") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"0\n"
            process.stdout.close()
            assert process.stderr.read() == b""
            process.wait(timeout=30)

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("nope", "-e"), 4),
            (("some", "-e", "--partition", "9"), 4),
            (("some", "-e", "-o", "middle"), 2),
            (("some", "-e", "-g", "g", "-o", "5"), 2),
            (("some", "-e", "-g", "g", "--partition", "0"), 2),
            (("some", "-e", "-g", "a b"), 2),
            (("some", "-n", "-1"), 2),
            ((), 2),
        ],
    )
    def test_what_cannot_be_meant_says_so(self, logsvc: Runner, arguments: tuple[str, ...], code: int) -> None:
        logsvc("topic", "create", "some", "--if-not-exists")
        outcome = logsvc("consume", *arguments)
        assert (outcome.code, outcome.out) == (code, b"")
        assert outcome.err
        assert "Traceback" not in outcome.err


def _line_or_nothing(process: Any, logsvc: Runner) -> bytes:
    """Send one more record, and give back a line if one has come by then."""
    logsvc("produce", "tail", input=b"2\n")
    ready, _, _ = select.select([process.stdout], [], [], 0.2)
    line: bytes = process.stdout.readline() if ready else b""
    return line


class TestConsumeWithAGroup:
    def test_a_group_goes_on_where_it_was(self, command: Logsvc) -> None:
        fill(command, "grouped", 10, partitions=2)
        first = everything(command, "grouped", "--group", "readers")
        assert sorted(values(first)) == sorted(b"%d" % number for number in range(10))
        assert everything(command, "grouped", "--group", "readers") == []
        fill(command, "grouped", 3, first=10)
        assert sorted(values(everything(command, "grouped", "--group", "readers"))) == [b"10", b"11", b"12"]
        assert len(everything(command, "grouped", "--group", "others")) == 13

        [listed] = [group for group in command.json("group", "list") if group["group"] == "readers"]
        assert (listed["lag"], listed["topics"]) == (0, ["grouped"])
        described = command.json("group", "describe", "readers")
        assert sum(partition["committed"] for partition in described["partitions"]) == 13
        assert {partition["lag"] for partition in described["partitions"]} == {0}

    def test_only_what_was_printed_is_committed(self, logsvc: Runner) -> None:
        fill(logsvc, "few", 10)
        assert values(everything(logsvc, "few", "--group", "few", "-n", "4")) == [b"0", b"1", b"2", b"3"]
        assert values(everything(logsvc, "few", "--group", "few")) == [b"4", b"5", b"6", b"7", b"8", b"9"]

    def test_a_group_can_begin_at_the_end(self, logsvc: Runner) -> None:
        fill(logsvc, "late", 5)
        logsvc("consume", "late", "--group", "late", "-o", "end", "-e")
        fill(logsvc, "late", 2, first=5)
        assert values(everything(logsvc, "late", "--group", "late")) == [b"5", b"6"]
