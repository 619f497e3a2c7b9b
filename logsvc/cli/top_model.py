"""What `logsvc top` knows: samples of a broker go in, rows with rates, trends and a verdict come out. Pure.

A sample is the answer to three requests, however many groups and partitions there are. Positions and end offsets only grow, so
two samples and the time between them make a rate; it is taken over the last RATE_WINDOW_S, because clients commit in steps.
Where a count falls (a reset, a topic made anew) its past is forgotten instead of becoming a rate below 0. Time is that of the
samples: nothing here looks at a clock.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from logsvc_common.messages import GroupListing, HelloReply, PartitionDescription, TopicDescription
from logsvc_common.names import dead_letter_topic, is_dead_letter
from logsvc_common.transitions import State

HISTORY_SAMPLES_MAX = 60  # that a sparkline can show: a minute, unless told otherwise
RATE_WINDOW_S = 5.0
RATE_SAMPLES_MAX = 64  # in that window, however short the interval
# A group that works has records under way; only what waits longer is behind.
BEHIND_MS = 10_000  # as the console has it
ONLINE = "online"
# A broker is not to be kept busy by being watched: of all time, at most this part is spent waiting for its answers.
LOOKING_SHARE_MAX = 0.2


class Severity(StrEnum):
    """How bad a verdict is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Order(StrEnum):
    """What comes first in the tables."""

    LAG = "lag"
    NAME = "name"
    RATE = "rate"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sample:
    """A broker at one moment: `at_s` on a monotonic clock, `wall_ms` since the epoch."""

    at_s: float
    wall_ms: int
    hello: HelloReply
    groups: Sequence[GroupListing]
    topics: Sequence[TopicDescription]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group now. `rate_per_s` is what it consumes, None before it is known; `catch_up_s` is when it would be done at the
    pace of the last seconds, None when it is not getting nearer. `lags` are those of the last samples."""

    group: str
    state: str
    members: int
    topics: tuple[str, ...]
    lag: int
    lag_ms: int
    rate_per_s: float | None
    catch_up_s: float | None
    failed: Mapping[str, int]
    dead_letters: int
    breaker: str
    lags: tuple[int, ...]
    verdict: str
    severity: Severity

    @property
    def failed_total(self) -> int:
        """Failed offsets that are not done, all states together."""
        return sum(self.failed.values())

    @property
    def is_behind(self) -> bool:
        """Records have waited for longer than those of a group that works, or nobody is there to handle them."""
        return (self.lag > 0 and self.lag_ms >= BEHIND_MS) or (self.members == 0 and self.lag + self.to_retry > 0)

    @property
    def to_retry(self) -> int:
        """Failed offsets that members are to handle again."""
        return _to_retry(self.failed)


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic now. `records` are those it holds, `rates` the records appended a second, sample by sample."""

    topic: str
    partitions: int
    records: int
    size_bytes: int
    rate_per_s: float | None
    rates: tuple[float | None, ...]
    state: str

    @property
    def dead_letters(self) -> bool:
        """It holds dead letters."""
        return is_dead_letter(self.topic)


@dataclass(frozen=True, slots=True)
class BrokerRow:
    """The broker now. `not_online` lists topic, partition and state; `restarted_s` is when it was last seen to have started
    anew, None for never. Counts and rates leave out its internal topics."""

    software: str
    broker_id: str
    wall_ms: int
    at_s: float
    partitions: int
    not_online: tuple[tuple[str, int, str], ...]
    size_bytes: int
    rate_per_s: float | None
    dead_letters: int
    restarted_s: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown."""

    broker: BrokerRow
    groups: tuple[GroupRow, ...]
    topics: tuple[TopicRow, ...]


class Meter:
    """The rate of a count that grows, over the last RATE_WINDOW_S."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES_MAX)

    def add(self, at_s: float, count: int) -> None:
        """The count at a later moment than the one before."""
        counts = self._counts
        if counts and count < counts[-1][1]:
            counts.clear()
        counts.append((at_s, count))
        while len(counts) > 2 and counts[1][0] <= at_s - RATE_WINDOW_S:
            counts.popleft()

    @property
    def rate_per_s(self) -> float | None:
        """None before there are two counts."""
        return self._between(0)

    @property
    def last_rate_per_s(self) -> float | None:
        """Only from the sample before to the last."""
        return self._between(-2)

    def _between(self, first: int) -> float | None:
        if len(self._counts) < 2:
            return None
        (began_s, before), (ended_s, after) = self._counts[first], self._counts[-1]
        return (after - before) / (ended_s - began_s) if ended_s > began_s else None


