"""The keys of `logsvc top`: bytes of a terminal become names of keys, and a key changes what is shown. Pure.

Terminals send an arrow as several bytes beginning with ESC, in one of two dialects; what is not known is left out, as is the
rest of a sequence that was cut off.
"""

import re
from dataclasses import dataclass, replace
from itertools import cycle, islice

from logsvc.cli.top_model import Order

_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\t": "tab",
    b"k": "up",
    b"j": "down",
    b" ": "page down",
    b"g": "home",
    b"G": "end",
}
_KEY = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[ -~])|\x1b\[[0-9;?]*$|[\x00-\xff]")
# Steps of scrolling, in rows.
_SCROLL: dict[str, int] = {"up": -1, "down": 1, "page up": -10, "page down": 10, "home": -(1 << 30), "end": 1 << 30}

HELP = (
    ("q", "quit"),
    ("s", "sort by lag, name, rate or failed"),
    ("p", "pause: ask the broker nothing, go on with what is shown"),
    ("Tab", "scroll the other table"),
    ("Up Down", "scroll by a row; also k and j"),
    ("PgUp PgDn", "scroll by ten rows; also Space"),
    ("Home End", "scroll to the first row, to the last; also g and G"),
    ("?", "this help, and back"),
)


def keys(pressed: bytes) -> list[str]:
    """The keys in what a terminal has sent: `up`, `page down`, `tab`, or the character itself."""
    found = []
    for match in _KEY.finditer(pressed):
        sequence = match[0]
        name = _NAMES.get(sequence)
        if name is None and len(sequence) == 1 and b"!" <= sequence <= b"~":
            name = sequence.decode("ascii")
        if name is not None:
            found.append(name)
    return found


@dataclass(frozen=True, slots=True)
class Screen:
    """What the person has chosen to see. `offsets` are the first rows shown of groups and topics; they are bounded by what
    there is only when drawn, so a shorter list does not lose the place. `focus` is the table that scrolls, 0 for groups."""

    order: Order = Order.LAG
    paused: bool = False
    help: bool = False
    focus: int = 0
    offsets: tuple[int, int] = (0, 0)
    quit: bool = False

    def press(self, key: str, rows: tuple[int, int]) -> "Screen":
        """What is seen after `key`, where the tables have so many rows."""
        match key:
            case "q":
                return replace(self, quit=True)
            case "s":
                following = islice(cycle(Order), list(Order).index(self.order) + 1, None)
                return replace(self, order=next(following), offsets=(0, 0))
            case "p":
                return replace(self, paused=not self.paused)
            case "?" | "h":
                return replace(self, help=not self.help)
            case "escape":
                return replace(self, help=False)
            case "tab":
                return replace(self, focus=1 - self.focus)
            case _:
                return self._scrolled(_SCROLL.get(key, 0), rows)

    def _scrolled(self, step: int, rows: tuple[int, int]) -> "Screen":
        offsets = list(self.offsets)
        offsets[self.focus] = max(0, min(offsets[self.focus] + step, rows[self.focus] - 1))
        return replace(self, offsets=(offsets[0], offsets[1]))
