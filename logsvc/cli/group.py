"""`logsvc group`: who reads what, how far behind, and what has failed. The verbs that change a group are in `group_change`."""

import sys
from collections import Counter
from typing import Annotated, Any

import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.frame import noun
from logsvc.cli.group_change import breaker_document, configure, delete, reset, resume
from logsvc.cli.output import Format, count_of, write_json, write_line, write_table
from logsvc.cli.positions import format_age
from logsvc_common.messages import BreakerDescription, DescribeGroupReply, GroupPartition, TopicPartitions
from logsvc_common.transitions import State

MEMBER_ID_SHOWN = 8  # characters of the random 32 that a row of a terminal has room for
# What the states of a failed record mean to somebody who looks at them; the words of docs/delivery.md, shorter.
_MEANINGS: dict[str, str] = {
    State.WAITING: "failed; its backoff runs",
    State.DELIVERED: "with a consumer again",
    State.PARKED: "not tried: behind a failed record of its key",
    State.DEAD_LETTERING: "attempts spent; its letter is being written",
    State.PAUSED: "attempts spent; `logsvc group resume` tries it again",
    State.DONE: "handled ahead of an earlier one",
}

app = noun("Look at consumer groups and change them: members, lag, failed records, offsets, breaker.")


@app.command("list")
def list_groups(server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """List the groups, with their lag in records and what they have failed.

    \b
    Examples:
      logsvc group list
      logsvc group list --format json | jq '.[] | select(.lag > 1000)'
    """
    with connect(server) as admin:
        groups = sorted(admin.list_groups(), key=lambda group: group.group)
    if format is Format.JSON:
        write_json(
            [
                {
                    "group": g.group,
                    "state": g.state,
                    "members": g.members,
                    "topics": g.topics,
                    "lag": g.lag,
                    "failed": g.failed,
                    "breaker": g.breaker,
                }
                for g in groups
            ]
        )
        return
    rows = [(g.group, g.state, g.members, g.lag, g.failed, g.breaker, ", ".join(g.topics) or "-") for g in groups]
    write_table(("GROUP", "STATE", "MEMBERS", "LAG", "FAILED", "BREAKER", "TOPICS"), rows)


@app.command()
def describe(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")],
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show a group's members, and for each partition where it stands.

    LAG counts records between the committed offset and the end; BEHIND is the age of the first record not consumed. FAILED
    counts failed records that are not done yet, by state, and the consumers that died of the partition. An isolated one is
    handed out record by record, until the record that kills is found. The breaker is open while the group pauses because
    too much fails.

    \b
    Examples:
      logsvc group describe billing
      logsvc group describe billing --format json | jq '[.partitions[].lag] | add'
      logsvc group describe billing --format json | jq .breaker
    """
    with connect(server) as admin:
        found = admin.describe_group(group)
    if format is Format.JSON:
        write_json(_document(found))
        return
    write_line(f"group {found.group}  state {found.state}  epoch {found.epoch}  assignor {found.assignor}")
    write_line(_breaker(found.breaker))
    members = [
        (m.member_id, m.client_id or "-", m.instance_id or "-", m.member_epoch, _partitions(m.owned)) for m in found.members
    ]
    write_table(("MEMBER", "CLIENT", "INSTANCE", "EPOCH", "OWNS"), members)
    # A person finds the member in the table above; a pipe gets what it can join on.
    id_length = MEMBER_ID_SHOWN if sys.stdout.isatty() else None
    rows = [
        (
            p.topic,
            p.partition,
            p.committed if p.committed >= 0 else "-",
            p.end_offset,
            p.lag,
            format_age(p.lag_ms),
            _failed(p),
            p.member_id[:id_length] or "-",
        )
        for p in found.partitions
    ]
    write_table(("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "BEHIND", "FAILED", "MEMBER"), rows, bar_of="LAG")
    if sys.stdout.isatty():
        _draw_failed(found.partitions)


def _draw_failed(partitions: list[GroupPartition]) -> None:
    """Failed records by state, as bars for a person; a pipe has them in the rows of the partitions."""
    failed: Counter[str] = Counter()
    for partition in partitions:
        failed.update(partition.failed)
    rows = [(state, failed[state], meaning) for state, meaning in _MEANINGS.items() if failed[state]]
    if rows:
        write_table(("STATE", "RECORDS", "MEANING"), rows, bar_of="RECORDS")


def _partitions(owned: list[TopicPartitions]) -> str:
    return ", ".join(f"{entry.topic}-{partition}" for entry in owned for partition in entry.partitions) or "-"


def _failed(partition: GroupPartition) -> str:
    found = [f"{count} {state}" for state, count in sorted(partition.failed.items()) if count]
    if partition.deaths:
        found.append(count_of(partition.deaths, "death") + (", isolated" if partition.isolated else ""))
    return ", ".join(found) or "-"


def _breaker(breaker: BreakerDescription) -> str:
    if breaker.state == "off":
        return "breaker off"
    text = f"breaker {breaker.state}  {breaker.failures} of {breaker.deliveries} failed in the last {_window(breaker)}"
    if breaker.state == "open":
        text += f"; tries again in {format_age(breaker.retry_in_ms)}"
    if breaker.state == "half_open":
        text += f"; {breaker.successes} of {breaker.config.probes} probes have succeeded"
    return text


def _window(breaker: BreakerDescription) -> str:
    return format_age(breaker.config.window_ms)


def _document(group: DescribeGroupReply) -> dict[str, Any]:
    return {
        "group": group.group,
        "state": group.state,
        "epoch": group.epoch,
        "assignor": group.assignor,
        "breaker": {
            "state": group.breaker.state,
            "deliveries": group.breaker.deliveries,
            "failures": group.breaker.failures,
            "retry_in_ms": group.breaker.retry_in_ms,
            "successes": group.breaker.successes,
            "opened": group.breaker.opened,
            "config": breaker_document(group.breaker.config),
        },
        "members": [
            {
                "member_id": member.member_id,
                "client_id": member.client_id,
                "instance_id": member.instance_id,
                "member_epoch": member.member_epoch,
                "owned": {entry.topic: entry.partitions for entry in member.owned},
                "target": {entry.topic: entry.partitions for entry in member.target},
            }
            for member in group.members
        ],
        "partitions": [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "committed": partition.committed if partition.committed >= 0 else None,
                "start_offset": partition.start_offset,
                "end_offset": partition.end_offset,
                "lag": partition.lag,
                "lag_ms": partition.lag_ms,
                "member_id": partition.member_id or None,
                "failed": partition.failed,
                "deaths": partition.deaths,
                "isolated": partition.isolated,
            }
            for partition in group.partitions
        ],
    }


for _verb in (configure, reset, resume, delete):
    app.command()(_verb)
