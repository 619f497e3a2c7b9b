"""Requests that cannot be met: each ends in its typed error, and after each the broker serves a good client as before.

One `logsvc serve` for the module; the requests are made by hand, since the client library refuses most of them itself.
"""

import random
import struct
import time
from collections.abc import Iterator

import msgspec
import pytest
from fastcrc import crc32

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Producer
from logsvc_common import errors
from logsvc_common import messages as m
from logsvc_common.batch import CODECS, RecordData, encode
from logsvc_common.errors import InternalError, InvalidRequest, LogsvcError, UnsupportedVersion
from logsvc_common.frames import HEADER_FRAME_BYTES_MAX, PAYLOAD_FRAMES_MAX, decode_response, encode_request
from tests.e2e.raw_peer import RawPeer, Silence
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic

ILLEGAL_NAMES = ["", ".", "..", "../x", "a/b", "a" * 250, "a\n", "a b", "ä", "a\0", "topic-٣"]


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--log-level", "info") as running:
        ensure_good_topic(running)
        with RawPeer(running.server) as peer:
            peer.create_topic("orders", 2, **{"max.message.bytes": "10000"})
            peer.produce_values("orders", 0, b"first")
        yield running


@pytest.fixture
def peer(broker: BrokerProcess) -> Iterator[RawPeer]:
    """A peer that may do anything; whatever it did, the broker is unharmed afterwards, with the peer there and gone."""
    with RawPeer(broker.server) as raw:
        yield raw
        assert_unharmed(broker)
    assert_unharmed(broker)


@pytest.mark.parametrize("name", ILLEGAL_NAMES, ids=[repr(name[:12]) for name in ILLEGAL_NAMES])
def test_an_illegal_topic_name(peer: RawPeer, broker: BrokerProcess, name: str) -> None:
    assert type(peer.refusal(m.CreateTopic(name))) is errors.InvalidTopicName
    assert {path.name for path in broker.data_dir.iterdir() if path.is_dir()} == {
        "topics",
        "orders-0",
        "orders-1",
        "good-0",
    } | {path.name for path in broker.data_dir.glob("__*")}
    with Admin(broker.server) as admin, pytest.raises(errors.InvalidTopicName):
        admin.create_topic(name)


@pytest.mark.parametrize("name", ["", "../x", "a\n", "g" * 250])
def test_an_illegal_group_name(peer: RawPeer, name: str) -> None:
    for body in (m.Commit(name, "", -1, []), m.GroupHeartbeat(name, "id", 0, topics=["orders"])):
        assert type(peer.refusal(body)) is errors.InvalidGroupName
    # A group nobody has heard of has committed nothing; asking makes none.
    assert peer.call(m.FetchOffsets(name))[0].results == []
    assert isinstance(peer.refusal(m.DescribeGroup(name)), LogsvcError)


@pytest.mark.parametrize(
    "config", [{"no.such.thing": "1"}, {"segment.bytes": "many"}, {"retention.ms": "-7"}, {"flush": "perhaps"}], ids=str
)
def test_a_setting_that_cannot_be(peer: RawPeer, config: dict[str, str]) -> None:
    assert type(peer.refusal(m.CreateTopic("other", 1, config))) is errors.InvalidConfig
    assert type(peer.refusal(m.AlterTopic("orders", None, dict(config)))) is errors.InvalidConfig


@pytest.mark.parametrize("partitions", [0, -1, 10_001, (1 << 63) - 1])
def test_a_number_of_partitions_that_cannot_be(peer: RawPeer, partitions: int) -> None:
    assert type(peer.refusal(m.CreateTopic("other", partitions))) is errors.InvalidPartitions
    assert type(peer.refusal(m.AlterTopic("orders", partitions))) is errors.InvalidPartitions


def test_a_topic_that_exists(peer: RawPeer) -> None:
    assert type(peer.refusal(m.CreateTopic("orders"))) is errors.TopicExists


def test_the_brokers_own_topics_are_not_for_clients(peer: RawPeer) -> None:
    own = "__logsvc_groups"
    assert type(peer.refusal(m.Produce([m.ProducePartition(own, 0)]), [b"x"])) is errors.InternalTopic
    for body in (m.CreateTopic("__mine"), m.TrimTopic(own, 0, 1)):
        assert type(peer.refusal(body)) is errors.InternalTopic
    for body in (m.DeleteTopic(own), m.AlterTopic(own, 5)):
        assert type(peer.refusal(body)) in (errors.InternalTopic, errors.UnknownTopic)


