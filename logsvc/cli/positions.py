"""Where to begin reading, as people type it: `start`, `end`, `N`, `-N`, `@TIME` (kcat's `-o`, with words for its two ends).

Pure: the text becomes a Position, and a Position with a partition's first and end offset becomes an offset. A time needs the
broker (it looks into the time index), so it is only parsed here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

FORMS = "start, end, N (that offset), -N (the last N of each partition) or @TIME (epoch milliseconds or ISO 8601)"


class Kind(Enum):
    START = auto()
    END = auto()
    OFFSET = auto()
    LAST = auto()
    TIME = auto()


@dataclass(frozen=True, slots=True)
class Position:
    """`value` is an offset, a number of records or milliseconds since the epoch, as `kind` says."""

    kind: Kind
    value: int = 0

    def resolve(self, start_offset: int, end_offset: int) -> int:
        """The offset meant in a partition that holds `start_offset` up to, not including, `end_offset`.

        An offset that is not there is moved to the nearest that is, as far as a fixed number means anything in every
        partition. For `Kind.TIME` ask the broker: ValueError.
        """
        match self.kind:
            case Kind.START:
                return start_offset
            case Kind.END:
                return end_offset
            case Kind.OFFSET:
                return min(max(self.value, start_offset), end_offset)
            case Kind.LAST:
                return max(start_offset, end_offset - self.value)
            case Kind.TIME:
                raise ValueError("a time is resolved by the broker")


def parse_position(text: str) -> Position:
    """The position that `text` names. Raises ValueError that lists the forms there are."""
    if text in ("start", "beginning", "earliest"):
        return Position(Kind.START)
    if text in ("end", "latest"):
        return Position(Kind.END)
    if text.startswith("@"):
        return Position(Kind.TIME, parse_time_ms(text[1:]))
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no position; there are {FORMS}") from None
    if text.startswith("-"):
        return Position(Kind.LAST, -number)
    return Position(Kind.OFFSET, number)


def parse_time_ms(text: str) -> int:
    """Milliseconds since the epoch, from such a number or from an ISO 8601 date or time; without a zone it is UTC."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; give epoch milliseconds or ISO 8601, as in 2026-01-31T08:30:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def format_time(timestamp_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, or `-` for what is not a time."""
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return "-"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_age(milliseconds: int) -> str:
    """A duration for a person: its two largest units."""
    seconds = max(0, milliseconds) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