class _GroupTrack:
    """What is remembered of a group."""

    def __init__(self) -> None:
        self.consumed = Meter()
        self.lags: deque[int] = deque(maxlen=HISTORY_SAMPLES_MAX)
        self._recent: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES_MAX)

    def add(self, at_s: float, listing: GroupListing) -> None:
        if listing.position >= 0:
            self.consumed.add(at_s, listing.position)
        self.lags.append(listing.lag)
        self._recent.append((at_s, listing.lag))
        while len(self._recent) > 2 and self._recent[1][0] <= at_s - RATE_WINDOW_S:
            self._recent.popleft()

    @property
    def growth_per_s(self) -> float:
        """How fast the lag grows, in records a second; below 0 when it shrinks."""
        (began_s, before), (ended_s, after) = self._recent[0], self._recent[-1]
        return (after - before) / (ended_s - began_s) if ended_s > began_s else 0.0


class _TopicTrack:
    """What is remembered of a topic, as long as it is the same one."""

    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id
        self.appended = Meter()
        self.rates: deque[float | None] = deque(maxlen=HISTORY_SAMPLES_MAX)

    def add(self, at_s: float, topic: TopicDescription) -> None:
        self.appended.add(at_s, sum(partition.end_offset for partition in topic.partitions))
        self.rates.append(self.appended.last_rate_per_s)


class History:
    """The last samples of one broker. Holds at most HISTORY_SAMPLES_MAX numbers for each group and topic there is now."""

    def __init__(
        self, group_wanted: Callable[[str], object] = lambda _: True, topic_wanted: Callable[[str], object] = lambda _: True
    ) -> None:
        self._group_wanted = group_wanted
        self._topic_wanted = topic_wanted
        self._groups: dict[str, _GroupTrack] = {}
        self._topics: dict[str, _TopicTrack] = {}
        self._last: Sample | None = None
        self._restarted_s: float | None = None

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._last

    def add(self, sample: Sample) -> None:
        """Take a sample, later than those before. Groups and topics that are gone are forgotten."""
        if self._last is not None and self._last.hello.broker_id != sample.hello.broker_id:
            self._restarted_s = sample.at_s
        self._last = sample
        self._groups = {g.group: self._groups.get(g.group) or _GroupTrack() for g in sample.groups}
        for group in sample.groups:
            self._groups[group.group].add(sample.at_s, group)
        self._topics = {topic.topic: self._track(topic) for topic in sample.topics}
        for topic in sample.topics:
            self._topics[topic.topic].add(sample.at_s, topic)

    def _track(self, topic: TopicDescription) -> _TopicTrack:
        known = self._topics.get(topic.topic)
        return known if known is not None and known.topic_id == topic.topic_id else _TopicTrack(topic.topic_id)

    def overview(self, order: Order = Order.LAG) -> Overview | None:
        """What to show now, in `order`; None before the first sample."""
        if self._last is None:
            return None
        letters = {t.topic: _records(t.partitions) for t in self._last.topics if is_dead_letter(t.topic)}
        groups = [self._group(g, letters) for g in self._last.groups if self._group_wanted(g.group)]
        topics = [self._topic(t) for t in self._last.topics if not t.internal and self._topic_wanted(t.topic)]
        return Overview(
            broker=self._broker(self._last, sum(letters.values())),
            groups=tuple(sorted(groups, key=_GROUP_ORDER[order])),
            topics=tuple(sorted(topics, key=_TOPIC_ORDER[order])),
        )

    def _group(self, listing: GroupListing, letters: Mapping[str, int]) -> GroupRow:
        track = self._groups[listing.group]
        growth = track.growth_per_s
        failed = {state: count for state, count in sorted(listing.failed_states.items()) if count}
        verdict, severity = judge(listing, growth)
        return GroupRow(
            group=listing.group,
            state=listing.state,
            members=listing.members,
            topics=tuple(listing.topics),
            lag=listing.lag,
            lag_ms=max(0, listing.lag_ms),
            rate_per_s=track.consumed.rate_per_s,
            catch_up_s=0.0 if listing.lag == 0 else listing.lag / -growth if growth < 0 else None,
            failed=failed,
            dead_letters=sum(letters.get(dead_letter_topic(topic, listing.group), 0) for topic in listing.topics),
            breaker=listing.breaker,
            lags=tuple(track.lags),
            verdict=verdict,
            severity=severity,
        )

    def _topic(self, topic: TopicDescription) -> TopicRow:
        track = self._topics[topic.topic]
        bad = [partition.state for partition in topic.partitions if partition.state != ONLINE]
        return TopicRow(
            topic=topic.topic,
            partitions=topic.partition_count,
            records=_records(topic.partitions),
            size_bytes=sum(partition.size_bytes for partition in topic.partitions),
            rate_per_s=track.appended.rate_per_s,
            rates=tuple(track.rates),
            state=bad[0] if bad else ONLINE,
        )

    def _broker(self, sample: Sample, dead_letters: int) -> BrokerRow:
        rates = [self._topics[topic.topic].appended.rate_per_s for topic in sample.topics if not topic.internal]
        known = [rate for rate in rates if rate is not None]
        return BrokerRow(
            software=sample.hello.software,
            broker_id=sample.hello.broker_id,
            wall_ms=sample.wall_ms,
            at_s=sample.at_s,
            partitions=sum(len(topic.partitions) for topic in sample.topics),
            not_online=tuple(
                (topic.topic, partition.partition, partition.state)
                for topic in sample.topics
                for partition in topic.partitions
                if partition.state != ONLINE
            ),
            size_bytes=sum(partition.size_bytes for topic in sample.topics for partition in topic.partitions),
            rate_per_s=sum(known) if known else None,
            dead_letters=dead_letters,
            restarted_s=self._restarted_s,
        )


