"""The ring of the last hour: what goes in comes out at its time, and nothing grows."""

import sys
import tracemalloc
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc.broker.history import GroupPoint, History, Point, Rates, Totals
from logsvc.metrics import HistogramCounts

START_MS = 1_800_000_000_000
NO_TIMES = HistogramCounts((0.001, 0.01, inf), (0, 0, 0))


def point(
    seconds: float,
    topics: dict[str, Totals] | None = None,
    groups: dict[str, GroupPoint] | None = None,
    fsync: HistogramCounts = NO_TIMES,
    append: HistogramCounts = NO_TIMES,
) -> Point:
    ms = round(seconds * 1_000)
    return Point(START_MS + ms, ms, topics or {}, groups or {}, append, fsync)


def test_before_the_first_point_there_is_nothing_to_see() -> None:
    history = History()
    assert history.broker().times_ms == []
    assert set(history.broker().series) == {
        "appended_records_per_s",
        "appended_bytes_per_s",
        "fetched_bytes_per_s",
        "fsync_p99_ms",
    }
    assert history.topic("t") is None
    assert history.group("g") is None
    assert history.rates() == Rates(None, None, None)
    assert history.fsync_ms() == (None, None)


def test_rates_are_the_difference_of_two_points_over_the_time_between_them() -> None:
    history = History()
    history.put(point(0, {"a": Totals(100, 1_000, 50)}))
    history.put(point(10, {"a": Totals(200, 3_000, 50), "b": Totals(10, 20, 30)}))
    history.put(point(30, {"a": Totals(200, 3_000, 70), "b": Totals(10, 20, 30)}))  # late
    view = history.topic("a")
    assert view is not None
    assert view.times_ms == [START_MS, START_MS + 10_000, START_MS + 30_000]
    assert view.series["appended_records_per_s"] == [None, 10.0, 0.0]
    assert view.series["appended_bytes_per_s"] == [None, 200.0, 0.0]
    assert view.series["fetched_bytes_per_s"] == [None, 0.0, 1.0]
    assert history.broker().series["appended_records_per_s"] == [None, 11.0, 0.0]
    assert history.rates() == Rates(0.0, 0.0, 1.0)
    assert history.topic_rates("a") == Rates(0.0, 0.0, 1.0)
    assert history.topic_rates("never seen") == Rates()


def test_a_topic_that_was_made_anew_leaves_a_gap_and_no_negative_rate() -> None:
    history = History()
    for seconds, records in ((0, 500), (10, 3), (20, 13)):
        history.put(point(seconds, {"t": Totals(records, records, 0)}))
    view = history.topic("t")
    assert view is not None
    assert view.series["appended_records_per_s"] == [None, None, 1.0]


def test_a_group_that_comes_late_or_goes_has_gaps_and_is_forgotten_after_an_hour() -> None:
    history = History(interval_ms=10_000, span_ms=40_000)
    history.put(point(0))
    history.put(point(10, groups={"g": GroupPoint(5, 1.5, 2)}))
    history.put(point(20, groups={"g": GroupPoint(6, None, 0)}))
    history.put(point(30))
    view = history.group("g")
    assert view is not None
    assert view.series == {"lag": [None, 5, 6, None], "lag_seconds": [None, 1.5, None, None], "failed": [None, 2, 0, None]}
    for seconds in (40, 50):
        history.put(point(seconds))
    assert history.group("g") is not None
    history.put(point(60))
    assert history.group("g") is None


def test_fsync_p99_is_of_the_interval_and_the_latest_latencies_of_the_last_minute() -> None:
    history = History()
    history.put(point(0, fsync=HistogramCounts((0.001, 0.01, inf), (1_000, 1_000, 1_000))))
    history.put(point(10, fsync=HistogramCounts((0.001, 0.01, inf), (1_100, 1_100, 1_100))))
    history.put(point(20, fsync=HistogramCounts((0.001, 0.01, inf), (1_100, 1_200, 1_200))))
    history.put(point(30, fsync=HistogramCounts((0.001, 0.01, inf), (1_100, 1_200, 1_200))))
    values = history.broker().series["fsync_p99_ms"]
    assert values[0] is None
    assert values[1] == pytest.approx(0.99)
    assert values[2] == pytest.approx(9.91)
    assert values[3] is None  # nothing was synced
    p50, p99 = history.fsync_ms()
    assert p50 == pytest.approx(1.0)
    assert p99 is not None
    assert 9 < p99 < 10
    for seconds in range(40, 110, 10):
        history.put(point(seconds, fsync=HistogramCounts((0.001, 0.01, inf), (1_100, 1_200, 1_200))))
    assert history.fsync_ms() == (None, None)


def test_topics_and_groups_beyond_the_limit_have_no_history_and_are_counted() -> None:
    history = History(topics_max=2, groups_max=1)
    groups = {name: GroupPoint(1, 0.0, 0) for name in ("a", "b")}
    history.put(point(0, {name: Totals(0, 0, 0) for name in "abc"}, groups))
    assert history.topic("b") is not None
    assert history.topic("c") is None
    assert history.group("b") is None
    assert history.left_out == (1, 1)


def test_a_full_history_takes_the_memory_it_says() -> None:
    history = History(topics_max=100, groups_max=100)
    topics = {f"t{n}": Totals(1, 1, 1) for n in range(100)}
    groups = {f"g{n}": GroupPoint(1, 1.0, 1) for n in range(100)}
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(400):
            history.put(point(number * 10, topics, groups))
            if number == 20:
                early, _ = tracemalloc.get_traced_memory()
        late, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late - before < 200 * 3 * 360 * 8 * 1.25
    assert late - early < 128 << 10  # no more than in the first minutes
    assert sys.getsizeof(history.broker().times_ms) < 4_096


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100))), max_size=40),
    st.integers(1, 12),
)
def test_a_ring_says_what_a_list_of_everything_would(steps: list[tuple[int, dict[str, int]]], slots: int) -> None:
    history = History(interval_ms=1_000, span_ms=slots * 1_000)
    times: list[int] = []
    everything: list[dict[str, int]] = []
    seconds = 0
    for wait, lags in steps:
        seconds += wait
        history.put(point(seconds, groups={name: GroupPoint(lag, lag / 2, 0) for name, lag in lags.items()}))
        times.append(START_MS + seconds * 1_000)
        everything.append(lags)
        recent = everything[-slots:]
        assert history.broker().times_ms == times[-slots:]
        for name in "abcd":
            view = history.group(name)
            if any(name in lags for lags in recent):
                assert view is not None
                assert view.times_ms == times[-slots:]
                assert view.series["lag"] == [lags.get(name) for lags in recent]
            else:
                assert view is None
