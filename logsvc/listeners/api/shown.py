"""Keys, values and headers as JSON shows them: text where they are text, base64 where not, cut where they are long.

Bytes are text when they are UTF-8 without control characters besides tab and the two that end lines. Long ones are cut at
VALUE_BYTES_MAX, and `cut_bytes` then says how many there are. Text from headers, which anyone may write, is cut as well.
"""

import base64
import re
from collections.abc import Sequence

import msgspec

from logsvc_common.batch import Header

VALUE_BYTES_MAX = 64 << 10  # of one key or value
HEADER_BYTES_MAX = 4 << 10  # of one header's name or value
HEADERS_MAX = 100  # of one record
TEXT_CHARACTERS_MAX = 16_384  # of an error or stack trace; the broker's own letters have at most half of it

# Unicode's category Cc, without \t, \n and \r.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Bytes(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Bytes of a record: `text` when they are UTF-8 without control characters, else `base64`. `cut_bytes`, the full length,
    is there when only the beginning is shown."""

    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    cut_bytes: int | msgspec.UnsetType = msgspec.UNSET


ShownHeaders = list[tuple[str, Bytes | None]]


def show_bytes(data: bytes | None, limit: int = VALUE_BYTES_MAX) -> Bytes | None:
    """`data` as JSON shows it, at most `limit` bytes of it."""
    if data is None:
        return None
    is_cut = len(data) > limit
    part = data[:limit]
    text = _as_text(part, is_cut=is_cut)
    cut_bytes: int | msgspec.UnsetType = len(data) if is_cut else msgspec.UNSET
    if text is None:
        return Bytes(base64=base64.b64encode(part).decode("ascii"), cut_bytes=cut_bytes)
    return Bytes(text=text, cut_bytes=cut_bytes)


def _as_text(data: bytes, *, is_cut: bool) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # A cut may go through a character; what comes before it is text all the same.
        if not is_cut or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    return None if _CONTROL.search(text) else text


def show_headers(headers: Sequence[Header]) -> ShownHeaders:
    """The first HEADERS_MAX headers."""
    return [(cut_text(name, HEADER_BYTES_MAX), show_bytes(value, HEADER_BYTES_MAX)) for name, value in headers[:HEADERS_MAX]]


def cut_text(text: str, limit: int = TEXT_CHARACTERS_MAX) -> str:
    """`text`, its end replaced by an ellipsis where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_optional(text: str | None) -> str | None:
    """As `cut_text`, for what may be missing."""
    return None if text is None else cut_text(text)


def size_of(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> int:
    """Bytes of a record: its key, value and headers."""
    return len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(data or b"") for name, data in headers)


def weight_of(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> int:
    """About how many bytes the record takes in an answer; for limits, so never too few by much."""
    shown = min(len(key or b""), VALUE_BYTES_MAX) + min(len(value or b""), VALUE_BYTES_MAX)
    for name, data in headers[:HEADERS_MAX]:
        shown += min(len(name), HEADER_BYTES_MAX) + min(len(data or b""), HEADER_BYTES_MAX)
    return shown + 200
