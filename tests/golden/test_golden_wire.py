"""The wire, pinned: the frames of one request and one answer of every api, as nested arrays and, for two of them, as bytes.

A test that fails here means that older clients no longer understand the broker, or the other way round. Fields may be added
at the end, with a default (then add them here); anything else is a new version of the api.
"""

from typing import Any

import msgspec
import pytest

from logsvc_common import messages as m
from logsvc_common.breaker import BreakerConfig
from logsvc_common.errors import UnknownTopic
from logsvc_common.frames import decode_body, decode_request, decode_response, encode_error, encode_request, encode_response
from logsvc_common.messages.redrive import LetterTopic, Redrive, RedriveFilter
from logsvc_common.retry import RetryPolicy

POLICY = RetryPolicy(3, 10, 100, 1.5, 0.25, ("ValueError",), "pause", "partition")
POLICY_WIRE = [3, 10, 100, 1.5, 0.25, ["ValueError"], "pause", "partition"]

WHERE = RedriveFilter(["part"], ["whole"], ["ValueError"], [0], [(1, 2)], [(3, 4)], [(0, 0)], 5, 6)
WHERE_WIRE = [["part"], ["whole"], ["ValueError"], [0], [[1, 2]], [[3, 4]], [[0, 0]], 5, 6]
REDRIVE = Redrive(5, "g", "t", "dlq.t.g", "running", WHERE, 10, 100, False, 9, 8, 7, 6, 1, 1_000, 2_000, "")
REDRIVE_WIRE = [5, "g", "t", "dlq.t.g", "running", WHERE_WIRE, 10, 100, False, 9, 8, 7, 6, 1, 1_000, 2_000, ""]

WHERE = m.RedriveFilter(["a"], ["b"], ["C"], [1], [(2, 3)], [(4, 5)], [(0, 1)], 6, 7)
WHERE_WIRE = [["a"], ["b"], ["C"], [1], [[2, 3]], [[4, 5]], [[0, 1]], 6, 7]

REQUESTS: list[tuple[m.Request, list[Any]]] = [
    (m.Hello("me", "logsvc/1"), [1, 1, 7, ["me", "logsvc/1"]]),
    (m.Metadata(["t"], True), [2, 1, 7, [["t"], True]]),
    (m.CreateTopic("t", 4, {"retention.ms": "1"}), [3, 1, 7, ["t", 4, {"retention.ms": "1"}]]),
    (m.AlterTopic("t", 8, {"flush": None}), [4, 1, 7, ["t", 8, {"flush": None}]]),
    (m.DeleteTopic("t"), [5, 1, 7, ["t"]]),
    (m.TrimTopic("t", 2, 99), [6, 1, 7, ["t", 2, 99]]),
    (m.InitProducerId(5, 6), [10, 1, 7, [5, 6]]),
    (m.Produce([m.ProducePartition("t", 3)]), [11, 1, 7, [[["t", 3]]]]),
    (m.Fetch([m.FetchPartition("t", 0, 5, 100)], 10, 2, 1_000), [12, 1, 7, [[["t", 0, 5, 100]], 10, 2, 1_000]]),
    (m.ListOffsets([m.ListOffsetsPartition("t", 0, m.EARLIEST)]), [13, 1, 7, [[["t", 0, -2]]]]),
    (
        m.GroupHeartbeat("g", "id", 4, "static", "me", ["t"], "uniform", 6_000, [m.TopicPartitions("t", [0, 1])]),
        [20, 1, 7, ["g", "id", 4, "static", "me", ["t"], "uniform", 6_000, [["t", [0, 1]]]]],
    ),
    (
        m.Commit(
            "g",
            "id",
            4,
            [m.CommitPartition("t", 0, 9, [m.Failure(7, "boom", "ValueError", "trace", 12)], [m.Parked(8, 12)], [3])],
            POLICY,
        ),
        [21, 1, 7, ["g", "id", 4, [["t", 0, 9, [[7, "boom", "ValueError", "trace", 12]], [[8, 12]], [3]]], POLICY_WIRE]],
    ),
    (m.FetchOffsets("g", [m.FetchOffsetsPartition("t", 0)]), [22, 1, 7, ["g", [["t", 0]]]]),
    (
        m.FetchRetries("g", "id", 4, [m.FetchOffsetsPartition("t", 0)], 10, 20),
        [23, 1, 7, ["g", "id", 4, [["t", 0]], 10, 20]],
    ),
    (m.ListGroups(), [24, 1, 7, []]),
    (m.DescribeGroup("g"), [25, 1, 7, ["g"]]),
    (
        m.ConfigureGroup("g", True, False, 0.25, 1_000, 5, 100, 200, 2),
        [26, 1, 7, ["g", True, False, 0.25, 1_000, 5, 100, 200, 2]],
    ),
    (m.ResetGroup("g", "shift", -5, "t", [0, 1], True, True), [27, 1, 7, ["g", "shift", -5, "t", [0, 1], True, True]]),
    (m.DeleteGroup("g"), [28, 1, 7, ["g"]]),
    (m.ResumeGroup("g", "t", 3), [29, 1, 7, ["g", "t", 3]]),
    (
        m.StartRedrive("g", "t", WHERE, 10, 100, True, "token"),
        [30, 1, 7, ["g", "t", WHERE_WIRE, 10, 100, True, "token"]],
    ),
    (m.ListRedrives("g"), [31, 1, 7, ["g"]]),
    (m.CancelRedrive(5), [32, 1, 7, [5]]),
    (
        m.StartRedrive("g", "t", WHERE, 50, 100, True, "token"),
        [30, 1, 7, ["g", "t", WHERE_WIRE, 50, 100, True, "token"]],
    ),
    (m.ListRedrives("g"), [31, 1, 7, ["g"]]),
    (m.CancelRedrive(3), [32, 1, 7, [3]]),
    (
        m.AlterQuota("me", {"producer_byte_rate": 5, "in_flight_bytes": None}),
        [33, 1, 7, ["me", {"producer_byte_rate": 5, "in_flight_bytes": None}]],
    ),
    (m.ListQuotas(), [34, 1, 7, []]),
]

