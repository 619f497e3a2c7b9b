"""One connection's life and its requests in flight, as a pure machine.

There is one failure mode. When a request's reply does not come in time, or the peer goes away, the whole connection is
given up: every request in flight ends in `Disconnected`, and a fresh socket starts over with `Hello`. ZeroMQ may lose a
message queued in a socket that reconnects without telling anyone, so only a reply counts, and nothing is ever guessed
from a send that seemed to work.

    WAITING --retry_at_ms passed--> GREETING --HelloReply--> READY
       ^                                |                      |
       +----- broken: timeout, disconnect, nonsense received --+

Waits between tries grow exponentially with jitter, and begin again at the bottom once a broker has greeted back.

How long silence may last before heartbeats call it death grows as well. libzmq hears whole messages only, so on a slow link a
large answer is silence until its last byte. When a connection ends soon after it was made, with a request unanswered for as
long as heartbeats take, and the same broker greets back, then it was the link: the next silence may be twice as long, or that
answer would be asked for and cut off for ever. A connection that has lasted CALM_MS starts over.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from logsvc_common.batch import Buffer
from logsvc_common.errors import BrokerOverloaded, Disconnected, LogsvcError
from logsvc_common.frames import PAYLOAD_FRAMES_MAX, decode_body, decode_response, encode_request
from logsvc_common.messages import APIS, Hello, HelloReply, Message, Request

REQUESTS_IN_FLIGHT_MAX = 1_024
HELLO_TIMEOUT_MS = 3_000
RECONNECT_MIN_MS = 20
RECONNECT_MAX_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 2_000
HEARTBEAT_TIMEOUT_MAX_MS = 32_000
SOON = 3  # times the heartbeat timeout
CALM_MS = 60_000

Reply = Callable[[Message | LogsvcError, Sequence[Buffer]], None]
"""Called exactly once for each request: with the body of its answer or the error it ended in, and the payload frames."""


class Phase(Enum):
    WAITING = "waiting"
    GREETING = "greeting"
    READY = "ready"


class InFlight(NamedTuple):
    sent_ms: int
    deadline_ms: int
    expected: type[Message]
    reply: Reply


class Connection:
    """Which requests are in flight and until when. Times are monotonic milliseconds, given by the caller."""

    def __init__(self, hello: Hello, request_timeout_ms: int) -> None:
        self.phase = Phase.WAITING
        self.retry_at_ms = 0
        self.broker: HelloReply | None = None
        self.failure = "no connection was tried yet"
        self.generation = 0
        self.heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS  # for the next socket
        self._hello = hello
        self._request_timeout_ms = request_timeout_ms
        self._in_flight: dict[int, InFlight] = {}
        self._correlation_id = 0
        self._failures = 0
        self._opened_ms = 0
        self._cut_off = False  # the last connection ended soon, with an answer overdue by heartbeats' measure
        self._earliest_ms = 1 << 62  # no deadline in the table is earlier

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def room(self) -> int:
        """How many more requests may be in flight."""
        return REQUESTS_IN_FLIGHT_MAX - len(self._in_flight)

    def opened(self, now_ms: int) -> list[Buffer]:
        """A fresh socket is there. Returns the frames of the greeting."""
        assert self.phase is Phase.WAITING
        self.phase = Phase.GREETING
        self.generation += 1
        self._opened_ms = now_ms
        return self._admit(self._hello, (), self._greeted, now_ms, HELLO_TIMEOUT_MS)

    def _greeted(self, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        if isinstance(answer, HelloReply):
            if self._cut_off and self.broker is not None and self.broker.broker_id == answer.broker_id:
                self.heartbeat_timeout_ms = min(HEARTBEAT_TIMEOUT_MAX_MS, 2 * self.heartbeat_timeout_ms)
            self._cut_off = False
            self.broker = answer
            self.phase = Phase.READY
            self._failures = 0
        elif self.phase is Phase.GREETING:
            # A refusal: wait for the greeting to time out rather than hammer the broker.
            self.failure = f"the broker refused the greeting: {answer}"

    def request(
        self, body: Request, payload: Sequence[Buffer], reply: Reply, now_ms: int, timeout_ms: int | None = None
    ) -> list[Buffer] | None:
        """Enter a request in the table. Returns its frames, or None when it has been answered with an error already.

        `timeout_ms` counts from now and is for the broker's answer; a long poll adds its own wait to the default.
        """
        if self.phase is not Phase.READY:
            reply(Disconnected(self.failure), ())
            return None
        if self.room <= 0 or len(payload) > PAYLOAD_FRAMES_MAX:
            reply(BrokerOverloaded(f"{len(self._in_flight)} requests are in flight already"), ())
            return None
        return self._admit(body, payload, reply, now_ms, timeout_ms or self._request_timeout_ms)

    def _admit(self, body: Request, payload: Sequence[Buffer], reply: Reply, now_ms: int, timeout_ms: int) -> list[Buffer]:
        self._correlation_id += 1
        deadline_ms = now_ms + timeout_ms
        self._in_flight[self._correlation_id] = InFlight(now_ms, deadline_ms, APIS[body.API].response, reply)
        self._earliest_ms = min(self._earliest_ms, deadline_ms)
        return encode_request(self._correlation_id, body, payload)

    def received(self, frames: Sequence[Buffer]) -> None:
        """One answer arrived. Raises InvalidRequest when it is not one: then the connection is of no use any more."""
        response = decode_response(frames)
        entry = self._in_flight.pop(response.correlation_id, None)
        if entry is None:
            return  # To a request of before; a fresh socket makes this impossible, a confused peer does not.
        try:
            answer: Message | LogsvcError = decode_body(response, entry.expected)
        except LogsvcError as error:
            answer = error
        entry.reply(answer, response.payload)

    def overdue(self, now_ms: int) -> str | None:
        """Why the connection must be given up now: a request whose deadline has passed. None when all is well."""
        if now_ms < self._earliest_ms:
            return None
        self._earliest_ms = min((entry.deadline_ms for entry in self._in_flight.values()), default=1 << 62)
        if now_ms < self._earliest_ms:
            return None
        late = next(entry for entry in self._in_flight.values() if entry.deadline_ms <= now_ms)
        return f"no {late.expected.__name__} in time"

    def broken(self, why: str, now_ms: int, unit: float) -> None:
        """The socket is gone. Every request in flight ends in Disconnected, in the order they were sent.

        `unit` is a random number in [0, 1) that spreads the wait before the next try.
        """
        self._judge_end(now_ms)
        self.failure = why
        self.phase = Phase.WAITING
        wait_ms = min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** min(self._failures, 16))
        self._failures += 1
        self.retry_at_ms = now_ms + round(wait_ms * (0.5 + 0.5 * unit))
        self._earliest_ms = 1 << 62
        lost, self._in_flight = self._in_flight, {}
        for entry in lost.values():
            entry.reply(Disconnected(why), ())

    def _judge_end(self, now_ms: int) -> None:
        if self.phase is not Phase.READY:
            return
        lasted_ms, silent_ms = now_ms - self._opened_ms, self.heartbeat_timeout_ms
        if lasted_ms >= CALM_MS:
            self.heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS
        waited_ms = max((now_ms - entry.sent_ms for entry in self._in_flight.values()), default=0)
        self._cut_off = waited_ms >= silent_ms and lasted_ms < min(CALM_MS, SOON * silent_ms)

    def next_deadline_ms(self) -> int:
        """When `opened` or `overdue` should be looked at again, at the latest."""
        return self.retry_at_ms if self.phase is Phase.WAITING else self._earliest_ms
