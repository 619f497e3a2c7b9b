"""`logsvc dlq`: the dead letters: how many, whose, and each one whole.

A letter is a record with its own bytes, key and headers, and beside them the headers that say where it came from and why it
failed (`logsvc.coordinator.deadletter`; the names of KIP-1191 where it has one).
"""

import sys
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.consume import header_documents
from logsvc.cli.frame import noun
from logsvc.cli.output import Format, printable, put_bytes, write_bytes, write_json, write_line, write_table
from logsvc.cli.positions import FORMS, Kind, Position, format_age, format_time, parse_position
from logsvc.cli.reading import Span, find_spans, read
from logsvc_client import Record
from logsvc_common import letters as deadletter
from logsvc_common.batch import Header
from logsvc_common.errors import UnknownTopic
from logsvc_common.names import is_dead_letter

app = noun("Look at dead letters: records whose attempts are spent.")

OUR_HEADERS = {
    deadletter.TOPIC,
    deadletter.PARTITION,
    deadletter.OFFSET,
    deadletter.GROUP,
    deadletter.DELIVERY_COUNT,
    deadletter.MESSAGE,
    deadletter.EXCEPTION_CLASS,
    deadletter.STACKTRACE,
    deadletter.FIRST_FAILURE_TIMESTAMP,
    deadletter.REDRIVE_COUNT,
    deadletter.ORIGINAL_TIMESTAMP,
    deadletter.ORIGINAL_MISSING,
}
VALUE_CHARACTERS = 2_000  # of a value printed for a person; JSON has it whole


@dataclass
class Pile:
    """The dead letters of one topic."""

    topic: str
    letters: int = 0
    source: str = ""
    group: str = ""
    oldest_ms: int | None = None
    newest_ms: int | None = None
    spans: list[Span] = field(default_factory=list)

    def add(self, letter: Record) -> None:
        """Take a letter at the edge of a partition into account."""
        origin = letter_document(letter)
        self.source, self.group = origin["source"]["topic"] or "", origin["group"] or ""
        self.oldest_ms = min(letter.timestamp_ms, self.oldest_ms if self.oldest_ms is not None else letter.timestamp_ms)
        self.newest_ms = max(letter.timestamp_ms, self.newest_ms if self.newest_ms is not None else letter.timestamp_ms)


@app.command("list")
def list_letters(server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """List the dead-letter topics: whose letters they hold, how many, how old.

    \b
    Examples:
      logsvc dlq list
      logsvc dlq list --format json | jq 'map(.letters) | add'
    """
    with connect(server) as admin:
        topics = [topic.topic for topic in admin.list_topics() if is_dead_letter(topic.topic)]
        piles = {topic: Pile(topic) for topic in topics}
        for span in find_spans(admin, topics, Position(Kind.START)) if topics else []:
            pile = piles[span.where.topic]
            pile.letters += span.end - span.start
            pile.spans.append(span)
    # The first letter of each partition is its oldest, the last one its newest.
    filled = [span for pile in piles.values() for span in pile.spans if span.end > span.start]
    for edge in (
        [span._replace(end=span.start + 1) for span in filled],
        [span._replace(start=span.end - 1) for span in filled],
    ):
        for letters in read(server, edge, to_end=True):
            for letter in letters:
                piles[letter.topic].add(letter)
    if format is Format.JSON:
        write_json([_pile_document(pile) for pile in piles.values()])
        return
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (
            pile.topic,
            pile.source or "-",
            pile.group or "-",
            pile.letters,
            format_age(now_ms - pile.oldest_ms) if pile.oldest_ms is not None else "-",
            format_age(now_ms - pile.newest_ms) if pile.newest_ms is not None else "-",
        )
        for pile in piles.values()
    ]
    write_table(("TOPIC", "SOURCE", "GROUP", "LETTERS", "OLDEST", "NEWEST"), rows)


def _pile_document(pile: Pile) -> dict[str, Any]:
    return {
        "topic": pile.topic,
        "source": pile.source or None,
        "group": pile.group or None,
        "letters": pile.letters,
        "oldest_ms": pile.oldest_ms,
        "newest_ms": pile.newest_ms,
    }


