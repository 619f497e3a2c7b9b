"""Requests of the right form with values of every kind, against a real broker: each is answered, none with InternalError.

Names are mostly ones that exist, so that the values reach the code behind the first check; numbers are small ones and the
extremes. What destroys (deleting, trimming) happens too: the topics are made again as the run goes on.
"""

import random
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_common import messages as m
from logsvc_common.batch import CODECS, RecordData, encode
from logsvc_common.errors import InternalError, LogsvcError, TopicExists
from logsvc_common.frames import decode_body, decode_response, encode_request
from logsvc_common.messages.redrive import RedriveFilter
from logsvc_common.retry import RetryPolicy
from tests.e2e.raw_peer import RawPeer
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic

REQUESTS = 6_000
SEED = 20_251

TOPICS = ("orders", "events")
TEXTS = (*TOPICS, "good", "group-1", "member-1", "uniform", "range", "sticky", "")
# What a field of that name usually holds: values that get behind the first check.
USUAL: dict[str, tuple[Any, ...]] = {
    "topic": TOPICS,
    "topics": (None, ["orders"], list(TOPICS)),
    "group": ("group-1", "group-2", "loners"),
    "member_id": ("member-1", "member-2"),
    "member_epoch": (m.JOIN_EPOCH, m.JOIN_EPOCH, 1, 2, m.LEAVE_EPOCH),
    "assignor": (None, "uniform", "range", "sticky"),
    "session_timeout_ms": (None, 10_000),
    "partition": (0, 0, 1, 2, 3),
    "config": ({}, {}, {"retention.ms": "86400000"}),
    "redrive_id": (1, 2, 3),
}
STRANGE_TEXTS = ("../x", "__logsvc_groups", "dlq.orders.group-1", "ä\n", "x" * 300, "x" * 100_000, "\ud7ff", "None", "-1")
NUMBERS = (0, 0, 0, 1, 1, 2, 3, 5)
EXTREMES = (-1, -2, 100, 65_536, 1 << 31, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 62)
SETTINGS = ("retention.ms", "segment.bytes", "flush", "max.message.bytes", "cleanup.policy", "no.such")


