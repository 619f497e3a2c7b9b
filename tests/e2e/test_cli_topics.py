"""`logsvc topic` and `logsvc group` against a real broker: what they print and how they exit."""

import pytest

from tests.e2e.cli_runner import Logsvc, Runner


def test_a_topic_is_made_listed_described_changed_and_deleted(command: Logsvc) -> None:
    logsvc = command
    made = logsvc.json("topic", "create", "orders", "--partitions", "3", "-c", "retention.ms=60000")
    assert (made["topic"], made["partition_count"], made["config"]["retention.ms"]) == ("orders", 3, "60000")

    assert "orders" in [topic["topic"] for topic in logsvc.json("topic", "list")]

    described = logsvc.json("topic", "describe", "orders")
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    assert {partition["state"] for partition in described["partitions"]} == {"online"}

    changed = logsvc.json("topic", "alter", "orders", "--partitions", "5", "-c", "flush=os", "--unset", "retention.ms")
    assert (changed["partition_count"], changed["config"]["flush"]) == (5, "os")
    assert changed["config"]["retention.ms"] == "604800000"

    assert logsvc("topic", "delete", "orders").code == 0
    assert logsvc("topic", "describe", "orders").code == 4


def test_what_is_said_to_people_is_not_among_the_data(logsvc: Runner) -> None:
    outcome = logsvc("topic", "create", "quiet")
    assert (outcome.code, outcome.out) == (0, b"")
    assert "quiet" in outcome.err


def test_a_pipe_gets_tab_separated_columns(logsvc: Runner) -> None:
    logsvc("topic", "create", "columns", "--partitions", "2")
    lines = logsvc("topic", "list").out.decode().splitlines()
    assert lines[0].split("\t") == ["TOPIC", "PARTITIONS", "RECORDS", "SIZE"]
    assert ["columns", "2", "0", "0 B"] in [line.split("\t") for line in lines]


def test_a_topic_that_exists_is_an_error_unless_that_is_fine(logsvc: Runner) -> None:
    logsvc("topic", "create", "twice", "--partitions", "2")
    again = logsvc("topic", "create", "twice")
    assert (again.code, again.out) == (1, b"")
    assert "exists already" in again.err
    assert logsvc.json("topic", "create", "twice", "--if-not-exists")["partition_count"] == 2


@pytest.mark.parametrize("name", ["../x", "", "x" * 250, "a\n", "a b", "."])
def test_an_illegal_name_is_a_usage_error_that_says_why(logsvc: Runner, name: str) -> None:
    outcome = logsvc("topic", "create", "--", name)
    assert outcome.code == 2
    assert "illegal topic name" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "bad", "--partitions", "0"),
        ("create", "bad", "-c", "no.such.setting=1"),
        ("create", "bad", "-c", "retention.ms=soon"),
        ("create", "bad", "-c", "retention.ms"),
        ("create", "bad", "--partitions", "many"),
        ("alter", "bad"),
        ("trim", "bad", "--offset", "middle"),
        ("bogus",),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(logsvc: Runner, arguments: tuple[str, ...]) -> None:
    outcome = logsvc("topic", *arguments)
    assert (outcome.code, outcome.out) == (2, b"")
    assert outcome.err
    assert "Traceback" not in outcome.err


def test_a_topic_cannot_shrink(logsvc: Runner) -> None:
    logsvc("topic", "create", "grown", "--partitions", "3")
    assert logsvc("topic", "alter", "grown", "--partitions", "2").code == 2
    assert logsvc.json("topic", "describe", "grown")["partition_count"] == 3


def test_trim_forgets_what_is_before(logsvc: Runner) -> None:
    logsvc("topic", "create", "trimmed")
    logsvc("produce", "trimmed", input=b"".join(b"%d\n" % number for number in range(10)))
    assert logsvc.json("topic", "trim", "trimmed", "--offset", "4")["start_offsets"] == {"0": 4}
    assert logsvc.json("topic", "describe", "trimmed")["partitions"][0]["start_offset"] == 4
    assert logsvc.json("topic", "trim", "trimmed", "-o", "-2")["start_offsets"] == {"0": 8}
    assert logsvc.json("topic", "trim", "trimmed", "-o", "end")["start_offsets"] == {"0": 10}
    assert logsvc("topic", "trim", "trimmed", "-o", "end", "--partition", "7").code == 4


def test_the_broker_keeps_its_own_topics(logsvc: Runner) -> None:
    outcome = logsvc("topic", "delete", "__logsvc_groups")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("topic", "describe", "nope"),
        ("topic", "delete", "nope"),
        ("topic", "alter", "nope", "-p", "2"),
        ("group", "describe", "nope"),
    ],
)
def test_what_does_not_exist_exits_with_4(logsvc: Runner, arguments: tuple[str, ...]) -> None:
    outcome = logsvc(*arguments)
    assert (outcome.code, outcome.out) == (4, b"")
    assert "nope" in outcome.err


def test_groups_of_a_fresh_broker_are_an_empty_list(logsvc: Runner) -> None:
    assert logsvc.json("group", "list") == []


class TestNobodyThere:
    @pytest.mark.parametrize("arguments", [("topic", "list"), ("consume", "t", "-e")])
    def test_the_exit_code_is_3_within_the_deadline_and_says_what_to_do(self, arguments: tuple[str, ...]) -> None:
        outcome = Logsvc()(*arguments)
        assert (outcome.code, outcome.out) == (3, b"")
        assert "logsvc serve" in outcome.err
        assert "Traceback" not in outcome.err

    def test_an_address_that_is_none_is_a_usage_error(self) -> None:
        outcome = Logsvc("http://127.0.0.1")("topic", "list")
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
