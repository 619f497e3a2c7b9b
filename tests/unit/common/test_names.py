"""Names: nothing that passes can leave the data folder or the 255 bytes of a file name."""

import pytest

from logsvc_common.errors import InvalidGroupName, InvalidTopicName
from logsvc_common.names import (
    GROUPS_TOPIC,
    NAME_LENGTH_MAX,
    check_group,
    check_topic,
    dead_letter_topic,
    is_dead_letter,
    is_internal,
)

ILLEGAL = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "parent": "../x",
    "slash": "a/b",
    "backslash": "a\\b",
    "newline at the end": "a\n",
    "newline at the start": "\na",
    "nul": "a\0",
    "space": "a b",
    "umlaut": "ä",
    "arabic digits": "topic-٣",
    "fullwidth letters": "ｔｏｐｉｃ",
    "superscript": "a²",
    "surrogate": "\ud800",
    "250 characters": "a" * 250,
    "a megabyte": "a" * (1 << 20),
}


@pytest.mark.parametrize("name", ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_name_is_refused_with_a_short_reason(name: str) -> None:
    with pytest.raises(InvalidTopicName) as topic:
        check_topic(name)
    with pytest.raises(InvalidGroupName) as group:
        check_group(name)
    for caught in (topic.value, group.value):
        assert len(caught.message) < 4_000
        caught.message.encode()  # it can be sent


@pytest.mark.parametrize("name", ["a", "...", "a.b_c-D9", "-", "_", "__x", "a" * NAME_LENGTH_MAX])
def test_a_legal_name_is_returned(name: str) -> None:
    assert check_topic(name) == name
    assert check_group(name) == name


def test_internal_and_dead_letter_topics_are_told_by_their_prefix() -> None:
    assert is_internal(GROUPS_TOPIC)
    assert not is_internal("_x")
    assert not is_internal("orders")
    assert is_dead_letter("dlq.orders.billing")
    assert not is_dead_letter("dlqx")
    assert not is_dead_letter("orders")


def test_a_dead_letter_topic_is_named_after_topic_and_group() -> None:
    assert dead_letter_topic("orders", "billing") == "dlq.orders.billing"


@pytest.mark.parametrize("topic_length", [1, 100, 121, 122, 123, 200, NAME_LENGTH_MAX])
@pytest.mark.parametrize("group_length", [1, 100, 122, 123, 124, NAME_LENGTH_MAX])
def test_a_dead_letter_topic_of_long_names_is_legal_and_a_partition_folder_fits_a_file_name(
    topic_length: int, group_length: int
) -> None:
    name = check_topic(dead_letter_topic("t" * topic_length, "g" * group_length))
    assert is_dead_letter(name)
    assert len(f"{name}-99999".encode()) <= 255


def test_long_names_that_differ_only_at_the_end_stay_apart() -> None:
    names = {dead_letter_topic("t" * 240, "g" * 240 + suffix) for suffix in ("", "a", "b")}
    names |= {dead_letter_topic("t" * 240 + suffix, "g" * 240) for suffix in ("a", "b")}
    assert len(names) == 5
