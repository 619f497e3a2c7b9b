"""The whole broker on a disk that fails: what is refused, what goes on, and what is never lost."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc.testing.simulated_disk import Operation, SimulatedCrash
from logsvc_common.batch import RecordData, decode, encode, split
from logsvc_common.errors import (
    CorruptBatch,
    DiskFull,
    LogsvcError,
    OffsetOutOfRange,
    PartitionCorrupt,
    StorageFailed,
    from_wire,
)
from logsvc_common.messages import (
    Commit,
    CommitPartition,
    CommitReply,
    CreateTopic,
    DeleteTopic,
    Fetch,
    FetchOffsets,
    FetchOffsetsReply,
    FetchPartition,
    FetchReply,
    ListGroups,
    Produce,
    ProducePartition,
    ProduceReply,
)
from tests.simulation.service import SimulatedService


def produce(service: SimulatedService, *values: bytes, topic: str = "orders", sequence: int = -1) -> int:
    """Append one batch; its base offset. Raises the partition's error."""
    producer_id = 7 if sequence >= 0 else -1
    batch = encode(
        [RecordData(value, None, 1_000) for value in values], producer_id=producer_id, producer_epoch=0, base_sequence=sequence
    )
    reply, _ = service.ask(Produce([ProducePartition(topic, 0)]), [batch])
    assert isinstance(reply, ProduceReply)
    result = reply.results[0]
    if result.error_code:
        raise from_wire(result.error_code, result.error_message)
    return result.base_offset


def values(service: SimulatedService, topic: str = "orders") -> list[bytes | None]:
    """All that a consumer can read."""
    found: list[bytes | None] = []
    while True:
        reply, payload = service.ask(Fetch([FetchPartition(topic, 0, len(found))], max_wait_ms=0))
        assert isinstance(reply, FetchReply)
        if not reply.results:
            return found
        result = reply.results[0]
        if result.error_code:
            raise from_wire(result.error_code, result.error_message)
        records = [record for _, batch in split(payload[0]) for record in decode(batch)]
        assert [record.offset for record in records] == list(range(len(found), len(found) + len(records)))
        found += [record.value for record in records]


def started(seed: int = 1) -> SimulatedService:
    service = SimulatedService(seed)
    service.ask(CreateTopic("orders", 1))
    service.ask(CreateTopic("other", 1))
    return service


def test_a_failed_fsync_fails_its_batch_and_its_partition_and_nobody_else() -> None:
    service = started()
    produce(service, b"acked")
    service.disk.fail("datasync", path_part="orders-0")

    with pytest.raises(StorageFailed):
        produce(service, b"in doubt")
    with pytest.raises(StorageFailed):
        produce(service, b"refused")
    assert produce(service, b"fine", topic="other") == 0

    reborn = service.power_cut()
    assert values(reborn)[:1] == [b"acked"]
    assert b"refused" not in values(reborn)
    produce(reborn, b"again")


def test_nothing_is_readable_before_its_fsync() -> None:
    service = started()
    batch = encode([RecordData(b"value", None, 1_000)])
    service.send(Produce([ProducePartition("orders", 0)]), [batch])
    assert service.logs.partition("orders", 0).end_offset == 1

    reply, _ = service.ask(Fetch([FetchPartition("orders", 0, 0)], max_wait_ms=0))
    assert isinstance(reply, FetchReply)
    # The answer may come with the record or before it; with it only when it is durable.
    assert bool(reply.results) == (service.logs.partition("orders", 0).durable_offset == 1)


def test_on_a_full_disk_writes_are_refused_and_reads_go_on() -> None:
    service = started()
    produce(service, b"before")
    service.disk.fail("write", path_part="orders-0", error=errno.ENOSPC, forever=True)

    with pytest.raises(DiskFull):
        produce(service, b"no room")
    assert values(service) == [b"before"]

    service.disk.heal()
    assert produce(service, b"after") == 1
    assert values(service) == [b"before", b"after"]


