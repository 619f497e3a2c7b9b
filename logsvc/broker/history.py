"""The last hour, for the console: every ten seconds a point for the broker, for each topic, for each group.

A ring of fixed size. All series share one time axis, and a slot of it is overwritten when it is an hour old, so what the
history takes is known beforehand: three numbers of eight bytes a slot, 8.6 KB an hour, for each of at most `topics_max`
topics and `groups_max` groups. Those beyond have no history and are numbered. What was not known at a time is a gap, which
readers see as None.

Rates come from totals: the difference of two points over the time between them, whatever that was. A total that has become
smaller belongs to a topic made anew; the slot is a gap.

Pure: whoever keeps a History says what time it is and what has been counted.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

from logsvc.metrics import HistogramCounts, quantile

INTERVAL_MS = 10_000
SPAN_MS = 3_600_000
TOPICS_MAX = 1_000
GROUPS_MAX = 500
LATENCY_SPAN_MS = 60_000  # over which the latest latencies are told


class Rates(NamedTuple):
    """Per second, over the last interval; None while that is not known."""

    appended_records_per_s: float | None = None
    appended_bytes_per_s: float | None = None
    fetched_bytes_per_s: float | None = None


class Totals(NamedTuple):
    """What a topic has counted since the broker started."""

    appended_records: int
    appended_bytes: int
    fetched_bytes: int


class GroupPoint(NamedTuple):
    """One group at one time: `lag` and `failed` over all its partitions, `lag_seconds` the worst of them, None if unknown."""

    lag: int
    lag_seconds: float | None
    failed: int


class Latencies(NamedTuple):
    """Milliseconds that half, and all but one in a hundred, of the calls took at most; None when there were none."""

    p50: float | None
    p99: float | None


class Point(NamedTuple):
    """What goes in at one time. `durations` are the buckets of the broker's append and fsync times."""

    wall_ms: int
    monotonic_ms: int
    topics: Mapping[str, Totals]
    groups: Mapping[str, GroupPoint]
    append: HistogramCounts
    fsync: HistogramCounts


class SeriesView(NamedTuple):
    """What a reader gets: the times, oldest first, and a number or None for each of them in every series."""

    interval_ms: int
    times_ms: list[int]
    series: dict[str, list[float | None]]


SERIES_OF_BROKER = (*Rates._fields, "fsync_p99_ms")
SERIES_OF_TOPIC = Rates._fields
SERIES_OF_GROUP = GroupPoint._fields


class _Tracks:
    """Rings of numbers by name, at most `limit` names. One that has nothing but gaps left is forgotten."""

    def __init__(self, series: Sequence[str], slots: int, limit: int) -> None:
        self._series = tuple(series)
        self._slots = slots
        self._limit = limit
        self._rings: dict[str, list[array[float]]] = {}
        self._written: dict[str, int] = {}  # the number of the point in which the name came last
        self.left_out = 0

    def put(self, number: int, points: Mapping[str, Sequence[float | None]]) -> None:
        slot = number % self._slots
        self.left_out = 0
        for name in [name for name, last in self._written.items() if last <= number - self._slots]:
            del self._rings[name], self._written[name]
        for name, rings in self._rings.items():
            if name not in points:
                for ring in rings:
                    ring[slot] = nan
        for name, values in points.items():
            rings = self._rings.get(name) or self._add(name)
            if not rings:
                self.left_out += 1
                continue
            self._written[name] = number
            for ring, value in zip(rings, values, strict=True):
                ring[slot] = nan if value is None else value

    def _add(self, name: str) -> list["array[float]"]:
        if len(self._rings) >= self._limit:
            return []
        self._rings[name] = [array("d", [nan]) * self._slots for _ in self._series]
        return self._rings[name]

    def read(self, name: str, numbers: range) -> dict[str, list[float | None]] | None:
        rings = self._rings.get(name)
        if rings is None:
            return None
        slots = [number % self._slots for number in numbers]
        return {
            series: [None if isnan(value := ring[slot]) else value for slot in slots]
            for series, ring in zip(self._series, rings, strict=True)
        }


