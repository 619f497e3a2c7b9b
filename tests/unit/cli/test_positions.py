"""Where to begin: what people type, and the offset it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.cli.positions import Kind, Position, format_age, format_time, parse_position, parse_time_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start", Position(Kind.START)),
        ("beginning", Position(Kind.START)),
        ("end", Position(Kind.END)),
        ("0", Position(Kind.OFFSET, 0)),
        ("42", Position(Kind.OFFSET, 42)),
        ("-5", Position(Kind.LAST, 5)),
        ("-0", Position(Kind.LAST, 0)),
        ("@1700000000000", Position(Kind.TIME, 1_700_000_000_000)),
        ("@2023-11-14T22:13:20Z", Position(Kind.TIME, 1_700_000_000_000)),
        ("@2023-11-14T22:13:20", Position(Kind.TIME, 1_700_000_000_000)),
        ("@2023-11-14T23:13:20+01:00", Position(Kind.TIME, 1_700_000_000_000)),
        ("@2023-11-14", Position(Kind.TIME, 1_699_920_000_000)),
    ],
)
def test_every_form_is_understood(text: str, expected: Position) -> None:
    assert parse_position(text) == expected


@pytest.mark.parametrize("text", ["", "middle", "1.5", "@", "@yesterday", "@-1", "--5", "0x10"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (position|time)"):
        parse_position(text)


@given(st.text(max_size=12))
def test_whatever_is_typed_gives_a_position_or_a_value_error(text: str) -> None:
    try:
        parse_position(text)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("position", "offset"),
    [
        (Position(Kind.START), 10),
        (Position(Kind.END), 20),
        (Position(Kind.OFFSET, 15), 15),
        (Position(Kind.OFFSET, 3), 10),
        (Position(Kind.OFFSET, 99), 20),
        (Position(Kind.LAST, 4), 16),
        (Position(Kind.LAST, 99), 10),
        (Position(Kind.LAST, 0), 20),
    ],
)
def test_a_position_becomes_an_offset_that_is_there(position: Position, offset: int) -> None:
    assert position.resolve(10, 20) == offset


def test_a_time_is_for_the_broker() -> None:
    with pytest.raises(ValueError, match="broker"):
        Position(Kind.TIME, 1).resolve(0, 1)


@given(st.integers(0, 4_000_000_000_000))
def test_times_survive_being_printed_and_read(timestamp_ms: int) -> None:
    assert abs(parse_time_ms(format_time(timestamp_ms)) - timestamp_ms) <= 1


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_no_timestamp_breaks_the_printing(timestamp_ms: int) -> None:
    assert format_time(timestamp_ms)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.0 s"), (1_500, "1.5 s"), (61_000, "1 min 1 s"), (3_660_000, "1 h 1 min"), (180_000_000, "2 d 2 h"), (-5, "0.0 s")],
)
def test_ages_for_people(milliseconds: int, text: str) -> None:
    assert format_age(milliseconds) == text
