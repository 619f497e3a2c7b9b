"""The I/O thread against peers that are away, silent, talk nonsense or go in the middle."""

import time
from collections.abc import Iterator

import pytest

from logsvc_client.transport import Transport
from logsvc_common.errors import BrokerOverloaded, ClientClosed, InvalidConfig, LogsvcError, RequestTimeout, UnknownTopic
from logsvc_common.frames import DecodedRequest, encode_error, encode_response
from logsvc_common.messages import ListGroups, ListGroupsReply, Metadata, MetadataReply
from tests.unit.client.fake_peer import answer_with, fake_peer

NOWHERE = "tcp://127.0.0.1:1"
EMPTY = MetadataReply([])


@pytest.fixture
def transports() -> Iterator[list[Transport]]:
    made: list[Transport] = []
    yield made
    for transport in made:
        transport.stop()


def started(transports: list[Transport], server: str, request_timeout_ms: int = 30_000) -> Transport:
    transport = Transport(server, client_id="test", request_timeout_ms=request_timeout_ms)
    transports.append(transport)
    transport.start()
    return transport


def test_call_is_answered(transports: list[Transport]) -> None:
    with fake_peer(answer_with(EMPTY)) as peer:
        assert started(transports, peer.server).call(Metadata(), MetadataReply, 5_000) == EMPTY
        assert peer.greetings == 1


def test_client_without_a_broker_fails_within_its_deadline_and_says_what_to_check(transports: list[Transport]) -> None:
    transport = started(transports, NOWHERE)
    began = time.monotonic()
    with pytest.raises(RequestTimeout, match=r"tcp://127\.0\.0\.1:1 .*is a broker running there"):
        transport.call(Metadata(), MetadataReply, 200)
    assert time.monotonic() - began < 5


def test_peer_that_does_not_greet_counts_as_away(transports: list[Transport]) -> None:
    with fake_peer(answer_with(EMPTY), greets=False) as peer:
        with pytest.raises(RequestTimeout):
            started(transports, peer.server).call(Metadata(), MetadataReply, 200)
        assert peer.requests == []


def test_silent_peer_is_told_apart_from_one_that_is_away(transports: list[Transport]) -> None:
    with fake_peer(lambda _: None) as peer, pytest.raises(RequestTimeout, match="the broker does not answer"):
        started(transports, peer.server).call(Metadata(), MetadataReply, 300)


def test_broker_that_comes_up_later_is_found(transports: list[Transport]) -> None:
    with fake_peer(answer_with(EMPTY)) as peer:
        server = peer.server
    future = started(transports, server).submit(Metadata(), MetadataReply, 10_000)
    with fake_peer(answer_with(EMPTY), bind=server):
        assert future.result(10) == EMPTY


def test_request_without_a_reply_is_sent_again_over_a_fresh_connection(transports: list[Transport]) -> None:
    def behaviour(request: DecodedRequest) -> list[bytes | bytearray | memoryview] | None:
        return None if peer.greetings < 2 else encode_response(request.correlation_id, EMPTY)

    with fake_peer(behaviour) as peer:
        assert started(transports, peer.server, request_timeout_ms=100).call(Metadata(), MetadataReply, 10_000) == EMPTY
        assert peer.greetings == 2


def test_call_under_way_survives_a_broker_that_restarts(transports: list[Transport]) -> None:
    with fake_peer(lambda _: None) as peer:
        server = peer.server
        future = started(transports, server).submit(Metadata(), MetadataReply, 10_000)
        while not peer.requests:
            time.sleep(0.005)
    with fake_peer(answer_with(EMPTY), bind=server):
        assert future.result(10) == EMPTY


