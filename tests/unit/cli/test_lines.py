"""Lines as records: the exact bytes between newlines."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.cli.lines import read_lines
from logsvc_common.errors import RecordTooLarge


def lines(data: bytes, limit: int = 1_000) -> list[bytes]:
    return list(read_lines(io.BytesIO(data), limit))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"\n", [b""]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b" a \t\x00\xff\n", [b" a \t\x00\xff"]),
        (b"a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e\n", [b"a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e"]),
    ],
)
def test_only_newlines_separate_and_only_they_are_removed(data: bytes, expected: list[bytes]) -> None:
    assert lines(data) == expected


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b""))))
def test_what_was_joined_with_newlines_comes_apart_the_same(parts: list[bytes]) -> None:
    assert lines(b"".join(part + b"\n" for part in parts)) == parts


@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore"])
def test_a_line_of_exactly_the_limit_passes(end: bytes) -> None:
    assert lines(b"x" * 10 + end, limit=10)[0] == b"x" * 10


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_over_the_limit_is_refused_by_its_number(end: bytes) -> None:
    reader = read_lines(io.BytesIO(b"short\n" + b"x" * 11 + end), 10)
    assert next(reader) == b"short"
    with pytest.raises(RecordTooLarge, match="line 2"):
        next(reader)