def test_a_retry_after_a_restart_between_append_and_answer_gets_the_first_offset() -> None:
    service = started()
    produce(service, b"first", sequence=0)
    batch = encode([RecordData(b"second", None, 1_000)], producer_id=7, producer_epoch=0, base_sequence=1)
    service.send(Produce([ProducePartition("orders", 0)]), [batch])  # appended; the broker dies before it answers

    reborn = service.kill()
    assert produce(reborn, b"second", sequence=1) == 1
    assert values(reborn) == [b"first", b"second"]


def test_a_long_poll_is_answered_when_a_record_comes_and_empty_when_none_does() -> None:
    service = started()
    poll = service.send(Fetch([FetchPartition("orders", 0, 0)], max_wait_ms=5_000))
    began_ms = service.time.now_ms
    produce(service, b"news")
    service.time.run(lambda: poll in service.answers)
    assert service.time.now_ms - began_ms < 100

    poll = service.send(Fetch([FetchPartition("orders", 0, 1)], max_wait_ms=5_000))
    service.time.run(lambda: poll in service.answers)
    assert 5_000 <= service.time.now_ms - began_ms < 5_100


def test_a_long_poll_on_a_topic_that_is_deleted_is_told() -> None:
    service = started()
    poll = service.send(Fetch([FetchPartition("orders", 0, 0)], max_wait_ms=60_000))
    service.ask(DeleteTopic("orders"))
    service.time.run(lambda: poll in service.answers, limit_ms=1_000)


def test_a_fetch_beyond_the_end_is_told_where_the_end_is() -> None:
    service = started()
    produce(service, b"one")
    reply, _ = service.ask(Fetch([FetchPartition("orders", 0, 5)]))
    assert isinstance(reply, FetchReply)
    error = from_wire(reply.results[0].error_code, reply.results[0].error_message)
    assert isinstance(error, OffsetOutOfRange)
    assert "0 to 1" in str(error)


def commit(service: SimulatedService, offset: int) -> None:
    reply, _ = service.ask(Commit("billing", "", -1, [CommitPartition("orders", 0, offset)]))
    assert isinstance(reply, CommitReply)
    assert not reply.results[0].error_code, reply.results[0].error_message


def committed(service: SimulatedService) -> int:
    reply, _ = service.ask(FetchOffsets("billing"))
    assert isinstance(reply, FetchOffsetsReply)
    return reply.results[0].committed if reply.results else -1


