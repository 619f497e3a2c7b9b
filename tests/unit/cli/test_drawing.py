"""Pictures made of characters: they keep to their cells, whatever they are given."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from logsvc.cli.drawing import (
    ASCII,
    UNICODE,
    bar,
    fitted,
    glyphs_of,
    padded,
    short_age,
    short_count,
    sparkline,
)
from logsvc.cli.output import safe
from logsvc.cli.tables import drawn

WIDTHS = st.integers(0, 60)
NUMBERS = st.floats(0, 1e18) | st.integers(0, 1 << 62)


@given(st.text(), WIDTHS)
def test_a_text_is_cut_to_cells_and_nothing_of_it_controls_the_terminal(text: str, width: int) -> None:
    cut = fitted(text, width)
    assert cell_len(cut) <= width
    assert cut.isprintable()
    assert cell_len(padded(text, width)) == width
    assert cell_len(padded(text, width, right=True)) == width


def test_what_is_cut_ends_in_an_ellipsis_also_in_the_middle_of_a_wide_character() -> None:
    assert fitted("settlement", 6) == "settl…"
    assert fitted("日本語", 4) == "日…"
    assert fitted("日本語", 6) == "日本語"
    assert fitted("settlement", 6, ASCII) == "settl~"
    assert safe("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\nb\\u202e"


@given(st.lists(st.none() | NUMBERS, max_size=80), WIDTHS, st.booleans())
def test_a_sparkline_fills_its_cells_and_tells_little_from_nothing(values: list[float | None], width: int, zoom: bool) -> None:
    line = sparkline(values, width, zoom=zoom)
    assert len(line) == width
    shown = values[-width:] if width else []
    for value, drawn_as in zip(reversed(shown), reversed(line), strict=False):
        assert (drawn_as == " ") == (value is None)
        assert (drawn_as == UNICODE.levels[0]) == (value == 0)
    known = [value for value in shown if value]
    if known:
        assert UNICODE.levels[-1] in line


def test_the_newest_value_stands_at_the_right() -> None:
    assert sparkline([0, 1, 7], 5) == "  ▁▂█"
    assert sparkline([9, 9, 0, 1, 7], 3) == "▁▂█"
    assert sparkline([0, 1, 7], 5, ASCII) == "  _.#"


def test_zoomed_a_large_lag_that_grows_is_seen_to_grow_and_noise_is_not() -> None:
    assert sparkline([900, 920, 950, 1_000], 4) == "▇▇██"
    assert sparkline([900, 920, 950, 1_000], 4, zoom=True) == "▅▅▆█"
    assert sparkline([1_000, 1_001, 999, 1_000], 4, zoom=True) == "████"
    assert sparkline([0, 500, 1_000], 3, zoom=True) == sparkline([0, 500, 1_000], 3)
    assert sparkline([5, 5], 2, zoom=True) == "██"


@given(NUMBERS, NUMBERS, WIDTHS)
def test_a_bar_keeps_to_its_cells_and_anything_is_seen(value: float, highest: float, width: int) -> None:
    for glyphs in (UNICODE, ASCII):
        picture = bar(value, highest, width, glyphs)
        assert len(picture) <= width
        assert bool(picture) == (value > 0 and highest > 0 and width > 0)


def test_bars_are_as_long_as_their_values() -> None:
    assert [bar(value, 4, 2) for value in (0, 1, 2, 3, 4)] == ["", "▌", "█", "█▌", "██"]
    assert bar(1, 1_000_000, 8) == "▏"
    assert bar(9, 4, 2) == "██"


@given(NUMBERS)
def test_numbers_keep_short(number: float) -> None:
    assert len(short_count(number)) <= 6
    assert len(short_age(number)) <= 6


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (0.25, "0.2"), (9.96, "10.0"), (12.3, "12"), (99_999, "99,999"), (100_000, "100k"), (1_234_567, "1.23M")]
    + [(12_345_678, "12.3M"), (999_600, "1.00M"), (123_456_789, "123M"), (2_000_000_000, "2.00G"), (-5, "-5")],
)
def test_a_count_for_a_person(count: float, text: str) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(-5, "0"), (0, "0"), (250, "250ms"), (1_000, "1.0s"), (59_949, "59.9s"), (245_000, "4m05s"), (11_040_000, "3h04m")]
    + [(1_047_600_000, "12d03h"), (86_400_000 * 400, "400d")],
)
def test_an_age_for_a_person(milliseconds: float, text: str) -> None:
    assert short_age(milliseconds) == text


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert glyphs_of("utf-8") is glyphs_of("UTF8") is UNICODE
    assert glyphs_of("ascii") is glyphs_of("latin-1") is ASCII
    assert all(c.isascii() for c in sparkline([1, 2, 3], 5, ASCII) + bar(3, 4, 5, ASCII))


ROWS = [("orders", 0, 120, "-", "4ccf91e2"), ("orders", 1, 0, "2 waiting", "-")]
COLUMNS = ("TOPIC", "PARTITION", "LAG", "FAILED", "MEMBER")


def lines(width: int, rows: list[tuple[object, ...]]) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(drawn(COLUMNS, rows, width, bar_of="LAG"))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "cells"), [(120, 16), (80, 16), (56, 14), (46, 4), (45, 0), (30, 0)])
def test_the_bar_of_a_table_shrinks_and_goes_before_anything_is_folded(width: int, cells: int) -> None:
    shown = lines(width, list(ROWS))
    assert all(cell_len(line) <= width for line in shown)
    assert max(line.count("█") for line in shown) == cells
    if width >= 45:
        assert len([line for line in shown if "orders" in line]) == 2


def test_a_table_takes_data_for_data() -> None:
    shown = "\n".join(lines(120, [("[red]x[/red]\x1b[2J", 0, 1, "[/]", "-")]))
    assert "[red]x[/red]\\x1b[2J" in shown
    assert "[/]" in shown
