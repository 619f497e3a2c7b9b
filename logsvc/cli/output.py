"""What the commands write, and where: data on stdout, everything else on stderr.

A person at a terminal gets tables and progress bars; a pipe gets the same columns separated by tabs, and no progress. What
clients chose, such as their names and errors, is escaped in both: it moves no cursor, and begins no line or column of its own.
`--format json` is for programs: one document a command, or one a line where records stream. Bytes become text when they are
UTF-8, else base64 with a field that says so, so that no record is lost on the way to `jq`.
"""

import base64
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import msgspec


class Format(StrEnum):
    """How a command writes its data."""

    TEXT = "text"
    JSON = "json"


def write_json(document: Any) -> None:
    """One JSON document on one line; indented for a person."""
    encoded = msgspec.json.encode(document)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    write_bytes(encoded + b"\n")


def write_line(text: str) -> None:
    """One line of data."""
    write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def write_bytes(data: bytes) -> None:
    """Raw bytes of data; buffered, flushed when the command ends."""
    sys.stdout.buffer.write(data)


def note(text: str) -> None:
    """Say something to the person: on stderr, never among the data."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, bar_of: str | None = None) -> None:
    """Rows under a heading: a table on a terminal, tab-separated otherwise. Numbers keep to the right.

    On a terminal, the numbers of the column `bar_of` are drawn as bars beside it, the longest for the highest.
    """
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            write_line("\t".join(safe(str(cell)) for cell in row))
        return
    from rich.console import Console

    from logsvc.cli.tables import drawn

    console = Console()
    sys.stdout.flush()
    console.print(drawn(columns, rows, console.width, bar_of=bar_of, encoding=console.encoding))


@contextmanager
def progress(description: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while the block runs, if a person is there to see it. Yields what takes the number done so far.

    `total` None: how much there will be is not known. `in_bytes`: the numbers are bytes, shown with the speed.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns.append(TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def put_bytes(into: dict[str, Any], name: str, value: bytes | None) -> None:
    """Put `value` under `name` as text; bytes that are not UTF-8 go in as base64, with `NAME_encoding` beside them."""
    if value is None:
        into[name] = None
        return
    try:
        into[name] = value.decode()
    except UnicodeDecodeError:
        into[name] = base64.b64encode(value).decode("ascii")
        into[f"{name}_encoding"] = "base64"


def safe(text: str) -> str:
    """`text` with everything that is not printable escaped: no control character of a name reaches the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(value: bytes | None, limit: int = 200) -> str:
    """Bytes for a person: text where they are text, escapes where they are not, cut at `limit` characters."""
    if value is None:
        return "-"
    text = safe(value.decode("utf-8", "backslashreplace"))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def human_bytes(count: float) -> str:
    """A size for a person, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def count_of(number: int, noun: str) -> str:
    """`1 record`, `1,930 records`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
