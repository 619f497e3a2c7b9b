"""`logsvc bench`: what this machine does, as numbers that can be compared.

Every verb starts a broker in a process of its own on a temporary folder, unless `--server` names one, and measures from this
process: one producer or one consumer, random bytes, nothing turned off. A record counts as produced when it is acknowledged,
as consumed when the caller holds the Record. With `--server` a topic `bench-…` is made there and deleted afterwards.
"""

import os
import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Annotated

import typer

from logsvc.cli.connect import ConfigOption, FormatOption, connect, parse_settings
from logsvc.cli.frame import noun
from logsvc.cli.output import Format, write_json, write_line
from logsvc.testing import broker_process
from logsvc_client import Consumer, Producer, TopicPartition
from logsvc_common.errors import RequestTimeout

app = noun("Measure produce, consume and latency, on a broker of its own or on one that runs.")

VALUES = 256  # different random values that are sent in turn
WARM_UP_SENDS = 100
WAIT_SECONDS = 120.0
WAIT_MS = 120_000
LINGER_MS = 5

RecordsOption = Annotated[int, typer.Option("--records", "-n", min=1, help="How many.")]
SizeOption = Annotated[int, typer.Option("--size", "-s", min=0, help="Bytes of each value.")]
PartitionsOption = Annotated[int, typer.Option("--partitions", "-p", min=1, help="Partitions of the topic.")]
CompressionOption = Annotated[str, typer.Option("--compression", "-z", help="none, gzip, snappy, lz4 or zstd.")]
ServerOption = Annotated[
    str | None,
    # Not from the environment: nobody is to load the broker of others because a variable was set.
    typer.Option("--server", help="A broker that runs. [default: one started for this]", show_default=False),
]


class Bench:
    """A topic to measure on, and how it is filled."""

    def __init__(self, server: str, topic: str, *, records: int, size: int, compression: str = "none") -> None:
        self.server = server
        self.topic = topic
        self.records = records
        self._compression = compression
        self._values = [os.urandom(size) for _ in range(min(VALUES, records))]

    def produce(self) -> float:
        """Seconds from the first send to the last acknowledgement."""
        with Producer(self.server, linger_ms=LINGER_MS, compression=self._compression) as producer:
            started = time.perf_counter()
            for value in islice(cycle(self._values), self.records):
                delivery = producer.send(self.topic, value)
            producer.flush(WAIT_SECONDS)
            seconds = time.perf_counter() - started
            delivery.result(WAIT_SECONDS)  # raises if the records were refused
        return seconds

    def consume(self, partitions: int) -> float:
        """Seconds until this process has held a Record object for each record."""
        seen = 0
        started = time.perf_counter()
        with Consumer(server=self.server) as consumer:
            consumer.assign([TopicPartition(self.topic, number) for number in range(partitions)])
            while seen < self.records:
                batch = consumer.poll(WAIT_MS)
                if not batch:
                    raise RequestTimeout(f"no record within {WAIT_MS} ms, after {seen:,} of {self.records:,}")
                seen += len(batch)
            return time.perf_counter() - started

    def latencies(self) -> list[float]:
        """Seconds of each durable send, one at a time on an idle broker, after WARM_UP_SENDS that do not count."""
        found = []
        with Producer(self.server, linger_ms=0) as producer:
            for number, value in enumerate(islice(cycle(self._values), self.records + WARM_UP_SENDS)):
                started = time.perf_counter()
                producer.send(self.topic, value).result(WAIT_SECONDS)
                if number >= WARM_UP_SENDS:
                    found.append(time.perf_counter() - started)
        return found


@app.command()
def produce(
    records: RecordsOption = 1_000_000,
    size: SizeOption = 100,
    partitions: PartitionsOption = 1,
    compression: CompressionOption = "none",
    config: ConfigOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """How fast one producer gets records acknowledged, which means fsynced unless --config flush=… says otherwise.

    \b
    Examples:
      logsvc bench produce
      logsvc bench produce --records 200000 --size 1000 --format json
    """
    with _topic(server, partitions, config) as (address, topic):
        seconds = Bench(address, topic, records=records, size=size, compression=compression).produce()
    _print(_throughput(records, size, seconds), format)


@app.command()
def consume(
    records: RecordsOption = 1_000_000,
    size: SizeOption = 100,
    partitions: PartitionsOption = 1,
    compression: CompressionOption = "none",
    config: ConfigOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """How fast one consumer hands out records. They are produced first; that does not count.

    \b
    Examples:
      logsvc bench consume
      logsvc bench consume --records 200000 --size 1000 --format json
    """
    with _topic(server, partitions, config) as (address, topic):
        bench = Bench(address, topic, records=records, size=size, compression=compression)
        bench.produce()
        seconds = bench.consume(partitions)
    _print(_throughput(records, size, seconds), format)


@app.command()
def latency(
    records: RecordsOption = 2_000,
    size: SizeOption = 100,
    config: ConfigOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """How long one durable send takes, from the call to the acknowledgement, one at a time.

    \b
    Examples:
      logsvc bench latency
      logsvc bench latency --records 5000 --format json
    """
    with _topic(server, 1, config) as (address, topic):
        found = Bench(address, topic, records=records, size=size).latencies()
    document = _throughput(records, size, sum(found))
    document["p50_ms"] = round(statistics.median(found) * 1_000, 4)
    document["p99_ms"] = round(sorted(found)[min(len(found) - 1, len(found) * 99 // 100)] * 1_000, 4)
    document["max_ms"] = round(max(found) * 1_000, 4)
    _print(document, format)


@contextmanager
def _topic(server: str | None, partitions: int, config: list[str] | None) -> Iterator[tuple[str, str]]:
    """A fresh topic on the broker named, or on one that runs while the block does."""
    settings = parse_settings(config)
    if server is None:
        with broker_process() as broker, connect(broker.server) as admin:
            yield broker.server, admin.create_topic("bench", partitions=partitions, config=settings).topic
        return
    topic = f"bench-{secrets.token_hex(4)}"
    with connect(server) as admin:
        admin.create_topic(topic, partitions=partitions, config=settings)
        try:
            yield server, topic
        finally:
            admin.delete_topic(topic)


def _throughput(records: int, size: int, seconds: float) -> dict[str, float]:
    return {
        "records": records,
        "size_bytes": size,
        "seconds": round(seconds, 6),
        "records_per_second": round(records / seconds, 1),
        "megabytes_per_second": round(records * size / seconds / 1e6, 3),
    }


def _print(document: dict[str, float], format: Format) -> None:
    if format is Format.JSON:
        write_json(document)
        return
    for name, value in document.items():
        write_line(f"{name.replace('_', ' '):<22}{value:>18,}")