REDRIVE = m.Redrive(3, "g", "t", "dlq.t.g", "running", WHERE, 50, 100, False, 10, 5, 4, 3, 1, 1_000, 2_000, "why")
REDRIVE_WIRE = [3, "g", "t", "dlq.t.g", "running", WHERE_WIRE, 50, 100, False, 10, 5, 4, 3, 1, 1_000, 2_000, "why"]

TOPIC = m.TopicDescription(
    topic="t",
    topic_id="ab",
    partition_count=1,
    config={"flush": "os"},
    partitions=[m.PartitionDescription(0, 1, 2, 3, 4, "online")],
)
TOPIC_WIRE = [0, "", "t", "ab", 1, False, {"flush": "os"}, [[0, 1, 2, 3, 4, "online"]]]

RESPONSES: list[tuple[m.Message, list[Any]]] = [
    (m.HelloReply("b", "logsvc/1", 1_024, [(1, 1, 2)]), ["b", "logsvc/1", 1_024, [[1, 1, 2]]]),
    (m.MetadataReply([TOPIC]), [[TOPIC_WIRE]]),
    (m.TopicReply(TOPIC), [TOPIC_WIRE]),
    (m.TrimTopicReply(5), [5]),
    (m.InitProducerIdReply(5, 6), [5, 6]),
    (m.ProduceReply([m.ProduceResult(base_offset=5, duplicate=True)]), [[[0, "", 5, True]]]),
    (
        m.FetchReply([m.FetchResult(topic="t", partition=0, high_watermark=9, start_offset=1)]),
        [[[0, "", "t", 0, 9, 1]]],
    ),
    (
        m.ListOffsetsReply([m.ListOffsetsResult(topic="t", partition=0, offset=5, timestamp_ms=6)]),
        [[[0, "", "t", 0, 5, 6]]],
    ),
    (m.GroupHeartbeatReply("id", 5, 1_000, [m.TopicPartitions("t", [0])]), ["id", 5, 1_000, [["t", [0]]]]),
    (
        m.CommitReply(
            [m.CommitResult(topic="t", partition=0, committed=9, verdicts=[m.Verdict(7, "waiting", 1, 50)], full=True)]
        ),
        [[[0, "", "t", 0, 9, [[7, "waiting", 1, 50]], True]]],
    ),
    (
        m.FetchOffsetsReply(
            [m.FetchOffsetsResult(topic="t", partition=0, committed=9, outstanding=[m.Outstanding(7, None, "parked")])]
        ),
        [[[0, "", "t", 0, 9, [[7, None, "parked"]]]]],
    ),
    (
        m.FetchRetriesReply(
            [m.RetriesResult(error_code=3, error_message="no", topic="t", partition=0, records=[m.DueRecord(7, 2, 1)])]
        ),
        [[[3, "no", "t", 0, [[7, 2, 1]]]]],
    ),
    (
        m.ListGroupsReply([m.GroupListing("g", "stable", 2, ["t"], 5, 1, "open", 900, {"waiting": 1}, 7)]),
        [[["g", "stable", 2, ["t"], 5, 1, "open", 900, {"waiting": 1}, 7]]],
    ),
    (
        m.DescribeGroupReply(
            "g",
            "stable",
            5,
            "uniform",
            [m.MemberDescription("id", "me", 5, None, [m.TopicPartitions("t", [0])], [])],
            [m.GroupPartition("t", 0, 5, 1, 9, 4, 1_000, "id", {"waiting": 1})],
        ),
        [
            "g",
            "stable",
            5,
            "uniform",
            [["id", "me", 5, None, [["t", [0]]], []]],
            [["t", 0, 5, 1, 9, 4, 1_000, "id", {"waiting": 1}]],
        ],
    ),
    (
        m.ConfigureGroupReply("g", BreakerConfig(True, 0.25, 1_000, 5, 100, 200, 2)),
        ["g", [True, 0.25, 1_000, 5, 100, 200, 2]],
    ),
    (
        m.ResetGroupReply([m.ResetResult(topic="t", partition=0, old_offset=7, new_offset=5, dropped=2, kept=1)]),
        [[[0, "", "t", 0, 7, 5, 2, 1]]],
    ),
    (m.DeleteGroupReply("g", 4, 2), ["g", 4, 2]),
    (m.ResumeGroupReply("g", True, 3), ["g", True, 3]),
    (m.StartRedriveReply(REDRIVE), [REDRIVE_WIRE]),
    (m.ListRedrivesReply([REDRIVE], [LetterTopic("dlq.t.g", "t", "g", 4)]), [[REDRIVE_WIRE], [["dlq.t.g", "t", "g", 4]]]),
    (m.CancelRedriveReply(REDRIVE), [REDRIVE_WIRE]),
    (m.StartRedriveReply(REDRIVE), [REDRIVE_WIRE]),
    (m.ListRedrivesReply([REDRIVE], [m.LetterTopic("dlq.t.g", "t", "g", 4)]), [[REDRIVE_WIRE], [["dlq.t.g", "t", "g", 4]]]),
    (m.CancelRedriveReply(REDRIVE), [REDRIVE_WIRE]),
    (m.ProduceReply([m.ProduceResult(base_offset=5)], 250), [[[0, "", 5, False]], 250]),
    (m.FetchReply([], 250), [[], 250]),
    (m.AlterQuotaReply(m.ClientQuota("me", {"producer_byte_rate": 5})), [["me", {"producer_byte_rate": 5}]]),
    (
        m.ListQuotasReply({"producer_byte_rate": -1}, [m.ClientQuota("me", {"in_flight_bytes": 5})]),
        [{"producer_byte_rate": -1}, [["me", {"in_flight_bytes": 5}]]],
    ),
]


