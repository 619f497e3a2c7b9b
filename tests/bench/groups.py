"""What groups and failed offsets cost, as ratios within one run: `python -m tests.bench.groups`.

    group        one process reads a topic to its end by `poll`, without a group and as the only member of one
    failing      a handler over a topic by `run`, without failures and with one in a hundred that always fails, until every
                 record has ended: handled, or tried three times and then in the dead letters. Once with a handler that works
                 for WORK_US, about what it takes to decode a document and look at it, and once with one that does nothing:
                 the difference is then what failing costs, all of it, undiluted
    outstanding  100,000 failed records of one group, each with a message and a stack trace: what they add to the resident
                 memory of a broker, and how much longer a broker takes to start on that folder than on an empty one; after
                 a clean stop, and after kill -9

Each round measures everything, in turns, on a broker of its own; the table has medians over the rounds.

    python -m tests.bench.groups                      three rounds, about three minutes
    python -m tests.bench.groups --rounds 1 --only outstanding
"""

import argparse
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.messages import NO_MEMBER_EPOCH, Commit, CommitPartition, ConfigureGroup, Failure
from tests.bench.compare import Figures, memory_mib
from tests.e2e.raw_peer import RawPeer

PARTITIONS = 4
VALUE_BYTES = 100
KEYS = 10_000
FAILING_EVERY = 100
WORK_US = 50
RETRY = RetryPolicy(max_attempts=3, initial_ms=20, max_ms=100)
OUTSTANDING_PARTITIONS = 10
FAILURES_PER_COMMIT = 1_000
LONG_RETRY = RetryPolicy(max_attempts=5, initial_ms=86_400_000, max_ms=86_400_000)
STACKTRACE_LINES = 12
WAIT_S = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much each step moves."""

    polled_records: int
    run_records: int
    idle_records: int
    outstanding: int


# (what, figure, beside, at least): ratios of two rates
RATIOS: tuple[tuple[str, str, str, float | None], ...] = (
    ("consume with a group, beside without one", "group", "no group", 0.90),
    ("run with 1% failing, beside none", "1% failing", "none failing", 0.75),
    ("the same, a handler that does nothing", "1% failing, idle", "none failing, idle", None),
)

# (what, figure, at most, unit)
LIMITS: tuple[tuple[str, str, float | None, str], ...] = (
    ("a record that fails for good: three tries and its dead letter", "failing record", None, "ms"),
    ("failed records outstanding: memory they add to the broker", "outstanding memory", 100.0, "MiB"),
    ("the same after a restart, beside an empty broker", "outstanding memory, restarted", 100.0, "MiB"),
    ("replay after a clean stop, beside an empty folder", "outstanding replay", 5.0, "s"),
    ("replay after kill -9, beside an empty folder", "outstanding replay after kill", 5.0, "s"),
)


def fill(server: str, topic: str, records: int, *, keys: int) -> None:
    """A new topic of random values; with `keys`, keyed in turn."""
    with Admin(server) as admin:
        admin.create_topic(topic, partitions=PARTITIONS)
    values = itertools.cycle([os.urandom(VALUE_BYTES) for _ in range(256)])
    with Producer(server, linger_ms=5, batch_bytes=256 << 10) as producer:
        for number, value in zip(range(records), values, strict=False):
            producer.send(topic, value, key=b"key-%d" % (number % keys) if keys else None)
        producer.flush(WAIT_S)


# Consuming with a group and without


def polled(server: str, topic: str, records: int, group: str | None) -> float:
    """Records per second of one consumer from its first record to its last, everything committed that a group commits."""
    seen = 0
    started = 0.0
    with Consumer(topic, group_id=group, server=server) as consumer:
        while seen < records:
            batch = consumer.poll(int(WAIT_S * 1_000))
            if not batch:
                raise SystemExit(f"no record within {WAIT_S:.0f} s, after {seen:,} of {records:,}")
            # How long a consumer takes to find its partitions is not what is compared.
            started = started or time.perf_counter()
            seen += len(batch)
        if group is not None:
            consumer.commit()
        return records / (time.perf_counter() - started)


def measure_group(figures: Figures, sizes: Sizes, number: int) -> None:
    with broker_process() as broker:
        fill(broker.server, "polled", sizes.polled_records, keys=0)
        polled(broker.server, "polled", sizes.polled_records, None)  # everybody finds the pages in memory
        turns = [("no group", None), ("group", "polling")]
        for name, group in turns if number % 2 else reversed(turns):
            figures.add(name, polled(broker.server, "polled", sizes.polled_records, group))


# Failures


class Run:
    """One consumer's `run` over a topic until every record has ended."""

    def __init__(self, server: str, topic: str, records: int, failing_every: int, work_us: int) -> None:
        self._server = server
        self._topic = topic
        self._records = records
        self._failing_every = failing_every
        self._work_s = work_us / 1e6
        self._ended = 0
        self._consumer: Consumer | None = None
        self._started = 0.0

    def _handle(self, record: Record) -> None:
        self._started = self._started or time.perf_counter()
        if self._work_s:
            until = time.perf_counter() + self._work_s
            while time.perf_counter() < until:
                pass
        if self._failing_every and record.offset % self._failing_every == 0:
            if record.attempt >= RETRY.max_attempts:
                self._end()
            raise ValueError(f"cannot handle offset {record.offset}")
        self._end()

    def _end(self) -> None:
        self._ended += 1
        if self._ended == self._records:
            assert self._consumer is not None
            self._consumer.stop()

    def rate(self) -> float:
        """Records per second, from the first that is handled to the last that has ended and its commit."""
        with Consumer(self._topic, group_id=self._topic, server=self._server) as consumer:
            self._consumer = consumer
            late = threading.Timer(WAIT_S, consumer.stop)
            late.start()
            consumer.run(self._handle, retry=RETRY)
            late.cancel()
            seconds = time.perf_counter() - self._started
        if self._ended != self._records:
            raise SystemExit(f"{self._ended:,} of {self._records:,} records ended within {WAIT_S:.0f} s")
        return self._records / seconds


