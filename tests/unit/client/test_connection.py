"""A connection's life: greeting, replies, deadlines, breaking, backoff; on a clock made of integers."""

from collections.abc import Sequence

import pytest

from logsvc_client.connection import (
    CALM_MS,
    HEARTBEAT_TIMEOUT_MAX_MS,
    HEARTBEAT_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    RECONNECT_MAX_MS,
    RECONNECT_MIN_MS,
    REQUESTS_IN_FLIGHT_MAX,
    Connection,
    Phase,
)
from logsvc_common.batch import Buffer
from logsvc_common.errors import BrokerOverloaded, Disconnected, InvalidRequest, LogsvcError, UnknownTopic
from logsvc_common.frames import decode_request, encode_error, encode_response
from logsvc_common.messages import Hello, HelloReply, Message, Metadata, MetadataReply

HELLO_REPLY = HelloReply("broker", "test", 1 << 20, [])


class Answers(list[Message | LogsvcError]):
    """Collects what a request ended in."""

    def __call__(self, answer: Message | LogsvcError, payload: Sequence[Buffer]) -> None:
        self.append(answer)


def correlation_id(frames: Sequence[Buffer] | None) -> int:
    assert frames is not None
    return decode_request(frames).correlation_id


def greeted(now_ms: int = 0) -> Connection:
    made = Connection(Hello(), request_timeout_ms=1_000)
    made.received(encode_response(correlation_id(made.opened(now_ms)), HELLO_REPLY))
    return made


def test_greets_first_and_is_ready_when_greeted_back() -> None:
    made = Connection(Hello(client_id="me"), 1_000)
    assert made.phase is Phase.WAITING
    request = decode_request(made.opened(0))
    assert isinstance(request.body, Hello)
    assert made.phase is Phase.GREETING
    made.received(encode_response(request.correlation_id, HELLO_REPLY))
    assert made.ready
    assert made.broker == HELLO_REPLY


def test_request_before_the_greeting_fails_at_once() -> None:
    made, answers = Connection(Hello(), 1_000), Answers()
    assert made.request(Metadata(), (), answers, 0) is None
    assert isinstance(answers[0], Disconnected)


def test_answers_find_their_requests_in_any_order() -> None:
    made, first, second = greeted(), Answers(), Answers()
    first_id = correlation_id(made.request(Metadata(["a"]), (), first, 0))
    second_id = correlation_id(made.request(Metadata(["b"]), (), second, 0))
    made.received(encode_response(second_id, MetadataReply([])))
    made.received(encode_error(first_id, UnknownTopic("no a")))
    assert second == [MetadataReply([])]
    assert isinstance(first[0], UnknownTopic)


def test_answer_of_the_wrong_shape_is_an_error_of_that_request_alone() -> None:
    made, answers = greeted(), Answers()
    made.received(encode_response(correlation_id(made.request(Metadata(), (), answers, 0)), "nonsense"))
    assert isinstance(answers[0], InvalidRequest)
    assert made.ready


def test_frames_that_are_no_answer_are_told_to_the_caller() -> None:
    with pytest.raises(InvalidRequest):
        greeted().received([b"\xc1"])


def test_answer_to_nothing_is_ignored() -> None:
    greeted().received(encode_response(999, HELLO_REPLY))


def test_one_late_reply_breaks_the_connection_for_every_request() -> None:
    made, late, other = greeted(), Answers(), Answers()
    made.request(Metadata(), (), late, 0, timeout_ms=100)
    made.request(Metadata(), (), other, 50)
    assert made.next_deadline_ms() == 100
    assert made.overdue(99) is None
    why = made.overdue(100)
    assert why is not None
    made.broken(why, 100, 0.0)
    assert [type(answer) for answer in (*late, *other)] == [Disconnected, Disconnected]
    assert made.phase is Phase.WAITING


