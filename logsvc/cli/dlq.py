"""`logsvc dlq`: the dead letters: how many, whose, each one whole; putting them back, and throwing them away.

A letter is a record with its own bytes, key and headers, and beside them the headers that say where it came from and why it
failed (`logsvc_common.letters`). `redrive` puts letters back among what the group that failed them has to handle; that goes
on in the broker, whoever started it.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli import redrives
from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.exits import NOT_FOUND, USAGE
from logsvc.cli.frame import noun
from logsvc.cli.letters import letter_document, letter_of, print_letter
from logsvc.cli.output import Format, count_of, note, printable, write_bytes, write_json, write_line, write_table
from logsvc.cli.positions import FORMS, Kind, Position, format_age, parse_position
from logsvc.cli.reading import Span, find_spans, read
from logsvc.cli.where import SinceOption, UntilOption, WhereOption, parse_where
from logsvc_client import Admin, Record
from logsvc_common.errors import UnknownGroup, UnknownTopic
from logsvc_common.letter_pile import ERRORS_LETTERS_MAX, Pile
from logsvc_common.letters import matches
from logsvc_common.messages import LetterTopic, RedriveFilter
from logsvc_common.names import is_dead_letter

app = noun("Look at dead letters, put them back, throw them away: records whose attempts are spent.")

ERROR_CHARACTERS = 60


def _document(pile: Pile) -> dict[str, Any]:
    return {
        "topic": pile.topic,
        "source": pile.source or None,
        "group": pile.group or None,
        "letters": pile.letters,
        "redriven": pile.redriven,
        "oldest_ms": pile.oldest_ms,
        "newest_ms": pile.newest_ms,
        "errors": [{"count": error.letters, "kind": error.kind, "error": error.message} for error in pile.top_errors()],
    }


def _row(pile: Pile, now_ms: int) -> tuple[object, ...]:
    errors = ", ".join(f"{error.letters} {printable(error.kind.encode(), ERROR_CHARACTERS)}" for error in pile.top_errors())
    return (
        pile.topic,
        pile.source or "-",
        pile.group or "-",
        pile.letters,
        pile.redriven,
        "-" if pile.oldest_ms is None else format_age(now_ms - pile.oldest_ms),
        "-" if pile.newest_ms is None else format_age(now_ms - pile.newest_ms),
        errors or "-",
    )


@app.command("list")
def list_letters(server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """List the dead-letter topics: whose letters they hold, how many, how old, how many were redriven, and why they failed.

    The errors are those of the newest letters, up to 1,000 of each partition.

    \b
    Examples:
      logsvc dlq list
      logsvc dlq list --format json | jq 'map(.letters - .redriven) | add'
    """
    with connect(server) as admin:
        topics = [topic.topic for topic in admin.list_topics() if is_dead_letter(topic.topic)]
        piles = {topic: Pile(topic) for topic in topics}
        for known in admin.dead_letter_topics():
            if pile := piles.get(known.dead_letter_topic):
                pile.source, pile.group, pile.redriven = known.topic, known.group, known.redriven
        spans = find_spans(admin, topics, Position(Kind.START)) if topics else []
    for span in spans:
        piles[span.where.topic].letters += span.end - span.start
    filled = [span for span in spans if span.end > span.start]
    newest = [span._replace(start=max(span.start, span.end - ERRORS_LETTERS_MAX)) for span in filled]
    for record in _records(server, newest):
        piles[record.topic].add(letter_of(record))
        piles[record.topic].count(letter_of(record))
    # Of a long partition the oldest letter is not among those.
    for record in _records(server, [span._replace(end=span.start + 1) for span in filled]):
        piles[record.topic].add(letter_of(record))
    if format is Format.JSON:
        write_json([_document(pile) for pile in piles.values()])
        return
    now_ms = time.time_ns() // 1_000_000
    columns = ("TOPIC", "SOURCE", "GROUP", "LETTERS", "REDRIVEN", "OLDEST", "NEWEST", "TOP ERRORS")
    write_table(columns, [_row(pile, now_ms) for pile in piles.values()])


def _records(server: str, spans: Sequence[Span]) -> Iterator[Record]:
    for records in read(server, spans, to_end=True):
        yield from records


@app.command()
def show(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A dead-letter topic, as `logsvc dlq list` names it.")],
    one_partition: Annotated[int | None, typer.Argument(metavar="PARTITION", min=0, help="Of one letter.")] = None,
    one_offset: Annotated[int | None, typer.Argument(metavar="OFFSET", min=0, help="Of one letter.")] = None,
    offset: Annotated[str | None, typer.Option("--offset", "-o", metavar="POSITION", help=f"Where to begin: {FORMS}.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="So many letters at most.")] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", help="Only this one. Repeat it.")] = None,
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show dead letters: where each came from, why it failed, how often it was tried, and its bytes.

    With PARTITION and OFFSET, the one letter there, whole: with its stack trace and all of its value.

    \b
    Examples:
      logsvc dlq show dlq.orders.billing
      logsvc dlq show dlq.orders.billing 0 17
      logsvc dlq show dlq.orders.billing -o -1 --partition 2
      logsvc dlq show dlq.orders.billing --where class=KeyError --since 2026-01-31
      logsvc dlq show dlq.orders.billing --format json | jq -r .error | sort | uniq -c
    """
    if not is_dead_letter(topic):
        raise UnknownTopic(f"{topic} is not a dead-letter topic; `logsvc dlq list` names those there are")
    chosen = parse_where(where, since, until)
    if one_partition is not None:
        if one_offset is None or offset is not None or partition:
            raise typer.BadParameter("one letter is named by its partition and its offset: TOPIC PARTITION OFFSET")
        _show_one(server, topic, one_partition, one_offset, format)
        return
    try:
        position = parse_position(offset or "start")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from None
    with connect(server) as admin:
        spans = find_spans(admin, [topic], position, partition or ())
    left = limit
    for records in read(server, spans, to_end=True, limit=limit if chosen == RedriveFilter() else None):
        for record in records:
            if left == 0:
                return
            if matches(chosen, letter_of(record)):
                left = None if left is None else left - 1
                _write(record, format)
        sys.stdout.flush()


