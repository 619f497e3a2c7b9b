"""Quotas in a whole broker, on a simulated disk and clock: what is held back, for how long, what is told, what is refused."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from logsvc_common.batch import Buffer, RecordData, encode
from logsvc_common.errors import InvalidConfig, LogsvcError, QuotaExceeded
from logsvc_common.frames import decode_body, decode_response, encode_request
from logsvc_common.messages import (
    APIS,
    JOIN_EPOCH,
    LEAVE_EPOCH,
    AlterQuota,
    CreateTopic,
    Fetch,
    FetchOffsetsPartition,
    FetchPartition,
    FetchReply,
    FetchRetries,
    GroupHeartbeat,
    Hello,
    ListQuotas,
    Produce,
    ProducePartition,
    ProduceReply,
    Request,
)
from tests.simulation.service import SimulatedService

RATE = 100_000


class Answer(NamedTuple):
    at_ms: int
    body: Any
    payload: Sequence[Buffer]


class Shop:
    """A broker with one topic, and peers that say what client they are. `tell` sends and does not wait."""

    def __init__(self, **settings: int) -> None:
        self.got: dict[int, Answer] = {}
        self.asked: dict[int, type[Any]] = {}
        self.service = SimulatedService(1, carry=self._take, **settings)
        self.time = self.service.time
        self.call(b"admin", CreateTopic("t", 1))

    def _take(self, _peer: bytes, frames: list[Buffer]) -> None:
        answer = decode_response(frames)
        try:
            body: object = decode_body(answer, self.asked[answer.correlation_id])
        except LogsvcError as error:
            body = error
        self.got[answer.correlation_id] = Answer(self.time.monotonic_ms(), body, answer.payload)

    def tell(self, peer: bytes, body: Request, *payload: Buffer) -> int:
        number = len(self.asked) + 1
        self.asked[number] = APIS[body.API].response
        self.service.broker.receive(peer, encode_request(number, body, payload))
        return number

    def wait(self, number: int) -> Answer:
        self.time.run(lambda: number in self.got)
        return self.got[number]

    def call(self, peer: bytes, body: Request, *payload: Buffer) -> Answer:
        return self.wait(self.tell(peer, body, *payload))

    def quota(self, client_id: str, **quotas: int | None) -> Any:
        return self.call(b"admin", AlterQuota(client_id, quotas)).body

    def greet(self, peer: bytes, client_id: str) -> None:
        self.call(peer, Hello(client_id, "test"))

    def produce(self, peer: bytes, size: int) -> int:
        return self.tell(peer, Produce([ProducePartition("t", 0)]), batch_of(size))

    def fetch(self, peer: bytes, offset: int = 0, max_wait_ms: int = 0) -> int:
        return self.tell(peer, Fetch([FetchPartition("t", 0, offset)], max_wait_ms))

    def sleep(self, ms: int) -> None:
        done: list[None] = []
        self.time.call_later(ms / 1_000, done.append, None)
        self.time.run(lambda: bool(done))

    @property
    def now_ms(self) -> int:
        return self.time.monotonic_ms()


def batch_of(size: int) -> bytes:
    """One batch of about `size` bytes: its head takes 61, a record's head a few."""
    return encode([RecordData(b"x" * max(0, size - 80), timestamp_ms=1)])


def test_a_client_within_its_quota_waits_for_nothing() -> None:
    shop = Shop()
    shop.quota("me", producer_byte_rate=RATE, consumer_byte_rate=RATE)
    shop.greet(b"p", "me")
    started = shop.now_ms
    for _ in range(20):
        answer = shop.wait(shop.produce(b"p", 4_000))
        assert (answer.at_ms, answer.body.throttle_ms) == (started, 0)
    assert shop.wait(shop.fetch(b"p")).body.throttle_ms == 0
    assert b"logsvc_throttled_requests_total{" not in shop.service.metrics.render()[0]


