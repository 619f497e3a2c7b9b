"""The producer's batches: filling, lingering, order, memory, timeouts and restarts, on a clock made of integers."""

import pytest

from logsvc_client.accumulator import Accumulator
from logsvc_client.producer_batch import BatchSettings, NewRecord, ProducerBatch, Wait
from logsvc_common.batch import decode, parse_header
from logsvc_common.errors import (
    BrokerOverloaded,
    ClientClosed,
    CorruptBatch,
    DeliveryTimeout,
    OutOfOrderSequence,
    RecordTooLarge,
    UnknownPartition,
)

TOPIC = "orders"


def accumulator(**settings: object) -> Accumulator:
    values: dict[str, object] = {
        "linger_ms": 5,
        "batch_bytes": 1_000,
        "buffer_bytes": 100_000,
        "delivery_timeout_ms": 10_000,
        "max_in_flight": 5,
        "idempotent": True,
        "codec": 0,
    }
    values.update(settings)
    made = Accumulator(BatchSettings(**values), choose=lambda: 0)  # type: ignore[arg-type]
    made.set_topic(TOPIC, 3, 1 << 20)
    made.new_producer(7, 0)
    return made


def record(value: bytes | None = b"v", *, key: bytes | None = None, partition: int | None = None) -> NewRecord:
    return NewRecord(TOPIC, value, key, [], partition, 1_000, None)


def add(made: Accumulator, value: bytes = b"v", *, partition: int = 0, now_ms: int = 0) -> ProducerBatch:
    batch = made.add(record(value, partition=partition), now_ms)
    assert isinstance(batch, ProducerBatch)
    return batch


def confirm(made: Accumulator, partition: int = 0) -> None:
    """Get one batch acknowledged, so that several may fly."""
    batch = add(made, partition=partition)
    made.expedite(batch)
    assert made.drain(0) == [[batch]]
    made.acked(batch, 0)


def sealed(made: Accumulator, count: int, partition: int = 0) -> list[ProducerBatch]:
    """`count` batches of one record each, sealed by being too full for another."""
    batches = [add(made, b"x" * 2_000, partition=partition) for _ in range(count)]
    made.expedite(batches[-1])
    return batches


def test_records_share_a_batch_until_linger_is_over() -> None:
    made = accumulator()
    first, second = add(made, b"a"), add(made, b"b", now_ms=3)
    assert first is second
    assert made.drain(4) == []
    assert made.next_due_ms(4) == 5
    assert made.drain(5) == [[first]]
    header = parse_header(first.encoded(7, 0))
    assert (header.record_count, header.producer_id, header.base_sequence) == (2, 7, 0)
    assert [raw.value for raw in decode(first.encoded(7, 0))] == [b"a", b"b"]


def test_full_batch_does_not_linger() -> None:
    made = accumulator()
    confirm(made)
    full = add(made, b"x" * 900)
    following = add(made, b"y" * 900)
    assert following is not full
    assert made.drain(0) == [[full]]


def test_waiting_for_a_delivery_ends_the_linger_of_its_batch_only() -> None:
    made = accumulator()
    waited, other = add(made, partition=0), add(made, partition=1)
    made.expedite(waited)
    assert made.drain(0) == [[waited]]
    assert not other.tries


def test_batches_of_several_partitions_travel_in_one_request() -> None:
    made = accumulator()
    batches = [add(made, partition=number) for number in range(3)]
    assert made.drain(5) == [batches]


def test_records_without_key_move_on_when_their_batch_is_full() -> None:
    made = accumulator()
    first = made.add(record(b"x" * 900), 0)
    second = made.add(record(b"x" * 900), 0)
    assert isinstance(first, ProducerBatch)
    assert isinstance(second, ProducerBatch)
    assert first.queue.partition != second.queue.partition


def test_sticky_slot_of_the_hot_path_follows_the_placement() -> None:
    made = accumulator()
    batch = made.add(record(), 0)
    assert isinstance(batch, ProducerBatch)
    assert made.sticky_slots[TOPIC] == [batch]
    assert made.slot(TOPIC, None, None) is made.sticky_slots[TOPIC]


def test_partition_out_of_range_is_refused() -> None:
    made = accumulator()
    with pytest.raises(UnknownPartition, match="0 to 2"):
        made.add(record(partition=3), 0)
    with pytest.raises(UnknownPartition):
        made.slot(TOPIC, None, -1)


