"""Reading ahead: what is asked for, when, and what becomes of answers that come late, wrong or not at all."""

import pytest

from logsvc_client.fetcher import COMMITTED, FETCHES_IN_FLIGHT_MAX, RETRY_BACKOFF_MS, Fetcher, PartitionFetch, SentFetch
from logsvc_client.records import TopicPartition
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import (
    BrokerOverloaded,
    CorruptBatch,
    Disconnected,
    LogsvcError,
    NoOffset,
    OffsetOutOfRange,
    PartitionCorrupt,
    UnknownTopic,
)
from logsvc_common.messages import EARLIEST, LATEST, Fetch, FetchReply, FetchResult

PARTITION_BYTES = 1_000


def fetcher(**settings: object) -> Fetcher:
    values: dict[str, object] = {
        "reset": "earliest",
        "max_wait_ms": 500,
        "min_bytes": 1,
        "fetch_bytes_max": 10_000,
        "partition_bytes_max": PARTITION_BYTES,
        "buffer_bytes": 100_000,
        "missing_is_error": True,
    }
    values.update(settings)
    return Fetcher(**values)  # type: ignore[arg-type]


def tp(number: int) -> TopicPartition:
    return TopicPartition("t", number)


def batch(base_offset: int, count: int = 3, size: int = 10) -> bytes:
    return encode([RecordData(b"x" * size) for _ in range(count)], base_offset=base_offset)


def asked(sent: SentFetch) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in sent.body.partitions]


def reply(made: Fetcher, sent: SentFetch, data: dict[int, bytes | LogsvcError], now_ms: int = 0) -> bool:
    results, payload = [], []
    for number, content in data.items():
        if isinstance(content, LogsvcError):
            results.append(FetchResult(topic="t", partition=number, error_code=content.code, error_message=str(content)))
            payload.append(b"")
        else:
            results.append(FetchResult(topic="t", partition=number, high_watermark=99))
            payload.append(content)
    return made.received(sent, FetchReply(results), payload, now_ms)


def test_all_partitions_with_room_travel_in_one_request() -> None:
    made = fetcher()
    for number in range(3):
        made.add(tp(number), number * 10)
    [sent] = made.plan(0)
    assert asked(sent) == [(0, 0), (1, 10), (2, 20)]
    assert made.plan(0) == []


def test_partition_that_got_records_is_asked_for_again_while_the_others_are_still_waited_for() -> None:
    made = fetcher()
    first, _second = made.add(tp(0), 0), made.add(tp(1), 0)
    [parked] = made.plan(0)
    assert reply(made, parked, {0: batch(0)})
    [together] = made.plan(0)
    assert asked(together) == [(0, 3), (1, 0)]
    reply(made, together, {0: batch(3, size=400)})  # the buffer of 0 is full now
    [long_poll] = made.plan(0)
    assert asked(long_poll) == [(1, 0)]
    while first.chunks:
        first.pop_chunk()
    [hungry] = made.plan(0)
    assert asked(hungry) == [(0, 6)]


def test_requests_under_way_are_bounded() -> None:
    made = fetcher()
    for number in range(FETCHES_IN_FLIGHT_MAX + 2):
        made.add(tp(number), 0)
        made.plan(0)
    assert len([p for p in made.partitions.values() if p.in_flight]) == FETCHES_IN_FLIGHT_MAX


def test_nothing_is_asked_for_beyond_the_memory() -> None:
    made = fetcher(buffer_bytes=2_500)
    made.add(tp(0), 0)
    [first] = made.plan(0)
    made.add(tp(1), 0)
    [second] = made.plan(0)
    made.add(tp(2), 0)
    [third] = made.plan(0)
    assert [sent.body.max_bytes for sent in (first, second, third)] == [1_000, 1_000, 500]
    made.add(tp(3), 0)
    assert made.plan(0) == []
    reply(made, first, {})
    assert made.plan(0) != []


def test_batch_that_begins_before_the_offset_is_kept_and_one_that_ends_before_is_not() -> None:
    made = fetcher()
    partition = made.add(tp(0), 4)
    [sent] = made.plan(0)
    reply(made, sent, {0: batch(0) + batch(3) + batch(6)})
    assert [chunk.header.base_offset for chunk in partition.chunks] == [3, 6]
    assert partition.fetch_offset == 9
    assert partition.high_watermark == 99


def test_cut_off_batch_at_the_end_is_fetched_again() -> None:
    made = fetcher()
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    reply(made, sent, {0: batch(0) + batch(3)[:-1]})
    assert partition.fetch_offset == 3


def test_answer_from_before_a_seek_is_dropped() -> None:
    made = fetcher()
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    partition.move(50)
    [again] = made.plan(0)
    assert asked(again) == [(0, 50)]
    assert not reply(made, sent, {0: batch(0)})
    assert not partition.chunks
    assert partition.in_flight


def test_answer_for_a_partition_taken_away_is_dropped() -> None:
    made = fetcher()
    made.add(tp(0), 0)
    [sent] = made.plan(0)
    made.remove(tp(0))
    newcomer = made.add(tp(0), 7)
    assert not reply(made, sent, {0: batch(0)})
    assert not newcomer.chunks


def test_lost_request_is_asked_again_after_a_while() -> None:
    made = fetcher()
    made.add(tp(0), 0)
    [sent] = made.plan(0)
    made.lost(sent, Disconnected("gone"), 0)
    assert made.plan(0) == []
    assert made.next_due_ms(0) == RETRY_BACKOFF_MS
    assert len(made.plan(RETRY_BACKOFF_MS)) == 1


