"""A letter read back from its headers, and which letters a filter means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.coordinator.deadletter import letter as write_letter
from logsvc.coordinator.deadletter import letter_headers, write_effect
from logsvc.coordinator.state_log import Intent
from logsvc_common import letters
from logsvc_common.batch import Header
from logsvc_common.letters import Letter, matches, parse_letter
from logsvc_common.messages import RedriveFilter

OURS: list[Header] = [
    (letters.TOPIC, b"orders"),
    (letters.PARTITION, b"3"),
    (letters.OFFSET, b"42"),
    (letters.GROUP, b"billing"),
    (letters.DELIVERY_COUNT, b"5"),
    (letters.MESSAGE, b"No Such Customer"),
    (letters.EXCEPTION_CLASS, b"app.errors.NoCustomer"),
    (letters.STACKTRACE, b"Traceback ..."),
    (letters.FIRST_FAILURE_TIMESTAMP, b"1700000000000"),
    (letters.REDRIVE_COUNT, b"2"),
    (letters.ORIGINAL_TIMESTAMP, b"1600000000000"),
]
MISSING: Header = (letters.ORIGINAL_MISSING, b"gone")


def parsed(headers: list[Header], *, letter_offset: int = 7, died_ms: int = 1_700_000_001_000) -> Letter:
    return parse_letter(letter_offset, died_ms, b"key", b"value", headers)


class TestReadingBack:
    def test_every_header_has_its_place(self) -> None:
        found = parsed([("trace", b"1"), *OURS])
        assert found == Letter(
            letter_offset=7,
            died_ms=1_700_000_001_000,
            topic="orders",
            partition=3,
            offset=42,
            timestamp_ms=1_600_000_000_000,
            group="billing",
            attempts=5,
            error="No Such Customer",
            exception_class="app.errors.NoCustomer",
            stacktrace="Traceback ...",
            first_failure_ms=1_700_000_000_000,
            redrives=2,
            missing=None,
            key=b"key",
            value=b"value",
            headers=(("trace", b"1"),),
        )
        assert found.is_of("billing", "orders", 3)
        assert not found.is_of("billing", "orders", 2)
        assert not found.is_of("audit", "orders", 3)

    def test_a_letter_of_a_letter_keeps_the_first_block_as_the_records_own(self) -> None:
        first = [(letters.TOPIC, b"first"), *OURS[1:], MISSING]
        found = parsed([("trace", b"1"), *first, *OURS])
        assert (found.topic, found.missing) == ("orders", None)
        assert found.headers == (("trace", b"1"), *first)

    def test_a_record_anyone_else_put_there_is_read_as_far_as_it_goes(self) -> None:
        found = parsed([(letters.OFFSET, b"x"), (letters.PARTITION, b"1_0"), (letters.GROUP, None)])
        assert (found.topic, found.partition, found.offset, found.group) == (None, None, None, "")
        assert found.headers == ()
        plain = parsed([("a", b"1"), (letters.OFFSET, b"1"), ("b", b"2")])
        assert (plain.offset, plain.headers) == (None, (("a", b"1"), (letters.OFFSET, b"1"), ("b", b"2")))
        assert not plain.is_of("billing", "orders", 0)

    @pytest.mark.parametrize("text", [b"", b"-", b"1.5", b" 1", b"9223372036854775808", b"1" * 30, b"\xff", "²".encode()])
    def test_what_is_no_whole_number_of_64_bits_is_no_number(self, text: bytes) -> None:
        assert parsed([(letters.TOPIC, b"t"), (letters.OFFSET, text)]).offset is None

    @given(
        headers=st.lists(
            st.tuples(st.sampled_from([*letters.HEADERS, "a", "b"]), st.none() | st.binary(max_size=8)), max_size=9
        ),
        error=st.text(max_size=20),
        missing=st.booleans(),
        redrives=st.integers(0, 9),
    )
    def test_whatever_the_record_carried_comes_back_unchanged(
        self, headers: list[Header], error: str, missing: bool, redrives: int
    ) -> None:
        intent = Intent("dlq.t.g", 4, 0, 3, error, "E", "trace", 5, "exhausted", redrives=redrives)
        effect = write_effect("g", "t", 1, 9, intent)

        class Raw:
            offset, timestamp, key, value = 9, 77, b"k", b"v"

        raw = Raw()
        raw.headers = headers  # type: ignore[attr-defined]
        written = write_letter(None if missing else raw, effect, 1_000)  # type: ignore[arg-type]
        found = parse_letter(0, 1_000, written.key, written.value, written.headers)
        assert (found.group, found.topic, found.partition, found.offset, found.redrives) == ("g", "t", 1, 9, redrives)
        assert found.error == error.encode("utf-8", "replace").decode()
        assert (found.missing is not None) == missing
        if not missing:
            assert (found.key, found.value, found.timestamp_ms, found.headers) == (b"k", b"v", 77, tuple(headers))

    def test_headers_are_those_that_are_written(self) -> None:
        intent = Intent("dlq.t.g", 4, 0, 3, "", "", "", 5, "exhausted")
        written = {name for name, _ in letter_headers("g", "t", 1, 9, intent)}
        assert written | {letters.ORIGINAL_TIMESTAMP, letters.ORIGINAL_MISSING} == letters.HEADERS


LETTER = parsed(OURS)


@pytest.mark.parametrize(
    ("where", "met"),
    [
        (RedriveFilter(), True),
        (RedriveFilter(error_contains=["such customer"]), True),
        (RedriveFilter(error_contains=["nothing", "CUSTOMER"]), True),
        (RedriveFilter(error_contains=["nothing"]), False),
        (RedriveFilter(error_is=["No Such Customer"]), True),
        (RedriveFilter(error_is=["no such customer"]), False),
        (RedriveFilter(exception_classes=["NoCustomer"]), True),
        (RedriveFilter(exception_classes=["app.errors.NoCustomer"]), True),
        (RedriveFilter(exception_classes=["errors.NoCustomer"]), False),
        (RedriveFilter(partitions=[1, 3]), True),
        (RedriveFilter(partitions=[1]), False),
        (RedriveFilter(offsets=[(0, 41), (42, 42)]), True),
        (RedriveFilter(offsets=[(0, 41), (43, 99)]), False),
        (RedriveFilter(letters=[(7, 7)]), True),
        (RedriveFilter(letters=[(8, 9)]), False),
        (RedriveFilter(redrives=[(0, 1)]), False),
        (RedriveFilter(since_ms=1_700_000_001_000), True),
        (RedriveFilter(since_ms=1_700_000_001_001), False),
        (RedriveFilter(until_ms=1_700_000_001_000), False),
        (RedriveFilter(until_ms=1_700_000_001_001), True),
        (RedriveFilter(partitions=[3], exception_classes=["Other"]), False),
    ],
)
def test_a_filter_is_met_or_not(where: RedriveFilter, met: bool) -> None:
    assert matches(where, LETTER) is met


def test_what_a_letter_does_not_say_meets_no_condition() -> None:
    empty = parse_letter(0, 0, None, None, [])
    assert matches(RedriveFilter(), empty)
    for where in (
        RedriveFilter(error_is=["x"]),
        RedriveFilter(exception_classes=["x"]),
        RedriveFilter(partitions=[0]),
        RedriveFilter(offsets=[(0, 9)]),
        RedriveFilter(redrives=[(0, 9)]),
    ):
        assert not matches(where, empty)
