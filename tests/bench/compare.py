"""`make bench`: the real thing beside its yardsticks, in one run on one machine, because only ratios travel.

Each round measures, one after the other: what the disk takes (1 MiB writes, each with fdatasync), the yardstick (the same path
without promises, `yardstick.py` or any script given by `--yardstick` that prints the same lines), and `logsvc bench` in
processes of its own. Medians over the rounds go into a table beside the numbers to beat. With `--rdkafka` and
confluent-kafka installed, librdkafka producing into its own in-memory mock cluster is measured too.

    make bench                                          three rounds, about two minutes
    make bench ARGS="--rounds 1 --yardstick other.py"
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Producer

HERE = Path(__file__).parent
DISK_WRITE_BYTES = 1 << 20
STEP_TIMEOUT_SECONDS = 300
MANY_PARTITIONS = 1_000

YARDSTICK_LINE = re.compile(r"(\d+) B (produce|consume) ([\d,]+) records/s ([\d,]+) MB/s")


@dataclass(frozen=True)
class Sizes:
    """How much each step moves."""

    rounds: int
    records_100: int
    records_1000: int
    latency_records: int
    disk_bytes: int
    many_partitions: int


@dataclass(frozen=True)
class Goal:
    """One line of the table: a figure, what it is compared with, and the ratio it should reach."""

    what: str
    ours: str
    beside: str
    at_least: float
    unit: str = "records/s"


@dataclass
class Figures:
    """Measurements by name, one value a round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        return statistics.median(self.values[name]) if name in self.values else None


GOALS = (
    Goal("send to fsynced ack, 100 B", "logsvc produce 100", "yardstick produce 100", 0.6),
    Goal("send to fsynced ack, 100 B, beside librdkafka", "logsvc produce 100", "rdkafka produce 100", 1.0),
    Goal("consume, 100 B", "logsvc consume 100", "yardstick consume 100", 0.35),
    Goal("send to fsynced ack, 1 KB", "logsvc produce 1000 MB/s", "disk MB/s", 0.85, "MB/s"),
    Goal("consume, 1 KB", "logsvc consume 1000", "yardstick consume 1000", 0.6),
    Goal("1,000 partitions beside one, 100 B", "logsvc produce 100, many partitions", "logsvc produce 100", 0.5),
)

# (what, figure, at most, unit)
LIMITS = (
    ("one durable send, p50", "latency p50", 0.6, "ms"),
    ("one durable send, p99", "latency p99", 3.0, "ms"),
    ("broker: start to first ack", "start to first ack", 1.0, "s"),
    ("broker: memory when idle", "idle memory", 80.0, "MiB"),
    ("broker: memory with 1,000 partitions", "memory, many partitions", 200.0, "MiB"),
)


def measure_disk(sizes: Sizes) -> float:
    """MB/s the file system of the temporary folder takes in 1 MiB writes, each made durable."""
    block = os.urandom(DISK_WRITE_BYTES)
    with tempfile.NamedTemporaryFile(prefix="logsvc-disk-") as file:
        started = time.perf_counter()
        written = 0
        while written < sizes.disk_bytes:
            written += os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
        return written / (time.perf_counter() - started) / 1e6


