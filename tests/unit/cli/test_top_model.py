"""What `logsvc top` makes of samples: rates, trends, verdicts, orders."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.cli.top_model import (
    BEHIND_MS,
    HISTORY_SAMPLES_MAX,
    GroupRow,
    History,
    Meter,
    Order,
    Overview,
    Severity,
    TopicRow,
    judge,
    pause_s,
)
from logsvc_common.messages import GroupListing
from tests.unit.cli.top_samples import group, sample, topic


def seen(history: History, order: Order = Order.LAG) -> Overview:
    overview = history.overview(order)
    assert overview is not None
    return overview


def only_group(history: History) -> GroupRow:
    [row] = seen(history).groups
    return row


def only_topic(history: History) -> TopicRow:
    [row] = seen(history).topics
    return row


class TestRates:
    def test_one_sample_has_none(self) -> None:
        history = History()
        assert history.overview() is None
        history.add(sample(0, [group(position=5)], [topic("orders", 5)]))
        assert only_group(history).rate_per_s is None
        assert only_topic(history).rate_per_s is None
        assert seen(history).broker.rate_per_s is None

    def test_a_rate_is_taken_over_the_last_seconds(self) -> None:
        history = History()
        for second in range(20):
            pace = 10 if second < 10 else 100
            history.add(sample(second, [group(position=pace * second)], [topic("orders", second, 3 * second)]))
        assert only_group(history).rate_per_s == 100
        assert only_topic(history).rate_per_s == 4
        assert only_topic(history).rates[-2:] == (4, 4)
        assert seen(history).broker.rate_per_s == 4

    def test_steps_of_commits_are_evened_out(self) -> None:
        history = History()
        for tick in range(40):
            history.add(sample(tick / 4, [group(position=100 * (tick // 4))]))
        assert only_group(history).rate_per_s == pytest.approx(100, rel=0.3)

    def test_a_reset_makes_no_rate_below_nothing(self) -> None:
        history = History()
        for second, position in enumerate((100, 200, 0)):
            history.add(sample(second, [group(position=position)]))
        assert only_group(history).rate_per_s is None
        history.add(sample(3, [group(position=50)]))
        assert only_group(history).rate_per_s == 50

    def test_a_topic_made_anew_begins_anew(self) -> None:
        history = History()
        history.add(sample(0, topics=[topic("orders", 10)]))
        history.add(sample(1, topics=[topic("orders", 1_000, topic_id="2")]))
        assert only_topic(history).rate_per_s is None

    def test_the_broker_leaves_out_its_own_topics(self) -> None:
        history = History()
        for second in range(2):
            history.add(sample(second, topics=[topic("orders", 5 * second), topic("__groups", 99 * second, internal=True)]))
        assert seen(history).broker.rate_per_s == 5
        assert [row.topic for row in seen(history).topics] == ["orders"]
        assert seen(history).broker.partitions == 2

    def test_a_broker_that_does_not_tell_positions_has_no_rates(self) -> None:
        history = History()
        for second in range(3):
            history.add(sample(second, [group(position=-1, lag_ms=-1)]))
        assert only_group(history).rate_per_s is None
        assert only_group(history).lag_ms == 0

    @given(st.lists(st.tuples(st.floats(0.001, 1e6), st.integers(0, 1 << 62)), min_size=1, max_size=100))
    def test_no_rate_is_ever_below_nothing(self, steps: list[tuple[float, int]]) -> None:
        meter, at_s = Meter(), 0.0
        for step, count in steps:
            at_s += step
            meter.add(at_s, count)
            assert meter.rate_per_s is None or meter.rate_per_s >= 0
            assert meter.last_rate_per_s is None or meter.last_rate_per_s >= 0


class TestVerdicts:
    @pytest.mark.parametrize(
        ("listing", "growth_per_s", "verdict", "severity"),
        [
            (group(), 0, "ok", Severity.OK),
            (group(lag=50, lag_ms=100), 1, "ok", Severity.OK),
            (group(members=0), 0, "ok", Severity.OK),
            (group(lag=50, lag_ms=BEHIND_MS), 1, "falling behind", Severity.WARNING),
            (group(lag=50, lag_ms=BEHIND_MS), -1, "catching up", Severity.WARNING),
            (group(lag=50, lag_ms=BEHIND_MS), 0, "behind", Severity.WARNING),
            (group(failed={"waiting": 1}), 0, "retrying", Severity.WARNING),
            (group(failed={"paused": 1}), 0, "paused", Severity.BAD),
            (group(lag=1, members=0), 0, "no members", Severity.BAD),
            (group(failed={"waiting": 1}, members=0), 0, "no members", Severity.BAD),
            (group(failed={"delivered": 1}, members=0, breaker="half_open"), 0, "no members", Severity.BAD),
            (group(failed={"paused": 1}, members=0), 0, "paused", Severity.BAD),
            (group(failed={"dead_lettering": 1}, members=0), 0, "retrying", Severity.WARNING),
            (group(breaker="half_open"), 0, "probing", Severity.WARNING),
            (group(lag=1, members=0, failed={"paused": 1}, breaker="open"), 0, "breaker open", Severity.BAD),
        ],
    )
    def test_the_worst_is_told(self, listing: GroupListing, growth_per_s: float, verdict: str, severity: Severity) -> None:
        assert judge(listing, growth_per_s) == (verdict, severity)

    def test_when_a_group_that_catches_up_is_done(self) -> None:
        history = History()
        for second in range(5):
            history.add(sample(second, [group(lag=1_000 - 100 * second, lag_ms=BEHIND_MS)]))
        assert only_group(history).catch_up_s == 6
        assert only_group(history).verdict == "catching up"
        history.add(sample(5, [group(lag=2_000)]))
        assert only_group(history).catch_up_s is None
        history.add(sample(6, [group(lag=0)]))
        assert only_group(history).catch_up_s == 0


class TestWhatIsShown:
    def test_history_is_bounded_and_forgets_what_is_gone(self) -> None:
        history = History()
        for second in range(HISTORY_SAMPLES_MAX + 50):
            history.add(sample(second, [group(lag=second)], [topic("orders", second)]))
        assert len(only_group(history).lags) == HISTORY_SAMPLES_MAX
        assert only_group(history).lags[-1] == HISTORY_SAMPLES_MAX + 49
        assert len(only_topic(history).rates) == HISTORY_SAMPLES_MAX
        history.add(sample(1_000))
        history.add(sample(1_001, [group()], [topic("orders", 0)]))
        assert only_group(history).lags == (0,)

    def test_dead_letters_belong_to_the_group_that_failed_them(self) -> None:
        history = History()
        topics = [topic("orders", 9), topic("dlq.orders.billing", 7, 5, start=2), topic("dlq.orders.audit", 4)]
        history.add(sample(0, [group("billing"), group("audit"), group("other")], topics))
        assert {row.group: row.dead_letters for row in seen(history).groups} == {"billing": 8, "audit": 4, "other": 0}
        assert seen(history).broker.dead_letters == 12

    def test_partitions_that_are_not_online(self) -> None:
        history = History()
        history.add(sample(0, topics=[topic("orders", 1, 2, state="read_only"), topic("audit", 1)]))
        assert seen(history).broker.not_online == (("orders", 0, "read_only"), ("orders", 1, "read_only"))
        assert {row.topic: row.state for row in seen(history).topics} == {"orders": "read_only", "audit": "online"}

    def test_a_broker_started_anew_is_noticed(self) -> None:
        history = History()
        history.add(sample(0))
        assert seen(history).broker.restarted_s is None
        history.add(sample(7, broker_id="c"))
        history.add(sample(8, broker_id="c"))
        assert seen(history).broker.restarted_s == 7

    def test_only_what_is_wanted(self) -> None:
        history = History(re.compile("^b").search, re.compile("^o").search)
        history.add(sample(0, [group("billing"), group("audit")], [topic("orders", 1), topic("events", 1)]))
        assert [row.group for row in seen(history).groups] == ["billing"]
        assert [row.topic for row in seen(history).topics] == ["orders"]
        assert seen(history).broker.partitions == 2

    @pytest.mark.parametrize(
        ("order", "groups", "topics"),
        [
            (Order.LAG, ["b", "a", "c"], ["t", "dlq.t.a"]),
            (Order.NAME, ["a", "b", "c"], ["dlq.t.a", "t"]),
            (Order.RATE, ["c", "a", "b"], ["t", "dlq.t.a"]),
            (Order.FAILED, ["c", "a", "b"], ["dlq.t.a", "t"]),
        ],
    )
    def test_orders(self, order: Order, groups: list[str], topics: list[str]) -> None:
        history = History()
        for second in range(2):
            listings = [
                group("a", lag=5, position=2 * second, topics=["t"]),
                group("b", lag=9, position=second),
                group("c", position=3 * second, failed={"waiting": 1}),
            ]
            history.add(sample(second, listings, [topic("t", 5 + second), topic("dlq.t.a", 1)]))
        assert [row.group for row in seen(history, order).groups] == groups
        assert [row.topic for row in seen(history, order).topics] == topics

    def test_a_slow_broker_is_asked_less_often(self) -> None:
        assert pause_s(1.0, 0.01) == 1.0
        assert pause_s(1.0, 0.25) == 1.0
        assert pause_s(1.0, 2.0) == pytest.approx(8.0)


NAMES = st.sampled_from(["a", "b", "dlq.t.a", "t"])
COUNTS = st.integers(0, 1 << 62)
GROUPS = st.builds(
    group,
    NAMES,
    lag=COUNTS,
    lag_ms=COUNTS,
    position=st.integers(-1, 1 << 62),
    members=st.integers(0, 3),
    failed=st.dictionaries(st.sampled_from(["waiting", "paused", "unheard of"]), COUNTS, max_size=3),
    breaker=st.sampled_from(["closed", "open", "half_open", "off"]),
    topics=st.lists(NAMES, max_size=2),
)
TOPICS = st.builds(topic, NAMES, COUNTS, COUNTS, state=st.sampled_from(["online", "failed"]), topic_id=NAMES)
LOOKS = st.lists(
    st.tuples(
        st.floats(0.01, 100),
        st.lists(GROUPS, max_size=3, unique_by=lambda listing: listing.group),
        st.lists(TOPICS, max_size=3, unique_by=lambda found: found.topic),
    ),
    min_size=1,
    max_size=10,
)


@given(LOOKS, st.sampled_from(Order))
def test_whatever_is_seen_every_group_and_topic_has_its_row(looks: list, order: Order) -> None:  # type: ignore[type-arg]
    history, at_s = History(), 0.0
    for step, groups, topics in looks:
        at_s += step
        history.add(sample(at_s, groups, topics))
        overview = seen(history, order)
        assert sorted(row.group for row in overview.groups) == sorted(listing.group for listing in groups)
        assert sorted(row.topic for row in overview.topics) == sorted(found.topic for found in topics)
        for row in overview.groups:
            assert row.lags[-1] == row.lag
            assert row.rate_per_s is None or row.rate_per_s >= 0
            assert row.catch_up_s is None or row.catch_up_s >= 0
            assert row.failed_total == sum(row.failed.values())
            assert (row.severity is Severity.OK) == (row.verdict == "ok")
