"""A dead letter as a document: our headers taken apart, the producer's own kept."""

import pytest

from logsvc.cli.letters import letter_document, print_letter
from logsvc_client import Record

HEADERS = (
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"3"),
    ("__dlq.errors.offset", b"42"),
    ("__dlq.errors.group", b"billing"),
    ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"no such customer"),
    ("logsvc.dlq.exception.class", b"builtins.KeyError"),
    ("logsvc.dlq.exception.stacktrace", b"Traceback ..."),
    ("logsvc.dlq.first.failure.timestamp", b"1700000000000"),
    ("logsvc.dlq.redrive.count", b"0"),
    ("logsvc.dlq.original.timestamp", b"1600000000000"),
)


def letter(*headers: tuple[str, bytes | None], value: bytes | None = b"v") -> Record:
    return Record("dlq.orders.billing", 3, 7, 1_700_000_001_000, b"key", value, headers)


def test_a_letter_says_where_it_came_from_and_why() -> None:
    found = letter_document(letter(("trace", b"1"), *HEADERS))
    assert found["source"] == {"topic": "orders", "partition": 3, "offset": 42, "timestamp_ms": 1_600_000_000_000}
    assert (found["group"], found["attempts"], found["redrives"]) == ("billing", 5, 0)
    assert (found["error"], found["exception_class"]) == ("no such customer", "builtins.KeyError")
    assert found["headers"] == [{"name": "trace", "value": "1"}]
    assert (found["key"], found["value"]) == ("key", "v")


def test_a_letter_that_died_twice_tells_of_the_last_time_and_keeps_the_first_as_headers() -> None:
    earlier = (("__dlq.errors.topic", b"first"), ("__dlq.errors.message", b"older"))
    found = letter_document(letter(*earlier, ("trace", b"1"), *HEADERS))
    assert (found["source"]["topic"], found["error"]) == ("orders", "no such customer")
    assert [header["name"] for header in found["headers"]] == ["__dlq.errors.topic", "__dlq.errors.message", "trace"]


def test_a_record_somebody_else_put_there_is_shown_as_far_as_it_goes() -> None:
    found = letter_document(letter(("__dlq.errors.offset", b"x"), ("__dlq.errors.group", None), value=b"\xff"))
    assert found["source"] == {"topic": None, "partition": None, "offset": None, "timestamp_ms": None}
    assert (found["group"], found["attempts"]) == ("", None)
    assert found["value_encoding"] == "base64"


@pytest.mark.parametrize("whole", [False, True])
def test_nothing_of_a_letter_controls_the_terminal(whole: bool, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    evil = "\x1b[2J\x9b31m\u202e\r\ninjected"
    forged = tuple(
        (name, evil.encode()) for name, _ in HEADERS if not name.endswith(("partition", "offset", "count", "timestamp"))
    )
    plain = tuple(header for header in HEADERS if header[0] not in dict(forged))
    print_letter(letter((evil, evil.encode()), *plain, *forged, value=evil.encode()), whole=whole)
    lines = capsysbinary.readouterr().out.decode().split("\n")
    assert all(line.isprintable() for line in lines)
    # Of a stack trace each line is one here too, indented.
    assert [line for line in lines if line.startswith("injected")] == []
