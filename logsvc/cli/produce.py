"""`logsvc produce`: lines in, records out."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect, parse_settings
from logsvc.cli.frame import single_command
from logsvc.cli.lines import read_lines
from logsvc.cli.output import Format, count_of, note, progress, write_json
from logsvc_client import Producer, RecordMetadata
from logsvc_common.batch import CODECS
from logsvc_common.errors import InvalidConfig, LogsvcError, UnknownPartition

PROGRESS_RECORDS = 1_000  # how often the bar moves

app = single_command()

KeyOf = Callable[[bytes], bytes | None]


class Tally:
    """What became of the records: how many are acknowledged, and the first error of one that failed."""

    def __init__(self) -> None:
        self.acked = 0
        self.error: LogsvcError | None = None

    def count(self, metadata: RecordMetadata | None, error: LogsvcError | None) -> None:
        """Called by the producer's thread, for one record at a time."""
        if error is None:
            self.acked += 1
        elif self.error is None:
            self.error = error

    def check(self) -> None:
        """Raise the error of a record that failed, saying how far it went."""
        if self.error is not None:
            raise type(self.error)(f"{self.error.message} ({self.acked:,} records were acknowledged)")


@app.command()
def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where to.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read lines from here. [default: stdin]", dir_okay=False)
    ] = None,
    key: Annotated[str | None, typer.Option("--key", "-k", help="The key of every record.")] = None,
    key_regex: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Its first group, found in the line, is the key; no match, no key.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header of every record. Repeat it.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", min=0, help="Always this one, whatever the key.")
    ] = None,
    compression: Annotated[str, typer.Option("--compression", "-z", help=f"{', '.join(CODECS)}.")] = "none",
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Send each line as a record: its exact bytes, without the newline.

    Ends when every record is acknowledged, which means that it is on the broker's disk. Lines need not be text. A record with a
    key goes where Kafka would put that key; one without goes where a batch is being filled.

    \b
    Examples:
      echo hello | logsvc produce orders
      logsvc produce access-log --file access.log --key-regex '^(\\S+)'
      tail -F app.log | logsvc produce app --header host=web1 --compression zstd
    """
    key_of = _key_rule(key, key_regex)
    headers = {name: value.encode() for name, value in parse_settings(header).items()}
    with connect(server) as admin:
        [found] = admin.describe_topics([topic])
    if partition is not None and partition >= found.partition_count:
        raise UnknownPartition(f"topic {topic} has partitions 0 to {found.partition_count - 1}, not {partition}")
    tally = Tally()
    records = size = 0
    started = time.perf_counter()
    with (
        opened(file) as lines,
        progress(f"producing to {topic}", None) as advance,
        Producer(server, client_id="logsvc-cli", compression=compression) as producer,
    ):
        for line in read_lines(lines):
            producer.send(topic, line, key=key_of(line), headers=headers, partition=partition, on_delivery=tally.count)
            records += 1
            size += len(line)
            if records % PROGRESS_RECORDS == 0:
                tally.check()
                advance(tally.acked)
        producer.flush()
    tally.check()
    seconds = time.perf_counter() - started
    if format is Format.JSON:
        rate = round(records / seconds, 1)
        write_json(
            {"topic": topic, "records": records, "bytes": size, "seconds": round(seconds, 6), "records_per_second": rate}
        )
    else:
        note(f"{count_of(records, 'record')}, {count_of(size, 'byte')} to {topic} in {seconds:.2f} s, all acknowledged")


def _key_rule(key: str | None, regex: str | None) -> KeyOf:
    if regex is None:
        fixed = key.encode("utf-8", "surrogateescape") if key is not None else None
        return lambda line: fixed
    if key is not None:
        raise typer.BadParameter("--key and --key-regex exclude each other")
    try:
        pattern = re.compile(regex.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise typer.BadParameter(f"{regex!r} is no regular expression: {error}", param_hint="--key-regex") from None
    if pattern.groups < 1:
        raise typer.BadParameter(f"{regex!r} has no group: put what should be the key in parentheses", param_hint="--key-regex")

    def first_group(line: bytes) -> bytes | None:
        match = pattern.search(line)
        return match.group(1) if match else None

    return first_group


@contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None or str(path) == "-":
        if sys.stdin.isatty():
            note("reading lines from the terminal; Ctrl-D ends")
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidConfig(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file
