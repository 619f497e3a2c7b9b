"""A dead letter as a document and as text: where it came from, why it failed, and the record as its producer sent it."""

from typing import Any

from logsvc.cli.consume import header_documents
from logsvc.cli.output import printable, put_bytes, safe, write_line
from logsvc.cli.positions import format_time
from logsvc_client import Record
from logsvc_common.letters import Letter, parse_letter

VALUE_CHARACTERS = 2_000  # of a value in a list for a person; one letter alone, and JSON, have it whole
WHOLE = 1 << 30


def letter_of(record: Record) -> Letter:
    """A record of a dead-letter topic, taken apart."""
    return parse_letter(record.offset, record.timestamp_ms, record.key, record.value, record.headers)


def letter_document(record: Record) -> dict[str, Any]:
    """A dead letter as JSON shows it."""
    letter = letter_of(record)
    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "group": letter.group,
        "source": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp_ms": letter.timestamp_ms,
        },
        "attempts": letter.attempts,
        "error": letter.error,
        "exception_class": letter.exception_class,
        "stacktrace": letter.stacktrace,
        "first_failure_ms": letter.first_failure_ms,
        "redrives": letter.redrives,
        "missing": letter.missing,
    }
    put_bytes(document, "key", letter.key)
    put_bytes(document, "value", letter.value)
    document["headers"] = header_documents(letter.headers)
    return document


def print_letter(record: Record, *, whole: bool = False) -> None:
    """A letter for a person; `whole` with the stack trace and all of the value."""
    letter = letter_of(record)
    headers = header_documents(letter.headers)
    lines: list[tuple[str, object]] = [
        ("came from", f"{letter.topic}-{letter.partition} offset {letter.offset}, group {letter.group}"),
        ("died", f"{format_time(letter.died_ms)} after {letter.attempts} attempts"),
        ("error", f"{letter.exception_class or '-'}: {letter.error or ''}"),
        ("redrives", letter.redrives or 0),
        ("key", printable(letter.key)),
        ("headers", ", ".join(f"{header['name']}={header['value']}" for header in headers) or "-"),
        ("value", printable(letter.value, WHOLE if whole else VALUE_CHARACTERS)),
    ]
    if whole:
        lines.insert(2, ("first failed", format_time(letter.first_failure_ms if letter.first_failure_ms is not None else -1)))
        lines.insert(2, ("produced", format_time(letter.timestamp_ms if letter.timestamp_ms is not None else -1)))
    if letter.missing:
        lines.append(("missing", letter.missing))
    write_line(f"{record.topic}-{record.partition} offset {record.offset}")
    for name, value in lines:
        write_line(f"  {name:<12} {safe(str(value))}")
    if whole and letter.stacktrace:
        write_line("  stack trace")
        for line in letter.stacktrace.splitlines():
            write_line(f"    {safe(line)}")
