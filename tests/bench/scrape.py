"""What a scrape costs, and whom: `python -m tests.bench.scrape`.

A broker with 1,000 partitions and 50 groups, each of which has committed on all of them and is behind: 50,000 positions, each
with an offset, a lag and an age, some 157,000 series. A scraper in a process of its own asks for them over HTTP, reads all of
the answer and parses none of it. Measured are, medians over the rounds:

    first scrape      the first one of this broker, which also makes the text of all labels
    scrape            the whole answer, nothing having been committed since the last one
    processor time    what the broker used for it: on a machine that does other things too, the figure to compare
    scrape, moved     the same after every group has committed elsewhere on every partition, so that no age is known
    ack               one durable send after the other by one producer, p50 and p99, while nobody scrapes and while somebody
                      scrapes once a second; turn and turn about, so that both see the same machine

    python -m tests.bench.scrape                      three rounds, about a minute
    python -m tests.bench.scrape --kafka-exporter     with kafka_exporter's names as well
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Producer
from logsvc_common.batch import RecordData, encode
from logsvc_common.messages import NO_MEMBER_EPOCH, Commit, CommitPartition, Produce, ProducePartition
from tests.bench.compare import Figures, memory_mib
from tests.e2e.raw_peer import RawPeer

RECORDS_PER_PARTITION = 16
BATCHES = 4
VALUE_BYTES = 100
SCRAPE_EVERY_S = 1.0
SEND_EVERY_S = 0.001
SCRAPE_MS_MAX = 100.0
ACK_RATIO_MAX = 2.0


@dataclass(frozen=True)
class Sizes:
    """How large the broker is, and how much is measured."""

    topics: int
    partitions: int
    groups: int
    scrapes: int
    seconds: float


def fill(server: str, sizes: Sizes) -> None:
    """Every partition gets a few batches."""
    each = RECORDS_PER_PARTITION // BATCHES
    with Admin(server) as admin, RawPeer(server) as peer:
        for topic in range(sizes.topics):
            admin.create_topic(f"topic-{topic}", partitions=sizes.partitions)
            for _ in range(BATCHES):
                now_ms = time.time_ns() // 1_000_000
                batch = encode([RecordData(os.urandom(VALUE_BYTES), None, now_ms) for _ in range(each)])
                wanted = [ProducePartition(f"topic-{topic}", partition) for partition in range(sizes.partitions)]
                reply, _ = peer.call(Produce(wanted), [batch] * sizes.partitions)
                assert not any(result.error_code for result in reply.results), reply.results[0]


def commit(server: str, sizes: Sizes, offset: int) -> None:
    """Every group commits `offset` on every partition."""
    with RawPeer(server) as peer:
        for group in range(sizes.groups):
            for topic in range(sizes.topics):
                parts = [CommitPartition(f"topic-{topic}", partition, offset) for partition in range(sizes.partitions)]
                reply, _ = peer.call(Commit(f"group-{group}", "", NO_MEMBER_EPOCH, parts))
                assert not any(result.error_code for result in reply.results), reply.results[0]


# Scraping, in a process of its own


def scrape_ms(address: str) -> tuple[float, int]:
    """(milliseconds, bytes) of one scrape, from connecting to the last byte."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    size = 0
    while part := answer.read1(1 << 20):
        size += len(part)
    connection.close()
    if answer.status != http.client.OK:
        raise SystemExit(f"status {answer.status}")
    return (time.perf_counter() - began) * 1000, size


def scrape_for_ever(address: str) -> None:
    """Scrape once a second until stdin is closed; print each scrape's milliseconds."""
    os.set_blocking(0, False)
    due = time.perf_counter()
    while sys.stdin.buffer.read() is None:
        print(scrape_ms(address)[0], flush=True)
        due += SCRAPE_EVERY_S
        while time.perf_counter() < due and sys.stdin.buffer.read() is None:
            time.sleep(0.01)


