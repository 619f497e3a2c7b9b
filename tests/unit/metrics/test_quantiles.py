"""Quantiles from buckets, beside the numbers themselves; and the histogram that fills the buckets."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from logsvc.metrics import Histogram, HistogramCounts, quantile

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def observed(values: list[float]) -> Histogram:
    histogram = Histogram("h", BOUNDS)
    for value in values:
        histogram.observe(value)
    return histogram


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1), st.floats(0.01, 1.0))
def test_the_estimate_lies_in_the_bucket_of_the_value(values: list[float], q: float) -> None:
    exact = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    estimate = quantile(q, observed(values).counts())
    assert estimate is not None
    above = next(bound for bound in BOUNDS if exact <= bound)
    below = max((bound for bound in BOUNDS if bound < exact), default=0.0)
    assert below <= estimate <= above


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile(0.99, observed([]).counts()) is None


def test_what_lies_above_all_bounds_is_told_as_the_highest() -> None:
    assert quantile(0.5, observed([7.0] * 10).counts()) == 1.0


def test_the_difference_of_two_readings_is_what_came_between() -> None:
    histogram = observed([0.5] * 100)
    before = histogram.counts()
    histogram.observe(0.005)
    assert histogram.counts().since(before) == HistogramCounts((*BOUNDS, inf), (0, 1, 1, 1, 1))


def test_a_histogram_is_written_as_prometheus_reads_it() -> None:
    histogram = Histogram("h", BOUNDS, ("api",), ('a"b%d',))
    for value in (0.0001, 0.001, 0.5, 3.0):
        histogram.observe(value)
    (family,) = text_string_to_metric_families("# TYPE h histogram\n" + histogram.text().decode())
    found = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert {sample.labels["api"] for sample in family.samples} == {'a"b%d'}
    buckets = {"0.001": 2, "0.01": 2, "0.1": 2, "1.0": 3, "+Inf": 4}
    assert {le: found["h_bucket", le] for le in buckets} == buckets
    assert found["h_count", None] == 4
    assert found["h_sum", None] == pytest.approx(3.5011)
