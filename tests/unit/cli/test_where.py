"""`--where`, `--since` and `--until` as a filter, and a filter as text again."""

import pytest
import typer

from logsvc.cli.where import describe_where, parse_where
from logsvc_common.messages import RedriveFilter
from logsvc_common.messages.redrive import FILTER_TEXT_CHARACTERS_MAX, FILTER_VALUES_MAX

LAST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("conditions", "where"),
    [
        ([], RedriveFilter()),
        (["error~time=out~"], RedriveFilter(error_contains=["time=out~"])),
        (["error=a, b"], RedriveFilter(error_is=["a, b"])),
        (["class=KeyError", "class=app.Odd"], RedriveFilter(exception_classes=["KeyError", "app.Odd"])),
        (["partition=3", "offset=5"], RedriveFilter(partitions=[3], offsets=[(5, 5)])),
        (["offset=5-9", "letter=7-", "redrives=0"], RedriveFilter(offsets=[(5, 9)], letters=[(7, LAST)], redrives=[(0, 0)])),
    ],
)
def test_conditions_make_a_filter(conditions: list[str], where: RedriveFilter) -> None:
    assert parse_where(conditions) == where


def test_times_bound_it() -> None:
    assert parse_where(None, "5", "1970-01-01T00:00:01Z") == RedriveFilter(since_ms=5, until_ms=1_000)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "error",
        "error~",
        "class~x",
        "colour=red",
        "partition=a",
        "partition=1-2",
        "offset=-1",
        "offset=9-5",
        "letter=1-2-3",
        "offset=²",
        f"offset={1 << 63}",
        "error~" + "x" * (FILTER_TEXT_CHARACTERS_MAX + 1),
    ],
)
def test_anything_else_is_a_usage_error(condition: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_where([condition])


def test_more_alternatives_than_a_request_may_carry_are_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter):
        parse_where([f"partition={n}" for n in range(FILTER_VALUES_MAX + 1)])
    with pytest.raises(typer.BadParameter):
        parse_where([], "yesterday")


def test_a_filter_is_described_as_it_was_given() -> None:
    conditions = ["error~no", "class=KeyError", "partition=1", "offset=5", "offset=7-9", "letter=3-"]
    assert describe_where(parse_where(conditions)) == ", ".join(conditions)
    assert describe_where(RedriveFilter()) == "all"
    assert describe_where(RedriveFilter(since_ms=0, until_ms=1_000)) == (
        "since 1970-01-01T00:00:00.000Z, until 1970-01-01T00:00:01.000Z"
    )