def test_an_unknown_topic(peer: RawPeer, broker: BrokerProcess) -> None:
    batch = encode([RecordData(b"v")])
    for body, payload in (
        (m.Produce([m.ProducePartition("nowhere", 0)]), [batch]),
        (m.Fetch([m.FetchPartition("nowhere", 0, 0)]), []),
        (m.ListOffsets([m.ListOffsetsPartition("nowhere", 0, m.LATEST)]), []),
        (m.DeleteTopic("nowhere"), []),
        (m.AlterTopic("nowhere", 4), []),
        (m.TrimTopic("nowhere", 0, 0), []),
    ):
        assert type(peer.refusal(body, payload)) is errors.UnknownTopic
    with Producer(broker.server, max_block_ms=5_000) as producer, pytest.raises(errors.UnknownTopic):
        producer.send("nowhere", b"v")


@pytest.mark.parametrize("partition", [2, -1, 1 << 31, (1 << 63) - 1])
def test_a_partition_out_of_range(peer: RawPeer, partition: int) -> None:
    for body, payload in (
        (m.Produce([m.ProducePartition("orders", partition)]), [encode([RecordData(b"v")])]),
        (m.Fetch([m.FetchPartition("orders", partition, 0)]), []),
        (m.ListOffsets([m.ListOffsetsPartition("orders", partition, m.EARLIEST)]), []),
        (m.TrimTopic("orders", partition, 0), []),
    ):
        assert type(peer.refusal(body, payload)) is errors.UnknownPartition


def test_a_record_larger_than_the_topic_takes(peer: RawPeer, broker: BrokerProcess) -> None:
    produce = m.Produce([m.ProducePartition("orders", 0)])
    assert type(peer.refusal(produce, [encode([RecordData(b"x" * 10_000)])])) is errors.RecordTooLarge
    with Producer(broker.server, linger_ms=0) as producer, pytest.raises(errors.RecordTooLarge):
        producer.send("orders", b"x" * 10_000, partition=0).result(timeout=5)


def spoiled(kind: str) -> bytes:
    """A batch that is wrong in one way only; its CRC is right unless that is the way."""
    batch = bytearray(encode([RecordData(b"value %d" % i, b"k") for i in range(5)]))
    match kind:
        case "wrong crc":
            batch[-1] ^= 1
            return bytes(batch)
        case "cut short":
            return bytes(batch[:-1])
        case "with a tail":
            return bytes(batch) + b"\0"
        case "two batches":
            return bytes(batch) * 2
        case "zeros":
            return bytes(200)
        case "empty":
            return b""
        case "a header alone":
            return bytes(batch[:61])
        case "magic 1":
            batch[16] = 1
        case "more records than offsets":
            struct.pack_into(">i", batch, 57, 6)
        case "fewer records than offsets":
            struct.pack_into(">i", batch, 57, 4)
        case "negative count":
            struct.pack_into(">i", batch, 57, -1)
        case "no records":
            struct.pack_into(">i", batch, 57, 0)
        case "codec 7":
            batch[22] = 7
        case "a control batch":
            batch[22] = 0x20
        case "a transactional batch":
            batch[22] = 0x10
        case _:
            raise AssertionError(kind)
    struct.pack_into(">I", batch, 17, crc32.iscsi(bytes(batch[21:])))
    return bytes(batch)


@pytest.mark.parametrize(
    "kind",
    [
        "wrong crc",
        "cut short",
        "with a tail",
        "two batches",
        "zeros",
        "empty",
        "a header alone",
        "magic 1",
        "more records than offsets",
        "fewer records than offsets",
        "negative count",
        "no records",
        "codec 7",
        "a control batch",
        "a transactional batch",
    ],
)
def test_a_batch_that_is_wrong(peer: RawPeer, kind: str) -> None:
    before = list(peer.read_all("orders", 1))
    error = peer.refusal(m.Produce([m.ProducePartition("orders", 1)]), [spoiled(kind)])
    assert type(error) in (errors.CorruptBatch, InvalidRequest)
    assert list(peer.read_all("orders", 1)) == before


