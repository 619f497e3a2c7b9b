"""`logsvc demo`: the main job on one screen: a log in, two consumers, failures retried, dead letters, and numbers that add up.

What is counted where matters, because the point is to see that nothing is lost: records in are counted by acknowledgement,
handled and exhausted ones by the handlers (each record once, however often it is delivered), dead letters and lag by the
broker. The demo ends when the broker says that nothing is outstanding, and succeeds when

    in + left over from before = handled + dead-lettered    exhausted = dead-lettered    lag = 0    nothing outstanding
"""

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from logsvc.cli.access_log import host_of, parse, sample_lines
from logsvc.cli.exits import CHECK_FAILED
from logsvc.cli.frame import single_command
from logsvc.cli.lines import LINE_BYTES_MAX, read_lines
from logsvc.cli.output import Format, note, progress, write_json, write_line, write_table
from logsvc.cli.produce import Tally, opened
from logsvc.testing import embedded_broker
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.errors import TopicExists, UnknownGroup, UnknownTopic
from logsvc_common.messages import ConfigureGroup
from logsvc_common.names import dead_letter_topic

TOPIC = "access-log"
GROUP = "demo"
PARTITIONS = 4
CONSUMERS = 2
DEAD_LETTERS = dead_letter_topic(TOPIC, GROUP)
RETRY = RetryPolicy(max_attempts=3, initial_ms=20, max_ms=200)

LOOK_SECONDS = 0.05  # how often the broker is asked how far the group is
STALL_SECONDS = 60.0  # without any progress for so long, the demo has failed
JOIN_SECONDS = 30.0

app = single_command()


class Handlers:
    """What the consumers' threads report: records handled and records that failed for the last time, and retries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: defaultdict[int, bytearray] = defaultdict(bytearray)  # by partition: 1 at the offsets counted below
        self.handled = 0
        self.exhausted = 0
        self.retried = 0
        self.errors: list[BaseException] = []

    def handle(self, record: Record) -> None:
        """Parse one line; ValueError when it is broken."""
        if record.attempt > 1:
            with self._lock:
                self.retried += 1
        try:
            parse(record.value or b"")
        except ValueError:
            if record.attempt >= RETRY.max_attempts:
                self._end(record, handled=False)
            raise
        self._end(record, handled=True)

    def _end(self, record: Record, *, handled: bool) -> None:
        """The record has come to its end; only the first time counts."""
        with self._lock:
            ended = self._ended[record.partition]
            if record.offset >= len(ended):
                ended.extend(bytes(record.offset + 1 - len(ended)))
            if not ended[record.offset]:
                ended[record.offset] = 1
                self.handled += handled
                self.exhausted += not handled

    def run(self, consumer: Consumer) -> None:
        """A consumer's life, in a thread of its own."""
        try:
            consumer.run(self.handle, retry=RETRY)
        except BaseException as error:  # noqa: BLE001 a thread has nobody to raise to: the demo reads it and fails
            self.errors.append(error)