def test_nonsense_from_the_peer_breaks_the_connection_not_the_client(transports: list[Transport]) -> None:
    def behaviour(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        return [b"\xc1nonsense"] if len(peer.requests) == 1 else encode_response(request.correlation_id, EMPTY)

    with fake_peer(behaviour) as peer:
        assert started(transports, peer.server).call(Metadata(), MetadataReply, 10_000) == EMPTY
        assert peer.greetings == 2


def test_error_that_can_be_retried_is_retried_until_it_passes(transports: list[Transport]) -> None:
    def behaviour(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        if len(peer.requests) < 3:
            return list(encode_error(request.correlation_id, BrokerOverloaded("busy")))
        return encode_response(request.correlation_id, EMPTY)

    with fake_peer(behaviour) as peer:
        assert started(transports, peer.server).call(Metadata(), MetadataReply, 10_000) == EMPTY


def test_deadline_ends_retries_and_names_the_last_error(transports: list[Transport]) -> None:
    refusal = BrokerOverloaded("much too busy")
    with (
        fake_peer(lambda request: encode_error(request.correlation_id, refusal)) as peer,
        pytest.raises(RequestTimeout, match="much too busy"),
    ):
        started(transports, peer.server).call(Metadata(), MetadataReply, 300)


def test_refusal_for_good_is_raised_as_it_is(transports: list[Transport]) -> None:
    refusal = UnknownTopic("no topic x")
    with (
        fake_peer(lambda request: encode_error(request.correlation_id, refusal)) as peer,
        pytest.raises(UnknownTopic, match="no topic x"),
    ):
        started(transports, peer.server).call(Metadata(["x"]), MetadataReply, 5_000)


def test_many_calls_at_once_each_get_their_answer(transports: list[Transport]) -> None:
    def behaviour(request: DecodedRequest) -> list[bytes | bytearray | memoryview]:
        body = EMPTY if isinstance(request.body, Metadata) else ListGroupsReply([])
        return encode_response(request.correlation_id, body)

    with fake_peer(behaviour) as peer:
        transport = started(transports, peer.server)
        topics = [transport.submit(Metadata(), MetadataReply) for _ in range(50)]
        groups = [transport.submit(ListGroups(), ListGroupsReply) for _ in range(50)]
        assert all(future.result(10) == EMPTY for future in topics)
        assert all(future.result(10) == ListGroupsReply([]) for future in groups)


def test_closing_ends_calls_under_way_and_refuses_new_ones(transports: list[Transport]) -> None:
    transport = started(transports, NOWHERE)
    future = transport.submit(Metadata(), MetadataReply, 60_000)
    transport.stop()
    with pytest.raises(ClientClosed):
        future.result(5)
    with pytest.raises(ClientClosed):
        transport.submit(Metadata(), MetadataReply)
    transport.stop()  # twice does no harm
    transport.wake()  # nor does this


def test_transport_that_was_never_started_can_be_closed() -> None:
    Transport(NOWHERE).stop()


class FaultyService:
    """Fails in its second step."""

    def __init__(self) -> None:
        self.steps = 0
        self.told: LogsvcError | None = None

    def step(self, now_ms: int) -> int:
        self.steps += 1
        if self.steps == 2:
            raise ZeroDivisionError("a bug")
        return now_ms + 60_000

    def stopped(self, error: LogsvcError) -> None:
        self.told = error


def test_bug_on_the_io_thread_is_told_to_whoever_waits_instead_of_hanging_them(transports: list[Transport]) -> None:
    service = FaultyService()
    transport = Transport(NOWHERE)
    transports.append(transport)
    transport.start(service)
    with pytest.raises(ClientClosed, match="a bug"):
        transport.submit(Metadata(), MetadataReply, 60_000).result(5)
    assert isinstance(service.told, ClientClosed)


def test_address_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InvalidConfig, match="tcp://HOST:PORT"):
        Transport("localhost:9292")


def test_address_that_zeromq_refuses_is_named(transports: list[Transport]) -> None:
    transport = started(transports, "tcp://not a host:port")
    with pytest.raises(RequestTimeout, match="cannot connect to tcp://not a host:port"):
        transport.call(Metadata(), MetadataReply, 100)
