"""A spent budget: intent, letter, completion; and what the letter says."""

from typing import NamedTuple

import pytest

from logsvc.coordinator import deadletter
from logsvc.coordinator.events import DeadLetterFailed, DeadLetterWritten, RetriesChanged, TopicDeleted, WriteDeadLetter
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common import letters
from logsvc_common.batch import Header
from logsvc_common.messages import DueRecord, Failure, Parked
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import WALL_MS, Harness, failure

ONCE = RetryPolicy(max_attempts=1)


class Record(NamedTuple):
    offset: int = 7
    timestamp: int = 1_600_000_000_000
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: list[Header] = [("trace", b"1")]  # noqa: RUF012


def exhausted(broker: Harness, offset: int = 7, **fields: int) -> WriteDeadLetter:
    broker.commit(offset + 1, failed=[failure(offset, **fields)], retry=ONCE)
    return broker.letters_asked_for()[-1]


def written(effect: WriteDeadLetter) -> DeadLetterWritten:
    return DeadLetterWritten(effect.group, effect.topic, effect.partition, effect.offset, 0)


def test_the_last_attempt_asks_for_a_letter_and_says_so() -> None:
    broker = Harness()
    for attempt in (1, 2):
        broker.commit(8, failed=[failure(7)])
        broker.pass_time(10_000)
        assert broker.retries() == [DueRecord(7, attempt + 1)]
    assert broker.letters_asked_for() == []

    verdict = broker.commit(failed=[failure(7)]).verdicts[0]
    assert (verdict.state, verdict.attempts) == ("dead_lettered", 3)
    (effect,) = broker.letters_asked_for()
    assert (effect.dead_letter_topic, effect.partition, effect.partition_count) == ("dlq.t.g", 0, 4)
    assert (effect.search_from, effect.reason) == (0, "exhausted")


def test_a_letter_that_is_written_finishes_the_failure() -> None:
    broker = Harness()
    effect = exhausted(broker)
    assert broker.coordinator.describe("g", broker.now).partitions[0].failed == {"dead_lettering": 1}
    assert broker.handle(written(effect)).effects == (RetriesChanged("g"),)
    assert broker.offsets().outstanding == []
    assert broker.restart() == []


def test_a_letter_is_completed_once() -> None:
    broker = Harness()
    effect = exhausted(broker)
    broker.handle(written(effect))
    assert broker.handle(written(effect)).records == []


def test_a_restart_asks_again_for_a_letter_that_was_not_completed() -> None:
    broker = Harness()
    effect = exhausted(broker)
    assert broker.restart() == [effect]


def test_a_failure_reported_again_gets_the_same_verdict_and_no_second_letter() -> None:
    broker = Harness()
    effect = exhausted(broker)
    assert broker.commit(8, failed=[failure(7)], retry=ONCE).verdicts[0].state == "dead_lettered"
    broker.handle(written(effect))
    assert broker.commit(8, failed=[failure(7)], retry=ONCE).verdicts[0].state == "done"
    assert len(broker.letters_asked_for()) == 1


def test_a_failure_ahead_of_the_committed_offset_gets_one_letter_though_it_is_read_again() -> None:
    broker = Harness()
    broker.commit(5)
    broker.commit(failed=[failure(7)], retry=ONCE)
    (effect,) = broker.letters_asked_for()
    broker.handle(written(effect))
    assert [(entry.offset, entry.state) for entry in broker.offsets().outstanding] == [(7, "done")]

    broker.commit(8, failed=[failure(7)], retry=ONCE)
    assert len(broker.letters_asked_for()) == 1
    assert broker.offsets().outstanding == []


def test_the_search_begins_where_the_dead_letter_partition_ended() -> None:
    broker = Harness()
    broker.logs.topics["dlq.t.g"] = [12, 0, 0, 0]
    assert exhausted(broker).search_from == 12


def test_an_exception_that_skips_retries_goes_at_once() -> None:
    broker = Harness()
    policy = RetryPolicy(max_attempts=9, no_retry=("ParseError",))
    broker.commit(8, failed=[failure(7, exception="app.ParseError")], retry=policy)
    (effect,) = broker.letters_asked_for()
    assert effect.reason == "no_retry"
    assert dict(effect.headers)[letters.DELIVERY_COUNT] == b"1"