def test_a_good_batch_beside_a_bad_one_is_taken(peer: RawPeer) -> None:
    reply, _ = peer.call(
        m.Produce([m.ProducePartition("orders", 0), m.ProducePartition("orders", 1), m.ProducePartition("orders", 9)]),
        [encode([RecordData(b"good")]), spoiled("wrong crc"), encode([RecordData(b"v")])],
    )
    assert [result.error_code for result in reply.results] == [0, errors.CorruptBatch.code, errors.UnknownPartition.code]


@pytest.mark.parametrize("payload_frames", [0, 2])
def test_a_produce_whose_batches_do_not_match_its_partitions(peer: RawPeer, payload_frames: int) -> None:
    batch = encode([RecordData(b"v")])
    assert type(peer.refusal(m.Produce([m.ProducePartition("orders", 0)]), [batch] * payload_frames)) is InvalidRequest


def test_records_that_only_a_reader_finds_broken_are_taken_and_passed_on_as_they_are(peer: RawPeer) -> None:
    # Given a batch whose records are noise, its CRC right: the broker does not decode records
    batch = bytearray(encode([RecordData(b"v" * 50)]))
    batch[61:] = random.Random(1).randbytes(len(batch) - 61)
    batch[22] = CODECS["zstd"]
    struct.pack_into(">I", batch, 17, crc32.iscsi(bytes(batch[21:])))
    offset = peer.produce("orders", 1, batch)
    # Then who reads it gets a typed error, and who reads on from behind it is served.
    with pytest.raises(errors.CorruptBatch):
        list(peer.read_all("orders", 1, offset))
    following = peer.produce_values("orders", 1, b"after")
    assert [record.value for record in peer.read_all("orders", 1, following)] == [b"after"]


@pytest.mark.parametrize("offset", [-1, -2, 1_000_000, (1 << 63) - 1, -(1 << 63)])
def test_a_fetch_beyond_the_end_or_before_the_start(peer: RawPeer, offset: int) -> None:
    assert type(peer.refusal(m.Fetch([m.FetchPartition("orders", 0, offset)], max_wait_ms=1_000))) is errors.OffsetOutOfRange


@pytest.mark.parametrize("max_bytes", [0, -1, (1 << 63) - 1])
def test_a_fetch_of_strange_sizes_returns_a_batch_at_least(peer: RawPeer, max_bytes: int) -> None:
    reply, payload = peer.call(m.Fetch([m.FetchPartition("orders", 0, 0, max_bytes)], 0, max_bytes, max_bytes))
    assert [result.error_code for result in reply.results] == [0]
    assert payload[0]


def test_a_trim_beyond_the_end(peer: RawPeer) -> None:
    assert type(peer.refusal(m.TrimTopic("orders", 0, 1 << 40))) is errors.OffsetOutOfRange


def test_a_commit_with_a_stale_epoch(peer: RawPeer) -> None:
    # Given a member whose epoch has moved on
    joined, _ = peer.call(m.GroupHeartbeat("billing", "member-1", m.JOIN_EPOCH, topics=["orders"], session_timeout_ms=30_000))
    progress = [m.CommitPartition("orders", 0, 1)]
    # When it commits with another epoch, or a stranger commits, or someone without a member
    for member, epoch, expected in (
        ("member-1", joined.member_epoch - 1, errors.FencedMemberEpoch),
        ("member-1", joined.member_epoch + 1, errors.FencedMemberEpoch),
        ("member-2", joined.member_epoch, errors.UnknownMember),
        ("", m.NO_MEMBER_EPOCH, errors.GroupError),
    ):
        error = peer.refusal(m.Commit("billing", member, epoch, progress))
        assert isinstance(error, expected), (member, epoch, error)
    # Then nothing is committed.
    offsets, _ = peer.call(m.FetchOffsets("billing", [m.FetchOffsetsPartition("orders", 0)]))
    assert [result.committed for result in offsets.results] == [-1]
    peer.call(m.GroupHeartbeat("billing", "member-1", m.LEAVE_EPOCH))


