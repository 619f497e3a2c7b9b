"""Records due again that are large, or cannot be read, in a whole broker: what does not fit an answer comes with the next."""

from itertools import chain

import pytest

from logsvc.broker import groups
from logsvc.broker.record_reader import Found, RecordReader
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import RecordData, decode, encode, split
from logsvc_common.errors import CorruptBatch
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CreateTopic,
    Failure,
    FetchOffsetsPartition,
    FetchRetries,
    FetchRetriesReply,
    Produce,
    ProducePartition,
)
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService

AT_ONCE = RetryPolicy(initial_ms=0, max_ms=0)
RECORD_BYTES = 1_000
RECORDS = 8
ANSWER_BYTES = 3 * RECORD_BYTES + 500


def service_with_failures(*, partitions: int = 1, key: bytes | None = None) -> SimulatedService:
    """Every record of each partition has failed once and is due."""
    service = SimulatedService(1)
    service.ask(CreateTopic("t", partitions))
    for number in range(partitions):
        batch = encode([RecordData(bytes(RECORD_BYTES), key, 1_000) for _ in range(RECORDS)])
        service.ask(Produce([ProducePartition("t", number)]), [batch])
        failed = [Failure(offset, "no", "ValueError", "", None, 1) for offset in range(RECORDS)]
        service.ask(Commit("g", "", NO_MEMBER_EPOCH, [CommitPartition("t", number, RECORDS, failed)], AT_ONCE))
    return service


def poll(service: SimulatedService, number: int, partitions: int = 1) -> list[tuple[int, int]]:
    """(partition, offset) of the records that an answer brings whole."""
    asked = [FetchOffsetsPartition("t", partition) for partition in range(partitions)]
    reply, payload = service.ask(FetchRetries("g", "", NO_MEMBER_EPOCH, asked, 0, 500, number))
    assert isinstance(reply, FetchRetriesReply)
    assert sum(map(len, payload)) <= ANSWER_BYTES + RECORD_BYTES
    found = []
    for result, frame in zip(reply.results, payload, strict=True):
        offsets = [record.offset for _, batch in split(frame) for record in decode(batch)]
        assert offsets == [record.offset for record in result.records], "whatever is named is there"
        found += [(result.partition, offset) for offset in offsets]
    return found


@pytest.fixture(autouse=True)
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "RETRIES_BYTES_MAX", ANSWER_BYTES)


def test_what_does_not_fit_comes_with_the_next_polls_each_once() -> None:
    service = service_with_failures()
    polls = [poll(service, number) for number in range(2, 6)]
    assert [len(found) for found in polls] == [3, 3, 2, 0]
    assert sorted(chain(*polls)) == [(0, offset) for offset in range(RECORDS)]


def test_an_answer_that_was_lost_brings_the_same_again() -> None:
    service = service_with_failures()
    first = poll(service, 2)
    assert poll(service, 2) == first
    assert set(poll(service, 3)).isdisjoint(first)


def test_a_record_larger_than_an_answer_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "RETRIES_BYTES_MAX", 10)
    service = service_with_failures()
    assert [len(poll(service, number)) for number in range(2, 5)] == [1, 1, 1]


def test_partitions_share_one_answer() -> None:
    service = service_with_failures(partitions=2)
    polls = [poll(service, number, partitions=2) for number in range(2, 9)]
    assert all(len(found) <= 4 for found in polls)
    assert sorted(chain(*polls)) == [(number, offset) for number in (0, 1) for offset in range(RECORDS)]


def test_a_partition_that_cannot_be_read_keeps_the_others_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    get = RecordReader.get

    def damaged(reader: RecordReader, log: PartitionLog, offset: int) -> Found | None:
        if log.partition == 0:
            raise CorruptBatch("a bit has flipped")
        return get(reader, log, offset)

    service = service_with_failures(partitions=2)
    monkeypatch.setattr(RecordReader, "get", damaged)
    asked = [FetchOffsetsPartition("t", partition) for partition in (0, 1)]
    reply, payload = service.ask(FetchRetries("g", "", NO_MEMBER_EPOCH, asked, 0, 500, 2))
    assert isinstance(reply, FetchRetriesReply)
    told = {result.partition: (result.error_code, len(result.records)) for result in reply.results}
    assert told == {0: (CorruptBatch.code, 0), 1: (0, 3)}
    assert len(payload) == 2