def test_a_discarded_failure_leaves_nothing() -> None:
    broker = Harness()
    policy = RetryPolicy(max_attempts=1, on_exhausted="discard")
    assert broker.commit(8, failed=[failure(7)], retry=policy).verdicts[0].state == "discarded"
    assert broker.letters_asked_for() == []
    assert broker.offsets().outstanding == []


def test_what_is_parked_behind_it_waits_for_the_letter() -> None:
    broker = Harness()
    effect = exhausted(broker, key=5)
    broker.commit(9, parked=[Parked(8, 5)])
    assert broker.retries() == []
    broker.handle(written(effect))
    assert broker.retries() == [DueRecord(8, 1, 5)]


def test_a_letter_that_could_not_be_written_is_asked_for_again_after_a_growing_wait() -> None:
    broker = Harness(limits=CoordinatorLimits(dead_letter_backoff_ms=100, dead_letter_backoff_max_ms=300))
    effect = exhausted(broker)
    for wait_ms in (100, 200, 300, 300):
        broker.handle(DeadLetterFailed("g", "t", 0, 7, "disk full"))
        assert broker.coordinator.next_deadline_ms() == broker.now.monotonic_ms + wait_ms
        assert broker.pass_time(wait_ms - 1).effects == []
        assert broker.pass_time(1).effects == [effect]
    broker.handle(written(effect))
    assert broker.coordinator.next_deadline_ms() is None


def test_a_letter_that_is_due_again_does_not_go_with_records_that_may_be_refused() -> None:
    broker = Harness(limits=CoordinatorLimits(dead_letter_backoff_ms=600))
    effect = exhausted(broker)
    broker.join("a", session_timeout_ms=600)
    broker.handle(DeadLetterFailed("g", "t", 0, 7, "disk full"))
    removal = broker.pass_time(600)
    assert (removal.records != [], effect in removal.effects) == (True, False)
    assert broker.coordinator.next_deadline_ms() == broker.now.monotonic_ms
    assert broker.pass_time(0).effects == [effect]


def test_news_of_letters_nobody_asked_for_changes_nothing() -> None:
    broker = Harness()
    broker.handle(DeadLetterFailed("g", "t", 0, 7, "disk full"))
    broker.handle(DeadLetterWritten("g", "t", 0, 7, 0))
    exhausted(broker)
    broker.handle(DeadLetterWritten("g", "t", 0, 6, 0))
    broker.handle(DeadLetterFailed("g", "t", 1, 7, "disk full"))
    assert broker.coordinator.next_deadline_ms() is None
    assert broker.coordinator.describe("g", broker.now).failed == 1


def test_deleting_the_topic_withdraws_its_letters() -> None:
    broker = Harness()
    effect = exhausted(broker)
    broker.handle(DeadLetterFailed("g", "t", 0, 7, "disk full"))
    del broker.logs.topics["t"]
    broker.handle(TopicDeleted("t"))
    assert broker.handle(written(effect)).records == []
    assert broker.pass_time(100_000).effects == []
    assert broker.coordinator.groups(broker.now) == []


def test_a_dead_letter_topic_that_is_deleted_is_searched_from_its_start_when_it_comes_back() -> None:
    broker = Harness()
    broker.logs.topics["dlq.t.g"] = [12, 0, 0, 0]
    assert exhausted(broker).search_from == 12
    del broker.logs.topics["dlq.t.g"]
    broker.handle(TopicDeleted("dlq.t.g"))
    (effect,) = broker.restart()
    assert isinstance(effect, WriteDeadLetter)
    assert effect.search_from == 0


def test_a_completion_whose_records_were_refused_is_brought_about_again() -> None:
    broker = Harness()
    effect = exhausted(broker)
    broker.coordinator.handle(written(effect), broker.now)  # and the append is refused
    assert broker.pass_time(1_000).effects == [effect]
    broker.handle(written(effect))
    assert broker.coordinator.next_deadline_ms() is None