@pytest.mark.parametrize(("reset", "start"), [("earliest", EARLIEST), ("latest", LATEST)])
def test_offset_out_of_range_resets_as_told(reset: str, start: int) -> None:
    made = fetcher(reset=reset)
    partition = made.add(tp(0), 5)
    assert made.unlocated(EARLIEST, LATEST) == []
    [sent] = made.plan(0)
    reply(made, sent, {0: OffsetOutOfRange("gone")})
    assert made.unlocated(EARLIEST, LATEST) == [partition]
    assert partition.start == start


def test_offset_out_of_range_is_an_error_when_told_so() -> None:
    made = fetcher(reset="error")
    made.add(tp(0), 5)
    [sent] = made.plan(0)
    assert reply(made, sent, {0: OffsetOutOfRange("gone")})
    with pytest.raises(OffsetOutOfRange, match="t-0 at offset 5"):
        made.raise_error()
    made.raise_error()  # once
    assert len(made.plan(0)) == 1  # and it is tried again


def test_no_committed_offset_and_no_reset_is_an_error_naming_the_partition() -> None:
    made = fetcher(reset="error")
    partition = made.add(tp(0), COMMITTED)
    made.no_committed(partition, partition.version)
    with pytest.raises(NoOffset, match="t-0"):
        made.raise_error()


def test_corrupt_header_is_told_with_topic_partition_and_offset_after_what_came_before_it() -> None:
    made = fetcher()
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    damaged = bytearray(batch(3))
    damaged[16] = 9  # the magic
    reply(made, sent, {0: bytes(damaged)})
    assert partition.error is not None
    with pytest.raises(CorruptBatch, match="t-0 at offset 0"):
        made.raise_error()
    assert partition.position == 0


@pytest.mark.parametrize("error", [PartitionCorrupt("bad batch"), UnknownTopic("no such")])
def test_error_waits_until_what_was_read_ahead_is_handed_out(error: LogsvcError) -> None:
    made = fetcher()
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    reply(made, sent, {0: batch(0)})
    [sent] = made.plan(0)
    reply(made, sent, {0: error})
    made.raise_error()
    while partition.chunks:
        partition.pop_chunk()
    with pytest.raises(type(error)):
        made.raise_error()


def test_missing_topic_is_waited_for_in_a_group() -> None:
    made = fetcher(missing_is_error=False)
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    reply(made, sent, {0: UnknownTopic("deleted")})
    assert partition.error is None
    assert made.next_due_ms(0) == 1_000


def test_overloaded_broker_is_asked_again_later() -> None:
    made = fetcher()
    made.add(tp(0), 0)
    [sent] = made.plan(0)
    made.lost(sent, BrokerOverloaded("busy"), 0)
    made.raise_error()
    assert len(made.plan(RETRY_BACKOFF_MS)) == 1


def test_paused_and_held_partitions_are_neither_fetched_nor_handed_out() -> None:
    for change in (PartitionFetch.set_paused, PartitionFetch.set_held):
        made = fetcher()
        partition = made.add(tp(0), 0)
        [sent] = made.plan(0)
        reply(made, sent, {0: batch(0)})
        change(partition, True)
        assert made.next_readable() is None
        assert made.plan(0) == []
        change(partition, False)
        assert made.next_readable() is partition


def test_readable_partitions_take_turns() -> None:
    made = fetcher()
    for number in range(3):
        made.add(tp(number), 0)
    [sent] = made.plan(0)
    reply(made, sent, {0: batch(0), 2: batch(0)})
    turns: list[PartitionFetch | None] = [made.next_readable() for _ in range(4)]
    assert [turn.tp.partition for turn in turns if turn is not None] == [0, 2, 0, 2]


def test_a_batch_whose_base_offset_is_damaged_is_told_after_the_good_ones_and_never_skipped() -> None:
    for bad in (batch(1), batch(1 << 20)):
        made = fetcher()
        partition = made.add(tp(0), 0)
        [sent] = made.plan(0)
        reply(made, sent, {0: batch(0) + batch(3) + bad + batch(9)})
        assert [chunk.header.base_offset for chunk in partition.chunks] == [0, 3]
        assert partition.fetch_offset == 6
        assert isinstance(partition.error, CorruptBatch)
        assert "at offset 6" in str(partition.error)


def test_a_header_that_cannot_be_does_not_take_the_good_batches_before_it_along() -> None:
    made = fetcher()
    partition = made.add(tp(0), 0)
    [sent] = made.plan(0)
    reply(made, sent, {0: batch(0) + batch(3) + b"\xff" * 100})
    assert [chunk.header.base_offset for chunk in partition.chunks] == [0, 3]
    assert isinstance(partition.error, CorruptBatch)
    assert "at offset 6" in str(partition.error)


def test_a_fetcher_that_is_told_to_wait_asks_for_nothing_until_then() -> None:
    # Given an answer that says that the quota is used up for 700 ms
    made = fetcher()
    made.add(tp(0), 0)
    [sent] = made.plan(now_ms=100)
    made.received(sent, FetchReply([], 700), [], now_ms=200)
    # Then nothing is asked for before, other partitions' records neither, and it is known when to look again.
    made.add(tp(1), 0)
    assert made.plan(now_ms=899) == []
    assert made.next_due_ms(now_ms=899) == 900
    assert sorted(asked(made.plan(now_ms=900)[0])) == [(0, 0), (1, 0)]


def test_nobody_is_silenced_for_longer_than_a_minute() -> None:
    made = fetcher()
    made.add(tp(0), 0)
    made.received(made.plan(now_ms=0)[0], FetchReply([], 1 << 62), [], now_ms=0)
    assert made.next_due_ms(now_ms=1) == 60_000
    made.received(SentFetch(Fetch([], 0, 1, 0), []), FetchReply([], -5), [], now_ms=10)
    assert made.next_due_ms(now_ms=11) == 60_000