@dataclass
class Report:
    """What the demo found, in records. `left_over` is what an earlier run on the same folder has not done."""

    records_in: int = 0
    left_over: int = 0
    handled: int = 0
    exhausted: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lag: int = 0
    outstanding: int = 0
    produce_seconds: float = 0.0
    handle_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Note every sum that does not add up."""
        expected = self.records_in + self.left_over
        if expected != self.handled + self.dead_lettered:
            self.problems.append(f"{expected} records, but {self.handled} handled + {self.dead_lettered} dead letters")
        if self.exhausted != self.dead_lettered:
            self.problems.append(f"{self.exhausted} records failed for good, but there are {self.dead_lettered} dead letters")
        if self.lag or self.outstanding:
            self.problems.append(f"the group is {self.lag} records behind and has {self.outstanding} failures under way")

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "records_in": self.records_in,
            "left_over": self.left_over,
            "handled": self.handled,
            "retried": self.retried,
            "dead_lettered": self.dead_lettered,
            "lag": self.lag,
            "produce_records_per_second": self.rate(self.records_in, self.produce_seconds),
            "handle_records_per_second": self.rate(self.handled + self.dead_lettered, self.handle_seconds),
            "seconds": round(self.produce_seconds + self.handle_seconds, 3),
            "topic": TOPIC,
            "group": GROUP,
            "dead_letter_topic": DEAD_LETTERS,
            "ok": not self.problems,
            "problems": self.problems,
        }

    @staticmethod
    def rate(records: int, seconds: float) -> float:
        return round(records / seconds, 1) if seconds > 0 else 0.0


@app.command()
def demo(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file to take lines from; any will do. [default: a small made-up log]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the broker; it stays. [default: a temporary one]")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder, to look into with `logsvc serve`.")] = False,
    format: Annotated[Format, typer.Option("--format", help="How to print the outcome.")] = Format.TEXT,
) -> None:
    """Run the main job: a web server's log through the broker, handled by a group of two, broken lines into the dead letters.

    Starts a broker inside this process, makes topic access-log with 4 partitions, produces every line keyed by its host, and
    runs two consumers that parse each line. A line that does not parse is tried 3 times and then copied to
    dlq.access-log.demo. Exit code 0 when the numbers add up, 5 when not.

    \b
    Examples:
      logsvc demo
      logsvc demo --file /var/log/nginx/access.log --keep
      logsvc demo --format json | jq .dead_lettered
    """
    with _folder(data_dir, keep) as folder, embedded_broker(folder) as broker:
        report = run(broker.server, file)
    if format is Format.JSON:
        write_json(report.document())
    else:
        _print(report, folder if data_dir or keep else None)
    for problem in report.problems:
        note(f"logsvc: {problem}")
    if report.problems:
        raise typer.Exit(CHECK_FAILED)


def run(server: str, file: Path | None) -> Report:
    """The whole job against a broker; the report has been checked."""
    report = Report()
    handlers = Handlers()
    with Admin(server, client_id="logsvc-demo") as admin:
        _make_topic(admin)
        # Any file will do, also one whose every line is broken: this group is to go on where others would pause.
        admin.configure_group(ConfigureGroup(GROUP, enabled=False))
        letters_before = _letters(admin)
        report.left_over = sum(_standing(admin))
        _produce(server, file, report)
        _consume(server, admin, handlers, report, letters_before)
        report.handled, report.exhausted, report.retried = handlers.handled, handlers.exhausted, handlers.retried
        report.dead_lettered = _letters(admin) - letters_before
        report.lag, report.outstanding = _standing(admin)
    report.problems += [f"a consumer ended with {type(error).__name__}: {error}" for error in handlers.errors]
    report.check()
    return report


def _make_topic(admin: Admin) -> None:
    try:
        # Long lines are records too: the topic takes what `read_lines` lets through.
        admin.create_topic(TOPIC, partitions=PARTITIONS, config={"max.message.bytes": str(LINE_BYTES_MAX + (1 << 20))})
    except TopicExists:
        note(f"going on with topic {TOPIC} of an earlier run")


def _letters(admin: Admin) -> int:
    """How many dead letters the group has by now."""
    try:
        [topic] = admin.describe_topics([DEAD_LETTERS])
    except UnknownTopic:
        return 0
    return sum(partition.end_offset - partition.start_offset for partition in topic.partitions)


def _standing(admin: Admin) -> tuple[int, int]:
    """How far the group is: records not consumed yet, and failures not done yet."""
    try:
        group = admin.describe_group(GROUP)
    except UnknownGroup:
        [topic] = admin.describe_topics([TOPIC])
        return sum(partition.end_offset - partition.start_offset for partition in topic.partitions), 0
    seen = {partition.partition: partition for partition in group.partitions if partition.topic == TOPIC}
    [topic] = admin.describe_topics([TOPIC])
    lag = sum(
        p.end_offset - max(p.start_offset, seen[p.partition].committed if p.partition in seen else 0) for p in topic.partitions
    )
    return lag, sum(sum(partition.failed.values()) for partition in seen.values())


def _produce(server: str, file: Path | None, report: Report) -> None:
    tally = Tally()
    started = time.perf_counter()
    with (
        _lines(file) as lines,
        progress(f"producing to {TOPIC}", None) as advance,
        Producer(server, client_id="logsvc-demo", buffer_bytes=2 * LINE_BYTES_MAX) as producer,
    ):
        for number, line in enumerate(lines):
            producer.send(TOPIC, line, key=host_of(line), on_delivery=tally.count)
            if number % 1_000 == 0:
                tally.check()
                advance(tally.acked)
        producer.flush()
    tally.check()
    report.records_in = tally.acked
    report.produce_seconds = time.perf_counter() - started


@contextmanager
def _lines(file: Path | None) -> Iterator[Iterable[bytes]]:
    if file is None:
        yield sample_lines()
    else:
        with opened(file) as source:
            yield read_lines(source)


def _consume(server: str, admin: Admin, handlers: Handlers, report: Report, letters_before: int) -> None:
    """Run the group until the broker says that nothing is left, or nothing has moved for STALL_SECONDS."""
    expected = report.records_in + report.left_over
    started = time.perf_counter()
    with ExitStack() as stack:
        consumers = [
            stack.enter_context(Consumer(TOPIC, group_id=GROUP, server=server, client_id=f"logsvc-demo-{number}"))
            for number in range(1, CONSUMERS + 1)
        ]
        threads = [threading.Thread(target=handlers.run, args=(consumer,), name="demo consumer") for consumer in consumers]
        for thread in threads:
            thread.start()
        try:
            with progress("handling", expected) as advance:
                moved, moved_at = -1, time.perf_counter()
                while not handlers.errors and sum(_standing(admin)) > 0:
                    done = handlers.handled + _letters(admin) - letters_before
                    advance(done)
                    if done + handlers.retried != moved:
                        moved, moved_at = done + handlers.retried, time.perf_counter()
                    elif time.perf_counter() - moved_at > STALL_SECONDS:
                        report.problems.append(f"nothing has moved for {STALL_SECONDS:.0f} s at {done} of {expected} records")
                        break
                    time.sleep(LOOK_SECONDS)
            report.handle_seconds = time.perf_counter() - started
        finally:
            for consumer in consumers:
                consumer.stop()
            for thread in threads:
                thread.join(JOIN_SECONDS)


@contextmanager
def _folder(data_dir: Path | None, keep: bool) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
    elif keep:
        yield Path(tempfile.mkdtemp(prefix="logsvc-demo-"))
    else:
        with tempfile.TemporaryDirectory(prefix="logsvc-demo-") as temporary:
            yield Path(temporary, "data")


def _print(report: Report, kept: Path | None) -> None:
    rows: list[tuple[str, object]] = [
        ("records in", report.records_in),
        ("handled", report.handled),
        ("retried", report.retried),
        ("dead-lettered", report.dead_lettered),
        ("lag", report.lag),
        ("produced, records/s", round(report.rate(report.records_in, report.produce_seconds))),
        ("handled, records/s", round(report.rate(report.handled + report.dead_lettered, report.handle_seconds))),
    ]
    if report.left_over:
        rows.insert(1, ("left over from before", report.left_over))
    write_table(("WHAT", "COUNT"), rows)
    write_line("Where to look next:")
    hints = [
        (f"logsvc serve --data-dir {kept} &", "the same broker, to look into"),
        (f"logsvc dlq show {DEAD_LETTERS}", "the lines that failed, and why"),
        (f"logsvc group describe {GROUP}", "where the group stands"),
        ("logsvc top", "who is behind and what fails, live"),
        ("curl http://127.0.0.1:9293/metrics", "the same as metrics"),
    ]
    if kept is None:
        hints = [("logsvc demo --keep", "the same, and the folder stays to be looked into")]
    width = max(len(command) for command, _ in hints)
    for command, why in hints:
        write_line(f"  {command:<{width}}  # {why}")
