"""Messages to multipart frames and back.

    request  = [ msgpack [api, version, correlation id, body] ] [ payload frame ] ...
    response = [ msgpack [correlation id, error code, error message, body] ] [ payload frame ] ...

A payload frame is raw bytes of record batches; the body says what each one is. The decoder is strict: whatever arrives,
it returns a message or raises a typed error, and the error carries the correlation id when one could be read, so that the
peer gets an answer it can match.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from logsvc_common.batch import Buffer
from logsvc_common.errors import InvalidRequest, LogsvcError, UnsupportedVersion, from_wire
from logsvc_common.messages import APIS, Api, Message, Request

HEADER_FRAME_BYTES_MAX = 8 << 20  # a control message is small; 8 MiB holds a commit of 100,000 failures
PAYLOAD_FRAMES_MAX = 4_096

ResponseT = TypeVar("ResponseT", bound=Message)


class _RequestHeader(msgspec.Struct, array_like=True):
    api: int
    version: int
    correlation_id: int
    body: msgspec.Raw


class _ResponseHeader(msgspec.Struct, array_like=True):
    correlation_id: int
    error_code: int
    error_message: str
    body: msgspec.Raw


class DecodedRequest(NamedTuple):
    api: Api
    version: int
    correlation_id: int
    body: Request
    payload: Sequence[Buffer]


class DecodedResponse(NamedTuple):
    """`error` is set, or `body` holds the undecoded answer: give it to `decode_body`."""

    correlation_id: int
    error: LogsvcError | None
    body: msgspec.Raw
    payload: Sequence[Buffer]


class FrameError(Exception):
    """A request that could not be decoded. `correlation_id` is None when not even that could be read."""

    def __init__(self, cause: LogsvcError, correlation_id: int | None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.correlation_id = correlation_id


_encoder = msgspec.msgpack.Encoder()
_request_header = msgspec.msgpack.Decoder(_RequestHeader)
_response_header = msgspec.msgpack.Decoder(_ResponseHeader)
_request_bodies = {api: msgspec.msgpack.Decoder(entry.request) for api, entry in APIS.items()}
_response_bodies: dict[type[Message], Any] = {e.response: msgspec.msgpack.Decoder(e.response) for e in APIS.values()}


def encode_request(correlation_id: int, body: Request, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frames of a request, in the newest version this side speaks."""
    api = body.API
    return [_encoder.encode((int(api), APIS[api].version_max, correlation_id, body)), *payload]


def decode_request(frames: Sequence[Buffer]) -> DecodedRequest:
    """The request in `frames` (routing id removed). Raises FrameError, and nothing else, for whatever is not one."""
    if not frames or len(frames) > PAYLOAD_FRAMES_MAX + 1 or len(frames[0]) > HEADER_FRAME_BYTES_MAX:
        raise FrameError(InvalidRequest(f"{len(frames)} frames, or a header frame over its limit"), None)
    try:
        header = _request_header.decode(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(InvalidRequest(f"the header frame is not a request: {error}"), None) from error
    try:
        api = Api(header.api)
    except ValueError as error:
        raise FrameError(UnsupportedVersion(f"api {header.api} is not known"), header.correlation_id) from error
    entry = APIS[api]
    if not entry.version_min <= header.version <= entry.version_max:
        known = f"{entry.version_min} to {entry.version_max}"
        raise FrameError(
            UnsupportedVersion(f"{api.name} version {header.version} is not spoken here, only {known}"),
            header.correlation_id,
        )
    try:
        body = _request_bodies[api].decode(header.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LogsvcError) as error:
        raise FrameError(InvalidRequest(f"{api.name}: {error}"), header.correlation_id) from error
    return DecodedRequest(api, header.version, header.correlation_id, body, frames[1:])


def encode_response(correlation_id: int, body: object, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """The frames of an answer."""
    return [_encoder.encode((correlation_id, 0, "", body)), *payload]


def encode_error(correlation_id: int, error: LogsvcError) -> list[Buffer]:
    """The frames of a refusal."""
    return [_encoder.encode((correlation_id, error.code, error.message, None))]


def decode_response(frames: Sequence[Buffer]) -> DecodedResponse:
    """The answer in `frames`. Raises InvalidRequest when it is not one."""
    if not frames:
        raise InvalidRequest("an answer without frames")
    try:
        header = _response_header.decode(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the header frame is not an answer: {error}") from error
    refusal = from_wire(header.error_code, header.error_message) if header.error_code else None
    return DecodedResponse(header.correlation_id, refusal, header.body, frames[1:])


def decode_body(response: DecodedResponse, expected: type[ResponseT]) -> ResponseT:
    """The body of an answer as `expected`. Raises the broker's error if it sent one, InvalidRequest if it does not fit."""
    if response.error is not None:
        raise response.error
    try:
        body: ResponseT = _response_bodies[expected].decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the answer does not fit {expected.__name__}: {error}") from error
    return body