def test_unknown_topic_is_asked_for() -> None:
    made = accumulator()
    made.forget_topic(TOPIC)
    assert made.add(record(), 0) is Wait.TOPIC
    with pytest.raises(KeyError):
        made.slot(TOPIC, None, None)


def test_wrong_type_raises_and_leaves_no_trace() -> None:
    made = accumulator()
    free = made.free_bytes
    with pytest.raises(TypeError):
        made.add(record("text"), 0)  # type: ignore[arg-type]
    assert made.free_bytes == free
    assert made.unfinished() == []


def test_memory_is_bounded_and_comes_back() -> None:
    made = accumulator(buffer_bytes=40_000, batch_bytes=16_384)
    taken = []
    while isinstance(batch := made.add(record(b"x" * 10_000, partition=0), 0), ProducerBatch):
        taken.append(batch)
    assert batch is Wait.ROOM
    assert 0 <= made.free_bytes < 16_384
    for _ in range(len(taken)):
        for request in made.drain(10):
            for flown in request:
                made.acked(flown, 0)
    assert made.free_bytes == 40_000
    assert isinstance(made.add(record(b"x" * 10_000, partition=0), 0), ProducerBatch)


def test_shortage_of_memory_ends_all_linger() -> None:
    made = accumulator(buffer_bytes=40_000, batch_bytes=16_384, linger_ms=60_000)
    first = add(made, partition=0)
    add(made, partition=1)
    assert made.add(record(partition=2), 0) is Wait.ROOM
    assert [batch.queue.partition for batch in made.drain(0)[0]] == [0, 1]
    made.acked(first, 0)
    assert isinstance(made.add(record(partition=2), 0), ProducerBatch)


def test_record_larger_than_the_memory_is_refused_at_once() -> None:
    with pytest.raises(RecordTooLarge):
        accumulator(buffer_bytes=50_000).add(record(b"x" * 60_000), 0)


def test_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    made = accumulator()
    large = add(made, b"x" * 5_000)
    assert add(made, b"y") is not large


def test_only_one_batch_flies_until_the_broker_knows_the_producer() -> None:
    made = accumulator()
    first, second, third = sealed(made, 3)
    assert made.drain(0) == [[first]]
    made.acked(first, 0)
    assert made.drain(0) == [[second], [third]]


def test_no_more_than_max_in_flight_batches_of_a_partition_fly() -> None:
    made = accumulator(max_in_flight=2)
    confirm(made)
    first, second, third = sealed(made, 3)
    assert made.drain(0) == [[first], [second]]
    assert made.drain(0) == []
    made.acked(first, 5)
    assert made.drain(0) == [[third]]


def test_batch_goes_on_filling_while_another_of_its_partition_flies() -> None:
    made = accumulator()
    confirm(made)
    first = add(made)
    assert made.drain(5) == [[first]]
    second = add(made, now_ms=6)
    assert made.drain(20) == []
    assert add(made, now_ms=21) is second
    made.acked(first, 0)
    assert made.drain(22) == [[second]]


def test_batch_somebody_waits_for_does_not_wait_for_another() -> None:
    made = accumulator()
    confirm(made)
    first = add(made)
    assert made.drain(5) == [[first]]
    second = add(made, now_ms=6)
    made.expedite(second)
    assert made.drain(6) == [[second]]


def test_sequences_count_records_and_are_kept_on_a_retry() -> None:
    made = accumulator()
    confirm(made)
    add(made)
    batch = add(made)
    [[flown]] = made.drain(5)
    assert (flown, flown.sequence) == (batch, 1)
    data = flown.encoded(7, 0)
    made.lost(flown)
    assert made.drain(6) == [[batch]]
    assert batch.encoded(7, 0) is data
    assert batch.sequence == 1


def test_lost_batches_fly_again_in_their_order() -> None:
    made = accumulator()
    confirm(made)
    batches = sealed(made, 4)
    made.drain(0)
    for batch in batches:
        made.lost(batch)
    assert made.drain(0) == [[batch] for batch in batches]


def test_batch_that_overtook_a_refused_one_goes_behind_it_again() -> None:
    made = accumulator()
    confirm(made)
    first, second = sealed(made, 2)
    made.drain(0)
    assert not made.refused(first, BrokerOverloaded(), 0)
    assert not made.refused(second, OutOfOrderSequence(), 0)
    assert made.drain(0) == []  # it backs off
    assert made.drain(1_000) == [[first], [second]]
    assert (first.sequence, second.sequence) == (1, 2)
    assert not made.needs_epoch