def measure_failing(figures: Figures, sizes: Sizes, number: int) -> None:
    for kind, records, work_us in (("", sizes.run_records, WORK_US), (", idle", sizes.idle_records, 0)):
        rates: dict[int, float] = {}
        for failing_every in (0, FAILING_EVERY) if number % 2 else (FAILING_EVERY, 0):
            with broker_process() as broker:
                fill(broker.server, "run", records, keys=KEYS)
                rates[failing_every] = Run(broker.server, "run", records, failing_every, work_us).rate()
        figures.add(f"none failing{kind}", rates[0])
        figures.add(f"1% failing{kind}", rates[FAILING_EVERY])
    figures.add("failing record", (1 / rates[FAILING_EVERY] - 1 / rates[0]) * FAILING_EVERY * 1_000)


# Many failed records


def failure(offset: int) -> Failure:
    """As a handler's exception arrives: a message, a class and a stack trace of about a kilobyte, all of its own."""
    lines = "".join(
        f'  File "/srv/app/handlers/step_{line}.py", line {offset % 997 + line}, in handle_{line}\n    charge(order_{offset})\n'
        for line in range(STACKTRACE_LINES)
    )
    error = f"order {offset} of customer {offset * 7919} could not be charged: the card was refused"
    return Failure(offset, error, "app.errors.CardRefused", f"Traceback:\n{lines}", offset * 2_654_435_761 % 2**31, 1)


