"""Whatever is sent comes back the same; whatever arrives is a request or a FrameError."""

import random

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logsvc_common.errors import InvalidRequest
from logsvc_common.frames import (
    DecodedRequest,
    FrameError,
    decode_body,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from logsvc_common.messages import APIS, Message, Request
from tests.property.wire_strategies import of_any

CORRELATION_IDS = st.integers(0, (1 << 63) - 1)
PAYLOADS = st.lists(st.binary(max_size=20), max_size=3)
REQUESTS = of_any(entry.request for entry in APIS.values())
RESPONSES = of_any({entry.response for entry in APIS.values()})

# Anything msgpack can say: what a hostile peer sends that knows the format but not the messages.
MSGPACK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


def answered(frames: list[bytes]) -> DecodedRequest | FrameError:
    """What the decoder makes of it. Any exception but FrameError gets out and fails the test."""
    try:
        return decode_request(frames)
    except FrameError as error:
        return error


@given(CORRELATION_IDS, REQUESTS, PAYLOADS)
@settings(max_examples=500, deadline=None)
def test_every_request_comes_back_the_same(correlation_id: int, body: Request, payload: list[bytes]) -> None:
    entry = APIS[body.API]
    assert decode_request(encode_request(correlation_id, body, payload)) == (
        body.API,
        entry.version_max,
        correlation_id,
        body,
        payload,
    )


@given(CORRELATION_IDS, RESPONSES, PAYLOADS)
@settings(max_examples=500, deadline=None)
def test_every_answer_comes_back_the_same(correlation_id: int, body: Message, payload: list[bytes]) -> None:
    answer = decode_response(encode_response(correlation_id, body, payload))
    assert (answer.correlation_id, answer.error, answer.payload) == (correlation_id, None, payload)
    assert decode_body(answer, type(body)) == body


@given(st.lists(st.binary(max_size=64), max_size=4))
@settings(max_examples=800, deadline=None)
@example([])
@example([b"\x94"])
def test_random_frames_are_a_request_or_a_frame_error(frames: list[bytes]) -> None:
    answered(frames)


@given(st.sampled_from(sorted(APIS)), st.integers(0, 3), MSGPACK)
@settings(max_examples=800, deadline=None)
def test_a_known_api_with_any_body_is_a_request_or_a_frame_error_for_the_one_who_asked(
    api: int, version: int, body: object
) -> None:
    outcome = answered([msgspec.msgpack.encode([api, version, 77, body])])
    assert outcome.correlation_id == 77


@given(MSGPACK)
@settings(max_examples=500, deadline=None)
def test_any_msgpack_for_a_header_is_a_request_or_a_frame_error(header: object) -> None:
    answered([msgspec.msgpack.encode(header)])


@given(REQUESTS, st.data())
@settings(max_examples=800, deadline=None)
def test_a_request_with_bytes_changed_cut_or_added_is_a_request_or_a_frame_error(body: Request, data: st.DataObject) -> None:
    frame = bytearray(encode_request(7, body)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "add"])):
            case "flip":
                frame[position] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[max(position, 1) :]
            case _:
                frame[position:position] = data.draw(st.binary(max_size=8))
    answered([bytes(frame)])


@given(st.lists(st.binary(max_size=64), max_size=3), st.sampled_from([entry.response for entry in APIS.values()]))
@settings(max_examples=500, deadline=None)
def test_random_frames_are_an_answer_or_a_typed_error(frames: list[bytes], expected: type[Message]) -> None:
    try:
        answer = decode_response(frames)
    except InvalidRequest:
        return
    if answer.error is None:
        try:
            decode_body(answer, expected)
        except InvalidRequest:
            return


def test_ten_thousand_random_header_frames_are_survived() -> None:
    # Beside hypothesis's small examples: long frames of noise behind a header that is right
    noise = random.Random(0x106)
    apis = sorted(APIS)
    outcomes = {True: 0, False: 0}
    for _ in range(10_000):
        head = bytes([0x94, noise.choice(apis), 1, 7, 0x90 + noise.randrange(10)])
        outcome = answered([head + noise.randbytes(noise.randrange(200)), *[noise.randbytes(8)] * noise.randrange(4)])
        outcomes[isinstance(outcome, FrameError)] += 1
    assert outcomes[True] > 5_000
