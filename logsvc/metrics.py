"""What the broker tells Prometheus: one registry per broker, nothing global.

Two kinds of series, by where their truth lives.

* **Counted as it happens**: appends, fetches, requests, failures. Hot paths hold the child of a counter (`topic(name)`,
  `group(group, topic)`, `request_seconds(api)`) and call `inc` or `observe`, about a microsecond, once a batch or request.
* **Read at the scrape**: offsets, sizes, states, lag. They already exist in the log and the coordinator, so nothing is kept
  here: `sample()` asks the broker for plain tuples, in the event loop where that state lives, and `render` turns them into
  text, in any thread. What has not been committed has no series; there is no -1.

Names, labels and units are those of the project's conventions (base units, `_total` on counters, `promtool check metrics`).
Label values come from checked names, enums and error classes only. Every family is limited: counters beyond
`LABEL_SETS_MAX` share the value `__other__`, scraped families stop at `SERIES_PER_FAMILY_MAX`, and
`logsvc_metrics_series_dropped{family}` says how many were folded or left out.

With `kafka_names` the names of kafka_exporter are served too, so that dashboards made for it light up. They are its names,
`kafka_consumergroup_lag_sum` included, which promtool would have named otherwise.
"""

import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

import logsvc
from logsvc_common.errors import LogsvcError
from logsvc_common.messages import Api

SERIES_PER_FAMILY_MAX = 50_000
LABEL_SETS_MAX = 10_000
OTHER = "__other__"

PARTITION_STATES = ("online", "read_only", "failed")
GROUP_STATES = ("empty", "assigning", "reconciling", "stable")

# An append to memory of the system takes tens of microseconds, an fsync on flash a tenth of a millisecond, on a disk ten.
DISK_SECONDS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0)
# Requests range from a metadata lookup to a long poll.
REQUEST_SECONDS = (100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1.0, 5.0, 30.0)

log = logging.getLogger(__name__)


class PartitionSample(NamedTuple):
    """One partition now. `state` is one of PARTITION_STATES; `end_offset` is one past the last durable record."""

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    size_bytes: int
    state: str = "online"


class GroupPartitionSample(NamedTuple):
    """Where a group stands in one partition. `committed` is -1 when it has committed nothing there; `lag_ms` is the age of
    the first record not consumed, 0 when caught up; `failed` counts failed offsets by state."""

    topic: str
    partition: int
    committed: int
    lag: int
    lag_ms: int
    failed: Mapping[str, int] = {}


class GroupSample(NamedTuple):
    """One group now. `state` is one of GROUP_STATES; `breaker_open` while its flood breaker is not closed."""

    group: str
    state: str
    members: int
    partitions: Sequence[GroupPartitionSample] = ()
    breaker_open: bool = False


class StateSample(NamedTuple):
    """Everything that is read at a scrape, as of one moment of the event loop."""

    partitions: Sequence[PartitionSample] = ()
    groups: Sequence[GroupSample] = ()


class TopicCounters(NamedTuple):
    """The hot counters of one topic; keep it, do not look it up per batch."""

    appended_records: Counter
    appended_bytes: Counter
    fetched_bytes: Counter


class GroupCounters(NamedTuple):
    """The counters of one group on one topic."""

    failures: Counter
    retries: Counter
    redriven: Counter


class _Labelled(Protocol):
    def labels(self, *values: str) -> Counter: ...
    def remove(self, *values: str) -> None: ...


