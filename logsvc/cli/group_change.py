"""The verbs of `logsvc group` that change one: configure, reset, resume, delete. `logsvc.cli.group` registers them."""

import re
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.output import Format, count_of, note, write_json, write_table
from logsvc.cli.positions import parse_time_ms
from logsvc_common.breaker import BreakerConfig
from logsvc_common.messages import (
    AT_OFFSET,
    AT_TIME,
    BY_DURATION,
    BY_SHIFT,
    EARLIEST_OFFSET,
    LATEST_OFFSET,
    ConfigureGroup,
    ResetGroup,
    ResetResult,
)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def breaker_document(config: BreakerConfig) -> dict[str, Any]:
    """The settings of a breaker, by name."""
    return {name: getattr(config, name) for name in config.__struct_fields__}


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


def parse_duration_ms(text: str) -> int:
    """Milliseconds in `90s`, `15m`, `1h30m`, `2d`. Raises ValueError for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration; it looks like 90s, 15m, 1h30m or 2d")
    return sum(int(number) * _UNIT_MS[unit] for number, unit in parts)


def _duration(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else parse_duration_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def configure(
    group: Group,
    breaker: Annotated[Switch | None, typer.Option("--breaker", help="Whether the group pauses when too much fails.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--breaker-threshold", help="Share of deliveries that must fail, above 0 up to 1.")
    ] = None,
    window: Annotated[str | None, typer.Option("--breaker-window", help="Time it is measured over, as in 10s.")] = None,
    min_failures: Annotated[int | None, typer.Option("--breaker-min-failures", help="Fewer never open it.")] = None,
    open_time: Annotated[str | None, typer.Option("--breaker-open", help="The first pause, as in 5s.")] = None,
    open_max: Annotated[str | None, typer.Option("--breaker-open-max", help="The longest pause, as in 1m.")] = None,
    probes: Annotated[int | None, typer.Option("--breaker-probes", help="Successes in a row that close it.")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="First bring everything back to its default.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Change a group's settings; without options, show them. They outlive restarts.

    \b
    Examples:
      logsvc group configure billing
      logsvc group configure billing --breaker-threshold 0.2 --breaker-window 30s
      logsvc group configure billing --breaker off
    """
    settings = ConfigureGroup(
        group,
        defaults,
        None if breaker is None else breaker is Switch.ON,
        threshold,
        _duration(window, "--breaker-window"),
        min_failures,
        _duration(open_time, "--breaker-open"),
        _duration(open_max, "--breaker-open-max"),
        probes,
    )
    with connect(server) as admin:
        if settings == ConfigureGroup(group):
            known = admin.describe_group(group).breaker.config
        else:
            known = admin.configure_group(settings)
    document = breaker_document(known)
    if format is Format.JSON:
        write_json({"group": group, "breaker": document})
    else:
        write_table(("SETTING", "VALUE"), [(f"breaker.{name}", value) for name, value in document.items()])


def reset(
    group: Group,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="Read everything again.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Skip what is there.")] = False,
    to_offset: Annotated[int | None, typer.Option("--to-offset", metavar="N", help="The same offset everywhere.")] = None,
    to_time: Annotated[
        str | None, typer.Option("--to-time", metavar="TIME", help="Epoch milliseconds or ISO 8601; the first record since.")
    ] = None,
    by_duration: Annotated[
        str | None, typer.Option("--by-duration", metavar="AGE", help="As --to-time, so long ago: 1h30m.")
    ] = None,
    shift_by: Annotated[
        int | None, typer.Option("--shift-by", metavar="N", help="So many records on; back when negative.")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="Only this one. [default: all it has committed in]")] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", help="Only this one of the topic. Repeat it.")] = None,
    drop_failed: Annotated[bool, typer.Option("--drop-failed", help="Forget failed records below the new offset too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Set where a group reads on. Refused while it has active members.

    Records from the new offset on are read again, so their failures are forgotten (DROPPED); failures below it stay and are
    tried again (KEPT), unless --drop-failed.

    \b
    Examples:
      logsvc group reset billing --to-earliest --dry-run
      logsvc group reset billing --topic orders --by-duration 2h
      logsvc group reset billing --topic orders --partition 3 --shift-by -100
    """
    targets: list[tuple[str, int]] = []
    if to_earliest:
        targets.append((EARLIEST_OFFSET, 0))
    if to_latest:
        targets.append((LATEST_OFFSET, 0))
    if to_offset is not None:
        targets.append((AT_OFFSET, to_offset))
    if to_time is not None:
        try:
            targets.append((AT_TIME, parse_time_ms(to_time)))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--to-time") from None
    if (age_ms := _duration(by_duration, "--by-duration")) is not None:
        targets.append((BY_DURATION, age_ms))
    if shift_by is not None:
        targets.append((BY_SHIFT, shift_by))
    if len(targets) != 1:
        raise typer.BadParameter("give one of --to-earliest, --to-latest, --to-offset, --to-time, --by-duration, --shift-by")
    if partition and topic is None:
        raise typer.BadParameter("--partition is one of a --topic")
    [(to, value)] = targets
    with connect(server) as admin:
        results = admin.reset_group(ResetGroup(group, to, value, topic, partition or None, dry_run, drop_failed))
    if format is Format.JSON:
        write_json([_reset_document(result) for result in results])
        return
    rows = [
        (r.topic, r.partition, r.old_offset if r.old_offset >= 0 else "-", r.new_offset, r.dropped, r.kept) for r in results
    ]
    write_table(("TOPIC", "PARTITION", "FROM", "TO", "DROPPED", "KEPT"), rows)
    note(f"{'would reset' if dry_run else 'reset'} {count_of(len(results), 'partition')}")


def _reset_document(result: ResetResult) -> dict[str, object]:
    return {
        "topic": result.topic,
        "partition": result.partition,
        "from": result.old_offset if result.old_offset >= 0 else None,
        "to": result.new_offset,
        "dropped": result.dropped,
        "kept": result.kept,
    }


def resume(
    group: Group,
    topic: Annotated[str | None, typer.Option("--topic", help="Only this one's paused records.")] = None,
    partition: Annotated[int | None, typer.Option("--partition", help="Only those of this partition of the topic.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Go on now: close the group's breaker, and try its paused records again with a fresh budget of attempts.

    \b
    Examples:
      logsvc group resume billing
      logsvc group resume billing --topic orders --partition 3
    """
    if partition is not None and topic is None:
        raise typer.BadParameter("--partition is one of a --topic")
    with connect(server) as admin:
        done = admin.resume_group(group, topic=topic, partition=partition)
    if format is Format.JSON:
        write_json({"group": done.group, "breaker_closed": done.breaker_closed, "resumed": done.resumed})
        return
    breaker = "the breaker is closed; " if done.breaker_closed else ""
    note(f"{breaker}{count_of(done.resumed, 'paused record')} will be tried again")


def delete(
    group: Group,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Forget a group: its offsets, failed records and settings. Its dead letters stay. Refused while it has active members.

    Asks first when a person is at the terminal.

    \b
    Example:
      logsvc group delete billing --yes
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Forget group {group}, its offsets and failed records?", abort=True, err=True)
    with connect(server) as admin:
        gone = admin.delete_group(group)
    if format is Format.JSON:
        write_json({"group": gone.group, "partitions": gone.partitions, "failed": gone.failed})
    else:
        failed = f"; {count_of(gone.failed, 'failed record')} went with it" if gone.failed else ""
        note(f"group {gone.group} is deleted{failed}")
