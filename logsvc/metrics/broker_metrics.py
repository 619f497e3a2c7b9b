"""The metrics of one broker: what to count with, and the text of a scrape, piece by piece.

A scrape is an iterator. Every `next` does a step that takes a fraction of a millisecond, takes one sample or writes one run of
series, and gives the text there is so far, often none. Whoever sends it lets the event loop do other things between.
"""

import logging
import platform
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

import logsvc
from logsvc.metrics.counters import LABEL_SETS_MAX, Counter, CounterFamily, Names
from logsvc.metrics.families import FAMILIES, KAFKA_EXPORTER_FAMILIES, Collected, lines
from logsvc.metrics.histogram import Histogram
from logsvc.metrics.samples import ROWS_PER_SAMPLE_MAX, SERIES_PER_FAMILY_MAX, Sample
from logsvc.metrics.text import CONTENT_EOF, Templates, header, labels_text
from logsvc_common.errors import LogsvcError
from logsvc_common.messages import Api

# An append to memory of the system takes tens of microseconds, an fsync on flash a tenth of a millisecond, on a disk ten.
DISK_SECONDS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0)
# Requests range from a metadata lookup to a long poll.
REQUEST_SECONDS = (100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1.0, 5.0, 30.0)
APPEND = Names("logsvc_append_duration_seconds", "Time to write a batch to its segment, without the fsync.")
FSYNC = Names("logsvc_fsync_duration_seconds", "Time of one fdatasync of a segment.")
REQUEST = Names("logsvc_request_duration_seconds", "Time from a request's arrival to its answer, waiting included, by api.")
DROPPED = "logsvc_metrics_series_dropped"

Source = Callable[[], Iterable[Sample | None]]
"""The state now, piece by piece; each is a short step, and None one that has nothing to show yet. For the event loop that
owns the state."""

log = logging.getLogger("logsvc.metrics")


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


class ScrubCounters(NamedTuple):
    """What the scrubber has done."""

    checked_bytes: Counter
    damaged_batches: Counter
    rebuilt_indexes: Counter