class _Children:
    """The children of a few counters that share their labels, handed out once per label set, at most `limit` of them."""

    def __init__(self, family: str, families: Sequence[_Labelled], limit: int) -> None:
        self._family = family
        self._families = families
        self._limit = limit
        self._known: dict[tuple[str, ...], tuple[Counter, ...]] = {}
        self._folded: set[tuple[str, ...]] = set()

    def get(self, *labels: str) -> tuple[Counter, ...]:
        known = self._known.get(labels)
        if known is None:
            known = self._add(labels)
        return known

    def _add(self, labels: tuple[str, ...]) -> tuple[Counter, ...]:
        other = (OTHER,) * len(labels)
        if len(self._known) >= self._limit and labels != other:
            if not self._folded:
                log.warning(
                    "metrics: %s has %d label sets, its limit; more are counted as %s", self._family, self._limit, OTHER
                )
            if len(self._folded) < self._limit:
                self._folded.add(labels)
            return self.get(*other)
        self._known[labels] = tuple(family.labels(*labels) for family in self._families)
        return self._known[labels]

    def drop(self, position: int, value: str) -> None:
        """Forget the label sets that have `value` at `position`; whoever still holds a child counts into nothing."""
        for labels in [labels for labels in self._known if labels[position] == value]:
            del self._known[labels]
            for family in self._families:
                family.remove(*labels)
        self._folded = {labels for labels in self._folded if labels[position] != value}

    def dropped(self) -> tuple[str, int]:
        return self._family, len(self._folded)


