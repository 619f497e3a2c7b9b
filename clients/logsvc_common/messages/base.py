"""What every message is built from: the list of apis and the base structs."""

from enum import IntEnum
from typing import Annotated, ClassVar, TypeVar

import msgspec

# Numbers are signed and fit 64 bits, as they do in the log: msgpack alone would let 2**64 - 1 through.
Int64 = Annotated[int, msgspec.Meta(le=(1 << 63) - 1)]

ENTRIES_MAX = 10_000  # topics or partitions one request may name: as many as a broker has
FAILURES_MAX = 200_000  # records one commit may report for a partition, of each kind
SETTINGS_MAX = 100

# Refused while decoding: a header frame could hold millions, and a broker would be busy with one of them for seconds.
T = TypeVar("T")
Entries = Annotated[list[T], msgspec.Meta(max_length=ENTRIES_MAX)]
Failures = Annotated[list[T], msgspec.Meta(max_length=FAILURES_MAX)]
Settings = Annotated[dict[str, T], msgspec.Meta(max_length=SETTINGS_MAX)]


class Api(IntEnum):
    """What a request asks for."""

    HELLO = 1
    METADATA = 2
    CREATE_TOPIC = 3
    ALTER_TOPIC = 4
    DELETE_TOPIC = 5
    TRIM_TOPIC = 6
    INIT_PRODUCER_ID = 10
    PRODUCE = 11
    FETCH = 12
    LIST_OFFSETS = 13
    GROUP_HEARTBEAT = 20
    COMMIT = 21
    FETCH_OFFSETS = 22
    FETCH_RETRIES = 23
    LIST_GROUPS = 24
    DESCRIBE_GROUP = 25
    CONFIGURE_GROUP = 26
    RESET_GROUP = 27
    DELETE_GROUP = 28
    RESUME_GROUP = 29
    START_REDRIVE = 30
    LIST_REDRIVES = 31
    CANCEL_REDRIVE = 32
    ALTER_QUOTA = 33
    LIST_QUOTAS = 34


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of everything on the wire."""


class Request(Message, frozen=True):
    """Base of requests; `API` names the api of each."""

    API: ClassVar[Api]


class Result(Message, frozen=True, kw_only=True):
    """Base of the parts of an answer that can fail on their own."""

    error_code: Int64 = 0
    error_message: str = ""
