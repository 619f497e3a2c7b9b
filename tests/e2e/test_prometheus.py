"""What a real Prometheus makes of a real broker: every panel's and every alert's expression, and numbers that are true.

The broker is `watched_broker`: it has a group in every situation that a dashboard shows, under the load of the demo.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logsvc.cli import demo
from logsvc_client import Admin
from tests.e2e.prometheus_server import Prometheus, Series, skip_without
from tests.e2e.watched_broker import LEDGERS, NOBODY, REDRIVEN, ROOT, STUCK_AGE_S, Watched, watched_broker

LOOK_BACK_S = 20.0
TRUTH_WITHIN_S = 1.0  # of the lag in time
SCRAPE_S = 1.0  # a scrape that takes longer is given up
CLOCK_S = 0.05  # Prometheus may move a timestamp a little, to have them at even distances
SAMPLES_MIN = 8

# Expressions of panels that have no series here, and why.
EMPTY_PANELS: dict[tuple[str, str], str] = {
    ("logsvc-broker", "Held back by quotas"): "no client is over a quota",
    ("logsvc-broker", "Requests over a quota"): "no client is over a quota",
    ("logsvc-broker", "Last whole round of the scrubber"): "no round has ended yet",
}

# What each alert's expression finds here, without its `for`: the labels of one series; None: nothing, and why.
ALERTS: dict[str, dict[str, str] | str] = {
    "LogsvcConsumerLagGrowing": {"group": "stuck", "topic": "stuck"},
    "LogsvcGroupWithoutMembers": {"group": "stopped"},
    "LogsvcDeadLettersArriving": {"group": demo.GROUP, "topic": demo.TOPIC},
    "LogsvcBreakerOpen": {"group": "callers"},
    "LogsvcPartitionNotOnline": {"topic": "damaged", "partition": "0", "state": "read_only"},
    "LogsvcMetricsAbsent": {"job": "logsvc"},  # Prometheus itself is a target of the job, and no broker
    "LogsvcBrokerDown": {"instance": NOBODY},
    "LogsvcBrokerRestarts": "the broker has not restarted since Prometheus looks",
    "LogsvcMetricsCut": "there are few series",
    "LogsvcDiskSpaceLow": "depends on this machine's disk",
    "LogsvcDiskFillsUp": "depends on this machine's disk",
    "LogsvcDiskFull": "then nothing here would have worked",
    "LogsvcFsyncSlow": "depends on this machine's disk",
}
OF_THIS_MACHINE = {"LogsvcDiskSpaceLow", "LogsvcDiskFillsUp", "LogsvcFsyncSlow"}


class Target(NamedTuple):
    """One query of one panel."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    skip_without("prometheus")
    with watched_broker(tmp_path_factory.mktemp("watched")) as running:
        yield running


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((ROOT / "dashboards" / "generated").glob("*.json"))]


