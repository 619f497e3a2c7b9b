"""`logsvc consume`: records out, as lines or as JSON lines."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.frame import single_command
from logsvc.cli.output import Format, put_bytes, write_bytes
from logsvc.cli.positions import FORMS, Kind, Position, parse_position
from logsvc.cli.reading import POLL_MS, POLL_RECORDS, find_spans, read
from logsvc_client import Admin, Consumer, Record, TopicPartition

app = single_command()


@app.command()
def consume(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC", help="Where from; several may be named.")],
    offset: Annotated[str, typer.Option("--offset", "-o", metavar="POSITION", help=f"Where to begin: {FORMS}.")] = "start",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="End after so many records.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit", "-e", help="End with the last record there is now.")] = False,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", "-g", help="Read as a member of this group and commit; -o counts where it has committed nothing."
        ),
    ] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", "-p", help="Only this one. Repeat it.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print records: each value as it is with a newline, or as JSON lines with everything a record has.

    Reads every partition, in order within each, and goes on with what comes until -n, -e or Ctrl-C. Bytes that are not UTF-8
    are base64 in JSON, with "value_encoding": "base64" beside them. With --group the committed offset moves on when records
    have been printed.

    \b
    Examples:
      logsvc consume orders -o start -e
      logsvc consume orders -o -10 --format json | jq .value
      logsvc consume orders -o @2026-01-31T08:30:00Z -n 100 --partition 2
      logsvc consume orders --group audit
    """
    position = _position(offset)
    if group is None:
        with connect(server) as admin:
            spans = find_spans(admin, topics, position, partition or ())
        _write(read(server, spans, to_end=exit_at_end, limit=limit), format)
        return
    if partition:
        raise typer.BadParameter("a group's partitions are assigned by the broker", param_hint="--partition")
    if position.kind not in (Kind.START, Kind.END):
        raise typer.BadParameter("a group begins where it has committed; else at start or end", param_hint="--offset")
    reset = "earliest" if position.kind is Kind.START else "latest"
    with connect(server) as admin:
        spans = find_spans(admin, topics, Position(Kind.START))
        ends = {span.where: span.end for span in spans if span.end > span.start} if exit_at_end else None
        with Consumer(
            *topics, group_id=group, server=server, client_id="logsvc-cli", auto_offset_reset=reset, auto_commit=False
        ) as member:
            _write(_as_member(member, admin, group, ends, limit), format)


def _position(text: str) -> Position:
    try:
        return parse_position(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from None


def _as_member(
    member: Consumer, admin: Admin, group: str, ends: dict[TopicPartition, int] | None, limit: int | None
) -> Iterator[list[Record]]:
    """The records a member is given. What was yielded before is committed when the next list is asked for."""
    left = limit
    while left is None or left > 0:
        records = member.poll(POLL_MS, max_records=POLL_RECORDS if left is None else min(left, POLL_RECORDS))
        if left is not None:
            left -= len(records)
        yield records
        member.commit()
        if ends is not None and not records and _has_reached(admin, group, ends):
            return


def _has_reached(admin: Admin, group: str, ends: dict[TopicPartition, int]) -> bool:
    """True when the group has committed everything before `ends`, whichever of its members did."""
    committed = admin.committed_offsets(group, list(ends))
    return all(where in committed and committed[where].committed >= end for where, end in ends.items())


def _write(lists: Iterator[list[Record]], format: Format) -> None:
    line = _json_line if format is Format.JSON else _text_line
    for records in lists:
        write_bytes(b"".join(map(line, records)))
        sys.stdout.flush()


def _text_line(record: Record) -> bytes:
    return (record.value or b"") + b"\n"


def record_document(record: Record) -> dict[str, Any]:
    """A record as JSON shows it. Headers are a list: a name may occur twice."""
    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
    }
    put_bytes(document, "key", record.key)
    put_bytes(document, "value", record.value)
    document["headers"] = header_documents(record.headers)
    return document


def header_documents(headers: Sequence[tuple[str, bytes | None]]) -> list[dict[str, Any]]:
    """Headers as JSON shows them."""
    documents = []
    for name, value in headers:
        document: dict[str, Any] = {"name": name}
        put_bytes(document, "value", value)
        documents.append(document)
    return documents


def _json_line(record: Record) -> bytes:
    return msgspec.json.encode(record_document(record)) + b"\n"