@app.command()
def show(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A dead-letter topic, as `logsvc dlq list` names it.")],
    offset: Annotated[str, typer.Option("--offset", "-o", metavar="POSITION", help=f"Where to begin: {FORMS}.")] = "start",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="So many letters at most.")] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", help="Only this one. Repeat it.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show dead letters whole: where each came from, why it failed, how often it was tried, and its bytes.

    \b
    Examples:
      logsvc dlq show dlq.orders.billing
      logsvc dlq show dlq.orders.billing -o -1 --partition 2
      logsvc dlq show dlq.orders.billing --format json | jq -r .error | sort | uniq -c
    """
    if not is_dead_letter(topic):
        raise UnknownTopic(f"{topic} is not a dead-letter topic; `logsvc dlq list` names those there are")
    try:
        position = parse_position(offset)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from None
    with connect(server) as admin:
        spans = find_spans(admin, [topic], position, partition or ())
    for letters in read(server, spans, to_end=True, limit=limit):
        for letter in letters:
            if format is Format.JSON:
                write_bytes(msgspec.json.encode(letter_document(letter)) + b"\n")
            else:
                _print(letter)
        sys.stdout.flush()


def letter_document(letter: Record) -> dict[str, Any]:
    """A dead letter as JSON shows it: where it came from, why it failed, and the record as its producer sent it."""
    ours: dict[str, str] = {}
    theirs: list[Header] = []
    # A letter that was a letter before carries two sets of the same names; the last one is about this death.
    for name, value in reversed(letter.headers):
        if name in OUR_HEADERS and name not in ours:
            ours[name] = (value or b"").decode("utf-8", "replace")
        else:
            theirs.append((name, value))
    theirs.reverse()
    document: dict[str, Any] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.timestamp_ms,
        "group": ours.get(deadletter.GROUP),
        "source": {
            "topic": ours.get(deadletter.TOPIC),
            "partition": _number(ours, deadletter.PARTITION),
            "offset": _number(ours, deadletter.OFFSET),
            "timestamp_ms": _number(ours, deadletter.ORIGINAL_TIMESTAMP),
        },
        "attempts": _number(ours, deadletter.DELIVERY_COUNT),
        "error": ours.get(deadletter.MESSAGE),
        "exception_class": ours.get(deadletter.EXCEPTION_CLASS),
        "stacktrace": ours.get(deadletter.STACKTRACE),
        "first_failure_ms": _number(ours, deadletter.FIRST_FAILURE_TIMESTAMP),
        "redrives": _number(ours, deadletter.REDRIVE_COUNT),
        "missing": ours.get(deadletter.ORIGINAL_MISSING),
    }
    put_bytes(document, "key", letter.key)
    put_bytes(document, "value", letter.value)
    document["headers"] = header_documents(theirs)
    return document


def _number(headers: dict[str, str], name: str) -> int | None:
    """A header that should be a whole number; None when it is missing or is not, since anyone may write to the topic."""
    try:
        return int(headers[name])
    except (KeyError, ValueError):
        return None


def _print(letter: Record) -> None:
    found = letter_document(letter)
    source = found["source"]
    lines: tuple[tuple[str, object], ...] = (
        ("came from", f"{source['topic']}-{source['partition']} offset {source['offset']}, group {found['group']}"),
        ("died", f"{format_time(letter.timestamp_ms)} after {found['attempts']} attempts"),
        ("error", f"{found['exception_class'] or '-'}: {printable((found['error'] or '').encode())}"),
        ("redrives", found["redrives"] or 0),
        ("key", printable(letter.key)),
        ("headers", ", ".join(f"{header['name']}={header['value']}" for header in found["headers"]) or "-"),
        ("value", printable(letter.value, VALUE_CHARACTERS)),
    )
    write_line(f"{letter.topic}-{letter.partition} offset {letter.offset}")
    if found["missing"]:
        lines = (*lines, ("missing", found["missing"]))
    for name, value in lines:
        write_line(f"  {name:<10} {value}")
