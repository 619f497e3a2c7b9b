"""A dead letter is written exactly once, whatever operation of the disk is the last one: the whole broker, crashed at each."""

import pytest

from logsvc.testing.simulated_disk import Operation, SimulatedCrash
from logsvc_common.batch import RecordData, decode, encode, split
from logsvc_common.errors import LogsvcError
from logsvc_common.letters import GROUP, OFFSET, PARTITION, TOPIC
from logsvc_common.messages import (
    Commit,
    CommitPartition,
    CommitReply,
    CreateTopic,
    DescribeGroup,
    DescribeGroupReply,
    Failure,
    Fetch,
    FetchPartition,
    FetchReply,
    Produce,
    ProducePartition,
)
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService

RECORDS = 4
FAILED = 2
COMMIT = Commit(
    "billing",
    "",
    -1,
    [CommitPartition("orders", 0, RECORDS, failed=[Failure(FAILED, "no such customer", "app.NoCustomer", key_hash=1)])],
    RetryPolicy(max_attempts=1),
)


def with_records(seed: int) -> SimulatedService:
    service = SimulatedService(seed)
    service.ask(CreateTopic("orders", 1))
    batch = encode([RecordData(b"value %d" % n, b"key", 1_000 + n) for n in range(RECORDS)])
    service.ask(Produce([ProducePartition("orders", 0)]), [batch])
    return service


def letters(service: SimulatedService) -> list:
    topic = service.logs.topics.get("dlq.orders.billing")
    if topic is None:
        return []
    log = topic.partitions[0]
    data = log.read(log.start_offset, 1 << 20, up_to=log.end_offset)
    return [record for _, batch in split(data) for record in decode(batch)]


def settled(service: SimulatedService) -> bool:
    """The group has committed and no failure is unfinished."""
    try:
        reply, _ = service.ask(DescribeGroup("billing"))
    except LogsvcError:
        return False
    assert isinstance(reply, DescribeGroupReply)
    return [(p.committed, p.failed) for p in reply.partitions] == [(RECORDS, {})]


def fail_and_settle(service: SimulatedService) -> None:
    reply, _ = service.ask(COMMIT)
    assert isinstance(reply, CommitReply)
    assert reply.results[0].error_code == 0
    service.time.run(lambda: settled(service))


def operations_of_one_move(seed: int) -> int:
    service = with_records(seed)
    before = service.disk.operations
    fail_and_settle(service)
    return service.disk.operations - before


@pytest.mark.parametrize("death", ["kill", "power_cut"])
def test_exactly_one_letter_for_a_crash_at_every_disk_operation(death: str) -> None:
    count = operations_of_one_move(seed=1)
    assert count > 10, "the move does too little to be the real one"
    print(f"crash points: {count}, each by {death}")

    for point in range(1, count + 1):
        service = with_records(seed=point)
        last = service.disk.operations + point

        def stop(operation: Operation, last: int = last) -> None:
            if operation.number >= last:
                raise SimulatedCrash

        service.disk.hook = stop
        with pytest.raises(SimulatedCrash):
            fail_and_settle(service)
        service.disk.hook = None
        reborn = service.kill() if death == "kill" else service.power_cut()
        # The answer never came, so the consumer sends its commit again.
        fail_and_settle(reborn)

        found = letters(reborn)
        assert len(found) == 1, f"{len(found)} letters after a {death} at operation {point}"
        headers = dict(found[0].headers)
        assert (found[0].key, found[0].value) == (b"key", b"value %d" % FAILED)
        assert [headers[name] for name in (TOPIC, PARTITION, OFFSET, GROUP)] == [b"orders", b"0", b"2", b"billing"]


def test_a_letter_that_cannot_be_written_is_tried_again_until_it_can() -> None:
    service = with_records(seed=5)
    service.disk.fail("write", path_part="dlq.", nth=1, error=28)
    fail_and_settle(service)
    assert len(letters(service)) == 1


@pytest.mark.parametrize("death", ["kill", "power_cut"])
def test_a_letter_whose_fsync_fails_is_not_taken_for_written(death: str) -> None:
    service = with_records(seed=7)
    service.disk.fail("datasync", path_part="dlq.")
    service.ask(COMMIT)
    asked: list[bool] = []
    service.time.call_later(30, asked.append, True)
    service.time.run(lambda: bool(asked))
    assert not settled(service), "the move is over, and the letter is not durable"

    reborn = service.kill() if death == "kill" else service.power_cut()
    fail_and_settle(reborn)
    assert len(letters(reborn.power_cut())) == 1


def test_what_was_acked_is_read_back_after_a_power_cut() -> None:
    service = with_records(seed=9).power_cut()
    reply, payload = service.ask(Fetch([FetchPartition("orders", 0, 0)]))
    assert isinstance(reply, FetchReply)
    assert [record.value for _, batch in split(payload[0]) for record in decode(batch)] == [
        b"value %d" % n for n in range(RECORDS)
    ]