class Fuzz:
    """Values by type, from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.epochs: dict[tuple[str, str], int] = {}
        self.follow_ups: list[m.Request] = []

    def request(self) -> m.Request:
        if self.follow_ups and self.rng.random() < 0.5:
            return self.follow_ups.pop()
        body = self.message(m.APIS[self.rng.choice(list(m.Api))].request)
        assert isinstance(body, m.Request)
        if isinstance(body, m.DeleteTopic) and self.rng.random() < 0.9:
            return m.DeleteTopic("nowhere")
        if isinstance(body, m.GroupHeartbeat) and body.group == "loners":
            return msgspec.structs.replace(body, group="group-1")  # so that this group stays open to those without a member
        if isinstance(body, m.StartRedrive) and self.rng.random() < 0.7:
            return msgspec.structs.replace(body, group="loners", topic="orders", where=RedriveFilter())
        if not isinstance(body, m.Commit | m.FetchRetries | m.GroupHeartbeat) or self.rng.random() < 0.3:
            return body
        # Drawn at random, a member's epoch is never right: mostly say what the group says, or commit as one without a member.
        if isinstance(body, m.Commit) and self.rng.random() < 0.5:
            return msgspec.structs.replace(body, group="loners", member_id="", member_epoch=m.NO_MEMBER_EPOCH)
        if not self.epochs:
            return body
        (group, member), epoch = self.rng.choice(list(self.epochs.items()))
        return msgspec.structs.replace(body, group=group, member_id=member, member_epoch=epoch)

    def learn(self, body: m.Request, reply: m.Message) -> None:
        """Remember the epoch a group gave to a member, and what was started."""
        if isinstance(reply, m.StartRedriveReply):
            self.follow_ups.append(m.CancelRedrive(reply.redrive.redrive_id))
        if isinstance(body, m.GroupHeartbeat) and isinstance(reply, m.GroupHeartbeatReply):
            self.epochs[body.group, body.member_id] = reply.member_epoch

    def of(self, wanted: Any) -> Any:
        rng = self.rng
        origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
        if origin is typing.Annotated:
            return self.of(inner[0])
        if origin in (types.UnionType, typing.Union):
            return self.of(rng.choice(inner))
        if origin is list:
            return [self.of(inner[0]) for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 20)))]
        if origin is tuple:
            return tuple(self.of(choice) for choice in inner)
        if origin is dict:
            return {rng.choice(SETTINGS): self.of(inner[1]) for _ in range(rng.choice((0, 0, 1, 2)))}
        if wanted is RetryPolicy:
            return RetryPolicy(max_attempts=rng.choice((1, 1, 2, 5)), initial_ms=rng.choice((0, 10)), jitter=rng.random())
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return self.message(wanted)
        if wanted is int:
            return rng.choice(EXTREMES if rng.random() < 0.2 else NUMBERS)
        if wanted is str:
            return rng.choice(STRANGE_TEXTS if rng.random() < 0.1 else TEXTS)
        if wanted is float:
            return rng.choice((0.0, 0.5, 1.0, -1.0, 1e308, float("inf"), float("nan")))
        return {bool: rng.random() < 0.5, type(None): None}[wanted]

    def field(self, name: str, wanted: Any) -> Any:
        if name in USUAL and self.rng.random() < 0.9:
            return self.rng.choice(USUAL[name])
        return self.of(wanted)

    def message(self, wanted: type[msgspec.Struct]) -> Any:
        hints = typing.get_type_hints(wanted, include_extras=True)
        values = {name: self.field(name, hints[name]) for name in wanted.__struct_fields__}
        if "max_wait_ms" in values:
            values["max_wait_ms"] = min(values["max_wait_ms"], 5)  # the test waits for every answer
        if wanted is m.CreateTopic or wanted is m.AlterTopic:
            count = values["partitions"]
            values["partitions"] = count if count is None or count < 10 else 1 << 40  # refused, or quick to make
        return wanted(**values)

    def payload(self, body: m.Request) -> list[bytes]:
        rng = self.rng
        count = len(body.partitions) if isinstance(body, m.Produce) and rng.random() < 0.9 else rng.randrange(3)
        return [self.batch() for _ in range(count)]

    def batch(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.1:
            return rng.randbytes(rng.randrange(200))
        records = [
            RecordData(rng.randbytes(rng.randrange(50)), rng.choice((None, b"k")), rng.choice((0, 1_000, (1 << 62), 1 << 50)))
            for _ in range(rng.randrange(1, 5))
        ]
        return encode(
            records,
            codec=rng.choice(list(CODECS.values())),
            producer_id=rng.choice((-1, 0, 5, (1 << 63) - 1)),
            producer_epoch=rng.choice((-1, 0, 1, 32_767, -32_768)),
            base_sequence=rng.choice((-1, 0, 1, (1 << 31) - 1, -(1 << 31))),
        )


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--log-level", "info") as running:
        ensure_good_topic(running)
        yield running


def make_topics(peer: RawPeer) -> None:
    for topic in TOPICS:
        try:
            peer.create_topic(topic, 3)
        except TopicExists:
            continue


@pytest.mark.timeout(180)
def test_every_request_is_answered_and_none_ends_in_a_fault_of_the_broker(broker: BrokerProcess) -> None:
    fuzz = Fuzz(SEED)
    outcomes: dict[str, set[str]] = {}
    with RawPeer(broker.server) as peer:
        for number in range(REQUESTS):
            if not number % 50:
                make_topics(peer)
            body = fuzz.request()
            api = body.API
            if isinstance(body, m.DeleteTopic) and body.topic == "good":
                continue
            peer.send_frames(encode_request(1_000_000 + number, body, fuzz.payload(body)))
            answer = decode_response(peer.receive_frames())
            assert answer.correlation_id == 1_000_000 + number
            assert not isinstance(answer.error, InternalError), (body, answer.error)
            try:
                reply = decode_body(answer, m.APIS[api].response)
            except LogsvcError as error:
                outcomes.setdefault(api.name, set()).add(type(error).__name__)
                continue
            codes = {result.error_code for result in getattr(reply, "results", [])}
            assert InternalError.code not in codes, (body, reply)
            fuzz.learn(body, reply)
            outcomes.setdefault(api.name, set()).add("answered")
    # Every api got past its first check at least once, or the run proves little.
    assert [name for name, seen in outcomes.items() if "answered" not in seen] == [], outcomes
    assert set(outcomes) == {api.name for api in m.Api}
    assert_unharmed(broker)


@pytest.mark.timeout(60)
def test_what_the_fuzz_left_behind_survives_a_restart(broker: BrokerProcess) -> None:
    # Whatever those requests made the broker write, it can read again.
    with RawPeer(broker.server) as peer:
        before = peer.call(m.Metadata(None, True))[0]
        groups = peer.call(m.ListGroups())[0]
    broker.kill()
    broker.start()
    with RawPeer(broker.server) as peer:
        after = peer.call(m.Metadata(None, True))[0]
        listed = peer.call(m.ListGroups())[0]
    assert [(t.topic, [p.end_offset for p in t.partitions], t.config) for t in after.topics] == [
        (t.topic, [p.end_offset for p in t.partitions], t.config) for t in before.topics
    ]
    assert {group.group for group in listed.groups} == {group.group for group in groups.groups}
    assert_unharmed(broker)
