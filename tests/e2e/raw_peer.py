"""A peer that speaks the wire protocol by hand, well or badly: what tests of the broker use instead of the client library.

It shares only `logsvc_common` with the client, so a test that reads back through it does not trust the client to be right, and
it may send what the client never would.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import zmq

from logsvc_common.batch import Buffer, Header, RecordData, check_crc, decode, encode, split
from logsvc_common.errors import LogsvcError, from_wire
from logsvc_common.frames import decode_body, decode_response, encode_request
from logsvc_common.messages import (
    APIS,
    CreateTopic,
    Fetch,
    FetchPartition,
    FetchReply,
    Hello,
    HelloReply,
    Message,
    Produce,
    ProducePartition,
    ProduceReply,
    Request,
    TopicReply,
)

TIMEOUT_MS = 10_000
FETCHES_MAX = 100_000

ReplyT = TypeVar("ReplyT", bound=Message)


class Silence(Exception):
    """Nothing came within the time given."""


class Stored(NamedTuple):
    """One record as it stands in a partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class RawPeer:
    """One DEALER socket. Not a thread of its own: what is not received stays in the socket."""

    def __init__(self, server: str, *, receive_high_water: int = 1_000) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = receive_high_water
        self.socket.connect(server)
        self._correlation_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self._context.term()

    def send_frames(self, frames: Sequence[Buffer]) -> None:
        """Send whatever this is. Silence when the socket takes no more within TIMEOUT_MS."""
        if not self.socket.poll(TIMEOUT_MS, zmq.POLLOUT):
            raise Silence("the socket takes nothing")
        self.socket.send_multipart(frames, zmq.DONTWAIT)

    def send(self, body: Request, payload: Sequence[Buffer] = ()) -> int:
        """Send a request and do not wait. Returns its correlation id."""
        self._correlation_id += 1
        self.send_frames(encode_request(self._correlation_id, body, payload))
        return self._correlation_id

    def receive_frames(self, timeout_ms: int = TIMEOUT_MS) -> list[bytes]:
        """The next message. Raises Silence."""
        if not self.socket.poll(timeout_ms):
            raise Silence(f"no answer within {timeout_ms} ms")
        return self.socket.recv_multipart()

    def call(self, body: Request, payload: Sequence[Buffer] = (), timeout_ms: int = TIMEOUT_MS) -> tuple[Any, Sequence[Buffer]]:
        """Send a request and wait for its answer: (body, payload). Raises the broker's error, or Silence."""
        wanted = self.send(body, payload)
        while True:
            answer = decode_response(self.receive_frames(timeout_ms))
            if answer.correlation_id == wanted:
                return decode_body(answer, APIS[body.API].response), answer.payload

    def refusal(self, body: Request, payload: Sequence[Buffer] = ()) -> LogsvcError:
        """The error a request ends in, of the whole or of its first partition that has one."""
        try:
            reply, _ = self.call(body, payload)
        except LogsvcError as error:
            return error
        for result in getattr(reply, "results", []):
            if result.error_code:
                return from_wire(result.error_code, result.error_message)
        raise AssertionError(f"{type(body).__name__} was not refused: {reply}")

    # What good clients do

    def hello(self) -> HelloReply:
        reply, _ = self.call(Hello("raw", "tests"))
        assert isinstance(reply, HelloReply)
        return reply

    def create_topic(self, topic: str, partitions: int = 1, **config: str) -> None:
        """`config` holds Kafka's names: `**{"max.message.bytes": "1000"}`."""
        reply, _ = self.call(CreateTopic(topic, partitions, config))
        assert isinstance(reply, TopicReply)

    def produce(self, topic: str, partition: int, batch: Buffer) -> int:
        """Append one batch; returns its first offset. Raises the broker's error."""
        reply, _ = self.call(Produce([ProducePartition(topic, partition)]), [batch])
        assert isinstance(reply, ProduceReply)
        (result,) = reply.results
        if result.error_code:
            raise from_wire(result.error_code, result.error_message)
        return result.base_offset

    def produce_values(self, topic: str, partition: int, *values: bytes) -> int:
        return self.produce(topic, partition, encode([RecordData(value, timestamp_ms=1_000) for value in values]))

    def fetch(self, topic: str, partition: int, offset: int, max_wait_ms: int = 0) -> tuple[FetchReply, Sequence[Buffer]]:
        reply, payload = self.call(Fetch([FetchPartition(topic, partition, offset)], max_wait_ms))
        assert isinstance(reply, FetchReply)
        return reply, payload

    def read_all(self, topic: str, partition: int, offset: int = 0) -> Iterator[Stored]:
        """Every record from `offset` to the end of a partition, each batch's CRC checked."""
        for _ in range(FETCHES_MAX):
            reply, payload = self.fetch(topic, partition, offset)
            for result in reply.results:
                if result.error_code:
                    raise from_wire(result.error_code, result.error_message)
            if not payload or not len(payload[0]):
                return
            for header, batch in split(payload[0]):
                check_crc(batch, header)
                yield from (
                    Stored(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in decode(batch) if r.offset >= offset
                )
                offset = header.next_offset
        raise AssertionError(f"more than {FETCHES_MAX} fetches")