def fail_many(server: str, group: str, outstanding: int) -> None:
    """Records of topic `group` that have all failed once and wait a day, committed by a consumer outside the membership."""
    each = -(-outstanding // OUTSTANDING_PARTITIONS)
    with Admin(server) as admin:
        admin.create_topic(group, partitions=OUTSTANDING_PARTITIONS)
    with Producer(server, linger_ms=5) as producer:
        for number in range(OUTSTANDING_PARTITIONS * each):
            producer.send(group, b"x" * VALUE_BYTES, partition=number % OUTSTANDING_PARTITIONS)
        producer.flush(WAIT_S)
    with RawPeer(server) as peer:
        # With a breaker the first few would pause the group, and the others would spend no attempt.
        peer.call(ConfigureGroup(group, enabled=False))
        for partition in range(OUTSTANDING_PARTITIONS):
            for begin in range(0, each, FAILURES_PER_COMMIT):
                end = min(each, begin + FAILURES_PER_COMMIT)
                part = CommitPartition(group, partition, end, [failure(offset) for offset in range(begin, end)])
                reply, _ = peer.call(Commit(group, "", NO_MEMBER_EPOCH, [part], LONG_RETRY))
                (result,) = reply.results
                if result.error_code:
                    raise SystemExit(f"failures are refused: {result.error_message}")


def count_waiting(admin: Admin, group: str) -> int:
    return sum(part.failed.get("waiting", 0) for part in admin.describe_group(group).partitions)


def started_s(broker: BrokerProcess, group: str | None = None) -> float:
    """Seconds from the start of the process until it answers: who it is, or how `group` stands, which needs the replay."""
    began = time.perf_counter()
    broker.start()
    with Admin(broker.server) as admin:
        if group is None:
            admin.list_groups()
        else:
            admin.describe_group(group)
    return time.perf_counter() - began


def measure_outstanding(figures: Figures, sizes: Sizes, _number: int) -> None:
    group = "outstanding"
    with broker_process() as broker:
        broker.stop()
        empty_s = started_s(broker)
        fail_many(broker.server, "tiny", OUTSTANDING_PARTITIONS)  # what failing at all costs, once
        before = memory_mib(broker.pid)
        empty = before
        fail_many(broker.server, group, sizes.outstanding)
        figures.add("outstanding memory", memory_mib(broker.pid) - before)
        for figure, end in (("outstanding replay", broker.stop), ("outstanding replay after kill", broker.kill)):
            end()
            figures.add(figure, started_s(broker, group) - empty_s)
            with Admin(broker.server) as admin:
                found = count_waiting(admin, group)
            if found != sizes.outstanding:
                raise SystemExit(f"{found:,} of {sizes.outstanding:,} failed records after a restart")
        figures.add("outstanding memory, restarted", memory_mib(broker.pid) - empty)


STEPS: dict[str, Callable[[Figures, Sizes, int], None]] = {
    "group": measure_group,
    "failing": measure_failing,
    "outstanding": measure_outstanding,
}


def table(figures: Figures) -> list[str]:
    """The figures as Markdown, medians over the rounds."""
    lines = ["| what | records/s | beside | ratio | at least | |", "|---|---:|---:|---:|---:|---|"]
    for what, name, beside, at_least in RATIOS:
        ours, theirs = figures.median(name), figures.median(beside)
        if ours is not None and theirs is not None:
            goal = "" if at_least is None else f"{at_least:.2f}"
            verdict = "" if at_least is None else "yes" if ours >= at_least * theirs else "**no**"
            lines.append(f"| {what} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} | {goal} | {verdict} |")
    lines += ["", "| what | measured | at most | |", "|---|---:|---:|---|"]
    for what, name, at_most, unit in LIMITS:
        value = figures.median(name)
        if value is not None:
            goal = "" if at_most is None else f"{at_most:g} {unit}"
            verdict = "" if at_most is None else "yes" if value <= at_most else "**no**"
            lines.append(f"| {what} | {value:.2f} {unit} | {goal} | {verdict} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=STEPS, action="append", help="measure only this; may be given again")
    parser.add_argument("--polled-records", type=int, default=4_000_000)
    parser.add_argument("--run-records", type=int, default=100_000)
    parser.add_argument("--idle-records", type=int, default=300_000, help="for the handler that does nothing")
    parser.add_argument("--outstanding", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.polled_records, given.run_records, given.idle_records, given.outstanding)
    figures = Figures()
    for number in range(1, given.rounds + 1):
        for name in given.only or STEPS:
            print(f"round {number} of {given.rounds}: {name}", file=sys.stderr, flush=True)
            STEPS[name](figures, sizes, number)
    if given.json is not None:
        given.json.write_text(json.dumps(figures.values, indent=2) + "\n")
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