def _show_one(server: str, topic: str, partition: int, offset: int, format: Format) -> None:
    with connect(server) as admin:
        (span,) = find_spans(admin, [topic], Position(Kind.OFFSET, offset), [partition])
    for record in _records(server, [span._replace(end=min(span.end, offset + 1))] if span.start == offset else []):
        _write(record, format, whole=True)
        return
    note(f"logsvc: there is no letter at offset {offset} of {topic}-{partition}")
    raise typer.Exit(NOT_FOUND)


def _write(record: Record, format: Format, *, whole: bool = False) -> None:
    if format is Format.JSON:
        write_bytes(msgspec.json.encode(letter_document(record)) + b"\n")
    else:
        print_letter(record, whole=whole)


@app.command()
def redrive(
    target: Annotated[str | None, typer.Argument(metavar="GROUP|TOPIC", help="A group, or a dead-letter topic.")] = None,
    source: Annotated[
        str | None, typer.Option("--topic", "-t", help="Where the records came from, if a group has several.")
    ] = None,
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    rate: Annotated[int, typer.Option("--rate", min=0, metavar="N", help="Put back N letters a second at most.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="Put back N letters at most.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many letters it would be.")] = False,
    wait: Annotated[
        bool | None, typer.Option("--follow/--no-follow", help="Wait until it is over. On a terminal it does.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", "-l", help="List the redrives that run, and the last ones.")] = False,
    cancel: Annotated[int | None, typer.Option("--cancel", metavar="ID", help="Stop a redrive where it is.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Put dead letters back: the group that failed them gets them again, no other group does.

    Each letter is put back once, with a fresh budget of attempts; letters redriven before are left out. The redrive goes on
    in the broker, over restarts too, until it is done or cancelled. To go on after a cancel, start it again.

    \b
    Examples:
      logsvc dlq redrive billing --dry-run
      logsvc dlq redrive billing --where class=ConnectionError --since 2026-01-31T08:00:00Z
      logsvc dlq redrive dlq.orders.billing --where partition=0 --where letter=17
      logsvc dlq redrive billing --rate 100 --follow
      logsvc dlq redrive --list
      logsvc dlq redrive --cancel 3
    """
    chosen = parse_where(where, since, until)
    if sum((target is not None and not list_them, list_them, cancel is not None)) != 1:
        raise typer.BadParameter("give a group or a dead-letter topic, or --list, or --cancel ID")
    with connect(server) as admin:
        if cancel is not None:
            redrives.show(admin.cancel_redrive(cancel), format)
            return
        if list_them:
            redrives.show_all(admin.redrives(None if target is None else _found(admin, target)[0]), format)
            return
        assert target is not None, "checked above"
        group, topic = _found(admin, target)
        begun = admin.redrive(group, topic=source or topic, where=chosen, rate_per_s=rate, limit=limit, dry_run=dry_run)
        waits = dry_run or (sys.stderr.isatty() if wait is None else wait)
        if waits:
            begun = redrives.follow(admin, begun)
        elif begun.state == "running":
            note(f"It goes on in the broker: logsvc dlq redrive --list, logsvc dlq redrive --cancel {begun.redrive_id}")
        redrives.show(begun, format)
        if waits:
            redrives.ended(begun)


def _found(admin: Admin, target: str) -> tuple[str, str | None]:
    """The group that is meant, and the topic the letters came from where that is known. Raises UnknownGroup, UnknownTopic."""
    known: list[LetterTopic] = admin.dead_letter_topics()
    for letters in known:
        if letters.dead_letter_topic == target:
            return letters.group, letters.topic
    if is_dead_letter(target) and target in {topic.topic for topic in admin.list_topics()}:
        raise UnknownGroup(f"the group whose letters {target} holds is gone: nobody is there to handle them again")
    return target, None


@app.command()
def purge(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A dead-letter topic.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it. Without, nothing is removed.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Throw away all letters a dead-letter topic holds now. What is thrown away cannot be redriven.

    \b
    Examples:
      logsvc dlq purge dlq.orders.billing --yes
    """
    if not is_dead_letter(topic):
        raise UnknownTopic(f"{topic} is not a dead-letter topic; `logsvc dlq list` names those there are")
    with connect(server) as admin:
        if not yes:
            letters = sum(span.end - span.start for span in find_spans(admin, [topic], Position(Kind.START)))
            note(f"logsvc: {topic} holds {count_of(letters, 'letter')}; --yes throws them away for good")
            raise typer.Exit(USAGE)
        purged = admin.purge_dead_letters(topic)
    if format is Format.JSON:
        write_json({"topic": topic, "purged": purged})
    else:
        write_line(f"{count_of(purged, 'letter')} of {topic} thrown away")