def test_refusal_for_good_ends_the_batch_and_restarts_the_sequences() -> None:
    made = accumulator()
    confirm(made)
    first, second = sealed(made, 2)
    made.drain(0)
    error = CorruptBatch("bad")
    assert made.refused(first, error, 0)
    assert first.error is error
    assert not made.needs_epoch  # the second is still flying
    made.refused(second, OutOfOrderSequence(), 0)
    assert made.needs_epoch
    assert made.drain(0) == []
    made.new_producer(7, 1)
    assert made.drain(0) == [[second]]
    header = parse_header(second.encoded(7, 1))
    assert (header.producer_epoch, header.base_sequence) == (1, 0)


def test_fate_of_doubtful_batches_is_found_out_before_a_new_epoch() -> None:
    made = accumulator()
    confirm(made)
    first, second = sealed(made, 2)
    made.drain(0)
    second.deliver_by_ms = 20_000
    made.lost(first)
    made.lost(second)
    made.expiry_ms = 0
    assert made.expire(10_000) == [first]
    assert isinstance(first.error, DeliveryTimeout)
    assert not made.needs_epoch
    assert made.drain(10_000) == [[second]]  # under its old sequence
    assert second.sequence == 2
    made.refused(second, OutOfOrderSequence(), 10_000)
    assert made.needs_epoch


def test_batch_never_sent_expires_without_a_new_epoch() -> None:
    made = accumulator()
    batch = add(made)
    assert made.expire(9_999) == []
    assert made.expire(10_000) == [batch]
    assert "never sent" in str(batch.error)
    assert not made.needs_epoch
    assert made.free_bytes == 100_000


def test_sequence_the_broker_has_forgotten_is_restarted_but_not_forever() -> None:
    made = accumulator()
    confirm(made)
    [batch] = sealed(made, 1)
    for epoch in range(1, 4):
        assert made.drain(0) == [[batch]]
        assert not made.refused(batch, OutOfOrderSequence(), 0)
        assert made.needs_epoch
        made.new_producer(7, epoch)
    made.drain(0)
    assert made.refused(batch, OutOfOrderSequence(), 0)


def test_reply_after_the_delivery_timeout_changes_nothing() -> None:
    made = accumulator()
    batch = add(made)
    made.drain(5)
    assert made.expire(10_000) == [batch]
    assert not made.acked(batch, 3)
    assert isinstance(batch.error, DeliveryTimeout)
    assert made.free_bytes == 100_000


def test_batch_in_a_users_hands_is_sealed_a_little_later() -> None:
    made = accumulator()
    batch = add(made)
    slot = made.slot(TOPIC, None, 0)
    mine = slot.pop()
    assert made.drain(5) == []
    assert made.next_due_ms(5) == 6
    assert made.add(record(partition=0), 5) is Wait.BUSY
    slot.append(mine)
    assert made.drain(6) == [[batch]]


def test_sealed_batch_takes_no_more_records() -> None:
    made = accumulator()
    batch = add(made)
    made.drain(5)
    batch.encoded(7, 0)
    assert batch.append(1, 0, None, b"late", []) is None


def test_closing_ends_everything() -> None:
    made = accumulator()
    open_batch, [flying] = add(made, partition=1), sealed(made, 1)
    made.drain(0)
    assert set(made.fail_all(ClientClosed())) == {open_batch, flying}
    assert made.free_bytes == 100_000
    assert made.unfinished() == []


def test_without_idempotence_nothing_waits_for_an_epoch() -> None:
    made = accumulator(idempotent=False)
    first, second = sealed(made, 2)
    assert made.drain(0) == [[first], [second]]
    assert parse_header(first.encoded(-1, -1)).base_sequence == -1
    assert made.refused(first, CorruptBatch(), 0)
    assert not made.needs_epoch


def test_without_a_producer_id_nothing_flies_and_one_is_asked_for() -> None:
    made = accumulator()
    made.producer_id = -1
    assert not made.needs_epoch
    batch = add(made)
    assert made.drain(5) == []
    assert made.needs_epoch
    made.new_producer(9, 0)
    assert made.drain(5) == [[batch]]


def test_growing_topic_keeps_what_is_on_its_way() -> None:
    made = accumulator()
    batch = add(made, partition=2)
    made.set_topic(TOPIC, 5, 1 << 20)
    assert add(made, partition=2) is batch
    assert add(made, partition=4).queue.partition == 4
