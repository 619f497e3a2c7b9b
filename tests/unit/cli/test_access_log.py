"""The demo's log: what counts as a sound line, and the made-up log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.cli.access_log import Request, host_of, parse, sample_lines


def test_a_sound_line_is_taken_apart() -> None:
    line = b'h.example.net - - [01/Aug/1995:00:00:01 -0400] "GET /a HTTP/1.0" 200 1839'
    assert parse(line) == Request("h.example.net", "01/Aug/1995:00:00:01 -0400", "GET", "/a", 200, 1_839)


def test_a_request_without_protocol_or_size_is_sound() -> None:
    assert parse(b'h - - [t] "GET /a" 302 -') == Request("h", "t", "GET", "/a", 302, 0)


@pytest.mark.parametrize(
    "line", [b"", b"h", b'h - - [t] "GET /a', b'h - - [t] "GET /a" 200 x', b'h - - [t] "GET /a" 200 1\r', b"\xff\x00"]
)
def test_a_broken_line_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="does not match"):
        parse(line)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser(line: bytes) -> None:
    try:
        parse(line)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (b"a b", b"a"),
        (b"a", b"a"),
        (b"", None),
        (b" a", None),
        (b"\xff\xfe x", b"\xff\xfe"),
        (b"h" * 255, b"h" * 255),
        (b"h" * 256 + b" x", None),
    ],
)
def test_the_host_is_the_first_field(line: bytes, host: bytes | None) -> None:
    assert host_of(line) == host


def test_the_made_up_log_has_just_the_broken_lines_it_should_and_is_always_the_same() -> None:
    lines = list(sample_lines(200, broken_every=10))
    broken = []
    for number, line in enumerate(lines):
        try:
            parse(line)
        except ValueError:
            broken.append(number)
    assert broken == list(range(9, 200, 10))
    assert lines == list(sample_lines(200, broken_every=10))