@contextmanager
def scraper(address: str) -> Iterator[list[float]]:
    """Somebody scrapes while the block runs, and has begun to; the list has the milliseconds of each scrape afterwards."""
    command = [sys.executable, "-m", "tests.bench.scrape", "--scraper", address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found: list[float] = []
    try:
        found.append(float(process.stdout.readline()))
        yield found
    finally:
        out, _ = process.communicate(timeout=60)
        found.extend(float(line) for line in out.split())


def cpu_ms(pid: int) -> float:
    """Milliseconds of processor time that a process has used, its own and the kernel's for it: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


# Sending


def ack_ms(server: str, seconds: float) -> list[float]:
    """Milliseconds from each send to its ack, one after the other."""
    found = []
    with Producer(server, linger_ms=0) as producer:
        producer.send("acks", b"x" * VALUE_BYTES).result(timeout=30)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            producer.send("acks", b"x" * VALUE_BYTES).result(timeout=30)
            found.append((time.perf_counter() - began) * 1000)
            time.sleep(SEND_EVERY_S)
    return found


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def measure_scrapes(figures: Figures, broker: BrokerProcess, address: str, sizes: Sizes, number: int) -> None:
    # Everything moves: to another batch each time, in the middle of it, so that no header says the age exactly.
    commit(broker.server, sizes, RECORDS_PER_PARTITION // 2 + number)
    moved_ms, size = scrape_ms(address)
    figures.add("scrape, moved", moved_ms)
    figures.add("scrape bytes", size)
    while "logsvc_consumer_group_lag_seconds_deferred 0" not in text(address):
        pass
    began_ms = cpu_ms(broker.pid)
    found = [scrape_ms(address)[0] for _ in range(sizes.scrapes)]
    figures.add("scrape cpu", (cpu_ms(broker.pid) - began_ms) / sizes.scrapes)
    figures.add("scrape", statistics.median(found))
    figures.add("scrape, slowest", max(found))


def text(address: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/metrics")
    with connection.getresponse() as answer:
        return answer.read().decode()


def measure_acks(figures: Figures, broker: BrokerProcess, address: str, sizes: Sizes, number: int) -> None:
    def alone() -> None:
        found = ack_ms(broker.server, sizes.seconds)
        figures.add("ack p50", statistics.median(found))
        figures.add("ack p99", p99(found))

    def scraped() -> None:
        with scraper(address) as scrapes:
            found = ack_ms(broker.server, sizes.seconds)
        figures.add("ack p50, scraped", statistics.median(found))
        figures.add("ack p99, scraped", p99(found))
        figures.add("ack slowest, scraped", max(found))
        figures.add("scrape beside sends", statistics.median(scrapes))

    for turn in (alone, scraped) if number % 2 else (scraped, alone):
        turn()


def table(figures: Figures) -> list[str]:
    lines = ["| what | median of the rounds | at most | |", "|---|---:|---:|---|"]

    def line(what: str, value: float | None, unit: str, at_most: float | None = None) -> None:
        if value is not None:
            goal = "" if at_most is None else f"{at_most:g} {unit}"
            verdict = "" if at_most is None else "yes" if value <= at_most else "**no**"
            lines.append(f"| {what} | {value:,.2f} {unit} | {goal} | {verdict} |")

    line("scrape", figures.median("scrape"), "ms", SCRAPE_MS_MAX)
    line("processor time of the broker for a scrape", figures.median("scrape cpu"), "ms")
    line("the first scrape", figures.median("first scrape"), "ms")
    line("scrape, slowest", figures.median("scrape, slowest"), "ms")
    line("scrape, everything moved", figures.median("scrape, moved"), "ms", SCRAPE_MS_MAX)
    line("scrape beside sends", figures.median("scrape beside sends"), "ms")
    line("size of a scrape", (figures.median("scrape bytes") or 0) / 1e6, "MB")
    line("durable send, p50", figures.median("ack p50"), "ms")
    line("durable send, p50, scraped once a second", figures.median("ack p50, scraped"), "ms")
    alone, scraped = figures.median("ack p99"), figures.median("ack p99, scraped")
    line("durable send, p99", alone, "ms")
    line("durable send, p99, scraped once a second", scraped, "ms")
    line("the slowest send, scraped", figures.median("ack slowest, scraped"), "ms")
    if alone and scraped:
        line("p99 scraped, beside p99 alone", scraped / alone, "x", ACK_RATIO_MAX)
    line("memory of the broker", figures.median("memory"), "MiB")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, RECORDS_PER_PARTITION // 2), metavar="N")
    parser.add_argument("--topics", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=100, help="of each topic")
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--scrapes", type=int, default=15, help="in each round")
    parser.add_argument("--seconds", type=float, default=8.0, help="of sending, in each half of a round")
    parser.add_argument("--kafka-exporter", action="store_true", help="serve kafka_exporter's names too")
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--scraper", metavar="ADDRESS", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.scraper is not None:
        scrape_for_ever(given.scraper)
        return
    sizes = Sizes(given.topics, given.partitions, given.groups, given.scrapes, given.seconds)
    figures = Figures()
    options = ("--kafka-exporter-metrics",) if given.kafka_exporter else ()
    with broker_process(None, *options) as broker:
        address = urlsplit(broker.http_url).netloc
        fill(broker.server, sizes)
        with Admin(broker.server) as admin:
            admin.create_topic("acks")
        commit(broker.server, sizes, 1)
        figures.add("first scrape", scrape_ms(address)[0])
        for number in range(1, given.rounds + 1):
            print(f"round {number} of {given.rounds}", file=sys.stderr, flush=True)
            measure_scrapes(figures, broker, address, sizes, number)
            measure_acks(figures, broker, address, sizes, number)
        figures.add("memory", memory_mib(broker.pid))
    if given.json is not None:
        given.json.write_text(json.dumps(figures.values, indent=2) + "\n")
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
