"""Errors as HTTP answers: `{"error": {"code": ..., "message": ..., "retriable": ...}}`, and which status each error has.

`code` is the name of the typed error in capitals, `UNKNOWN_TOPIC` for `UnknownTopic`; a few codes more are HTTP's own, such as
METHOD_NOT_ALLOWED. Statuses stand in one table. An error that is not in it has the status of its nearest base.
"""

import re
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from logsvc_common import errors

STATUSES: dict[type[errors.LogsvcError], int] = {
    errors.LogsvcError: 500,
    errors.UnknownError: 500,
    # The request cannot be met as it stands.
    errors.RequestError: 400,
    errors.InvalidRequest: 400,
    errors.UnsupportedVersion: 400,
    errors.InvalidTopicName: 400,
    errors.InvalidGroupName: 400,
    errors.InvalidConfig: 400,
    errors.InvalidPartitions: 400,
    errors.UnknownTopic: 404,
    errors.UnknownPartition: 404,
    errors.UnknownRedrive: 404,
    errors.OffsetOutOfRange: 404,
    errors.TopicExists: 409,
    errors.InternalTopic: 403,
    errors.RecordTooLarge: 413,
    errors.CorruptBatch: 503,  # nobody uploads batches here: one that is read is broken
    errors.OutOfOrderSequence: 409,
    errors.DuplicateSequence: 409,
    errors.InvalidProducerEpoch: 409,
    # The group does not accept it now.
    errors.GroupError: 409,
    errors.UnknownMember: 404,
    errors.UnknownGroup: 404,
    errors.FencedMemberEpoch: 409,
    errors.FencedInstanceId: 409,
    errors.GroupNotEmpty: 409,
    errors.GroupFull: 429,
    # The broker or its machine could not.
    errors.BrokerError: 503,
    errors.InternalError: 500,
    errors.StorageFailed: 503,
    errors.PartitionCorrupt: 503,
    errors.DiskFull: 503,
    errors.BrokerOverloaded: 429,
    errors.QuotaExceeded: 429,
    errors.BrokerStopping: 503,
    errors.CoordinatorLoading: 503,
    # These never come out of a broker that runs.
    errors.StartError: 500,
    errors.ClientError: 500,
}


class Error(msgspec.Struct, forbid_unknown_fields=True):
    """What went wrong. `retriable`: the same request may succeed later."""

    code: str
    message: str
    retriable: bool = False


class ErrorAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """Every answer with a status of 400 and above."""

    error: Error


class Refusal(Exception):
    """An error that is HTTP's own: it has no counterpart among the broker's."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def status_of(error: type[errors.LogsvcError]) -> int:
    """The HTTP status of a typed error."""
    return next(STATUSES[base] for base in error.__mro__ if base in STATUSES)


def code_of(error: type[errors.LogsvcError]) -> str:
    """`UNKNOWN_TOPIC` for UnknownTopic."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.__name__).upper()


def error_response(error: errors.LogsvcError | Refusal) -> Response:
    """The answer that tells of `error`."""
    if isinstance(error, Refusal):
        return _response(error.status, Error(error.code, error.message), error.headers)
    headers = {"retry-after": "1"} if error.retriable else None
    return _response(status_of(type(error)), Error(code_of(type(error)), error.message, error.retriable), headers)


def _response(status: int, error: Error, headers: Mapping[str, str] | None) -> Response:
    body = msgspec.json.encode(ErrorAnswer(error))
    return Response(body, status_code=status, headers=headers, media_type="application/json")