def test_a_commit_beyond_the_end_or_for_what_does_not_exist(peer: RawPeer) -> None:
    for partition in (
        m.CommitPartition("nowhere", 0, 1),
        m.CommitPartition("orders", 7, 1),
        m.CommitPartition("orders", 0, -5),
    ):
        assert isinstance(peer.refusal(m.Commit("loners", "", m.NO_MEMBER_EPOCH, [partition])), LogsvcError)


def test_a_heartbeat_of_a_member_nobody_knows(peer: RawPeer) -> None:
    assert isinstance(peer.refusal(m.GroupHeartbeat("billing", "stranger", 5)), errors.GroupError)


# Frames


def answers(peer: RawPeer, count: int) -> list[LogsvcError | None]:
    """What came back for `count` messages, in order: the error of each, None for an answer."""
    return [decode_response(peer.receive_frames()).error for _ in range(count)]


def test_a_request_cut_at_every_byte(peer: RawPeer) -> None:
    (frame,) = encode_request(7, m.Fetch([m.FetchPartition("orders", 0, 0)]))
    for end in range(len(frame)):
        peer.send_frames([bytes(frame[:end])])
    assert {type(error) for error in answers(peer, len(frame))} == {InvalidRequest}


@pytest.mark.parametrize(("api", "version"), [(0, 1), (99, 1), (-1, 1), (11, 0), (11, 2), (1, 1 << 40)])
def test_an_api_or_version_nobody_speaks(peer: RawPeer, api: int, version: int) -> None:
    peer.send_frames([msgspec.msgpack.encode([api, version, 7, []])])
    answer = decode_response(peer.receive_frames())
    assert answer.correlation_id == 7
    assert type(answer.error) is UnsupportedVersion


def test_a_thousand_random_messages_are_each_answered_with_a_typed_error(peer: RawPeer) -> None:
    noise = random.Random(1_000)
    for sent in range(1_000):
        peer.send_frames([noise.randbytes(noise.randrange(300)) for _ in range(noise.randrange(1, 6))])
        if sent % 100 == 99:
            kinds = {type(error) for error in answers(peer, 100)}
            assert kinds <= {InvalidRequest, UnsupportedVersion}


def test_a_header_frame_over_its_limit(peer: RawPeer) -> None:
    peer.send_frames([b"\x94" * (HEADER_FRAME_BYTES_MAX + 1)])
    assert [type(error) for error in answers(peer, 1)] == [InvalidRequest]


def test_more_payload_frames_than_are_taken(peer: RawPeer) -> None:
    peer.send_frames([*encode_request(7, m.Hello()), *[b""] * (PAYLOAD_FRAMES_MAX + 1)])
    assert [type(error) for error in answers(peer, 1)] == [InvalidRequest]


def test_deeply_nested_and_hugely_counted_bodies(peer: RawPeer) -> None:
    for body in (
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 500 + b"\xc0",
    ):
        peer.send_frames([b"\x94" + bytes([m.Api.METADATA]) + b"\x01\x07" + body])
    assert {type(error) for error in answers(peer, 5)} == {InvalidRequest}


@pytest.mark.parametrize(
    "body",
    [
        m.Metadata(["orders"] * 1_000_000, True),
        m.ListOffsets([m.ListOffsetsPartition("orders", 0, 0)] * 500_000),
        m.FetchOffsets("billing", [m.FetchOffsetsPartition("orders", 0)] * 500_000),
        m.Commit("loners", "", m.NO_MEMBER_EPOCH, [m.CommitPartition("orders", 0, 0)] * 500_000),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_request_that_names_a_million_things_does_not_keep_others_waiting(
    peer: RawPeer, broker: BrokerProcess, body: m.Request
) -> None:
    with RawPeer(broker.server) as other:
        other.hello()
        peer.send(body)
        started = time.monotonic()
        other.hello()
        assert time.monotonic() - started < 5
    assert [type(error) for error in answers(peer, 1)] == [InvalidRequest]


def test_a_message_over_the_frame_limit_ends_the_connection_and_nothing_else(peer: RawPeer) -> None:
    # libzmq drops the peer before the broker sees it (ZMQ_MAXMSGSIZE): no answer can come.
    peer.send_frames([bytes(73 << 20)])
    with pytest.raises(Silence):
        peer.receive_frames(500)


def test_no_error_was_the_brokers_own_fault(peer: RawPeer) -> None:
    assert InternalError.code == 1_000
    assert peer.hello().broker_id
