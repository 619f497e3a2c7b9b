"""A broker whose disk is full: the client rides out a short shortage, and says DiskFull when it lasts."""

import pytest

from logsvc_client.transport import Transport
from logsvc_common.errors import BrokerOverloaded, DeliveryTimeout, DiskFull
from logsvc_common.frames import DecodedRequest, encode_error, encode_response
from logsvc_common.messages import CreateTopic, Metadata, MetadataReply, TopicReply
from tests.unit.client.fake_peer import fake_peer
from tests.unit.client.test_accumulator import accumulator, add, confirm, sealed

LIMIT_MS = DiskFull.retry_ms_max or 0
PATIENT_MS = 60_000


def test_a_disk_that_is_full_for_a_moment_costs_a_retry() -> None:
    made = accumulator(linger_ms=0, delivery_timeout_ms=PATIENT_MS)
    batch = add(made)
    assert made.drain(0) == [[batch]]
    assert not made.refused(batch, DiskFull("full"), LIMIT_MS - 1)
    assert made.drain(LIMIT_MS + 2_000) == [[batch]]
    assert made.acked(batch, 7)
    assert batch.error is None


def test_records_end_in_the_full_disk_once_they_have_waited_for_room() -> None:
    made = accumulator(linger_ms=0, delivery_timeout_ms=PATIENT_MS)
    batch = add(made)
    made.drain(0)
    assert made.refused(batch, DiskFull("12 bytes are free"), LIMIT_MS)
    assert isinstance(batch.error, DiskFull)


def test_what_waited_behind_a_refused_batch_does_not_wait_as_long_again() -> None:
    # Given several batches of one age, when the first is given up
    made = accumulator(linger_ms=0, delivery_timeout_ms=PATIENT_MS)
    confirm(made)
    first, second = sealed(made, 2)
    made.drain(1)
    assert made.refused(first, DiskFull("full"), LIMIT_MS)
    assert made.refused(second, DiskFull("full"), LIMIT_MS + 1)
    # Then sequences start again, and records sent later have their own time.
    assert made.needs_epoch
    made.new_producer(7, 1)
    third = add(made, now_ms=LIMIT_MS + 2)
    made.drain(LIMIT_MS + 2)
    assert not made.refused(third, DiskFull("full"), LIMIT_MS + 3)


def test_a_delivery_timeout_says_what_the_broker_last_said() -> None:
    made = accumulator(linger_ms=0, delivery_timeout_ms=1_000)
    batch = add(made)
    made.drain(0)
    assert not made.refused(batch, BrokerOverloaded("256 MiB are waiting"), 999)
    assert made.expire(1_000) == [batch]
    assert isinstance(batch.error, DeliveryTimeout)
    assert "256 MiB are waiting" in batch.error.message


def test_a_call_ends_in_the_full_disk_long_before_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a broker that goes on refusing
    monkeypatch.setattr(DiskFull, "retry_ms_max", 300)

    def full(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        return encode_error(request.correlation_id, DiskFull("12 bytes are free"))

    with fake_peer(full) as peer:
        transport = Transport(peer.server)
        transport.start()
        try:
            with pytest.raises(DiskFull, match="12 bytes are free"):
                transport.call(CreateTopic("orders", 1, {}), TopicReply, 120_000)
        finally:
            transport.stop()
        assert len(peer.requests) > 1


def test_a_call_goes_on_when_there_is_room_again() -> None:
    answers = iter([DiskFull("full"), DiskFull("full")])

    def recovers(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        error = next(answers, None)
        if error is not None:
            return encode_error(request.correlation_id, error)
        return encode_response(request.correlation_id, MetadataReply([]))

    with fake_peer(recovers) as peer:
        transport = Transport(peer.server)
        transport.start()
        try:
            assert transport.call(Metadata(), MetadataReply, 10_000) == MetadataReply([])
        finally:
            transport.stop()