def pause_s(interval_s: float, took_s: float) -> float:
    """How long to wait for the next look: the interval, longer where the last one took so long that looking would be a load."""
    return max(interval_s, took_s * (1 / LOOKING_SHARE_MAX - 1))


def judge(listing: GroupListing, growth_per_s: float) -> tuple[str, Severity]:
    """The worst that can be said of a group, in two words, and how bad that is."""
    failed = listing.failed_states
    late = listing.lag > 0 and listing.lag_ms >= BEHIND_MS
    verdicts = (
        (listing.breaker == "open", "breaker open", Severity.BAD),
        (listing.members == 0 and listing.lag + _to_retry(failed) > 0, "no members", Severity.BAD),
        (failed.get(State.PAUSED, 0) > 0, "paused", Severity.BAD),
        (listing.breaker == "half_open", "probing", Severity.WARNING),
        (late and growth_per_s > 0, "falling behind", Severity.WARNING),
        (late and growth_per_s < 0, "catching up", Severity.WARNING),
        (late, "behind", Severity.WARNING),
        (any(failed.values()), "retrying", Severity.WARNING),
    )
    return next(((verdict, severity) for holds, verdict, severity in verdicts if holds), ("ok", Severity.OK))


def _to_retry(failed: Mapping[str, int]) -> int:
    return sum(failed.get(state, 0) for state in (State.WAITING, State.PARKED, State.DELIVERED))


def _records(partitions: Sequence[PartitionDescription]) -> int:
    return sum(partition.end_offset - partition.start_offset for partition in partitions)


def _falling(rate: float | None) -> float:
    """Sorts the highest first and what is not known last."""
    return 1.0 if rate is None else -rate


_GROUP_ORDER: dict[Order, Callable[[GroupRow], tuple[object, ...]]] = {
    Order.LAG: lambda row: (-row.lag, -row.lag_ms, row.group),
    Order.NAME: lambda row: (row.group,),
    Order.RATE: lambda row: (_falling(row.rate_per_s), row.group),
    Order.FAILED: lambda row: (-row.failed_total, -row.dead_letters, row.group),
}
# Topics have no lag; the most records first changes little from one look to the next.
_TOPIC_ORDER: dict[Order, Callable[[TopicRow], tuple[object, ...]]] = {
    Order.LAG: lambda row: (-row.records, row.topic),
    Order.NAME: lambda row: (row.topic,),
    Order.RATE: lambda row: (_falling(row.rate_per_s), row.topic),
    Order.FAILED: lambda row: (not row.dead_letters, -row.records, row.topic),
}