def test_an_answer_is_held_until_the_bytes_are_paid_for() -> None:
    # Given a client that sends one and a half seconds' worth
    shop = Shop()
    shop.quota("me", producer_byte_rate=RATE)
    shop.greet(b"p", "me")
    started = shop.now_ms
    answer = shop.wait(shop.produce(b"p", RATE * 3 // 2))
    # Then it is in the log at once, for all to read, its answer comes half a second later, and nothing is left to wait for.
    assert answer.at_ms - started == pytest.approx(500, abs=2)
    assert (answer.body.results[0].base_offset, answer.body.throttle_ms) == (0, 0)
    metrics = shop.service.metrics.render()[0].decode()
    assert 'logsvc_throttled_requests_total{api="produce"} 1\n' in metrics
    assert 'logsvc_throttle_seconds_total{api="produce"} 0.5' in metrics or "0.49" in metrics


def test_an_answer_is_held_a_second_at_most_and_tells_what_is_left() -> None:
    shop = Shop()
    shop.quota("me", producer_byte_rate=RATE)
    shop.greet(b"p", "me")
    started = shop.now_ms
    answer = shop.wait(shop.produce(b"p", RATE * 4))
    assert answer.at_ms - started == 1_000
    assert answer.body.throttle_ms == pytest.approx(2_000, abs=2)
    # A client that waits as told has paid for all.
    shop.sleep(answer.body.throttle_ms)
    at = shop.now_ms
    assert shop.wait(shop.produce(b"p", 100)).at_ms - at < 5


def test_others_do_not_wait_with_it() -> None:
    shop = Shop()
    shop.quota("flood", producer_byte_rate=RATE)
    for peer, client_id in ((b"f", "flood"), (b"g", "good")):
        shop.greet(peer, client_id)
    for _ in range(50):
        shop.produce(b"f", RATE)
    at = shop.now_ms
    assert shop.wait(shop.produce(b"g", RATE)).at_ms == at
    assert shop.wait(shop.fetch(b"g")).at_ms == at


def test_who_sends_all_the_same_is_refused_and_gets_no_more_than_its_rate() -> None:
    # Given a client that never waits, for a minute
    shop = Shop()
    shop.quota("flood", producer_byte_rate=RATE)
    shop.greet(b"f", "flood")
    sent = []
    for _ in range(600):
        sent.append(shop.produce(b"f", RATE // 2))
        shop.sleep(100)
    answers = [shop.wait(number) for number in sent]
    taken = [answer for answer in answers if not answer.body.results[0].error_code]
    refused = [answer for answer in answers if answer.body.results[0].error_code]
    # Then what was taken is its rate, and the second of burst and ten of debt that are allowed; the rest was refused, to be
    # tried again, and told when.
    assert 60 * RATE <= len(taken) * RATE // 2 <= (60 + 1 + 10 + 1) * RATE
    assert {answer.body.results[0].error_code for answer in refused} == {QuotaExceeded.code}
    assert QuotaExceeded.retriable
    assert min(answer.body.throttle_ms for answer in refused) > 0


def test_bytes_in_flight_are_bounded_and_one_large_request_still_passes() -> None:
    shop = Shop()
    shop.quota("me", in_flight_bytes=10_000)
    for peer in (b"1", b"2"):
        shop.greet(peer, "me")
    # Given one request larger than all that is allowed, alone in flight: it is taken; another, from any connection of the
    # client, finds no room;
    first, second = shop.produce(b"1", 20_000), shop.produce(b"2", 100)
    assert not shop.wait(first).body.results[0].error_code
    refused = shop.wait(second).body.results[0]
    assert refused.error_code == QuotaExceeded.code
    assert "in_flight_bytes" in refused.error_message
    # and when the first is durable, there is room again.
    assert not shop.wait(shop.produce(b"2", 100)).body.results[0].error_code


def test_a_fetch_brings_what_the_quota_holds_and_the_next_waits() -> None:
    # Given ten seconds' worth of records in the log
    shop = Shop()
    shop.quota("me", consumer_byte_rate=RATE)
    shop.greet(b"c", "me")
    for _ in range(100):
        shop.wait(shop.produce(b"w", RATE // 10))
    # When a client reads as fast as it is let, waiting when told
    started, offset, got = shop.now_ms, 0, 0
    while offset < 100:
        answer = shop.wait(shop.fetch(b"c", offset))
        assert isinstance(answer.body, FetchReply)
        for frame in answer.payload:
            got += len(frame)
            offset += round(len(frame) / (RATE / 10))
        shop.sleep(answer.body.throttle_ms)
    # Then it takes the ten seconds, less the one that it had saved up.
    seconds = (shop.now_ms - started) / 1_000
    assert got / RATE - 2 <= seconds <= got / RATE + 1


def test_a_fetch_of_a_client_in_debt_is_held_and_then_answered_without_records() -> None:
    shop = Shop()
    shop.quota("me", consumer_byte_rate=1_000)
    shop.greet(b"c", "me")
    shop.wait(shop.produce(b"w", 4_000))
    assert len(shop.wait(shop.fetch(b"c")).payload) == 1  # one whole batch, however large
    at = shop.now_ms
    empty = shop.wait(shop.fetch(b"c"))
    assert empty.at_ms - at == 1_000
    assert list(empty.payload) == []
    assert empty.body.throttle_ms == pytest.approx(2_000, abs=20)
    shop.sleep(2_000)
    at = shop.now_ms
    assert len(shop.wait(shop.fetch(b"c")).payload) == 1


def test_long_polls_that_waited_do_not_all_go_at_once() -> None:
    # Given many polls of one client parked at the end of the log
    shop = Shop()
    shop.quota("me", consumer_byte_rate=10_000)
    shop.greet(b"c", "me")
    polls = [shop.fetch(b"c", 0, 30_000) for _ in range(20)]
    at = shop.now_ms
    # When a batch arrives that is more than the quota holds
    shop.wait(shop.produce(b"w", 20_000))
    answers = [shop.wait(number) for number in polls]
    # Then one has it now, and the others a second later, nothing, and when to ask again.
    now = [answer for answer in answers if answer.at_ms == at]
    assert [len(answer.payload) for answer in now] == [1]
    later = [answer for answer in answers if answer.at_ms > at]
    assert sum(len(answer.payload) for answer in later) <= 1
    assert len(later) == 19


def test_a_broker_that_stops_answers_what_is_held() -> None:
    shop = Shop()
    shop.quota("me", producer_byte_rate=1_000, consumer_byte_rate=1_000)
    shop.greet(b"p", "me")
    held = shop.produce(b"p", 20_000)
    shop.wait(shop.fetch(b"p"))
    polled = shop.fetch(b"p", 0, 10_000)
    shop.time.run(lambda: bool(shop.service.broker._throttle._held))
    shop.service.broker._throttle.stop()
    shop.service.broker._fetch.stop()
    assert {held, polled} <= shop.got.keys()
    assert isinstance(shop.got[held].body, ProduceReply)


def test_the_default_holds_for_clients_of_any_id_each_by_itself() -> None:
    shop = Shop(quota_producer_byte_rate=RATE)
    for peer in (b"1", b"2"):
        shop.greet(peer, f"client {peer!r}")
    at = shop.now_ms
    first, second = shop.produce(b"1", RATE * 3 // 2), shop.produce(b"2", RATE // 2)
    assert shop.wait(second).at_ms == at
    assert shop.wait(first).at_ms > at


def test_quotas_survive_a_restart_and_a_power_cut() -> None:
    shop = Shop()
    shop.quota("a", producer_byte_rate=RATE)
    shop.quota("b", consumer_byte_rate=5)
    shop.quota("a", in_flight_bytes=7)
    assert shop.quota("b", consumer_byte_rate=None).client.quotas == {}
    lives = [shop.service.kill(), shop.service.power_cut(ordered=False)]
    for life in lives:
        listed, _ = life.ask(ListQuotas())
        assert listed.clients[0].quotas == {"producer_byte_rate": RATE, "in_flight_bytes": 7}  # type: ignore[attr-defined]
        assert len(listed.clients) == 1  # type: ignore[attr-defined]


def test_a_file_of_quotas_that_cannot_be_understood_is_set_aside() -> None:
    shop = Shop()
    shop.quota("a", producer_byte_rate=RATE)
    disk = shop.service.disk.kill()
    disk.set_content("/data/quotas.json", b"\xff{")
    listed, _ = SimulatedService(2, disk).ask(ListQuotas())
    assert listed.clients == []  # type: ignore[attr-defined]
    assert disk.exists("/data/quotas.json.corrupt")


@pytest.mark.parametrize(
    ("client_id", "quotas"),
    [("a", {"produce": 1}), ("a", {"producer_byte_rate": 0}), ("a", {"in_flight_bytes": -2}), ("a\n", {}), ("x" * 300, {})],
)
def test_what_is_no_quota_is_refused(client_id: str, quotas: dict[str, int | None]) -> None:
    assert isinstance(Shop().quota(client_id, **quotas), InvalidConfig)


def test_requests_of_this_process_use_no_quota() -> None:
    shop = Shop(quota_producer_byte_rate=1, quota_consumer_byte_rate=1)
    throttle = shop.service.broker._throttle
    assert throttle._fetch_bucket(_Local(), 0) is None  # type: ignore[arg-type]


class _Local:
    peer = b""


def test_a_member_that_leaves_ends_its_poll_without_an_error() -> None:
    # Given two members of a group, both with a poll for retries under way
    shop = Shop()
    polls = []
    for member in ("one", "two"):
        joined = shop.call(member.encode(), GroupHeartbeat("g", member, JOIN_EPOCH, topics=["t"])).body
        wanted = [FetchOffsetsPartition("t", 0)]
        polls.append(shop.tell(member.encode(), FetchRetries("g", member, joined.member_epoch, wanted, 20_000)))
    shop.sleep(10)
    assert polls[0] not in shop.got
    # When one leaves
    shop.call(b"one", GroupHeartbeat("g", "one", LEAVE_EPOCH))
    # Then its poll is over, empty, the other's goes on, and nothing has been counted as an error.
    assert shop.wait(polls[0]).body.results == []
    shop.sleep(10)
    assert polls[1] not in shop.got
    assert b'code="' not in shop.service.metrics.render()[0]