steps = st.lists(st.sampled_from(["produce", "produce", "commit", "kill", "power_cut"]), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(script=steps, seed=st.integers(0, 2**32), fatal=st.integers(0, 400))
def test_whatever_was_acknowledged_is_there_after_any_mix_of_crashes(script: list[str], seed: int, fatal: int) -> None:
    """Acked records at their offsets, none twice, offsets dense, commits kept; one crash strikes amid an operation."""
    service = started(seed)
    acked: list[bytes] = []
    done = 0
    sequence = 0
    countdown = [fatal]

    def strike(_operation: Operation) -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise SimulatedCrash

    for number, step in enumerate(script):
        service.disk.hook = strike if countdown[0] > 0 else None
        value = b"record %d" % number
        try:
            if step == "produce":
                assert produce(service, value, sequence=sequence) == len(acked)
            elif step == "commit" and acked:
                commit(service, len(acked))
        except SimulatedCrash:
            service.disk.hook = None
            service = service.kill() if seed % 2 else service.power_cut()
            # The answer was lost: an idempotent producer sends again, a consumer commits again.
            if step == "produce":
                assert produce(service, value, sequence=sequence) == len(acked)
            elif acked:
                commit(service, len(acked))
        except LogsvcError as error:
            raise AssertionError(f"step {number} {step}: {error}") from error
        service.disk.hook = None
        if step == "produce":
            acked.append(value)
            sequence += 1
        elif step == "commit" and acked:
            done = len(acked)
        elif step == "kill":
            service = service.kill()
        elif step == "power_cut":
            service = service.power_cut()
        assert values(service) == acked
        assert max(0, committed(service)) == done


def test_when_the_groups_log_cannot_be_read_topics_are_served_and_groups_refused_with_the_reason() -> None:
    service = started()
    produce(service, b"before")
    commit(service, 1)
    path = "/data/__logsvc_groups-0/00000000000000000000.log"
    content = bytearray(service.disk.content(path))
    service.logs.close()
    content[30] ^= 0xFF  # within the first of several batches: nothing torn, but rot
    service.disk.set_content(path, bytes(content) + bytes(content))

    reborn = SimulatedService(2, service.disk.kill(), service.time)
    assert produce(reborn, b"after") == 1
    assert values(reborn) == [b"before", b"after"]
    with pytest.raises(PartitionCorrupt, match="groups are not served"):
        reborn.ask(FetchOffsets("billing"))
    with pytest.raises(PartitionCorrupt, match="verify"):
        reborn.ask(ListGroups())
    assert list(reborn.broker.groups.samples()) == []


def test_when_the_groups_log_cannot_be_opened_no_group_is_told_that_it_has_read_nothing() -> None:
    service = started()
    produce(service, b"read")
    commit(service, 1)
    service.logs.close()
    service.disk.fail("read", path_part="__logsvc_groups-0")

    reborn = SimulatedService(2, service.disk, service.time)
    assert produce(reborn, b"after") == 1
    with pytest.raises(StorageFailed, match="groups are not served"):
        committed(reborn)
    # Their commits cannot be taken back, and would count for the next topic of that name.
    with pytest.raises(StorageFailed, match="groups are not served"):
        reborn.ask(DeleteTopic("orders"))

    assert committed(reborn.kill()) == 1


def test_commits_of_a_topic_that_was_deleted_are_forgotten_although_the_disk_fails_meanwhile() -> None:
    service = started()
    produce(service, b"read")
    commit(service, 1)
    service.disk.fail("rename", path_part="orders-0")
    with pytest.raises(StorageFailed):
        service.ask(DeleteTopic("orders"))

    reborn = service.kill()
    reborn.ask(CreateTopic("orders", 1))
    assert committed(reborn) == -1


def test_a_duplicate_is_acknowledged_no_sooner_than_the_batch_it_repeats() -> None:
    service = started()
    batch = encode([RecordData(b"once", None, 1_000)], producer_id=7, producer_epoch=0, base_sequence=0)
    first = service.send(Produce([ProducePartition("orders", 0)]), [batch])
    again = service.send(Produce([ProducePartition("orders", 0)]), [batch])
    assert not service.answers.keys() & {first, again}

    service.time.run(lambda: again in service.answers)
    assert service.logs.partition("orders", 0).durable_offset == 1
    assert values(service) == [b"once"]


def test_a_batch_whose_checksum_is_wrong_never_reaches_the_log() -> None:
    service = started()
    batch = bytearray(encode([RecordData(b"value", None, 1_000)]))
    batch[-1] ^= 1
    reply, _ = service.ask(Produce([ProducePartition("orders", 0)]), [batch])
    assert isinstance(reply, ProduceReply)
    assert isinstance(from_wire(reply.results[0].error_code, ""), CorruptBatch)
    assert service.logs.partition("orders", 0).end_offset == 0


def test_a_commit_is_answered_when_it_is_durable_and_refused_when_it_cannot_be() -> None:
    service = started()
    produce(service, b"read", b"read too")
    commit(service, 1)
    service.disk.fail("datasync", path_part="__logsvc_groups-0")
    with pytest.raises(StorageFailed):
        service.ask(Commit("billing", "", -1, [CommitPartition("orders", 0, 2)]))
    assert committed(service.power_cut()) == 1


def test_rot_in_the_groups_log_is_never_taken_for_state() -> None:
    service = started()
    produce(service, b"read")
    commit(service, 1)
    service.logs.close()
    path = "/data/__logsvc_groups-0/00000000000000000000.log"
    content = bytearray(service.disk.content(path))
    content[-2] ^= 1  # below the checkpoint, where recovery does not look
    service.disk.set_content(path, bytes(content))

    reborn = SimulatedService(2, service.disk.kill(), service.time)
    with pytest.raises(PartitionCorrupt, match="groups are not served"):
        committed(reborn)
