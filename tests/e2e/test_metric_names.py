"""Every metric that a dashboard, an alert or a document names is one that a broker has, and none it has is left untold.

The names are a real broker's: the TYPE lines of its /metrics, which are there before there are any series.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from logsvc.cli import main as frame
from logsvc.testing import embedded_broker

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
TYPE = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
NAME = re.compile(r"\b(?:logsvc|kafka_consumergroup|kafka_topic|process)_[a-z_]+[a-z]\b(?![./])")
# Packages, and variables of examples.
NOT_METRICS = {"logsvc_client", "logsvc_common", "logsvc_broker", "logsvc_admin"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": (), "gauge": ()}

# What the project promised to have; docs and dashboards are checked against the broker, and the broker against this.
PROMISED = {
    "logsvc_consumer_group_lag",
    "logsvc_consumer_group_lag_seconds",
    "logsvc_consumer_group_committed_offset",
    "logsvc_consumer_group_members",
    "logsvc_consumer_group_state",
    "logsvc_consumer_group_rebalances_total",
    "logsvc_partition_start_offset",
    "logsvc_partition_end_offset",
    "logsvc_partition_size_bytes",
    "logsvc_partition_state",
    "logsvc_appended_records_total",
    "logsvc_appended_bytes_total",
    "logsvc_fetched_bytes_total",
    "logsvc_append_duration_seconds",
    "logsvc_fsync_duration_seconds",
    "logsvc_request_duration_seconds",
    "logsvc_request_errors_total",
    "logsvc_failures_total",
    "logsvc_retries_total",
    "logsvc_failed_offsets",
    "logsvc_dead_letter_records_total",
    "logsvc_redriven_records_total",
    "logsvc_breaker_open",
    "logsvc_build_info",
}


@pytest.fixture(scope="module")
def families() -> dict[str, str]:
    """name -> type, of a broker that serves kafka_exporter's names too."""
    with (
        embedded_broker(kafka_exporter_metrics=True) as broker,
        urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer,
    ):
        return dict(TYPE.findall(answer.read().decode()))


@pytest.fixture(scope="module")
def series(families: dict[str, str]) -> set[str]:
    """Every name that an expression may use."""
    return {name + suffix for name, kind in families.items() for suffix in ("", *SUFFIXES[kind])}


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every panel and variable."""
    for path in sorted((ROOT / "dashboards" / "generated").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            yield from ((f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", ()))
        for variable in dashboard["templating"]["list"]:
            yield f"{path.name}: ${variable['name']}", variable["query"]


def texts() -> Iterator[tuple[str, str]]:
    yield from expressions()
    for path in sorted([*ROOT.glob("dashboards/alerts/*.yml"), *ROOT.glob("dashboards/alert_tests/*.yml")]):
        yield path.name, path.read_text()
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")]):
        yield path.name, path.read_text()


def named(text: str) -> set[str]:
    return set(NAME.findall(text)) - NOT_METRICS


def test_every_metric_named_somewhere_is_one_of_the_brokers(series: set[str]) -> None:
    unknown = {where: sorted(named(text) - series) for where, text in texts()}
    assert {where: names for where, names in unknown.items() if names} == {}


def test_the_broker_has_what_was_promised(families: dict[str, str]) -> None:
    assert families.keys() >= PROMISED


def test_every_metric_of_the_broker_is_in_the_table_and_drawn(families: dict[str, str]) -> None:
    ours = {name: kind for name, kind in families.items() if not name.startswith("kafka_")}
    rows = "\n".join(line for line in OPERATIONS.read_text().splitlines() if line.startswith("| `"))
    assert ours.keys() - named(rows) == set()
    drawn = {name for _, expr in expressions() for name in named(expr)}
    not_drawn = {name for name, kind in ours.items() if not drawn & {name + suffix for suffix in ("", *SUFFIXES[kind])}}
    assert not_drawn == {"process_virtual_memory_bytes"}  # address space says nothing about memory


def test_every_command_of_the_operations_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    text = OPERATIONS.read_text()
    typed = re.findall(r"`(logsvc [a-z][^`]*)`", text)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    typed += [command for block in blocks for command in re.findall(r"logsvc [a-z][^|#&\n]*", block)]
    assert len(typed) > 20
    for command in sorted(set(typed)):
        words = command.split()[1:]
        verb = words[:2] if len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]) else words[:1]
        with pytest.raises(SystemExit) as ended:
            frame.main([*verb, "--help"])
        help_text = capsys.readouterr().out
        assert ended.value.code == 0, command
        missing = {option for option in re.findall(r"(?<=\s)--[a-z-]+", command) if option not in help_text}
        assert not missing, (command, missing)
