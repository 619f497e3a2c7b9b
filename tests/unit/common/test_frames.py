"""Frames that are no request: each ends in FrameError, with the correlation id when one could be read."""

import msgspec
import pytest

from logsvc_common import frames as frames_module
from logsvc_common.errors import InvalidRequest, LogsvcError, UnknownError, UnknownTopic, UnsupportedVersion
from logsvc_common.frames import (
    HEADER_FRAME_BYTES_MAX,
    PAYLOAD_FRAMES_MAX,
    FrameError,
    decode_body,
    decode_request,
    decode_response,
    encode_error,
    encode_request,
    encode_response,
)
from logsvc_common.messages import (
    ENTRIES_MAX,
    FAILURES_MAX,
    SETTINGS_MAX,
    AlterTopic,
    Api,
    Commit,
    CommitPartition,
    CreateTopic,
    DeleteTopic,
    Failure,
    Fetch,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchPartition,
    FetchRetries,
    GroupHeartbeat,
    HelloReply,
    ListOffsets,
    ListOffsetsPartition,
    Metadata,
    Parked,
    Produce,
    ProducePartition,
    Request,
    TopicPartitions,
    TopicReply,
    TrimTopicReply,
)

pack = msgspec.msgpack.encode


def refusal(*frames: bytes) -> tuple[LogsvcError, int | None]:
    with pytest.raises(FrameError) as caught:
        decode_request(frames)
    return caught.value.cause, caught.value.correlation_id


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x01",
        pack(7),
        pack("text"),
        pack({}),
        pack([]),
        pack([1, 1, 7]),
        pack(["1", 1, 7, []]),
        pack([1, 1, None, []]),
        pack([1, 1, 7.5, []]),
        pack([1, 1, "7", []]),
        b"\x94\x01\x01\x07",
        b"\x94\x01\x01\x07\xdd\xff\xff\xff\xff",
        b"\x94\x01\x01\xa2\xff\xfe\x90",
    ],
)
def test_a_header_frame_that_is_none_is_refused_without_a_correlation_id(frame: bytes) -> None:
    cause, correlation_id = refusal(frame)
    assert isinstance(cause, InvalidRequest)
    assert correlation_id is None


def test_a_request_cut_at_any_byte_is_refused() -> None:
    (frame,) = encode_request(7, Fetch([FetchPartition("topic", 3, 1 << 40)]))
    for end in range(len(frame)):
        cause, _ = refusal(bytes(frame[:end]))
        assert isinstance(cause, InvalidRequest)


def test_no_frames_at_all_are_refused() -> None:
    assert isinstance(refusal()[0], InvalidRequest)


def test_more_payload_frames_than_the_limit_are_refused() -> None:
    (head,) = encode_request(7, DeleteTopic("t"))
    assert len(decode_request([head, *[b""] * PAYLOAD_FRAMES_MAX]).payload) == PAYLOAD_FRAMES_MAX
    assert isinstance(refusal(bytes(head), *[b""] * (PAYLOAD_FRAMES_MAX + 1))[0], InvalidRequest)


def test_a_header_frame_over_its_limit_is_refused_before_it_is_parsed() -> None:
    assert isinstance(refusal(b"\x94" + b"\x00" * HEADER_FRAME_BYTES_MAX)[0], InvalidRequest)


@pytest.mark.parametrize("api", [0, -1, 7, 9, 99, 1 << 40, (1 << 64) - 1])
def test_an_unknown_api_is_refused_to_the_one_who_asked(api: int) -> None:
    cause, correlation_id = refusal(pack([api, 1, 99, []]))
    assert isinstance(cause, UnsupportedVersion)
    assert correlation_id == 99


@pytest.mark.parametrize("version", [-1, 0, 2, 1 << 40])
@pytest.mark.parametrize("api", list(Api))
def test_a_version_not_spoken_is_refused_and_those_that_are_get_named(api: Api, version: int) -> None:
    cause, correlation_id = refusal(pack([int(api), version, 99, []]))
    assert isinstance(cause, UnsupportedVersion)
    assert correlation_id == 99
    assert "1 to 1" in cause.message


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        {},
        [],
        ["g"],
        ["g", "id", "epoch", []],
        ["g", "id", 1, [["t", 0, 1 << 63]]],
        ["g", "id", 1, [["t", 0, 5, [["not an offset"]]]]],
        ["g", "id", 1, [], [0]],  # a retry policy with no attempt
        ["g", "id", 1, [], [5, 10, 5]],  # and one whose backoff shrinks
        ["g", "id", 1, [], [5, 10, 100, float("nan")]],
        ["g", "id", 1, [], [5, 10, 1 << 60]],
    ],
)
def test_a_body_that_does_not_fit_is_refused_to_the_one_who_asked(body: object) -> None:
    cause, correlation_id = refusal(pack([int(Api.COMMIT), 1, 99, body]))
    assert isinstance(cause, InvalidRequest)
    assert cause.message.startswith("COMMIT")
    assert correlation_id == 99


