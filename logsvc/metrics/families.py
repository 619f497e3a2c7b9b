"""The families that are read at the scrape: their names, and which columns of the samples they show.

A family is a list of runs: the labels of some series and a number for each. `lines` turns runs into text one by one, so that
whoever writes a scrape out can do other things in between, and cuts a family at its limit.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from logsvc.metrics.samples import (
    GROUP_STATES,
    PARTITION_STATES,
    ROWS_PER_SAMPLE_MAX,
    DeadLetterSample,
    DeferredSample,
    DiskSample,
    GroupSample,
    PartitionColumns,
    PositionColumns,
    Sample,
    ScrubSample,
)
from logsvc.metrics.text import SECONDS, WHOLE, Row, Templates, fill


class Run(NamedTuple):
    """Series that follow each other. Their labels are `shared`, then a row, then, where there are `variants`, each of these
    in turn; so `values` has one number for a row, or one for each variant of it. `key` names the run from scrape to scrape."""

    key: Hashable
    labels: tuple[str, ...]
    rows: Sequence[Row]
    values: Sequence[float]
    shared: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    number: bytes = WHOLE

    def cut(self, series: int) -> "Run":
        """At most so many series of it, whole rows."""
        each = len(self.variants) or 1
        rows = series // each
        return self if rows >= len(self.rows) else self._replace(rows=self.rows[:rows], values=self.values[: rows * each])


class Family(NamedTuple):
    """A gauge family."""

    name: str
    help: str
    runs: Callable[["Collected"], Iterable[Run]]


@dataclass(slots=True)
class Collected:
    """The samples of one scrape, by kind."""

    partitions: list[PartitionColumns] = field(default_factory=list)
    groups: list[GroupSample] = field(default_factory=list)
    positions: list[PositionColumns] = field(default_factory=list)
    dead_letters: list[DeadLetterSample] = field(default_factory=list)
    disks: list[DiskSample] = field(default_factory=list)
    scrubs: list[ScrubSample] = field(default_factory=list)
    deferred: int = 0

    def add(self, sample: Sample) -> None:
        match sample:
            case PartitionColumns():
                self.partitions.append(sample)
            case PositionColumns():
                self.positions.append(sample)
            case GroupSample():
                self.groups.append(sample)
            case DeadLetterSample():
                self.dead_letters.append(sample)
            case DiskSample():
                self.disks.append(sample)
            case ScrubSample():
                self.scrubs.append(sample)
            case DeferredSample():
                self.deferred = sample.positions


def lines(family: Family, collected: Collected, templates: Templates, series_max: int) -> Iterator[tuple[bytes, int]]:
    """(lines, series left out) of each run in turn."""
    name = family.name.encode()
    room = series_max
    for whole in family.runs(collected):
        run = whole.cut(room)
        room -= len(run.values)
        left_out = len(whole.values) - len(run.values)
        yield (fill(name, _template(run, templates), run.values, run.number) if run.rows else b""), left_out


def _template(run: Run, templates: Templates) -> bytes:
    return templates.get((run.labels, run.variants, run.key), run.labels, run.shared, run.rows, run.variants)


# Runs


def _by_partition(
    values: Callable[[PartitionColumns], Sequence[int]], last_label: tuple[str, ...] = (), variants: tuple[str, ...] = ()
) -> Callable[[Collected], Iterator[Run]]:
    def runs(collected: Collected) -> Iterator[Run]:
        for number, columns in enumerate(collected.partitions):
            labels = ("topic", "partition", *last_label)
            yield Run(number, labels, columns.where, values(columns), variants=variants)

    return runs


def _by_position(
    values: Callable[[PositionColumns], Sequence[int]], group: str = "group"
) -> Callable[[Collected], Iterator[Run]]:
    def runs(collected: Collected) -> Iterator[Run]:
        for columns in collected.positions:
            labels = (group, "topic", "partition")
            yield Run(_key(columns), labels, columns.where, values(columns), shared=(columns.group,))

    return runs


def _key(columns: PositionColumns) -> Hashable:
    return (columns.group, columns.where[0] if columns.where else None)


def _lag_seconds(collected: Collected) -> Iterator[Run]:
    labels = ("group", "topic", "partition")
    for columns in collected.positions:
        where, lags_ms, key = columns.where, columns.lags_ms, _key(columns)
        if None in lags_ms:
            key = ("known", key)
            where = [found for found, lag_ms in zip(where, lags_ms, strict=True) if lag_ms is not None]
        seconds = [lag_ms / 1000 for lag_ms in lags_ms if lag_ms is not None]
        yield Run(key, labels, where, seconds, shared=(columns.group,), number=SECONDS)


def _failed(collected: Collected) -> Iterator[Run]:
    labels = ("group", "topic", "partition", "state")
    for columns in collected.positions:
        if columns.failed:
            rows = [(topic, partition, state) for topic, partition, state, _ in columns.failed]
            yield Run(_key(columns), labels, rows, [row[3] for row in columns.failed], shared=(columns.group,))


def _by_group(
    values: Callable[[GroupSample], Sequence[int]],
    labels: tuple[str, ...] = ("group",),
    variants: tuple[str, ...] = (),
) -> Callable[[Collected], Iterator[Run]]:
    def runs(collected: Collected) -> Iterator[Run]:
        for start in range(0, len(collected.groups), ROWS_PER_SAMPLE_MAX):
            groups = collected.groups[start : start + ROWS_PER_SAMPLE_MAX]
            numbers = [value for group in groups for value in values(group)]
            yield Run(start, labels, [(group.group,) for group in groups], numbers, variants=variants)

    return runs


def _letters(collected: Collected) -> Iterator[Run]:
    found = collected.dead_letters
    yield Run("letters", ("group", "topic"), [(one.group, one.topic) for one in found], [one.letters for one in found])


def _letter_ages(collected: Collected) -> Iterator[Run]:
    found = [one for one in collected.dead_letters if one.oldest_age_ms is not None]
    seconds = [(one.oldest_age_ms or 0) / 1000 for one in found]
    yield Run("ages", ("group", "topic"), [(one.group, one.topic) for one in found], seconds, number=SECONDS)


def _of_disk(value: Callable[[DiskSample], int]) -> Callable[[Collected], Iterator[Run]]:
    def runs(collected: Collected) -> Iterator[Run]:
        for disk in collected.disks:
            yield Run("disk", (), [()], [value(disk)])

    return runs


def _scrub_age(collected: Collected) -> Iterator[Run]:
    for scrub in collected.scrubs:
        if scrub.round_age_ms is not None:
            yield Run("scrub", (), [()], [scrub.round_age_ms / 1000], number=SECONDS)


def _deferred(collected: Collected) -> Iterator[Run]:
    yield Run("deferred", (), [()], [collected.deferred])


FAMILIES: tuple[Family, ...] = (
    Family("logsvc_partition_start_offset", "Offset of the first record kept.", _by_partition(lambda c: c.start_offsets)),
    Family("logsvc_partition_end_offset", "One past the last durable record.", _by_partition(lambda c: c.end_offsets)),
    Family("logsvc_partition_size_bytes", "Bytes of the partition's segments.", _by_partition(lambda c: c.sizes_bytes)),
    Family(
        "logsvc_partition_state",
        "1 for the state the partition is in.",
        _by_partition(lambda c: [state == one for state in c.states for one in PARTITION_STATES], ("state",), PARTITION_STATES),
    ),
    Family("logsvc_consumer_group_members", "Members of the group.", _by_group(lambda g: (g.members,))),
    Family(
        "logsvc_consumer_group_state",
        "1 for the state the group is in.",
        _by_group(lambda g: [g.state == one for one in GROUP_STATES], ("group", "state"), GROUP_STATES),
    ),
    Family("logsvc_breaker_open", "1 while the group pauses because of failures.", _by_group(lambda g: (g.breaker_open,))),
    Family(
        "logsvc_consumer_group_committed_offset",
        "The next offset the group will read; absent before its first commit.",
        _by_position(lambda c: c.committed),
    ),
    Family("logsvc_consumer_group_lag", "Records between the committed offset and the end.", _by_position(lambda c: c.lags)),
    Family(
        "logsvc_consumer_group_lag_seconds",
        "Age of the first record not consumed, read from the log; 0 when caught up.",
        _lag_seconds,
    ),
    Family(
        "logsvc_consumer_group_lag_seconds_deferred",
        "Partitions of groups whose lag in seconds is from an earlier reading: one scrape reads only so many from the log.",
        _deferred,
    ),
    Family("logsvc_failed_offsets", "Failed offsets that are not done yet, by state.", _failed),
    Family("logsvc_dead_letters", "Dead letters of a group that are there now, by the topic they came from.", _letters),
    Family("logsvc_dead_letter_oldest_age_seconds", "Age of the oldest dead letter; absent without any.", _letter_ages),
    Family("logsvc_disk_free_bytes", "Free space of the data folder's file system.", _of_disk(lambda d: d.free_bytes)),
    Family("logsvc_disk_size_bytes", "Size of the data folder's file system.", _of_disk(lambda d: d.size_bytes)),
    Family("logsvc_scrub_round_age_seconds", "Time since the scrubber had read all records; absent before it has.", _scrub_age),
    Family("logsvc_disk_reserve_bytes", "Free space below which writes are refused.", _of_disk(lambda d: d.reserve_bytes)),
)


# The same state under the names of github.com/danielqsj/kafka_exporter, labels and meanings included.


def _topic_partitions(collected: Collected) -> Iterator[Run]:
    counts: dict[str, int] = {}
    for columns in collected.partitions:
        for topic, _ in columns.where:
            counts[topic] = counts.get(topic, 0) + 1
    yield Run("topics", ("topic",), [(topic,) for topic in counts], list(counts.values()))


def _lag_sums(collected: Collected) -> Iterator[Run]:
    sums: dict[tuple[str, str], int] = {}
    for columns in collected.positions:
        for (topic, _), lag in zip(columns.where, columns.lags, strict=True):
            key = (columns.group, topic)
            sums[key] = sums.get(key, 0) + lag
        yield Run("sums", (), [], [])  # nothing yet; a step ends here
    rows, values = list(sums), list(sums.values())
    for start in range(0, len(rows), ROWS_PER_SAMPLE_MAX):
        end = start + ROWS_PER_SAMPLE_MAX
        yield Run(start, ("consumergroup", "topic"), rows[start:end], values[start:end])


KAFKA_EXPORTER_FAMILIES: tuple[Family, ...] = (
    Family("kafka_topic_partitions", "Number of partitions for this topic.", _topic_partitions),
    Family("kafka_topic_partition_current_offset", "End offset of a partition.", _by_partition(lambda c: c.end_offsets)),
    Family("kafka_topic_partition_oldest_offset", "Start offset of a partition.", _by_partition(lambda c: c.start_offsets)),
    Family(
        "kafka_consumergroup_members", "Members of a consumer group.", _by_group(lambda g: (g.members,), ("consumergroup",))
    ),
    Family(
        "kafka_consumergroup_current_offset",
        "Committed offset of a group.",
        _by_position(lambda c: c.committed, "consumergroup"),
    ),
    Family(
        "kafka_consumergroup_lag", "Lag of a group in a partition, in records.", _by_position(lambda c: c.lags, "consumergroup")
    ),
    Family("kafka_consumergroup_lag_sum", "Lag of a group on a topic.", _lag_sums),
)