def named(pair: tuple[m.Message, list[Any]]) -> str:
    return type(pair[0]).__name__


def starts_with(written: object, golden: object) -> bool:
    """Every array of the golden form stands at the start of the one written: fields may have been added at the end."""
    if isinstance(golden, list) and isinstance(written, list):
        return len(written) >= len(golden) and all(map(starts_with, written, golden))
    return written == golden


def test_every_api_is_pinned() -> None:
    """A new api gets an entry in REQUESTS and, if its answer is new, one in RESPONSES."""
    assert {entry.request.__name__ for entry in m.APIS.values()} - {type(body).__name__ for body, _ in REQUESTS} == set()
    assert {entry.response.__name__ for entry in m.APIS.values()} - {type(body).__name__ for body, _ in RESPONSES} == set()
    assert [(api, entry.version_min, entry.version_max) for api, entry in m.APIS.items()] == [(api, 1, 1) for api in m.Api]


@pytest.mark.parametrize("pair", REQUESTS, ids=named)
def test_a_request_has_this_form(pair: tuple[m.Request, list[Any]]) -> None:
    body, golden = pair
    frames = encode_request(7, body, [b"batch"])
    assert starts_with(msgspec.msgpack.decode(frames[0]), golden)
    assert frames[1:] == [b"batch"]
    # What an older peer sends, without fields added since, is understood.
    assert decode_request([msgspec.msgpack.encode(golden), b"batch"]).body == body


@pytest.mark.parametrize("pair", RESPONSES, ids=named)
def test_an_answer_has_this_form(pair: tuple[m.Message, list[Any]]) -> None:
    body, golden = pair
    frames = encode_response(7, body)
    assert starts_with(msgspec.msgpack.decode(frames[0]), [7, 0, "", golden])
    answer = decode_response([msgspec.msgpack.encode([7, 0, "", golden])])
    assert decode_body(answer, type(body)) == body


def test_the_bytes_of_a_produce_request() -> None:
    frames = encode_request(258, m.Produce([m.ProducePartition("logs", 3)]), [b"<batch>"])
    # array of 4: api 11, version 1, correlation id 258, body: array of 1: array of 1: array of 2: "logs", 3
    assert [bytes(frame).hex() for frame in frames] == ["940b01cd010291919" + "2a46c6f677303", b"<batch>".hex()]


def test_the_bytes_of_a_refusal() -> None:
    # array of 4: correlation id 7, error code 3, its message, no body
    assert [bytes(frame).hex() for frame in encode_error(7, UnknownTopic("no t"))] == [
        "9407" + "03" + "a4" + b"no t".hex() + "c0"
    ]


def test_a_field_from_a_newer_peer_is_passed_over() -> None:
    newer = msgspec.msgpack.encode([5, 1, 7, ["t", "a field of the future", {"and": 1}]])
    assert decode_request([newer]).body == m.DeleteTopic("t")