@pytest.mark.parametrize("depth", [100, 1_000, 10_000, 1_000_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01"], ids=["arrays", "maps"])
def test_deep_nesting_is_refused_and_exhausts_no_stack(depth: int, opening: bytes) -> None:
    for place in (b"", b"\x94", b"\x94\x01\x01\x07", b"\x94\x15\x01\x07\x94\xa1g\xa1i\x01\x91"):
        refusal(place + opening * depth)
        refusal(place + opening * depth + b"\xc0")


def test_an_array_that_claims_four_billion_entries_allocates_nothing() -> None:
    refusal(b"\x94" + bytes([Api.PRODUCE]) + b"\x01\x07\x91\xdd\xff\xff\xff\xff")


def test_a_request_comes_back_with_its_payload() -> None:
    decoded = decode_request(encode_request(7, Commit("g", "", -1, []), [b"one", b"", b"three"]))
    assert decoded == (Api.COMMIT, 1, 7, Commit("g", "", -1, []), [b"one", b"", b"three"])


def test_a_refusal_is_raised_as_the_class_it_was_sent_as() -> None:
    answer = decode_response(encode_error(7, UnknownTopic("no topic 'x'")))
    assert answer.correlation_id == 7
    with pytest.raises(UnknownTopic, match="no topic 'x'"):
        decode_body(answer, TopicReply)


def test_an_error_code_of_a_newer_broker_is_raised_all_the_same() -> None:
    with pytest.raises(UnknownError, match="31337"):
        decode_body(decode_response([pack([7, 31_337, "of the future", None])]), TopicReply)


@pytest.mark.parametrize("frames", [[], [b""], [b"\x90"], [pack([7, 0, ""])], [pack([7, "0", "", []])], [b"\x91" * 100_000]])
def test_an_answer_that_is_none_is_a_typed_error(frames: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        decode_response(frames)


@pytest.mark.parametrize("body", [None, [], ["text"], {}])
def test_an_answer_of_another_form_is_a_typed_error(body: object) -> None:
    answer = decode_response(encode_response(7, body))
    with pytest.raises(InvalidRequest, match="TrimTopicReply"):
        decode_body(answer, TrimTopicReply)


def test_an_answer_comes_back_with_its_payload() -> None:
    reply = HelloReply("broker", "logsvc", 1, [(1, 1, 1)])
    answer = decode_response(encode_response(1 << 40, reply, [b"x"]))
    assert (answer.correlation_id, answer.error, answer.payload) == (1 << 40, None, [b"x"])
    assert decode_body(answer, HelloReply) == reply


def test_every_api_has_a_decoder() -> None:
    assert set(frames_module._request_bodies) == set(Api)


@pytest.mark.parametrize(
    "body",
    [
        Metadata(["t"] * (ENTRIES_MAX + 1)),
        CreateTopic("t", 1, {str(i): "" for i in range(SETTINGS_MAX + 1)}),
        AlterTopic("t", 1, {str(i): None for i in range(SETTINGS_MAX + 1)}),
        Produce([ProducePartition("t", 0)] * (ENTRIES_MAX + 1)),
        Fetch([FetchPartition("t", 0, 0)] * (ENTRIES_MAX + 1)),
        ListOffsets([ListOffsetsPartition("t", 0, 0)] * (ENTRIES_MAX + 1)),
        GroupHeartbeat("g", "id", 0, topics=["t"] * (ENTRIES_MAX + 1)),
        GroupHeartbeat("g", "id", 0, owned=[TopicPartitions("t", [])] * (ENTRIES_MAX + 1)),
        GroupHeartbeat("g", "id", 0, owned=[TopicPartitions("t", [0] * (ENTRIES_MAX + 1))]),
        Commit("g", "id", 0, [CommitPartition("t", 0)] * (ENTRIES_MAX + 1)),
        Commit("g", "id", 0, [CommitPartition("t", 0, done=[0] * (FAILURES_MAX + 1))]),
        Commit("g", "id", 0, [CommitPartition("t", 0, parked=[Parked(0, 0)] * (FAILURES_MAX + 1))]),
        Commit("g", "id", 0, [CommitPartition("t", 0, failed=[Failure(0, "")] * (FAILURES_MAX + 1))]),
        FetchOffsets("g", [FetchOffsetsPartition("t", 0)] * (ENTRIES_MAX + 1)),
        FetchRetries("g", "id", 0, [FetchOffsetsPartition("t", 0)] * (ENTRIES_MAX + 1)),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_list_beyond_its_limit_is_refused_before_anyone_walks_it(body: Request) -> None:
    cause, correlation_id = refusal(bytes(encode_request(99, body)[0]))
    assert isinstance(cause, InvalidRequest)
    assert correlation_id == 99