def run(command: Sequence[str]) -> str:
    """The stdout of a step in a process of its own; its stderr in the exception when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def measure_yardstick(figures: Figures, sizes: Sizes, script: Path | None) -> None:
    if script is not None:
        output = run([sys.executable, str(script)])
    else:
        how_many = [f"--records-100={sizes.records_100}", f"--records-1000={sizes.records_1000}"]
        output = run([sys.executable, str(HERE / "yardstick.py"), *how_many])
    for size, what, records, megabytes in YARDSTICK_LINE.findall(output):
        figures.add(f"yardstick {what} {size}", float(records.replace(",", "")))
        figures.add(f"yardstick {what} {size} MB/s", float(megabytes.replace(",", "")))


def bench(verb: str, records: int, size: int, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "logsvc.cli.main", "bench", verb, "--format", "json"]
    document: dict[str, float] = json.loads(run([*command, "--records", str(records), "--size", str(size), *more]))
    return document


def measure_ours(figures: Figures, sizes: Sizes) -> None:
    for verb in ("produce", "consume"):
        for size, records in ((100, sizes.records_100), (1_000, sizes.records_1000)):
            found = bench(verb, records, size)
            figures.add(f"logsvc {verb} {size}", found["records_per_second"])
            figures.add(f"logsvc {verb} {size} MB/s", found["megabytes_per_second"])
    latency = bench("latency", sizes.latency_records, 100)
    figures.add("latency p50", latency["p50_ms"])
    figures.add("latency p99", latency["p99_ms"])


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kibibytes] = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kibibytes) / 1024


def first_ack(broker: BrokerProcess) -> None:
    with Admin(broker.server) as admin:
        admin.create_topic("first")
    with Producer(broker.server, linger_ms=0) as producer:
        producer.send("first", b"ack").result(timeout=30)


def fill_partitions(broker: BrokerProcess, partitions: int) -> None:
    """A topic with a record in each of its partitions."""
    with Admin(broker.server, timeout_ms=120_000) as admin:
        admin.create_topic("many", partitions=partitions)
    with Producer(broker.server) as producer:
        deliveries = [producer.send("many", b"x" * 100, partition=number) for number in range(partitions)]
        for delivery in deliveries:
            delivery.result(timeout=60)


def measure_broker(figures: Figures, sizes: Sizes) -> None:
    started = time.perf_counter()
    with broker_process() as broker:
        first_ack(broker)
        figures.add("start to first ack", time.perf_counter() - started)
        figures.add("idle memory", memory_mib(broker.pid))
    with broker_process() as broker:
        fill_partitions(broker, sizes.many_partitions)
        figures.add("memory, many partitions", memory_mib(broker.pid))
        many = ("--partitions", str(sizes.many_partitions), "--server", broker.server)
        figures.add(
            "logsvc produce 100, many partitions", bench("produce", sizes.records_100, 100, *many)["records_per_second"]
        )


def measure_rdkafka(figures: Figures, sizes: Sizes) -> None:
    """confluent-kafka into librdkafka's mock cluster: a Kafka producer, and a broker that only keeps records in memory."""
    from confluent_kafka import Producer as KafkaProducer

    producer = KafkaProducer(
        {
            "bootstrap.servers": "mock",
            "test.mock.num.brokers": 1,
            "linger.ms": 5,
            "batch.size": 1 << 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    value = os.urandom(100)
    started = time.perf_counter()
    for _ in range(sizes.records_100):
        while True:
            try:
                producer.produce("bench", value)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush(STEP_TIMEOUT_SECONDS)
    figures.add("rdkafka produce 100", sizes.records_100 / (time.perf_counter() - started))


def table(figures: Figures) -> list[str]:
    """The figures as Markdown, medians over the rounds."""
    lines = ["| what | measured | beside | ratio | at least | |", "|---|---:|---:|---:|---:|---|"]
    for goal in GOALS:
        ours, beside = figures.median(goal.ours), figures.median(goal.beside)
        if ours is None or beside is None:
            continue
        ratio = ours / beside
        verdict = "yes" if ratio >= goal.at_least else "**no**"
        compared = f"{goal.beside.removesuffix(' MB/s')} {beside:,.0f}"
        measured = f"{ours:,.0f} {goal.unit}"
        lines.append(f"| {goal.what} | {measured} | {compared} | {ratio:.2f} | {goal.at_least:.2f} | {verdict} |")
    lines += ["", "| what | measured | at most | |", "|---|---:|---:|---|"]
    for what, name, at_most, unit in LIMITS:
        value = figures.median(name)
        if value is not None:
            lines.append(f"| {what} | {value:.2f} {unit} | {at_most:g} {unit} | {'yes' if value <= at_most else '**no**'} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records-100", type=int, default=2_000_000)
    parser.add_argument("--records-1000", type=int, default=500_000)
    parser.add_argument("--latency-records", type=int, default=3_000)
    parser.add_argument("--disk-bytes", type=int, default=512 << 20)
    parser.add_argument("--many-partitions", type=int, default=MANY_PARTITIONS)
    parser.add_argument("--yardstick", type=Path, help="another script that prints lines as yardstick.py does")
    parser.add_argument("--rdkafka", action="store_true", help="also confluent-kafka into its mock cluster, if installed")
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    given = parser.parse_args(arguments)
    sizes = Sizes(
        given.rounds, given.records_100, given.records_1000, given.latency_records, given.disk_bytes, given.many_partitions
    )
    figures = Figures()
    steps: list[tuple[str, Callable[[], None]]] = [
        ("disk", lambda: figures.add("disk MB/s", measure_disk(sizes))),
        ("yardstick", lambda: measure_yardstick(figures, sizes, given.yardstick)),
        ("logsvc", lambda: measure_ours(figures, sizes)),
        ("broker", lambda: measure_broker(figures, sizes)),
    ]
    if given.rdkafka:
        steps.append(("rdkafka", lambda: measure_rdkafka(figures, sizes)))
    for number in range(1, sizes.rounds + 1):
        for name, step in steps:
            print(f"round {number} of {sizes.rounds}: {name}", file=sys.stderr, flush=True)
            step()
    if given.json is not None:
        given.json.write_text(json.dumps(figures.values, indent=2) + "\n")
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
