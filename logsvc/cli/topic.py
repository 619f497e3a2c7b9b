"""`logsvc topic`: make, look at, change and delete topics."""

import sys
from typing import Annotated, Any

import typer

from logsvc.cli.connect import DEFAULT_SERVER, ConfigOption, FormatOption, ServerOption, connect, parse_settings
from logsvc.cli.frame import noun
from logsvc.cli.output import Format, count_of, human_bytes, note, write_json, write_line, write_table
from logsvc.cli.positions import Kind, Position, parse_position
from logsvc_client import Admin, TopicPartition
from logsvc_common.errors import TopicExists, UnknownPartition
from logsvc_common.messages import TopicDescription

app = noun("Make, look at, change and delete topics.")

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="Name of the topic.")]


@app.command()
def create(
    topic: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="How many; it can grow later, never shrink.")] = 1,
    config: ConfigOption = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Succeed when it exists already, as it is.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Make a topic.

    \b
    Examples:
      logsvc topic create orders --partitions 4
      logsvc topic create metrics -p 2 -c retention.ms=86400000 -c flush=interval
    """
    with connect(server) as admin:
        try:
            made = admin.create_topic(topic, partitions=partitions, config=parse_settings(config))
        except TopicExists:
            if not if_not_exists:
                raise
            [made] = admin.describe_topics([topic])
    _say(made, format, f"topic {made.topic} has {count_of(made.partition_count, 'partition')}")


@app.command("list")
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="The broker's own topics too.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """List the topics, with what is in them.

    \b
    Examples:
      logsvc topic list
      logsvc topic list --format json | jq -r '.[].topic'
    """
    with connect(server) as admin:
        topics = sorted(
            (topic for topic in admin.describe_topics() if internal or not topic.internal), key=lambda topic: topic.topic
        )
    if format is Format.JSON:
        write_json([_document(topic) for topic in topics])
        return
    rows = [
        (
            topic.topic,
            topic.partition_count,
            sum(partition.end_offset - partition.start_offset for partition in topic.partitions),
            human_bytes(sum(partition.size_bytes for partition in topic.partitions)),
        )
        for topic in topics
    ]
    write_table(("TOPIC", "PARTITIONS", "RECORDS", "SIZE"), rows)


@app.command()
def describe(topic: Name, server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """Show a topic's settings and each partition's offsets, size and state.

    \b
    Examples:
      logsvc topic describe orders
      logsvc topic describe orders --format json | jq .config
    """
    with connect(server) as admin:
        [found] = admin.describe_topics([topic])
    if format is Format.JSON:
        write_json(_document(found))
        return
    write_line(f"topic {found.topic}  id {found.topic_id}  partitions {found.partition_count}")
    write_table(("SETTING", "VALUE"), sorted(found.config.items()))
    columns = ("PARTITION", "START", "END", "RECORDS", "SIZE", "SEGMENTS", "STATE")
    rows = [
        (
            p.partition,
            p.start_offset,
            p.end_offset,
            p.end_offset - p.start_offset,
            human_bytes(p.size_bytes),
            p.segments,
            p.state,
        )
        for p in found.partitions
    ]
    write_table(columns, rows)


@app.command()
def alter(
    topic: Name,
    partitions: Annotated[int | None, typer.Option("--partitions", "-p", help="Grow to so many.")] = None,
    config: ConfigOption = None,
    unset: Annotated[list[str] | None, typer.Option(help="Bring a setting back to its default. Repeat it.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Change a topic's settings, or grow it.

    More partitions change where keys go: records sent before stay where they are.

    \b
    Examples:
      logsvc topic alter orders -c retention.ms=3600000
      logsvc topic alter orders --partitions 8 --unset flush
    """
    settings: dict[str, str | None] = {**parse_settings(config), **dict.fromkeys(unset or [])}
    if partitions is None and not settings:
        raise typer.BadParameter("nothing to change: give --partitions, --config or --unset")
    with connect(server) as admin:
        changed = admin.alter_topic(topic, partitions=partitions, config=settings)
    _say(changed, format, f"topic {changed.topic} is changed")


@app.command()
def delete(
    topic: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Delete a topic and all its records. Asks first when a person is at the terminal.

    \b
    Example:
      logsvc topic delete orders --yes
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete topic {topic} and all its records?", abort=True, err=True)
    with connect(server) as admin:
        gone = admin.delete_topic(topic)
    _say(gone, format, f"topic {gone.topic} is deleted")


@app.command()
def trim(
    topic: Name,
    offset: Annotated[
        str,
        typer.Option(
            "--offset", "-o", help="Forget what is before: N, end, -N (keep the last N) or @TIME.", metavar="POSITION"
        ),
    ],
    partition: Annotated[int | None, typer.Option("--partition", help="Only this one. [default: every partition]")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Forget the records before a position.

    \b
    Examples:
      logsvc topic trim orders --offset 1000 --partition 0
      logsvc topic trim orders --offset @2026-01-31T00:00:00Z
    """
    try:
        position = parse_position(offset)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from None
    with connect(server) as admin:
        starts = {
            wanted.partition: admin.trim(topic, wanted.partition, at)
            for wanted, at in _resolve(admin, topic, partition, position)
        }
    if format is Format.JSON:
        write_json({"topic": topic, "start_offsets": {str(number): start for number, start in starts.items()}})
    else:
        for number, start in starts.items():
            note(f"{topic}-{number} starts at {start}")


def _resolve(admin: Admin, topic: str, partition: int | None, position: Position) -> list[tuple[TopicPartition, int]]:
    [found] = admin.describe_topics([topic])
    wanted = [p for p in found.partitions if partition is None or p.partition == partition]
    if not wanted:
        raise UnknownPartition(f"topic {topic} has partitions 0 to {found.partition_count - 1}, not {partition}")
    if position.kind is not Kind.TIME:
        return [(TopicPartition(topic, p.partition), position.resolve(p.start_offset, p.end_offset)) for p in wanted]
    at = admin.offsets_for_times({TopicPartition(topic, p.partition): position.value for p in wanted})
    # No record at or after that time: everything there is lies before it.
    return [(where, offset if offset >= 0 else -1) for where, offset in at.items()]


def _say(topic: TopicDescription, format: Format, text: str) -> None:
    if format is Format.JSON:
        write_json(_document(topic))
    else:
        note(text)


def _document(topic: TopicDescription) -> dict[str, Any]:
    return {
        "topic": topic.topic,
        "topic_id": topic.topic_id,
        "partition_count": topic.partition_count,
        "internal": topic.internal,
        "config": topic.config,
        "partitions": [
            {
                "partition": partition.partition,
                "start_offset": partition.start_offset,
                "end_offset": partition.end_offset,
                "size_bytes": partition.size_bytes,
                "segments": partition.segments,
                "state": partition.state,
            }
            for partition in topic.partitions
        ],
    }