class History:
    """The last `span_ms`, a point every `interval_ms`."""

    def __init__(
        self,
        *,
        interval_ms: int = INTERVAL_MS,
        span_ms: int = SPAN_MS,
        topics_max: int = TOPICS_MAX,
        groups_max: int = GROUPS_MAX,
    ) -> None:
        self.interval_ms = interval_ms
        self._slots = max(1, span_ms // interval_ms)
        self._count = 0  # points put in
        self._times_ms = array("q", [0]) * self._slots
        self._broker = _Tracks(SERIES_OF_BROKER, self._slots, 1)
        self._topics = _Tracks(SERIES_OF_TOPIC, self._slots, topics_max)
        self._groups = _Tracks(SERIES_OF_GROUP, self._slots, groups_max)
        self._last: list[Point] = []  # the points of the latency span, oldest first
        self._rates: dict[str, Rates] = {}
        self._broker_rates = Rates()

    # Write

    def put(self, point: Point) -> None:
        """Add the point of now. Points come in the order of their monotonic time."""
        before = self._last[-1] if self._last else None
        self._rates = {} if before is None else dict(_rates(before, point))
        self._broker_rates = Rates() if before is None else _sum(self._rates)
        p99_ms = None if before is None else _ms(quantile(0.99, point.fsync.since(before.fsync)))
        self._times_ms[self._count % self._slots] = point.wall_ms
        self._broker.put(self._count, {"": (*self._broker_rates, p99_ms)})
        self._topics.put(self._count, {topic: self._rates.get(topic, Rates()) for topic in point.topics})
        self._groups.put(self._count, point.groups)
        self._count += 1
        keep = LATENCY_SPAN_MS // self.interval_ms
        # Only of the last point are topics looked at again.
        if self._last:
            self._last[-1] = self._last[-1]._replace(topics={}, groups={})
        self._last = [*self._last[-keep:], point._replace(groups={})]

    # Read

    def broker(self) -> SeriesView:
        """`appended_records_per_s`, `appended_bytes_per_s`, `fetched_bytes_per_s` over all topics, `fsync_p99_ms`."""
        return self._view(self._broker.read("", self._numbers()) or {name: [] for name in SERIES_OF_BROKER})

    def topic(self, name: str) -> SeriesView | None:
        """`appended_records_per_s`, `appended_bytes_per_s`, `fetched_bytes_per_s`; None for a topic without history."""
        found = self._topics.read(name, self._numbers())
        return None if found is None else self._view(found)

    def group(self, name: str) -> SeriesView | None:
        """`lag` in records, `lag_seconds`, `failed` in offsets; None for a group without history."""
        found = self._groups.read(name, self._numbers())
        return None if found is None else self._view(found)

    def _view(self, series: dict[str, list[float | None]]) -> SeriesView:
        return SeriesView(self.interval_ms, [self._times_ms[number % self._slots] for number in self._numbers()], series)

    def _numbers(self) -> range:
        return range(max(0, self._count - self._slots), self._count)

    def rates(self) -> Rates:
        """Of all topics together, over the last interval."""
        return self._broker_rates

    def topic_rates(self, name: str) -> Rates:
        """Of one topic, over the last interval."""
        return self._rates.get(name, Rates())

    def append_ms(self) -> Latencies:
        """Of writes to a segment, over the last minute."""
        return self._latencies([point.append for point in self._last])

    def fsync_ms(self) -> Latencies:
        """Of fsyncs, over the last minute."""
        return self._latencies([point.fsync for point in self._last])

    @staticmethod
    def _latencies(readings: Sequence[HistogramCounts]) -> Latencies:
        if len(readings) < 2:
            return Latencies(None, None)
        found = readings[-1].since(readings[0])
        return Latencies(_ms(quantile(0.50, found)), _ms(quantile(0.99, found)))

    @property
    def left_out(self) -> tuple[int, int]:
        """How many (topics, groups) of the last point found no room."""
        return self._topics.left_out, self._groups.left_out


def _rates(before: Point, after: Point) -> Iterator[tuple[str, Rates]]:
    seconds = (after.monotonic_ms - before.monotonic_ms) / 1000
    if seconds <= 0:
        return
    for topic, totals in after.topics.items():
        # A topic that was not there has counted from zero.
        earlier = before.topics.get(topic, Totals(0, 0, 0))
        differences = [now - then for now, then in zip(totals, earlier, strict=True)]
        if min(differences) >= 0:
            yield topic, Rates(*(difference / seconds for difference in differences))


def _sum(rates: Mapping[str, Rates]) -> Rates:
    return Rates(*(sum(column) for column in zip(*rates.values(), strict=True))) if rates else Rates(0.0, 0.0, 0.0)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
