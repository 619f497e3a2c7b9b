"""The last hour as JSON: series over one axis of times, null where nothing is known. What is kept, and for how many topics and
groups: `logsvc.broker.history`."""

import msgspec

from logsvc.broker.history import History, SeriesView

Series = list[float | None]


class TopicSeries(msgspec.Struct, forbid_unknown_fields=True):
    """What was appended to a topic and fetched from it, a second."""

    appended_records_per_s: Series = []
    appended_bytes_per_s: Series = []
    fetched_bytes_per_s: Series = []


class TopicHistory(msgspec.Struct, forbid_unknown_fields=True):
    """The last hour of a topic, every `interval_ms`; without times when none is kept of it."""

    interval_ms: int
    times_ms: list[int]
    series: TopicSeries


class GroupSeries(msgspec.Struct, forbid_unknown_fields=True):
    """Lag in records and in seconds, and failed offsets that are not done."""

    lag: Series = []
    lag_seconds: Series = []
    failed: Series = []


class GroupHistory(msgspec.Struct, forbid_unknown_fields=True):
    """The last hour of a group, every `interval_ms`; without times when none is kept of it."""

    interval_ms: int
    times_ms: list[int]
    series: GroupSeries


class BrokerSeries(msgspec.Struct, forbid_unknown_fields=True):
    """What the broker took and gave, a second, and how long its fsyncs took."""

    appended_records_per_s: Series = []
    appended_bytes_per_s: Series = []
    fetched_bytes_per_s: Series = []
    fsync_p99_ms: Series = []


class BrokerHistory(msgspec.Struct, forbid_unknown_fields=True):
    """The last hour of the broker, every `interval_ms`."""

    interval_ms: int
    times_ms: list[int]
    series: BrokerSeries


def topic_history(history: History, topic: str) -> TopicHistory:
    """What is kept of a topic."""
    view = history.topic(topic) or _nothing(history)
    return TopicHistory(view.interval_ms, view.times_ms, msgspec.convert(view.series, TopicSeries))


def group_history(history: History, group: str) -> GroupHistory:
    """What is kept of a group."""
    view = history.group(group) or _nothing(history)
    return GroupHistory(view.interval_ms, view.times_ms, msgspec.convert(view.series, GroupSeries))


def broker_history(history: History) -> BrokerHistory:
    """What is kept of the broker."""
    view = history.broker()
    return BrokerHistory(view.interval_ms, view.times_ms, msgspec.convert(view.series, BrokerSeries))


def _nothing(history: History) -> SeriesView:
    return SeriesView(history.interval_ms, [], {})