def targets() -> list[Target]:
    return [
        Target(dashboard["uid"], panel["title"], target["refId"], target["expr"], target["instant"])
        for dashboard in dashboards()
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def filled(expr: str, instance: str) -> str:
    """An expression as Grafana sends it: one broker, all groups, all topics."""
    for variable, value in {"$__rate_interval": "10s", "$instance": instance, "$group": ".+", "$topic": ".+"}.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


def numbers(found: list[Series]) -> list[float]:
    return [value for series in found for _, value in series.points if not math.isnan(value)]


class TestPanels:
    def test_every_expression_of_every_panel_has_data(self, watched: Watched) -> None:
        empty = set()
        for target in targets():
            expr = filled(target.expr, watched.target)
            found = watched.prometheus.now(expr) if target.instant else watched.prometheus.over(expr, LOOK_BACK_S)
            if not numbers(found):
                empty.add((target.dashboard, target.panel, target.ref))
        assert {(uid, panel) for uid, panel, _ in empty} == set(EMPTY_PANELS), empty

    def test_a_panel_of_one_number_has_one_series(self, watched: Watched) -> None:
        several = {}
        for dashboard in dashboards():
            for panel in dashboard["panels"]:
                if panel["type"] == "stat":
                    [target] = panel["targets"]
                    found = watched.prometheus.now(filled(target["expr"], watched.target))
                    if len(found) != 1:
                        several[panel["title"]] = found
        assert several == {}

    def test_legends_name_labels_that_the_series_have_and_tell_them_apart(self, watched: Watched) -> None:
        for dashboard in dashboards():
            for panel in dashboard["panels"]:
                if panel["type"] not in ("timeseries", "state-timeline"):
                    continue
                names: list[str] = []
                for target in panel["targets"]:
                    for series in watched.prometheus.over(filled(target["expr"], watched.target), LOOK_BACK_S):
                        legend = target["legendFormat"]
                        missing = set(re.findall(r"{{(\w+)}}", legend)) - set(series.labels)
                        assert not missing, (panel["title"], missing)
                        names.append(re.sub(r"{{(\w+)}}", lambda found, of=series: of.labels[found[1]], legend))
                assert len(names) == len(set(names)), (panel["title"], names)

    def test_the_variables_find_what_there_is(self, watched: Watched) -> None:
        wanted = {"instance": {watched.target}, "group": {demo.GROUP, "callers", *LEDGERS}, "topic": {demo.TOPIC, *LEDGERS}}
        for dashboard in dashboards():
            for variable in dashboard["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                matched = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                assert matched is not None
                found = watched.prometheus.now(filled(matched[1], watched.target))
                assert wanted[variable["name"]] <= {series.labels[matched[2]] for series in found}


class TestAlerts:
    def test_every_rule_is_evaluated_without_an_error(self, watched: Watched) -> None:
        rules = all_rules(watched.prometheus)
        assert {rule["name"] for rule in rules} == set(ALERTS)
        assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in rules} == dict.fromkeys(
            ALERTS, ("ok", "")
        )

    @pytest.mark.parametrize("name", ALERTS)
    def test_an_alert_finds_what_is_wrong_here_and_nothing_else(self, watched: Watched, name: str) -> None:
        wanted = ALERTS[name]
        [expr] = [rule["query"] for rule in all_rules(watched.prometheus) if rule["name"] == name]
        found = watched.prometheus.now(expr)
        if name in OF_THIS_MACHINE:
            return
        if isinstance(wanted, str):
            assert found == [], wanted
        else:
            assert any(wanted.items() <= series.labels.items() for series in found), found
        assert not [series for series in found if series.labels.get("group") in ("idle", "bursty")]

    def test_those_that_need_no_patience_are_firing_and_say_what_is_wrong(self, watched: Watched) -> None:
        firing = {
            alert["labels"]["alertname"]: alert
            for alert in watched.prometheus.api("alerts")["alerts"]
            if alert["state"] == "firing"
        }
        assert {"LogsvcPartitionNotOnline", "LogsvcDeadLettersArriving"} <= set(firing)
        assert firing["LogsvcPartitionNotOnline"]["annotations"]["summary"] == "Partition damaged-0 is read_only"
        for alert in firing.values():
            assert alert["labels"]["severity"] in ("warning", "critical")
            assert "<no value>" not in json.dumps(alert["annotations"])


class TestNumbers:
    @pytest.mark.parametrize("name", LEDGERS)
    def test_lag_is_the_truth_at_every_scrape(self, watched: Watched, name: str) -> None:
        ledger = watched.ledgers[name]
        where = f'{{instance="{watched.target}", group="{name}", topic="{name}", partition="0"}}[5m]'
        [lag] = watched.prometheus.now(f"logsvc_consumer_group_lag{where}")
        [lag_seconds] = watched.prometheus.now(f"logsvc_consumer_group_lag_seconds{where}")
        seconds = dict(lag_seconds.points)
        assert len(lag.points) >= SAMPLES_MIN
        for at, value in lag.points:
            possible = ledger.possible(at - CLOCK_S, at + SCRAPE_S)
            right = [
                truth for truth in possible if truth.lag == value and abs(truth.lag_seconds(at) - seconds[at]) <= TRUTH_WITHIN_S
            ]
            assert right, f"{name} at {at}: lag {value}, {seconds[at]} s; it may have been {possible}"

    def test_the_scrapes_saw_each_group_in_its_situation(self, watched: Watched) -> None:
        seen = {name: [value for _, value in self.samples(watched, name)] for name in LEDGERS}
        assert set(seen["idle"]) == {0.0}
        assert 0.0 in seen["bursty"]
        assert max(seen["bursty"]) > 1.0
        assert seen["stopped"][-1] - seen["stopped"][0] > 5.0
        assert min(seen["stuck"]) > STUCK_AGE_S - 1.0

    @staticmethod
    def samples(watched: Watched, group: str) -> list[tuple[float, float]]:
        where = f'{{instance="{watched.target}", group="{group}"}}[5m]'
        [series] = watched.prometheus.now(f"logsvc_consumer_group_lag_seconds{where}")
        return series.points

    def test_the_demo_is_counted_to_the_record(self, watched: Watched) -> None:
        letters = sum(report.dead_lettered for report in watched.reports)
        here = f'instance="{watched.target}", topic="{demo.TOPIC}"'
        expected = {
            f"logsvc_appended_records_total{{{here}}}": sum(report.records_in for report in watched.reports),
            f'sum(logsvc_dead_letter_records_total{{{here}, group="{demo.GROUP}"}})': letters,
            f'logsvc_dead_letters{{{here}, group="{demo.GROUP}"}}': letters,
            f'logsvc_redriven_records_total{{{here}, group="{demo.GROUP}"}}': REDRIVEN,
            f'sum(logsvc_consumer_group_lag{{{here}, group="{demo.GROUP}"}})': 0,
            f'sum(logsvc_consumer_group_lag_seconds{{{here}, group="{demo.GROUP}"}})': 0,
        }
        assert letters > 0
        for expr, wanted in expected.items():
            watched.prometheus.wait_for(expr, lambda found, wanted=wanted: numbers(found) == [wanted], 5.0)

    def test_the_alert_on_dead_letters_says_how_many_there_were(self, watched: Watched) -> None:
        [expr] = [rule["query"] for rule in all_rules(watched.prometheus) if rule["name"] == "LogsvcDeadLettersArriving"]
        [found] = watched.prometheus.now(expr)
        assert numbers([found]) == [sum(report.dead_lettered for report in watched.reports)]

    def test_prometheus_and_the_broker_say_the_same_of_every_partition_of_every_group(self, watched: Watched) -> None:
        found = watched.prometheus.now(f'logsvc_consumer_group_lag{{instance="{watched.target}"}}')
        seen = {
            (series.labels["group"], series.labels["topic"], int(series.labels["partition"])): series.points[0][1]
            for series in found
        }
        with Admin(watched.broker.server) as admin:
            said = {
                (group.group, partition.topic, partition.partition): partition.lag
                for group in admin.list_groups()
                for partition in admin.describe_group(group.group).partitions
                if partition.committed >= 0
            }
        # The load is over: what its breaker lets through is the only thing that still moves.
        assert {where: lag for where, lag in seen.items() if where[0] != "callers"} == {
            where: lag for where, lag in said.items() if where[0] != "callers"
        }


def all_rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]


def test_the_rules_watched_here_are_those_that_are_shipped() -> None:
    named = {
        name
        for path in Path(ROOT, "dashboards", "alerts").glob("*.yml")
        for name in re.findall(r"- alert: (\w+)", path.read_text())
    }
    assert named == set(ALERTS)