class BrokerMetrics:
    """Everything is used in the event loop. `source` gives the state at a scrape; App sets it once the broker stands."""

    def __init__(
        self,
        *,
        source: Source = tuple,
        kafka_names: bool = False,
        label_sets_max: int = LABEL_SETS_MAX,
        series_per_family_max: int = SERIES_PER_FAMILY_MAX,
    ) -> None:
        self.source = source
        self._series_max = series_per_family_max
        self._capped: set[str] = set()
        self._families = FAMILIES + KAFKA_EXPORTER_FAMILIES if kafka_names else FAMILIES
        self._templates: Templates = Templates()

        def counters(labels: tuple[str, ...], *names: tuple[str, str]) -> CounterFamily:
            return CounterFamily([Names(*name) for name in names], labels, label_sets_max)

        self._topics = counters(
            ("topic",),
            ("logsvc_appended_records", "Records appended to the log, by topic."),
            ("logsvc_appended_bytes", "Bytes of record batches appended to the log, by topic."),
            ("logsvc_fetched_bytes", "Bytes of record batches sent to consumers, by topic."),
        )
        self._groups = counters(
            ("group", "topic"),
            ("logsvc_failures", "Failures of records reported by consumers."),
            ("logsvc_retries", "Failed records handed out again."),
            ("logsvc_redriven_records", "Dead letters put back for their group to handle again."),
        )
        self._dead_letters = counters(
            ("group", "topic", "reason"), ("logsvc_dead_letter_records", "Records copied to a dead-letter topic.")
        )
        self._rebalances = counters(("group",), ("logsvc_consumer_group_rebalances", "New target assignments of a group."))
        self._errors = counters(
            ("api", "code"), ("logsvc_request_errors", "Errors in answers to requests, whole or for one of their partitions.")
        )
        self._throttled = CounterFamily(
            [
                Names("logsvc_throttled_requests", "Requests of clients that were over a quota."),
                Names("logsvc_throttle_seconds", "Time for which clients over a quota were held back.", per_unit=1_000),
            ],
            ("api",),
            label_sets_max,
        )
        self._scrub = counters(
            (),
            ("logsvc_scrubbed_bytes", "Bytes of segments that the scrubber has read again and checked."),
            ("logsvc_scrub_damaged_batches", "Damaged batches that the scrubber has found; their partition is read-only."),
            ("logsvc_scrub_rebuilt_indexes", "Index files that the scrubber has found wrong and built anew."),
        )
        self.scrub = ScrubCounters._make(self._scrub.get())
        self._counted = (
            self._topics,
            self._groups,
            self._dead_letters,
            self._rebalances,
            self._errors,
            self._throttled,
            self._scrub,
        )

        self.append_duration_seconds = Histogram(APPEND.name, DISK_SECONDS)
        self.fsync_duration_seconds = Histogram(FSYNC.name, DISK_SECONDS)
        self._requests = {api: Histogram(REQUEST.name, REQUEST_SECONDS, ("api",), (api.name.lower(),)) for api in Api}
        self._registry = CollectorRegistry()
        build = Gauge("logsvc_build_info", "The version that runs; always 1.", ("version", "python"), registry=self._registry)
        build.labels(logsvc.__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self._registry)

    # Counted as it happens

    def topic(self, topic: str) -> TopicCounters:
        """The counters of a topic that exists."""
        return TopicCounters._make(self._topics.get(topic))

    def topics(self) -> dict[str, TopicCounters]:
        """The counters of every topic that has been counted."""
        return {topic: TopicCounters._make(found) for (topic,), found in self._topics.totals()}

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

    def request_error(self, api: Api | None, error: LogsvcError | type[LogsvcError]) -> None:
        """Count a refusal; the label is the name of the error's class. `api` is None for what was no request."""
        kind = error if isinstance(error, type) else type(error)
        self._errors.get("unknown" if api is None else api.name.lower(), kind.__name__)[0].inc()

    def throttled(self, api: Api, wait_ms: int) -> None:
        """Count a request whose client is over a quota and has to wait."""
        requests, seconds = self._throttled.get(api.name.lower())
        requests.inc()
        seconds.inc(wait_ms)

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

    def scrape(self, accept: str = "") -> tuple[str, Iterator[bytes]]:
        """(content type, steps): Prometheus text, or OpenMetrics when `accept` asks for it. In the event loop."""
        encoder, content_type = choose_encoder(accept)
        return content_type, self._steps(encoder, openmetrics=content_type.startswith("application/openmetrics-text"))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """A whole scrape at once, as (body, content type)."""
        content_type, steps = self.scrape(accept)
        return b"".join(steps), content_type

    def _steps(self, encoder: Callable[..., bytes], *, openmetrics: bool) -> Iterator[bytes]:
        collected = Collected()
        for sample in self.source():
            if sample is not None:
                collected.add(sample)
            yield b""
        yield encoder(self._registry).removesuffix(CONTENT_EOF)
        for names, histograms in (
            (APPEND, [self.append_duration_seconds]),
            (FSYNC, [self.fsync_duration_seconds]),
            (REQUEST, self._requests.values()),
        ):
            yield header(names.name, "histogram", names.help)
            for histogram in histograms:
                yield histogram.text()
        dropped: dict[str, int] = {}
        for family in self._counted:
            dropped[family.counters[0].name] = family.folded
            for number, names in enumerate(family.counters):
                yield header(names.name, "counter", names.help, openmetrics=openmetrics)
                yield from family.lines(number, ROWS_PER_SAMPLE_MAX)
        yield from self._state_steps(collected, dropped, openmetrics=openmetrics)
        yield header(DROPPED, "gauge", "Series left out, or counted as __other__, because a family is full.")
        yield b"".join(
            b"%b%b %d\n" % (DROPPED.encode(), labels_text(("family",), (name,)), count)
            for name, count in dropped.items()
            if count
        )
        if openmetrics:
            yield CONTENT_EOF

    def _state_steps(self, collected: Collected, dropped: dict[str, int], *, openmetrics: bool) -> Iterator[bytes]:
        for family in self._families:
            yield header(family.name, "gauge", family.help, openmetrics=openmetrics)
            beyond = 0
            for text, left_out in lines(family, collected, self._templates, self._series_max):
                beyond += left_out
                yield text
            dropped[family.name] = beyond
            if beyond and family.name not in self._capped:
                self._capped.add(family.name)
                log.warning("metrics: %s is cut at %d series, its limit", family.name, self._series_max)
        self._templates.end_scrape()
