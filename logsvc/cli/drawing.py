"""Pictures made of characters: sparklines, bars, numbers that keep short, and text cut to a width in terminal cells.

Names come from others: what cannot be printed is escaped here, and nothing is ever read as rich's markup, because callers put
these strings into `Text`. A cell is one column of the terminal; some characters take two, so widths are never `len()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from logsvc.cli.output import safe

EIGHTHS = 8
ZOOM_CHANGE_MIN = 0.005


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a terminal can show. `levels` are the heights of a sparkline, `eighths` the ends of a bar, each from low to high."""

    levels: str
    eighths: str
    ellipsis: str
    dot: str
    up: str
    down: str


UNICODE = Glyphs(levels="▁▂▃▄▅▆▇█", eighths="▏▎▍▌▋▊▉█", ellipsis="…", dot="·", up="▲", down="▼")
ASCII = Glyphs(levels="_.:-=+*#", eighths="       #", ellipsis="~", dot="-", up="^", down="v")


def glyphs_of(encoding: str) -> Glyphs:
    """The glyphs that can be written in `encoding`."""
    return UNICODE if encoding.lower().replace("_", "-").startswith("utf") else ASCII


def fitted(text: str, width: int, glyphs: Glyphs = UNICODE) -> str:
    """`text`, made safe, in at most `width` cells; what is cut ends in an ellipsis."""
    text = safe(text)
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + glyphs.ellipsis


def padded(text: str, width: int, *, right: bool = False, glyphs: Glyphs = UNICODE) -> str:
    """`fitted`, and filled up to exactly `width` cells; with `right`, from the left."""
    text = fitted(text, width, glyphs)
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank


def sparkline(values: Sequence[float | None], width: int, glyphs: Glyphs = UNICODE, *, zoom: bool = False) -> str:
    """The last `width` values as heights, the newest at the right edge; exactly `width` cells.

    The scale is from 0 to their highest. Only 0 is the lowest level, so that a little can be told from nothing; None is blank.
    With `zoom`, values that all lie above half of the highest fill the upper half: a large lag that grows is seen to grow.
    Those that move by less than ZOOM_CHANGE_MIN of the highest stay level.
    """
    shown = values[-width:] if width > 0 else ()
    known = [value for value in shown if value is not None]
    highest, lowest = max(known, default=0.0), min(known, default=0.0)
    change = highest - lowest
    floor = lowest - change if zoom and lowest * 2 > highest and change > highest * ZOOM_CHANGE_MIN else 0.0
    return "".join(_level(value, floor, highest, glyphs) for value in shown).rjust(width)


def _level(value: float | None, floor: float, highest: float, glyphs: Glyphs) -> str:
    if value is None:
        return " "
    if value <= 0 or highest <= floor:
        return glyphs.levels[0]
    steps = len(glyphs.levels) - 1
    return glyphs.levels[max(1, min(steps, round((value - floor) / (highest - floor) * steps)))]


def bar(value: float, highest: float, width: int, glyphs: Glyphs = UNICODE) -> str:
    """`value` as a bar of which `highest` would fill `width` cells; at most `width` cells. Anything above 0 is seen."""
    if value <= 0 or highest <= 0 or width <= 0:
        return ""
    eighths = max(1, min(width * EIGHTHS, round(min(value, highest) / highest * width * EIGHTHS)))
    whole, rest = divmod(eighths, EIGHTHS)
    return (glyphs.eighths[-1] * whole + (glyphs.eighths[rest - 1] if rest else "")).rstrip() or glyphs.eighths[-1]


def short_count(count: float) -> str:
    """A count or rate in at most six cells: `99,999`, then `123k`, `4.56M`."""
    if count < 0:
        return "-" + short_count(-count)
    if 0 < count < 10 and count != int(count):
        return f"{count:.1f}"
    if round(count) < 100_000:
        return f"{round(count):,}"
    for unit in ("k", "M", "G", "T"):
        count /= 1_000
        if count < 999.5:
            return f"{count:.{0 if count >= 100 or unit == 'k' else 1 if count >= 10 else 2}f}{unit}"
    return f"{count:.0f}T" if count < 10_000 else ">9999T"


def short_age(milliseconds: float) -> str:
    """A duration in at most six cells: `0`, `250ms`, `12.3s`, `4m05s`, `3h04m`, `12d03h`, `99999d`."""
    if milliseconds < 0.5:
        return "0"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}ms"
    if milliseconds < 99_950:
        return f"{milliseconds / 1_000:.1f}s"
    seconds = int(milliseconds / 1_000)
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h{seconds % 3_600 // 60:02d}m"
    days = seconds // 86_400
    return f"{days}d{seconds % 86_400 // 3_600:02d}h" if days < 100 else f"{min(days, 99_999)}d"