class BrokerMetrics:
    """The metrics of one broker.

    `source` gives the state at a scrape and is called in the event loop; App sets it once the broker stands.
    """

    def __init__(
        self,
        *,
        source: Callable[[], StateSample] = StateSample,
        kafka_names: bool = False,
        label_sets_max: int = LABEL_SETS_MAX,
        series_per_family_max: int = SERIES_PER_FAMILY_MAX,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self.source = source
        self._kafka_names = kafka_names
        self._series_max = series_per_family_max
        self._capped: set[str] = set()

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(name, help_text, labels, registry=registry)

        self._topics = _Children(
            "logsvc_appended_records",
            (
                counter("logsvc_appended_records", "Records appended to the log, by topic.", "topic"),
                counter("logsvc_appended_bytes", "Bytes of record batches appended to the log, by topic.", "topic"),
                counter("logsvc_fetched_bytes", "Bytes of record batches sent to consumers, by topic.", "topic"),
            ),
            label_sets_max,
        )
        self._groups = _Children(
            "logsvc_failures",
            (
                counter("logsvc_failures", "Failures of records reported by consumers.", "group", "topic"),
                counter("logsvc_retries", "Failed records handed out again.", "group", "topic"),
                counter("logsvc_redriven_records", "Dead letters put back for their group to handle again.", "group", "topic"),
            ),
            label_sets_max,
        )
        dead_letters = counter(
            "logsvc_dead_letter_records", "Records copied to a dead-letter topic.", "group", "topic", "reason"
        )
        self._dead_letters = _Children("logsvc_dead_letter_records", (dead_letters,), label_sets_max)
        rebalances = counter("logsvc_consumer_group_rebalances", "New target assignments of a group.", "group")
        self._rebalances = _Children("logsvc_consumer_group_rebalances", (rebalances,), label_sets_max)
        errors = counter("logsvc_request_errors", "Requests answered with an error.", "api", "code")
        self._errors = _Children("logsvc_request_errors", (errors,), label_sets_max)

        self.append_duration_seconds = Histogram(
            "logsvc_append_duration_seconds",
            "Time to write a batch to its segment, without the fsync.",
            registry=registry,
            buckets=DISK_SECONDS,
        )
        self.fsync_duration_seconds = Histogram(
            "logsvc_fsync_duration_seconds", "Time of one fdatasync of a segment.", registry=registry, buckets=DISK_SECONDS
        )
        requests = Histogram(
            "logsvc_request_duration_seconds",
            "Time from a request's arrival to its answer, waiting included, by api.",
            ("api",),
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        self._requests = {api: requests.labels(api.name.lower()) for api in Api}
        build = Gauge("logsvc_build_info", "The version that runs; always 1.", ("version", "python"), registry=registry)
        build.labels(logsvc.__version__, platform.python_version()).set(1)
        ProcessCollector(registry=registry)

    # Counted as it happens

    def topic(self, topic: str) -> TopicCounters:
        """The counters of a topic that exists."""
        return TopicCounters._make(self._topics.get(topic))

    def group(self, group: str, topic: str) -> GroupCounters:
        """The counters of a group on a topic."""
        return GroupCounters._make(self._groups.get(group, topic))

    def dead_letters(self, group: str, topic: str, reason: str) -> Counter:
        """Counts letters of `group` from `topic`; `reason` is one the coordinator knows, never a client's text."""
        return self._dead_letters.get(group, topic, reason)[0]

    def rebalances(self, group: str) -> Counter:
        """Counts the new target assignments of `group`."""
        return self._rebalances.get(group)[0]

    def request_seconds(self, api: Api) -> Histogram:
        """Takes the duration of each request of `api`, in seconds."""
        return self._requests[api]

    def request_error(self, api: Api, error: LogsvcError | type[LogsvcError]) -> None:
        """Count a refusal; the label is the name of the error's class."""
        kind = error if isinstance(error, type) else type(error)
        self._errors.get(api.name.lower(), kind.__name__)[0].inc()

    def drop_topic(self, topic: str) -> None:
        """Forget a deleted topic's series."""
        self._topics.drop(0, topic)
        self._groups.drop(1, topic)
        self._dead_letters.drop(1, topic)

    def drop_group(self, group: str) -> None:
        """Forget a deleted group's series."""
        for family in (self._groups, self._dead_letters, self._rebalances):
            family.drop(0, group)

    # Read at the scrape

    def sample(self) -> StateSample:
        """The state now. Call it in the event loop: it reads the broker's own objects."""
        return self.source()

    def render(self, state: StateSample, accept: str = "") -> tuple[bytes, str]:
        """All series as (body, content type): Prometheus text, or OpenMetrics when `accept` asks for it. Any thread."""
        encoder, content_type = choose_encoder(accept)
        return encoder(_Collection(lambda: self._collect(state))), content_type

    def _collect(self, state: StateSample) -> Iterator[Metric]:
        for metric in self.registry.collect():
            # The library adds the creation time of every counter as a series of its own; nobody asks for those.
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
        dropped = dict(
            children.dropped() for children in (self._topics, self._groups, self._dead_letters, self._rebalances, self._errors)
        )
        families = [*_partition_families(state.partitions), *_group_families(state.groups)]
        if self._kafka_names:
            families += _kafka_exporter_families(state)
        for family in families:
            beyond = len(family.samples) - self._series_max
            if beyond > 0:
                del family.samples[self._series_max :]
                dropped[family.name] = beyond
                if family.name not in self._capped:
                    self._capped.add(family.name)
                    log.warning("metrics: %s is cut at %d series, its limit", family.name, self._series_max)
            yield family
        cut = GaugeMetricFamily(
            "logsvc_metrics_series_dropped",
            "Series left out, or counted as __other__, because a family is full.",
            labels=["family"],
        )
        for name, count in dropped.items():
            if count:
                cut.add_metric([name], count)
        yield cut


class _Collection(NamedTuple):
    """What the encoders call a registry: something to collect from."""

    collect: Callable[[], Iterable[Metric]]


def _partition_families(partitions: Iterable[PartitionSample]) -> list[GaugeMetricFamily]:
    labels = ["topic", "partition"]
    start = GaugeMetricFamily("logsvc_partition_start_offset", "Offset of the first record kept.", labels=labels)
    end = GaugeMetricFamily("logsvc_partition_end_offset", "One past the last durable record.", labels=labels)
    size = GaugeMetricFamily("logsvc_partition_size_bytes", "Bytes of the partition's segments.", labels=labels)
    states = GaugeMetricFamily("logsvc_partition_state", "1 for the state the partition is in.", labels=[*labels, "state"])
    for sample in partitions:
        values = [sample.topic, str(sample.partition)]
        start.add_metric(values, sample.start_offset)
        end.add_metric(values, sample.end_offset)
        size.add_metric(values, sample.size_bytes)
        for state in PARTITION_STATES:
            states.add_metric([*values, state], float(state == sample.state))
    return [start, end, size, states]


def _group_families(groups: Iterable[GroupSample]) -> list[GaugeMetricFamily]:
    labels = ["group", "topic", "partition"]
    members = GaugeMetricFamily("logsvc_consumer_group_members", "Members of the group.", labels=["group"])
    states = GaugeMetricFamily("logsvc_consumer_group_state", "1 for the state the group is in.", labels=["group", "state"])
    committed = GaugeMetricFamily(
        "logsvc_consumer_group_committed_offset",
        "The next offset the group will read; absent before its first commit.",
        labels=labels,
    )
    lag = GaugeMetricFamily("logsvc_consumer_group_lag", "Records between the committed offset and the end.", labels=labels)
    seconds = GaugeMetricFamily(
        "logsvc_consumer_group_lag_seconds",
        "Age of the first record not consumed, read from the log; 0 when caught up.",
        labels=labels,
    )
    failed = GaugeMetricFamily(
        "logsvc_failed_offsets", "Failed offsets that are not done yet, by state.", labels=[*labels, "state"]
    )
    breakers = GaugeMetricFamily("logsvc_breaker_open", "1 while the group pauses because of failures.", labels=["group"])
    for group in groups:
        members.add_metric([group.group], group.members)
        breakers.add_metric([group.group], float(group.breaker_open))
        for state in GROUP_STATES:
            states.add_metric([group.group, state], float(state == group.state))
        for sample in group.partitions:
            values = [group.group, sample.topic, str(sample.partition)]
            for state, count in sample.failed.items():
                failed.add_metric([*values, state], count)
            if sample.committed < 0:
                continue
            committed.add_metric(values, sample.committed)
            lag.add_metric(values, sample.lag)
            seconds.add_metric(values, sample.lag_ms / 1000)
    return [members, states, committed, lag, seconds, failed, breakers]


def _kafka_exporter_families(state: StateSample) -> list[GaugeMetricFamily]:
    """The same state under the names of github.com/danielqsj/kafka_exporter, labels and meanings included."""
    by_partition = ["topic", "partition"]
    by_group = ["consumergroup", "topic", "partition"]
    counts = GaugeMetricFamily("kafka_topic_partitions", "Number of partitions for this topic.", labels=["topic"])
    current = GaugeMetricFamily("kafka_topic_partition_current_offset", "End offset of a partition.", labels=by_partition)
    oldest = GaugeMetricFamily("kafka_topic_partition_oldest_offset", "Start offset of a partition.", labels=by_partition)
    partitions: dict[str, int] = {}
    for sample in state.partitions:
        values = [sample.topic, str(sample.partition)]
        current.add_metric(values, sample.end_offset)
        oldest.add_metric(values, sample.start_offset)
        partitions[sample.topic] = partitions.get(sample.topic, 0) + 1
    for topic, count in partitions.items():
        counts.add_metric([topic], count)

    members = GaugeMetricFamily("kafka_consumergroup_members", "Members of a consumer group.", labels=["consumergroup"])
    committed = GaugeMetricFamily("kafka_consumergroup_current_offset", "Committed offset of a group.", labels=by_group)
    lag = GaugeMetricFamily("kafka_consumergroup_lag", "Lag of a group in a partition, in records.", labels=by_group)
    lag_sum = GaugeMetricFamily("kafka_consumergroup_lag_sum", "Lag of a group on a topic.", labels=["consumergroup", "topic"])
    for group in state.groups:
        members.add_metric([group.group], group.members)
        totals: dict[str, int] = {}
        for where in group.partitions:
            if where.committed < 0:
                continue
            values = [group.group, where.topic, str(where.partition)]
            committed.add_metric(values, where.committed)
            lag.add_metric(values, where.lag)
            totals[where.topic] = totals.get(where.topic, 0) + where.lag
        for topic, total in totals.items():
            lag_sum.add_metric([group.group, topic], total)
    return [counts, current, oldest, members, committed, lag, lag_sum]
