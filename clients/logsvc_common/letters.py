"""Dead letters as data: the headers one carries, reading them back, and which letters a filter means. Pure.

A letter is the failed record, key, value and headers as its producer sent them, with a block of headers of ours behind:

    [the record's own headers ...] [__dlq.errors.topic ... logsvc.dlq.original.timestamp]

Names are KIP-1191's where it has one; all values are UTF-8 text. The block begins with `TOPIC`. A record that was itself read
from a dead-letter topic carries an older block among its own headers: the last one is about this failure.
"""

from collections.abc import Sequence
from typing import NamedTuple

from logsvc_common.batch import Header
from logsvc_common.messages import RedriveFilter

TOPIC = "__dlq.errors.topic"
PARTITION = "__dlq.errors.partition"
OFFSET = "__dlq.errors.offset"
GROUP = "__dlq.errors.group"
DELIVERY_COUNT = "__dlq.errors.delivery.count"
MESSAGE = "__dlq.errors.message"
EXCEPTION_CLASS = "logsvc.dlq.exception.class"
STACKTRACE = "logsvc.dlq.exception.stacktrace"
FIRST_FAILURE_TIMESTAMP = "logsvc.dlq.first.failure.timestamp"
REDRIVE_COUNT = "logsvc.dlq.redrive.count"
ORIGINAL_TIMESTAMP = "logsvc.dlq.original.timestamp"
ORIGINAL_MISSING = "logsvc.dlq.original.missing"  # only in the letter of a record that was gone before the letter was written

HEADERS = frozenset(
    (
        TOPIC,
        PARTITION,
        OFFSET,
        GROUP,
        DELIVERY_COUNT,
        MESSAGE,
        EXCEPTION_CLASS,
        STACKTRACE,
        FIRST_FAILURE_TIMESTAMP,
        REDRIVE_COUNT,
        ORIGINAL_TIMESTAMP,
        ORIGINAL_MISSING,
    )
)
NO_TIMESTAMP = "-1"


class Letter(NamedTuple):
    """One dead letter. `topic`, `partition` and `offset` are those of the record that failed; None where the headers do not
    say, since anyone may write to the topic. Times in ms since the epoch."""

    letter_offset: int
    died_ms: int
    topic: str | None
    partition: int | None
    offset: int | None
    timestamp_ms: int | None
    group: str | None
    attempts: int | None
    error: str | None
    exception_class: str | None
    stacktrace: str | None
    first_failure_ms: int | None
    redrives: int | None
    missing: str | None
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    """The record's own."""

    def is_of(self, group: str, topic: str, partition: int) -> bool:
        """True for the letter of a record that `group` failed in that partition of `topic`."""
        return (self.group, self.topic, self.partition) == (group, topic, partition) and self.offset is not None


def parse_letter(letter_offset: int, died_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> Letter:
    """Take a record of a dead-letter topic apart. Raises nothing: what is not there, or not a number, is None."""
    ours: dict[str, str] = {}
    own = len(headers)
    while own and TOPIC not in ours:
        name, text = headers[own - 1]
        if name not in HEADERS or name in ours:
            break
        ours[name] = (text or b"").decode("utf-8", "replace")
        own -= 1
    return Letter(
        letter_offset,
        died_ms,
        ours.get(TOPIC),
        _number(ours, PARTITION),
        _number(ours, OFFSET),
        _number(ours, ORIGINAL_TIMESTAMP),
        ours.get(GROUP),
        _number(ours, DELIVERY_COUNT),
        ours.get(MESSAGE),
        ours.get(EXCEPTION_CLASS),
        ours.get(STACKTRACE),
        _number(ours, FIRST_FAILURE_TIMESTAMP),
        _number(ours, REDRIVE_COUNT),
        ours.get(ORIGINAL_MISSING),
        key,
        value,
        tuple(headers[:own]),
    )


def _number(headers: dict[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    # Plain digits that fit 64 bits: int() alone takes "1_000", " 1" and numbers no offset can have.
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 19:
        return None
    number = int(text)
    return number if number < 1 << 63 else None


def matches(where: RedriveFilter, letter: Letter) -> bool:
    """True when the letter meets every condition that is set. What a letter does not say meets none."""
    error = letter.error or ""
    kind = letter.exception_class or ""
    return (
        (not where.error_contains or _contains_any(error.casefold(), where.error_contains))
        and (not where.error_is or error in where.error_is)
        and (
            not where.exception_classes or kind in where.exception_classes or kind.rpartition(".")[2] in where.exception_classes
        )
        and (not where.partitions or letter.partition in where.partitions)
        and _within(where.offsets, letter.offset)
        and _within(where.letters, letter.letter_offset)
        and _within(where.redrives, letter.redrives)
        and (where.since_ms < 0 or letter.died_ms >= where.since_ms)
        and (where.until_ms < 0 or letter.died_ms < where.until_ms)
    )


def _contains_any(text: str, parts: Sequence[str]) -> bool:
    return any(part.casefold() in text for part in parts)


def _within(ranges: Sequence[tuple[int, int]], number: int | None) -> bool:
    return not ranges or (number is not None and any(first <= number <= last for first, last in ranges))
