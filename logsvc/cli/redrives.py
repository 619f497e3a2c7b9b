"""Watching a redrive: its document, a line about it, a bar while it runs. The redrive itself is the broker's."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import typer

from logsvc.cli.exits import FAILED
from logsvc.cli.output import Format, count_of, note, progress, write_json, write_line, write_table
from logsvc.cli.positions import format_age
from logsvc.cli.where import describe_where
from logsvc_client import Admin, Redrive
from logsvc_common.errors import UnknownRedrive

LOOK_SECONDS = 0.1
LOOK_SECONDS_MAX = 1.0  # it is looked at less often the longer it takes
INTERRUPTED = 130


def follow(admin: Admin, redrive: Redrive) -> Redrive:
    """Wait until a redrive is over, with a bar for a person. Ctrl-C only stops the waiting: exit code 130."""
    wait_seconds, told = LOOK_SECONDS, ""
    try:
        with progress(f"redrive {redrive.redrive_id} of {redrive.dead_letter_topic}", redrive.total) as seen:
            while redrive.state == "running":
                seen(redrive.scanned)
                if redrive.waiting not in ("", told):
                    told = redrive.waiting
                    note(f"waits for {told}")
                time.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 1.2, LOOK_SECONDS_MAX)
                redrive = find(admin, redrive.redrive_id)
    except KeyboardInterrupt:
        note(f"redrive {redrive.redrive_id} goes on in the broker. Stop it: logsvc dlq redrive --cancel {redrive.redrive_id}")
        raise typer.Exit(INTERRUPTED) from None
    return redrive


def find(admin: Admin, redrive_id: int) -> Redrive:
    """Raises UnknownRedrive."""
    for redrive in admin.redrives():
        if redrive.redrive_id == redrive_id:
            return redrive
    raise UnknownRedrive(f"no redrive {redrive_id}")


def show(redrive: Redrive, format: Format) -> None:
    """Write what became of a redrive so far. Exits with 1 for one that somebody else has cancelled meanwhile."""
    if format is Format.JSON:
        write_json(document(redrive))
        return
    of = f"of {count_of(redrive.total, 'letter')}"
    if redrive.dry_run:
        back = redrive.matched - redrive.skipped
        line = f"dry run: {back:,} {of} would go back to {redrive.group}"
    else:
        line = f"redrive {redrive.redrive_id} {redrive.state}: {redrive.redriven:,} {of} put back for {redrive.group}"
    if redrive.skipped:
        line += f"; {redrive.skipped:,} left out: in hand already, not read yet, or nothing is left of the record"
    write_line(line)


def ended(redrive: Redrive) -> None:
    """After waiting: a redrive that was cancelled has not done what it was started for."""
    if redrive.state == "cancelled":
        raise typer.Exit(FAILED)


def document(redrive: Redrive) -> dict[str, Any]:
    """A redrive as JSON shows it."""
    fields = {name: getattr(redrive, name) for name in redrive.__struct_fields__}
    where = {name: getattr(redrive.where, name) for name in redrive.where.__struct_fields__}
    chosen = {name: value for name, value in where.items() if value not in ([], -1)}
    return msgspec.to_builtins({**fields, "where": chosen})  # type: ignore[no-any-return]


def show_all(redrives: Sequence[Redrive], format: Format) -> None:
    """Write all redrives."""
    if format is Format.JSON:
        write_json([document(redrive) for redrive in redrives])
        return
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (
            r.redrive_id,
            r.group,
            r.topic,
            f"{r.state} (dry run)" if r.dry_run else r.state,
            r.total,
            r.scanned,
            r.matched,
            r.redriven,
            r.skipped,
            format_age(now_ms - r.created_ms),
            describe_where(r.where),
        )
        for r in redrives
    ]
    columns = ("ID", "GROUP", "SOURCE", "STATE", "LETTERS", "SEEN", "MATCHED", "REDRIVEN", "SKIPPED", "STARTED", "WHERE")
    write_table(columns, rows)
