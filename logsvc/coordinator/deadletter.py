"""Dead letters: what one says, and how it is recognised again.

Exactly one letter per exhausted failure, whatever crashes when:

    1. the failing commit records the failure as dead-lettering, and the intent; both are durable before anything else happens
    2. the letter is looked for from `search_from` on, where the dead-letter partition ended when the intent was made, and
       appended when it is not there
    3. the completion removes the intent and finishes the failure

A crash after 1 or 2 leaves the intent, and the restart asks for step 2 again, which finds the letter if it was durable.
The headers are those of `logsvc_common.letters`.
"""

from collections.abc import Iterable

from logsvc.coordinator.events import WriteDeadLetter
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.state_log import Intent
from logsvc_common.batch import Header, RawRecord, RecordData
from logsvc_common.delivery import Exhausted, cut
from logsvc_common.letters import (
    DELIVERY_COUNT,
    EXCEPTION_CLASS,
    FIRST_FAILURE_TIMESTAMP,
    GROUP,
    MESSAGE,
    NO_TIMESTAMP,
    OFFSET,
    ORIGINAL_MISSING,
    ORIGINAL_TIMESTAMP,
    PARTITION,
    REDRIVE_COUNT,
    STACKTRACE,
    TOPIC,
)

EXCEPTION_CLASS_BYTES_MAX = 256


def make_intent(
    failed: Exhausted, *, dead_letter_topic: str, partition_count: int, search_from: int, limits: CoordinatorLimits
) -> Intent:
    """The intent for an exhausted failure, its texts cut at their limits on a character boundary."""
    return Intent(
        dead_letter_topic=dead_letter_topic,
        partition_count=partition_count,
        search_from=search_from,
        attempts=failed.attempts,
        error=cut(failed.failure.error, limits.error_bytes_max),
        exception_class=cut(failed.failure.exception_class, EXCEPTION_CLASS_BYTES_MAX),
        stacktrace=cut(failed.failure.stacktrace, limits.stacktrace_bytes_max),
        first_failure_ms=failed.first_failure_ms,
        reason=failed.reason,
        redrives=failed.redrives,
        letter=failed.letter,
    )


def letter_headers(group: str, topic: str, partition: int, offset: int, intent: Intent) -> list[tuple[str, bytes]]:
    """What the coordinator knows of a failure, as headers. The original's timestamp is added by `letter`."""
    texts = (
        (TOPIC, topic),
        (PARTITION, str(partition)),
        (OFFSET, str(offset)),
        (GROUP, group),
        (DELIVERY_COUNT, str(intent.attempts)),
        (MESSAGE, intent.error),
        (EXCEPTION_CLASS, intent.exception_class),
        (STACKTRACE, intent.stacktrace),
        (FIRST_FAILURE_TIMESTAMP, str(intent.first_failure_ms)),
        (REDRIVE_COUNT, str(intent.redrives)),
    )
    return [(name, text.encode("utf-8", "replace")) for name, text in texts]


def write_effect(group: str, topic: str, partition: int, offset: int, intent: Intent) -> WriteDeadLetter:
    """The effect that carries an intent out."""
    return WriteDeadLetter(
        group=group,
        topic=topic,
        partition=partition,
        offset=offset,
        dead_letter_topic=intent.dead_letter_topic,
        partition_count=intent.partition_count,
        headers=letter_headers(group, topic, partition, offset, intent),
        search_from=intent.search_from,
        reason=intent.reason,
        letter=intent.letter,
    )


def letter(record: RawRecord | None, effect: WriteDeadLetter, now_ms: int) -> RecordData:
    """The letter for `record`: its key, value and headers, then ours. Its own timestamp is `now_ms`, wall-clock.

    None stands for a record that retention has removed: the letter says so and its value is empty.
    """
    if record is None:
        missing = f"offset {effect.offset} of {effect.topic}-{effect.partition} was removed before its letter was written"
        headers = [*effect.headers, (ORIGINAL_TIMESTAMP, NO_TIMESTAMP.encode()), (ORIGINAL_MISSING, missing.encode())]
        return RecordData(b"", None, now_ms, headers)
    kept: list[Header] = [*record.headers, *effect.headers, (ORIGINAL_TIMESTAMP, str(record.timestamp).encode())]
    return RecordData(record.value, record.key, now_ms, kept)


def identity(headers: Iterable[Header]) -> tuple[bytes | None, ...]:
    """Which failure a letter is about: the same for its headers and for those of the effect that asks for it.

    A record that was a dead letter before carries older headers of the same names: ours are the last.
    """
    found = dict(headers)
    return tuple(found.get(name) for name in (TOPIC, PARTITION, OFFSET, GROUP))
