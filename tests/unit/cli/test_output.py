"""What goes to stdout: bytes as text or base64, tables for pipes, sizes for people."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.cli import output


@given(st.none() | st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_bytes_in_json_can_always_be_had_back(value: bytes | None) -> None:
    document: dict[str, object] = {}
    output.put_bytes(document, "value", value)
    document = json.loads(json.dumps(document))
    if value is None:
        assert document == {"value": None}
    elif document.get("value_encoding") == "base64":
        assert base64.b64decode(str(document["value"])) == value
    else:
        assert str(document["value"]).encode() == value


def test_a_pipe_gets_tabs_and_no_box(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.write_table(("NAME", "COUNT"), [("a", 1), ("b", 1_000)])
    assert capsysbinary.readouterr().out == b"NAME\tCOUNT\na\t1\nb\t1000\n"


@pytest.mark.parametrize("name", ["\x1b[2J", "a\tb", "a\nb\r", "\x9b31m", "\u202eb", "a\x00"])
def test_a_name_in_a_table_for_a_pipe_controls_no_terminal_and_begins_no_line(
    name: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    output.write_table(("NAME", "COUNT"), [(name, 1)])
    heading, row, end = capsysbinary.readouterr().out.decode().split("\n")
    assert (heading, end) == ("NAME\tCOUNT", "")
    shown, count = row.split("\t")
    assert shown.isprintable()
    assert count == "1"


def test_json_is_one_line_for_a_pipe(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.write_json({"a": [1, None], "b": "é"})
    assert capsysbinary.readouterr().out.decode() == '{"a":[1,null],"b":"é"}\n'


def test_lines_are_utf_8_whatever_the_locale_says(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output.write_line("é\udcff")
    assert capsysbinary.readouterr().out == "é\\udcff\n".encode()


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (b"a b", "a b"), (b"a\nb\x00", "a\\nb\\x00"), (b"\xff", "\\xff"), ("é".encode(), "é")]
)
def test_bytes_for_people_keep_to_one_line(value: bytes | None, text: str) -> None:
    assert output.printable(value) == text


def test_long_bytes_for_people_are_cut() -> None:
    assert output.printable(b"x" * 300, limit=10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (1 << 50, "1024.0 TiB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert output.human_bytes(count) == text


def test_without_a_person_there_is_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("x", 10) as advance:
        advance(5)
    assert capsys.readouterr().err == ""
