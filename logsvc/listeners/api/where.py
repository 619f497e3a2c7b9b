"""Which dead letters: the parameters of a list, or the `where` of a redrive, as the filter that the broker applies.

Both mean exactly what the same filter means on the command line: a letter must meet every condition that is given, and of
each one any of its values.
"""

from typing import Annotated

import msgspec

from logsvc_common.errors import InvalidRequest
from logsvc_common.messages import RedriveFilter
from logsvc_common.messages.redrive import FILTER_TEXT_CHARACTERS_MAX, FILTER_VALUES_MAX

_NO_END = (1 << 63) - 1

_Text = Annotated[str, msgspec.Meta(max_length=FILTER_TEXT_CHARACTERS_MAX)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=_NO_END)]
_Texts = Annotated[list[_Text], msgspec.Meta(max_length=FILTER_VALUES_MAX)]
_Numbers = Annotated[list[_Number], msgspec.Meta(max_length=FILTER_VALUES_MAX)]


class Where(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Conditions on dead letters. `error` is a part of the error's message, `error_is` all of it, `exception` the exception's
    class, dotted or its last part: each one value, or any of several. `partition` and `offset_from` to `offset_to` (included)
    are those of the record that failed, `letter_from` to `letter_to` those of the letter itself, `redrives_from` to
    `redrives_to` how often it was redriven. `from_ms` to `to_ms` (not included) is when the letter was written."""

    error: Annotated[_Text | _Texts, msgspec.Meta(description="A part of the error's message, upper and lower case alike")] = []
    error_is: Annotated[_Text | _Texts, msgspec.Meta(description="The whole message of the error")] = []
    exception: Annotated[_Text | _Texts, msgspec.Meta(description="Class of the exception, dotted or its last part")] = []
    partition: Annotated[_Number | _Numbers, msgspec.Meta(description="Partition of the record that failed")] = []
    offset_from: Annotated[_Number | None, msgspec.Meta(description="First offset of the records that failed")] = None
    offset_to: Annotated[_Number | None, msgspec.Meta(description="Last offset of the records that failed")] = None
    letter_from: Annotated[_Number | None, msgspec.Meta(description="First offset of the letters themselves")] = None
    letter_to: Annotated[_Number | None, msgspec.Meta(description="Last offset of the letters themselves")] = None
    redrives_from: Annotated[_Number | None, msgspec.Meta(description="Redriven at least so often")] = None
    redrives_to: Annotated[_Number | None, msgspec.Meta(description="Redriven at most so often")] = None
    from_ms: Annotated[_Number | None, msgspec.Meta(description="Written at or after this time")] = None
    to_ms: Annotated[_Number | None, msgspec.Meta(description="Written before this time")] = None


class Filter(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The filter of a redrive: conditions that are not set are left out. Ranges include both ends."""

    error_contains: list[str] = []
    error_is: Annotated[list[str], msgspec.Meta(description="The whole message of the error")] = []
    exception_classes: list[str] = []
    partitions: list[int] = []
    offsets: list[tuple[int, int]] = []
    letters: list[tuple[int, int]] = []
    redrives: list[tuple[int, int]] = []
    since_ms: int = -1
    until_ms: int = -1


def parse_where(where: Where) -> RedriveFilter:
    """Raises InvalidRequest for a range that ends before it begins."""
    return RedriveFilter(
        error_contains=[where.error] if isinstance(where.error, str) else where.error,
        error_is=[where.error_is] if isinstance(where.error_is, str) else where.error_is,
        exception_classes=[where.exception] if isinstance(where.exception, str) else where.exception,
        partitions=[where.partition] if isinstance(where.partition, int) else where.partition,
        offsets=_range("offset", where.offset_from, where.offset_to),
        letters=_range("letter", where.letter_from, where.letter_to),
        redrives=_range("redrives", where.redrives_from, where.redrives_to),
        since_ms=-1 if where.from_ms is None else where.from_ms,
        until_ms=-1 if where.to_ms is None else where.to_ms,
    )


def _range(name: str, first: int | None, last: int | None) -> list[tuple[int, int]]:
    if first is None and last is None:
        return []
    start, end = first or 0, _NO_END if last is None else last
    if end < start:
        raise InvalidRequest(f"{name}_to is {end}, before {name}_from, {start}")
    return [(start, end)]


def show_filter(where: RedriveFilter) -> Filter:
    """The filter of a redrive as JSON shows it."""
    return msgspec.convert(where, Filter, from_attributes=True)
