"""Which letters: `--where`, `--since` and `--until`, read into the filter that the broker applies."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli.positions import format_time, parse_time_ms
from logsvc_common.messages import RedriveFilter

CONDITIONS = (
    "error~TEXT (part of the error), error=TEXT, class=NAME (of the exception, dotted or its last part), partition=N, "
    "offset=N or A-B (of the failed record), letter=N or A-B (of the letter itself), redrives=N or A-B"
)

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        metavar="CONDITION",
        help=f"Only letters that meet this: {CONDITIONS}. Repeated: any of one name, and all of different names.",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only letters written at or after: epoch milliseconds or ISO 8601."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only letters written before.")]

_FIELDS = {
    "error~": "error_contains",
    "error=": "error_is",
    "class=": "exception_classes",
    "partition=": "partitions",
    "offset=": "offsets",
    "letter=": "letters",
    "redrives=": "redrives",
}
_RANGES = {"offset=", "letter=", "redrives="}
_NO_END = (1 << 63) - 1


def parse_where(conditions: Sequence[str] | None, since: str | None = None, until: str | None = None) -> RedriveFilter:
    """The filter these options mean. Raises typer.BadParameter that names the option and lists what there is."""
    values: dict[str, Any] = {}
    for condition in conditions or ():
        name = next((name for name in _FIELDS if condition.startswith(name)), None)
        if name is None or condition == name:
            raise typer.BadParameter(f"{condition!r} is no condition; there are {CONDITIONS}", param_hint="--where")
        text = condition.removeprefix(name)
        try:
            value = _range(text) if name in _RANGES else _number(text) if name == "partition=" else text
        except ValueError:
            raise typer.BadParameter(f"{condition!r}: {text!r} is no whole number or range A-B", param_hint="--where") from None
        values.setdefault(_FIELDS[name], []).append(value)
    for option, field, time in (("--since", "since_ms", since), ("--until", "until_ms", until)):
        if time is not None:
            try:
                values[field] = parse_time_ms(time)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint=option) from None
    try:
        # The limits of the filter are those of the message that carries it.
        return msgspec.convert(msgspec.to_builtins(RedriveFilter(**values)), RedriveFilter)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(str(error), param_hint="--where") from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    start = _number(first)
    end = _number(last) if last else _NO_END if dash else start
    if end < start:
        raise ValueError(text)
    return start, end


def describe_where(where: RedriveFilter) -> str:
    """The filter as the options that mean it; `all` without any."""
    parts = [
        f"{name}{_range_text(value) if name in _RANGES else value}"
        for name, field in _FIELDS.items()
        for value in getattr(where, field)
    ]
    parts += [f"since {format_time(where.since_ms)}"] if where.since_ms >= 0 else []
    parts += [f"until {format_time(where.until_ms)}"] if where.until_ms >= 0 else []
    return ", ".join(parts) or "all"


def _range_text(bounds: tuple[int, int]) -> str:
    first, last = bounds
    return str(first) if first == last else f"{first}-{'' if last == _NO_END else last}"