def test_a_letter_keeps_the_record_and_says_what_happened() -> None:
    broker = Harness()
    letter = deadletter.letter(Record(), exhausted(broker), WALL_MS + 5)
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"k", b"v", WALL_MS + 5)
    assert list(letter.headers) == [
        ("trace", b"1"),
        ("__dlq.errors.topic", b"t"),
        ("__dlq.errors.partition", b"0"),
        ("__dlq.errors.offset", b"7"),
        ("__dlq.errors.group", b"g"),
        ("__dlq.errors.delivery.count", b"1"),
        ("__dlq.errors.message", b"cannot handle 7"),
        ("logsvc.dlq.exception.class", b"ValueError"),
        ("logsvc.dlq.exception.stacktrace", b"Traceback"),
        ("logsvc.dlq.first.failure.timestamp", str(WALL_MS).encode()),
        ("logsvc.dlq.redrive.count", b"0"),
        ("logsvc.dlq.original.timestamp", b"1600000000000"),
    ]


def test_the_letter_of_a_record_that_is_gone_says_that_it_is() -> None:
    letter = deadletter.letter(None, exhausted(Harness()), WALL_MS)
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (None, b"")
    assert headers["logsvc.dlq.original.timestamp"] == b"-1"
    assert headers["logsvc.dlq.original.missing"] == b"offset 7 of t-0 was removed before its letter was written"


def test_the_first_failure_is_remembered_through_retries() -> None:
    broker = Harness()
    two = RetryPolicy(max_attempts=2, initial_ms=1_000, jitter=0.0)
    broker.commit(8, failed=[failure(7)], retry=two)
    broker.pass_time(1_000)
    broker.retries()
    broker.commit(failed=[failure(7)], retry=two)
    headers = dict(broker.letters_asked_for()[0].headers)
    assert headers[letters.FIRST_FAILURE_TIMESTAMP] == str(WALL_MS).encode()


def test_long_texts_are_cut_between_characters() -> None:
    broker = Harness(limits=CoordinatorLimits(error_bytes_max=10, stacktrace_bytes_max=11))
    broker.commit(8, failed=[Failure(7, "ééééééé", "E" * 300, "x€€€€")], retry=ONCE)
    headers = dict(broker.letters_asked_for()[0].headers)
    assert headers[letters.MESSAGE].decode() == "ééééé"
    assert headers[letters.STACKTRACE].decode() == "x€€€"
    assert headers[letters.EXCEPTION_CLASS] == b"E" * 256


@pytest.mark.parametrize(
    "other",
    [
        WriteDeadLetter("h", "t", 0, 7, "d", 1, [], 0),
        WriteDeadLetter("g", "u", 0, 7, "d", 1, [], 0),
        WriteDeadLetter("g", "t", 1, 7, "d", 1, [], 0),
        WriteDeadLetter("g", "t", 0, 8, "d", 1, [], 0),
    ],
)
def test_a_letter_is_known_by_group_topic_partition_and_offset(other: WriteDeadLetter) -> None:
    broker = Harness()
    effect = exhausted(broker)
    letter = deadletter.letter(Record(), effect, WALL_MS)
    assert deadletter.identity(letter.headers) == deadletter.identity(effect.headers)
    intent = broker.coordinator._groups["g"].progress["t", 0].intents[7]
    headers = deadletter.letter_headers(other.group, other.topic, other.partition, other.offset, intent)
    assert deadletter.identity(headers) != deadletter.identity(effect.headers)
    assert deadletter.identity([]) != deadletter.identity(effect.headers)


def test_a_letter_that_dies_again_is_known_by_its_last_headers() -> None:
    inner = deadletter.letter(Record(), exhausted(Harness()), WALL_MS)
    effect = exhausted(Harness(), offset=3)
    again = deadletter.letter(Record(offset=3, headers=list(inner.headers)), effect, WALL_MS)
    assert deadletter.identity(again.headers) == deadletter.identity(effect.headers)
    assert deadletter.identity(inner.headers) != deadletter.identity(effect.headers)
