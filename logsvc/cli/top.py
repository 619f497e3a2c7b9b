"""`logsvc top`: is anyone behind, what is failing, is the broker well; live on a terminal, line by line for a script.

One refresh is three requests (Hello, Metadata, ListGroups), whatever the number of groups: a listing carries the sums that
describing each group would. With 1,000 partitions and 50 groups they cost the broker some 7 ms; should a broker take long to
answer, it is asked less often (`pause_s`). Everything comes over the client's connection; the HTTP port is not asked.
"""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli.connect import CONNECT_TIMEOUT_MS, DEFAULT_SERVER, FormatOption, ServerOption
from logsvc.cli.frame import single_command
from logsvc.cli.output import Format, human_bytes, write_bytes, write_line, write_table
from logsvc.cli.top_model import GroupRow, History, Order, Overview, Sample, TopicRow, pause_s
from logsvc_client import AsyncAdmin

INTERVAL_MIN_S = 0.1  # a refresh is work for the broker
INTERVAL_MAX_S = 3_600.0

app = single_command()


def _pattern(text: str | None) -> re.Pattern[str]:
    try:
        return re.compile(text or "")
    except re.error as error:
        raise typer.BadParameter(f"{text!r} is no regular expression: {error}") from None


@app.command()
def top(
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=INTERVAL_MIN_S, max=INTERVAL_MAX_S, help="Seconds from look to look.")
    ] = 1.0,
    iterations: Annotated[int | None, typer.Option("--iterations", "-n", min=1, help="End after so many looks.")] = None,
    sort: Annotated[Order, typer.Option("--sort", help="What comes first.")] = Order.LAG,
    group: Annotated[str | None, typer.Option("--group", metavar="REGEX", help="Only groups whose name matches.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="REGEX", help="Only topics whose name matches.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Watch the broker: who is behind, what fails, is it well.

    Groups with their lag, the age of the first record not consumed, pace, failed records and dead letters; topics with what
    comes in. On a terminal it is live: q quits, s sorts, p pauses, ? tells the rest. Otherwise every look is a table, or with
    --format json one object on a line; rates are known from the second look on.

    \b
    Examples:
      logsvc top
      logsvc top --group '^billing' --sort failed --interval 5
      logsvc top --format json -n 2 | tail -1 | jq '.groups[] | select(.lag > 1000)'
    """
    history = History(_pattern(group).search, _pattern(topic).search)
    if format is Format.JSON or not _is_screen():
        asyncio.run(_print_looks(server, history, sort, interval, iterations, format))
        return
    # The terminal's side takes rich's live display with it, which a script need not wait for.
    from logsvc.cli.top_live import Live

    async def live() -> None:
        async with connection(server) as admin:
            await Live(server, lambda: look(admin), history, sort, interval_s=interval, iterations=iterations).run()

    try:
        asyncio.run(live())
    except KeyboardInterrupt:
        raise typer.Exit(128 + 2) from None


def _is_screen() -> bool:
    """Stdout is a terminal that can do more than print lines."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


@asynccontextmanager
async def connection(server: str) -> AsyncIterator[AsyncAdmin]:
    """A client of a broker that has answered. Raises RequestTimeout after CONNECT_TIMEOUT_MS without one."""
    async with AsyncAdmin(server, client_id="logsvc-top", timeout_ms=CONNECT_TIMEOUT_MS) as admin:
        await admin.ping()
        yield admin


async def look(admin: AsyncAdmin) -> Sample:
    """One sample, of three requests. Raises RequestTimeout, and what else the broker answers."""
    hello, topics, groups = await asyncio.gather(admin.ping(), admin.describe_topics(), admin.list_groups())
    return Sample(at_s=time.monotonic(), wall_ms=int(time.time() * 1_000), hello=hello, groups=groups, topics=topics)


async def _print_looks(
    server: str, history: History, order: Order, interval_s: float, iterations: int | None, format: Format
) -> None:
    done = 0
    async with connection(server) as admin:
        while True:
            began_s = time.monotonic()
            history.add(await look(admin))
            took_s = time.monotonic() - began_s
            overview = history.overview(order)
            assert overview is not None, "there is a sample"
            if format is Format.JSON:
                write_bytes(msgspec.json.encode(document(overview, server)) + b"\n")
            else:
                _write_text(overview, server, first=done == 0)
            sys.stdout.flush()
            done += 1
            if iterations is not None and done >= iterations:
                return
            await asyncio.sleep(pause_s(interval_s, took_s))


def _write_text(overview: Overview, server: str, *, first: bool) -> None:
    broker = overview.broker
    if not first:
        write_line("")
    write_line(
        f"{broker.software}  {server}  {broker.partitions - len(broker.not_online)} of {broker.partitions} partitions online"
        f"  {human_bytes(broker.size_bytes)}  {broker.dead_letters} dead letters"
    )
    write_table(
        ("GROUP", "HEALTH", "LAG", "BEHIND_MS", "REC_PER_S", "FAILED", "LETTERS", "MEMBERS", "STATE", "BREAKER"),
        [
            (
                row.group,
                row.verdict,
                row.lag,
                row.lag_ms,
                "-" if row.rate_per_s is None else round(row.rate_per_s, 1),
                row.failed_total,
                row.dead_letters,
                row.members,
                row.state,
                row.breaker,
            )
            for row in overview.groups
        ],
    )
    write_table(
        ("TOPIC", "STATE", "REC_PER_S", "SIZE", "RECORDS", "PARTITIONS"),
        [
            (
                row.topic,
                row.state,
                "-" if row.rate_per_s is None else round(row.rate_per_s, 1),
                human_bytes(row.size_bytes),
                row.records,
                row.partitions,
            )
            for row in overview.topics
        ],
    )


def document(overview: Overview, server: str) -> dict[str, Any]:
    """One look as a JSON object; rates are null before they are known."""
    broker = overview.broker
    return {
        "time_ms": broker.wall_ms,
        "broker": {
            "server": server,
            "software": broker.software,
            "broker_id": broker.broker_id,
            "partitions": broker.partitions,
            "not_online": [
                {"topic": topic, "partition": partition, "state": state} for topic, partition, state in broker.not_online
            ],
            "size_bytes": broker.size_bytes,
            "appended_records_per_s": broker.rate_per_s,
            "dead_letters": broker.dead_letters,
        },
        "groups": [_group_document(row) for row in overview.groups],
        "topics": [_topic_document(row) for row in overview.topics],
    }


def _group_document(row: GroupRow) -> dict[str, Any]:
    return {
        "group": row.group,
        "health": row.verdict,
        "severity": row.severity,
        "state": row.state,
        "members": row.members,
        "topics": row.topics,
        "lag": row.lag,
        "lag_ms": row.lag_ms,
        "consumed_records_per_s": row.rate_per_s,
        "failed": row.failed,
        "dead_letters": row.dead_letters,
        "breaker": row.breaker,
    }


def _topic_document(row: TopicRow) -> dict[str, Any]:
    return {
        "topic": row.topic,
        "state": row.state,
        "partitions": row.partitions,
        "records": row.records,
        "size_bytes": row.size_bytes,
        "appended_records_per_s": row.rate_per_s,
    }
