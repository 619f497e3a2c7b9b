"""What the console says of figures: its answers to the three questions, numbers, sizes, times, JSON and hex. Pure modules."""

from base64 import b64encode
from typing import Any

import pytest

from tests.browser.driver import Visit

IN_PAGE = """async ([module, name, values]) => {
  const found = await import(`/console/js/${module}.js`);
  return values.map((each) => found[name](...each));
}"""


@pytest.fixture
def say(console: Visit) -> Any:
    """Calls a function of one of the page's modules with several lists of arguments."""
    page = console.open("#/broker")
    return lambda module, name, *values: page.evaluate(IN_PAGE, [module, name, [list(each) for each in values]])


def group(name: str = "billing", **changes: Any) -> dict[str, Any]:
    calm: dict[str, Any] = {
        "group": name,
        "members": 2,
        "lag": 0,
        "lag_seconds": 0,
        "failed": {},
        "breaker": {"state": "closed"},
    }
    return calm | changes


def broker(**changes: Any) -> dict[str, Any]:
    well: dict[str, Any] = {
        "degraded_partition_count": 0,
        "degraded_partitions": [],
        "disk": {"free_bytes": 500, "size_bytes": 1_000, "reserve_bytes": 10},
        "fsync_ms": {"p50": 0.1, "p99": 0.5},
    }
    return well | changes


def verdicts(answers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(answer["verdict"], answer["tone"]) for answer in answers]


def test_who_is_behind_goes_by_the_age_of_what_is_unread(say: Any) -> None:
    cases = [
        [],
        [group(), group("mail", lag=900, lag_seconds=9.9)],
        [group(lag=900, lag_seconds=10)],
        [group(lag=900, lag_seconds=300), group("mail", lag=1, lag_seconds=20)],
        [group(lag=1, lag_seconds=0, members=0)],
        [group(failed={"waiting": 30, "parked": 2, "paused": 1}, members=0)],
        [group(failed={"paused": 1}, members=0)],
    ]
    answers = say("judge", "whoIsBehind", *[[case] for case in cases])
    assert verdicts(answers) == [
        ("Nobody reads yet", ""),
        ("Nobody is behind", "good"),
        ("billing is behind", "warn"),
        ("2 groups are behind", "bad"),
        ("billing is behind", "bad"),
        ("billing is behind", "bad"),
        ("Nobody is behind", "good"),
    ]
    assert answers[1]["lines"] == ["900 records on the way"]
    assert answers[3]["lines"] == ["billing: 900 records, 5 min", "mail: 1 record, 20 s"]
    assert answers[4]["lines"] == ["1 record, 0 s, no members"]
    assert answers[5]["lines"] == ["32 to try again, no members"]


def test_what_fails_puts_first_what_waits_for_a_person(say: Any) -> None:
    letters = [{"letters": 89, "newest_ms": 40_000}, {"letters": 0, "newest_ms": None}]
    retrying = group(failed={"waiting": 2, "parked": 1})
    cases: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
        ([group()], []),
        ([retrying], []),
        ([group()], letters),
        ([retrying], letters),
        ([group(failed={"paused": 1})], letters),
        ([group(breaker={"state": "open"}), group("mail", failed={"paused": 1})], letters),
        ([group(breaker={"state": "half_open"}), group("mail", breaker={"state": "open"})], []),
        ([group(breaker={"state": "off"})], []),
    ]
    answers = say("judge", "whatFails", *[[groups, topics, 100_000] for groups, topics in cases])
    assert verdicts(answers) == [
        ("Nothing is failing", "good"),
        ("Some records are retried", "warn"),
        ("89 dead letters", "warn"),
        ("89 dead letters", "warn"),
        ("Records wait for you", "bad"),
        ("billing is paused", "bad"),
        ("2 groups are paused", "bad"),
        ("Nothing is failing", "good"),
    ]
    assert answers[2]["lines"] == ["The newest 1 min ago", "Nothing is being retried"]
    assert answers[3]["lines"] == ["The newest 1 min ago", "3 records being retried"]
    assert answers[5]["lines"] == [
        "billing: breaker open",
        "mail: 1 record out of tries",
        "1 record being retried",
        "89 dead letters, newest 1 min ago",
    ]


