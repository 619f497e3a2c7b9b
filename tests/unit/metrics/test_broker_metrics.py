"""Metrics: the names and values a scrape shows, the limits on series, and the rules promtool would check."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from logsvc.metrics import (
    OTHER,
    BrokerMetrics,
    DeadLetterSample,
    DeferredSample,
    DiskSample,
    GroupSample,
    PartitionColumns,
    PositionColumns,
    Sample,
)
from logsvc_common.errors import UnknownTopic
from logsvc_common.messages import Api

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]

STATE: list[Sample | None] = [
    PartitionColumns([("orders", 0), ("orders", 1)], [2, 0], [10, 0], [4_096, 0], ["online", "failed"]),
    None,
    GroupSample("billing", "stable", 2),
    PositionColumns("billing", [("orders", 0)], [7], [3], [1_500], [("orders", 0, "waiting", 2)]),
    DeadLetterSample("billing", "orders", 5, 61_000),
    DeadLetterSample("billing", "returns", 0, None),
    DiskSample(10, 100, 5),
    DeferredSample(4),
]


def partitions(topic: str, count: int) -> PartitionColumns:
    numbers = range(count)
    return PartitionColumns([(topic, n) for n in numbers], [0] * count, [1] * count, [1] * count, ["online"] * count)


def rendering(metrics: BrokerMetrics, state: Sequence[Sample | None] = (), accept: str = "") -> str:
    metrics.source = lambda: state
    return metrics.render(accept)[0].decode()


def parse(text: str) -> Found:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(metrics: BrokerMetrics, state: Sequence[Sample | None] = ()) -> Found:
    return parse(rendering(metrics, state))


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def names(found: Found) -> set[str]:
    return {name for name, _ in found}


class TestCountedAsItHappens:
    def test_topic_counters_show_what_was_counted_through_a_kept_child(self) -> None:
        metrics = BrokerMetrics()
        counters = metrics.topic("orders")
        counters.appended_records.inc(3)
        counters.appended_bytes.inc(300)
        metrics.topic("orders").appended_records.inc()
        found = scrape(metrics)
        assert found[series("logsvc_appended_records_total", topic="orders")] == 4
        assert found[series("logsvc_appended_bytes_total", topic="orders")] == 300
        assert found[series("logsvc_fetched_bytes_total", topic="orders")] == 0

    def test_a_deleted_topic_takes_its_series_along_and_a_late_count_brings_none_back(self) -> None:
        metrics = BrokerMetrics()
        kept = metrics.topic("gone")
        metrics.group("g", "gone").failures.inc()
        metrics.dead_letters("g", "gone", "exhausted").inc()
        metrics.topic("stays").appended_records.inc()
        metrics.drop_topic("gone")
        kept.appended_records.inc()
        labels = {value for _, pairs in scrape(metrics) for _, value in pairs}
        assert "gone" not in labels
        assert "stays" in labels

    def test_a_deleted_group_takes_its_series_along(self) -> None:
        metrics = BrokerMetrics()
        metrics.group("gone", "t").retries.inc()
        metrics.rebalances("gone").inc()
        metrics.drop_group("gone")
        assert "gone" not in {value for _, pairs in scrape(metrics) for _, value in pairs}

    def test_a_topic_made_again_counts_from_zero(self) -> None:
        metrics = BrokerMetrics()
        metrics.topic("t").appended_records.inc(5)
        metrics.drop_topic("t")
        metrics.topic("t").appended_records.inc()
        assert scrape(metrics)[series("logsvc_appended_records_total", topic="t")] == 1

    def test_group_counters(self) -> None:
        metrics = BrokerMetrics()
        metrics.group("g", "t").failures.inc(2)
        metrics.group("g", "t").retries.inc()
        metrics.dead_letters("g", "t", "no_retry").inc()
        metrics.rebalances("g").inc()
        found = scrape(metrics)
        assert found[series("logsvc_failures_total", group="g", topic="t")] == 2
        assert found[series("logsvc_retries_total", group="g", topic="t")] == 1
        assert found[series("logsvc_dead_letter_records_total", group="g", topic="t", reason="no_retry")] == 1
        assert found[series("logsvc_consumer_group_rebalances_total", group="g")] == 1

    def test_request_errors_carry_the_api_and_the_name_of_the_error(self) -> None:
        metrics = BrokerMetrics()
        metrics.request_error(Api.FETCH, UnknownTopic("no topic 'x'"))
        metrics.request_error(Api.FETCH, UnknownTopic)
        assert scrape(metrics)[series("logsvc_request_errors_total", api="fetch", code="UnknownTopic")] == 2

    def test_durations_land_in_their_buckets(self) -> None:
        metrics = BrokerMetrics()
        metrics.fsync_duration_seconds.observe(0.0002)
        metrics.append_duration_seconds.observe(0.00002)
        metrics.request_seconds(Api.PRODUCE).observe(0.003)
        found = scrape(metrics)
        assert found[series("logsvc_fsync_duration_seconds_bucket", le="0.0001")] == 0
        assert found[series("logsvc_fsync_duration_seconds_bucket", le="0.00025")] == 1
        assert found[series("logsvc_append_duration_seconds_bucket", le="5e-05")] == 1
        assert found[series("logsvc_request_duration_seconds_count", api="produce")] == 1

    def test_two_brokers_in_one_process_share_nothing(self) -> None:
        one, other = BrokerMetrics(), BrokerMetrics()
        one.topic("t").appended_records.inc()
        assert series("logsvc_appended_records_total", topic="t") not in scrape(other)


class TestReadAtTheScrape:
    def test_partitions_show_offsets_size_and_exactly_one_state(self) -> None:
        found = scrape(BrokerMetrics(), STATE)
        assert found[series("logsvc_partition_start_offset", topic="orders", partition="0")] == 2
        assert found[series("logsvc_partition_end_offset", topic="orders", partition="0")] == 10
        assert found[series("logsvc_partition_size_bytes", topic="orders", partition="0")] == 4_096
        for partition, wanted in (("0", "online"), ("1", "failed")):
            states = {
                state: found[series("logsvc_partition_state", topic="orders", partition=partition, state=state)]
                for state in ("online", "read_only", "failed")
            }
            assert states == {state: float(state == wanted) for state in states}

    def test_lag_is_in_records_and_in_seconds(self) -> None:
        found = scrape(BrokerMetrics(), STATE)
        where = {"group": "billing", "topic": "orders", "partition": "0"}
        assert found[series("logsvc_consumer_group_committed_offset", **where)] == 7
        assert found[series("logsvc_consumer_group_lag", **where)] == 3
        assert found[series("logsvc_consumer_group_lag_seconds", **where)] == 1.5
        assert found[series("logsvc_consumer_group_lag_seconds_deferred")] == 4
        assert found[series("logsvc_failed_offsets", **where, state="waiting")] == 2
        assert found[series("logsvc_consumer_group_members", group="billing")] == 2
        assert found[series("logsvc_consumer_group_state", group="billing", state="stable")] == 1
        assert found[series("logsvc_consumer_group_state", group="billing", state="empty")] == 0

    def test_an_age_that_is_not_known_has_no_series_and_the_next_one_keeps_its_own(self) -> None:
        metrics = BrokerMetrics()
        where = [("t", 0), ("t", 1), ("t", 2)]
        name = "logsvc_consumer_group_lag_seconds"
        for lags_ms in ([1_000, None, 3_000], [1_000, 2_000, 3_000], [None, None, 5_000]):
            found = scrape(metrics, [PositionColumns("g", where, [0] * 3, [1] * 3, lags_ms)])
            for (topic, partition), lag_ms in zip(where, lags_ms, strict=True):
                expected = None if lag_ms is None else lag_ms / 1000
                assert found.get(series(name, group="g", topic=topic, partition=str(partition))) == expected

    def test_dead_letters_and_the_age_of_the_oldest(self) -> None:
        found = scrape(BrokerMetrics(), STATE)
        assert found[series("logsvc_dead_letters", group="billing", topic="orders")] == 5
        assert found[series("logsvc_dead_letter_oldest_age_seconds", group="billing", topic="orders")] == 61
        assert found[series("logsvc_dead_letters", group="billing", topic="returns")] == 0
        assert series("logsvc_dead_letter_oldest_age_seconds", group="billing", topic="returns") not in found

    def test_the_disk(self) -> None:
        found = scrape(BrokerMetrics(), STATE)
        assert [found[series(f"logsvc_disk_{what}_bytes")] for what in ("free", "size", "reserve")] == [10, 100, 5]

    def test_the_source_is_asked_at_each_scrape(self) -> None:
        ends = iter((10, 20))
        metrics = BrokerMetrics(source=lambda: [PartitionColumns([("t", 0)], [0], [next(ends)], [1], ["online"])])
        where = series("logsvc_partition_end_offset", topic="t", partition="0")
        assert [parse(metrics.render()[0].decode())[where] for _ in range(2)] == [10, 20]

    def test_kafka_exporters_names_are_there_behind_the_switch_only(self) -> None:
        assert not {name for name in names(scrape(BrokerMetrics(), STATE)) if name.startswith("kafka_")}
        found = scrape(BrokerMetrics(kafka_names=True), STATE)
        group = {"consumergroup": "billing", "topic": "orders"}
        assert found[series("kafka_consumergroup_lag", **group, partition="0")] == 3
        assert found[series("kafka_consumergroup_lag_sum", **group)] == 3
        assert found[series("kafka_consumergroup_current_offset", **group, partition="0")] == 7
        assert found[series("kafka_consumergroup_members", consumergroup="billing")] == 2
        assert found[series("kafka_topic_partitions", topic="orders")] == 2
        assert found[series("kafka_topic_partition_current_offset", topic="orders", partition="0")] == 10
        assert found[series("kafka_topic_partition_oldest_offset", topic="orders", partition="0")] == 2

    def test_label_values_are_escaped(self) -> None:
        name = 'a"b\\c\nd%d%%'
        found = scrape(BrokerMetrics(), [PartitionColumns([(name, 0)], [0], [1], [1], ["online"])])
        assert found[series("logsvc_partition_end_offset", topic=name, partition="0")] == 1

    def test_openmetrics_when_the_scraper_asks_for_it(self) -> None:
        body, content_type = BrokerMetrics(source=lambda: STATE).render("application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")


class TestLimits:
    def test_counters_beyond_the_limit_share_one_series_and_say_so(self, caplog: pytest.LogCaptureFixture) -> None:
        metrics = BrokerMetrics(label_sets_max=2)
        with caplog.at_level(logging.WARNING, "logsvc.metrics"):
            for topic in ("a", "b", "c", "d", "c"):
                metrics.topic(topic).appended_records.inc()
        found = scrape(metrics)
        assert found[series("logsvc_appended_records_total", topic="a")] == 1
        assert found[series("logsvc_appended_records_total", topic=OTHER)] == 3
        assert found[series("logsvc_metrics_series_dropped", family="logsvc_appended_records")] == 2
        assert len(caplog.records) == 1

    def test_a_dropped_topic_makes_room(self) -> None:
        metrics = BrokerMetrics(label_sets_max=1)
        metrics.topic("a")
        metrics.drop_topic("a")
        metrics.topic("b").appended_records.inc()
        assert scrape(metrics)[series("logsvc_appended_records_total", topic="b")] == 1

    def test_scraped_families_are_cut_and_say_so_once(self, caplog: pytest.LogCaptureFixture) -> None:
        metrics = BrokerMetrics(series_per_family_max=3)
        state = [partitions("t", 2), partitions("u", 3)]
        with caplog.at_level(logging.WARNING, "logsvc.metrics"):
            scrape(metrics, state)
            found = scrape(metrics, state)
        assert sum(name == "logsvc_partition_end_offset" for name, _ in found) == 3
        assert found[series("logsvc_metrics_series_dropped", family="logsvc_partition_end_offset")] == 2
        assert sum("logsvc_partition_end_offset" in record.getMessage() for record in caplog.records) == 1


class TestSteps:
    def test_a_scrape_is_made_of_many_small_steps(self) -> None:
        state: list[Sample | None] = [
            PositionColumns("g", [("t", p) for p in range(start, start + 500)], [1] * 500, [2] * 500, [3] * 500)
            for start in range(0, 10_000, 500)
        ]
        steps = list(BrokerMetrics(source=lambda: state).scrape()[1])
        assert max(step.count(b"\n") for step in steps) <= 500
        assert sum(step.count(b"logsvc_consumer_group_lag{") for step in steps) == 10_000

    def test_label_sets_that_change_between_scrapes_are_told_as_they_are(self) -> None:
        metrics = BrokerMetrics()
        for topic in ("a", "b", "a"):
            for count in (2, 3, 1):
                found = scrape(metrics, [partitions(topic, count)])
                assert {labels for name, labels in found if name == "logsvc_partition_end_offset"} == {
                    frozenset({("topic", topic), ("partition", str(partition))}) for partition in range(count)
                }

    def test_what_is_no_longer_scraped_is_not_kept(self) -> None:
        metrics = BrokerMetrics()
        scrape(metrics, [partitions("gone", 500)])
        scrape(metrics, [])
        assert not any("gone" in str(key) or b"gone" in kept[1] for key, kept in metrics._templates._kept.items())


NAMES = st.text('abc.-_%"\\\n{},=', min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.lists(
                st.tuples(NAMES, st.integers(0, 9), st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
                unique_by=lambda row: row[:2],
                min_size=1,
                max_size=5,
            ),
        ),
        unique_by=lambda group: group[0],
        max_size=4,
    )
)
def test_whatever_the_names_and_numbers_the_text_says_what_the_columns_say(groups: list[Any]) -> None:
    state = [
        PositionColumns(
            group, [row[:2] for row in rows], [row[2] for row in rows], [row[3] for row in rows], [row[4] for row in rows]
        )
        for group, rows in groups
    ]
    metrics = BrokerMetrics()
    for _ in range(2):  # the second time with templates that are known
        found = scrape(metrics, state)
        for group, rows in groups:
            for topic, partition, committed, lag, lag_ms in rows:
                where = {"group": group, "topic": topic, "partition": str(partition)}
                assert found[series("logsvc_consumer_group_committed_offset", **where)] == committed
                assert found[series("logsvc_consumer_group_lag", **where)] == lag
                assert found[series("logsvc_consumer_group_lag_seconds", **where)] == pytest.approx(lag_ms / 1000)


def test_prometheus_text_and_openmetrics_say_the_same() -> None:
    metrics = everything()
    plain = parse(rendering(metrics, STATE))
    text = rendering(metrics, STATE, "application/openmetrics-text; version=1.0.0")
    other = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in openmetrics_families(text)
        for sample in family.samples
    }
    moving = ("process_", "python_")  # read from the system at each scrape
    assert {key: value for key, value in other.items() if not key[0].startswith(moving)} == {
        key: value for key, value in plain.items() if not key[0].startswith(moving)
    }


def everything() -> BrokerMetrics:
    metrics = BrokerMetrics()
    metrics.topic("t").appended_records.inc()
    metrics.group("g", "t").failures.inc()
    metrics.dead_letters("g", "t", "exhausted").inc()
    metrics.rebalances("g").inc()
    metrics.request_error(Api.FETCH, UnknownTopic)
    metrics.fsync_duration_seconds.observe(0.001)
    return metrics


def test_every_family_passes_the_rules_of_promtool_check_metrics() -> None:
    """The rules of prometheus/client_golang's promlint that can apply: help, suffixes, base units, no type in the name."""
    for family in text_string_to_metric_families(rendering(everything(), STATE)):
        # The parser strips `_total` from a counter's name, as OpenMetrics does.
        name = family.name
        assert family.documentation, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        assert not re.search(r"_(total|count|sum|bucket|counter|gauge|histogram|summary)(_|$)", name), name
        assert not re.search(r"milli|micro|nano|minute|hour|kilo|mega|percent|_ms(_|$)", name), name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert "_created" not in name


def test_the_names_of_the_conventions_are_all_there() -> None:
    found = names(scrape(everything(), STATE))
    promised = re.findall(
        r"\w+",
        """
        logsvc_consumer_group_lag logsvc_consumer_group_lag_seconds logsvc_consumer_group_committed_offset
        logsvc_consumer_group_members logsvc_consumer_group_state logsvc_consumer_group_rebalances_total
        logsvc_partition_start_offset logsvc_partition_end_offset logsvc_partition_size_bytes logsvc_partition_state
        logsvc_appended_records_total logsvc_appended_bytes_total logsvc_fetched_bytes_total
        logsvc_append_duration_seconds_count logsvc_fsync_duration_seconds_count logsvc_request_duration_seconds_count
        logsvc_request_errors_total logsvc_failures_total logsvc_retries_total logsvc_failed_offsets
        logsvc_dead_letter_records_total logsvc_redriven_records_total logsvc_breaker_open logsvc_build_info
        logsvc_disk_free_bytes logsvc_disk_size_bytes logsvc_disk_reserve_bytes
        logsvc_dead_letters logsvc_dead_letter_oldest_age_seconds process_resident_memory_bytes
        """,
    )
    assert [name for name in promised if name not in found] == []