def test_reply_in_time_moves_the_deadline_on() -> None:
    made, first = greeted(), Answers()
    first_id = correlation_id(made.request(Metadata(), (), first, 0, timeout_ms=100))
    made.request(Metadata(), (), Answers(), 0, timeout_ms=500)
    made.received(encode_response(first_id, MetadataReply([])))
    assert made.overdue(100) is None
    assert made.overdue(500) is not None


def test_requests_end_in_the_order_they_were_sent_when_the_connection_breaks() -> None:
    made, order = greeted(), []
    for number in range(3):
        made.request(Metadata(), (), lambda _a, _p, number=number: order.append(number), 0)
    made.broken("gone", 0, 0.0)
    assert order == [0, 1, 2]


def test_greeting_without_an_answer_runs_out() -> None:
    made = Connection(Hello(), 60_000)
    made.opened(0)
    assert made.overdue(HELLO_TIMEOUT_MS) is not None


def test_waits_between_tries_grow_with_jitter_up_to_a_limit_and_begin_again() -> None:
    made = Connection(Hello(), 1_000)
    waits = []
    for _ in range(12):
        made.opened(0)
        made.broken("gone", 0, 1.0)
        waits.append(made.retry_at_ms)
    assert waits[0] == RECONNECT_MIN_MS
    assert waits == sorted(waits)
    assert waits[-1] == RECONNECT_MAX_MS
    made.opened(0)
    made.broken("gone", 0, 0.0)
    assert made.retry_at_ms == RECONNECT_MAX_MS // 2
    made.received(encode_response(correlation_id(made.opened(0)), HELLO_REPLY))
    made.broken("gone", 0, 1.0)
    assert made.retry_at_ms == RECONNECT_MIN_MS


def test_table_of_requests_is_bounded() -> None:
    made, answers = greeted(), Answers()
    for _ in range(REQUESTS_IN_FLIGHT_MAX):
        assert made.request(Metadata(), (), answers, 0) is not None
    assert made.request(Metadata(), (), answers, 0) is None
    assert isinstance(answers[0], BrokerOverloaded)


def test_refused_greeting_is_waited_out_and_named() -> None:
    made = Connection(Hello(), 1_000)
    made.received(encode_error(correlation_id(made.opened(0)), BrokerOverloaded("too many peers")))
    assert made.phase is Phase.GREETING
    assert "too many peers" in made.failure


def cut_off(made: Connection, now_ms: int, lasted_ms: int, broker: str = "broker") -> int:
    """A connection that ends `lasted_ms` after it was made, with a request unanswered, and the next greeting. When that was."""
    made.request(Metadata(), (), Answers(), now_ms, 1_000_000)
    made.broken("silence", now_ms + lasted_ms, 0.0)
    again_ms = now_ms + lasted_ms + RECONNECT_MAX_MS
    made.received(encode_response(correlation_id(made.opened(again_ms)), HelloReply(broker, "test", 1 << 20, [])))
    return again_ms


def test_a_link_too_slow_for_its_answers_is_given_more_time_at_each_try() -> None:
    made, now_ms, timeouts = greeted(), 0, []
    for _ in range(6):
        now_ms = cut_off(made, now_ms, made.heartbeat_timeout_ms + 1_000)
        timeouts.append(made.heartbeat_timeout_ms)
    assert timeouts == [4_000, 8_000, 16_000, 32_000, 32_000, 32_000]
    assert timeouts[-1] == HEARTBEAT_TIMEOUT_MAX_MS
    # When a connection has lasted, then silence is what it was.
    cut_off(made, now_ms, CALM_MS)
    assert made.heartbeat_timeout_ms == HEARTBEAT_TIMEOUT_MS


@pytest.mark.parametrize(
    ("lasted_ms", "broker"),
    [(1_000, "broker"), (10_000, "broker"), (3_000, "another")],
    ids=["cut at once", "lost later", "the broker restarted"],
)
def test_other_ends_teach_no_patience(lasted_ms: int, broker: str) -> None:
    made = greeted()
    cut_off(made, 0, lasted_ms, broker)
    assert made.heartbeat_timeout_ms == HEARTBEAT_TIMEOUT_MS