def test_a_few_bytes_are_told_as_they_are_and_many_by_their_number(say: Any) -> None:
    few, many = bytes([0, 0, 1, 255]), bytes(17)
    cases = [{"base64": b64encode(data).decode()} for data in (few, many)]
    assert say("value", "preview", *[[case] for case in cases]) == ["0x000001ff", "17 B of binary data"]


def test_the_broker_is_well_until_something_says_otherwise(say: Any) -> None:
    failed = [{"topic": "a", "partition": number, "state": "failed"} for number in range(5)]
    cases = [
        broker(),
        broker(degraded_partition_count=5, degraded_partitions=failed),
        broker(degraded_partition_count=1, degraded_partitions=[{"topic": "a", "partition": 0, "state": "read_only"}]),
        broker(disk={"free_bytes": 10, "size_bytes": 1_000, "reserve_bytes": 10}),
        broker(disk={"free_bytes": 99, "size_bytes": 1_000, "reserve_bytes": 10}),
        broker(fsync_ms={"p50": 1, "p99": 101}),
        broker(fsync_ms={"p50": None, "p99": None}, disk={"free_bytes": None, "size_bytes": None, "reserve_bytes": 10}),
    ]
    answers = say("judge", "isWell", *[[case] for case in cases])
    assert verdicts(answers) == [
        ("The broker is well", "good"),
        ("5 partitions in trouble", "bad"),
        ("1 partition in trouble", "warn"),
        ("The disk is full", "bad"),
        ("The disk is filling", "warn"),
        ("The disk is slow", "warn"),
        ("The broker is well", "good"),
    ]
    assert answers[1]["lines"] == ["a-0 is failed", "a-1 is failed", "and 3 more"]


def test_numbers_sizes_and_spans_are_those_of_people(say: Any) -> None:
    assert say("format", "count", [0], [1_234_567], [None]) == ["0", "1,234,567", "–"]
    assert say("format", "bytes", [0], [999], [1_000], [1_449_000], [999_999], [None]) == [
        "0 B",
        "999 B",
        "1.0 KB",
        "1.4 MB",
        "1.0 MB",
        "–",
    ]
    assert say("format", "rate", [0], [0.25], [9.96], [1_234.5]) == ["0/s", "0.3/s", "10/s", "1,235/s"]
    spans = [[0], [0.4], [59.9], [60], [125], [3_600], [90_061], [172_800], [None]]
    assert say("format", "duration", *spans) == [
        "0 s",
        "under 1 s",
        "59 s",
        "1 min",
        "2 min 5 s",
        "1 h",
        "1 day 1 h",
        "2 days",
        "–",
    ]
    assert say("format", "milliseconds", [0], [0.131], [42.4], [1_500]) == ["0 ms", "0.13 ms", "42 ms", "1.5 s"]
    assert say("format", "setting", ["retention.ms", "604800000"], ["retention.bytes", "-1"], ["flush", "always"]) == [
        "604800000 (7 days)",
        "-1 (no limit)",
        "always",
    ]


def test_json_is_laid_out_without_being_changed(say: Any) -> None:
    assert say(
        "value", "prettyJson", ['{"a":1.0,"a":[],"b":{"c":"{,}\\"]"},"d":12345678901234567890}'], ["[1,2]"], ["{}"], ["no"]
    ) == [
        '{\n  "a": 1.0,\n  "a": [],\n  "b": {\n    "c": "{,}\\"]"\n  },\n  "d": 12345678901234567890\n}',
        "[\n  1,\n  2\n]",
        "{}",
        None,
    ]


def test_a_line_over_time_keeps_its_peaks_and_its_gaps(console: Visit) -> None:
    page = console.open("#/broker")
    draw = """async (values) => {
      const {sparkline} = await import("/console/js/sparkline.js");
      return [...sparkline(values).querySelectorAll(".stroke")].map((path) => path.getAttribute("d"));
    }"""
    assert page.evaluate(draw, [1, 1, None, 0, 2]) == ["M0.00 12.50L25.00 12.50", "M75.00 23.00L100.00 2.00"]
    assert page.evaluate(draw, [None, 5, None]) == []
    assert page.evaluate(draw, []) == []
    (line,) = page.evaluate(draw, [0] * 200 + [9] + [0] * 159)
    assert " 2.00" in line
