"""One operation of the API as data: method, path, what it takes and gives, and the function that answers it.

Routes and the OpenAPI document are both made from these, and answers are encoded from the same structs that the schemas are
made of: what is documented is what runs. Parameters are fields of a struct too; their limits are those of its annotations.
What is not known is refused, because a misspelt filter that is ignored shows, or redrives, too much.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.errors import Refusal, error_response
from logsvc.listeners.api.outgoing import Outgoing
from logsvc.listeners.api.security import check_write
from logsvc_common.errors import InternalError, InvalidRequest, LogsvcError

logger = logging.getLogger(__name__)

PREFIX = "/api/v1"
BODY_BYTES_MAX = 64 << 10
SHOWN_CHARACTERS = 100  # of a wrong value, in the error about it
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,19}\Z")


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Takes none."""


class Given(NamedTuple):
    """What came with a request: `query` and `body` are structs of the types that the operation names."""

    path: Mapping[str, Any]
    query: Any
    body: Any
    peer: str


class Download(NamedTuple):
    """Bytes to be saved as `name`; None for 204, no content."""

    body: bytes | None
    name: str


Handler = Callable[[Backend, Given], Awaitable[msgspec.Struct | Download]]

# Parts of a path, with their type and meaning.
PATH_PARTS: dict[str, tuple[type, str]] = {
    "topic": (str, "Name of a topic"),
    "partition": (int, "Number of a partition, from 0"),
    "offset": (int, "Offset of a record"),
    "group": (str, "Name of a consumer group"),
    "dead_letter_topic": (str, "Name of a dead-letter topic: dlq.TOPIC.GROUP"),
    "redrive_id": (int, "Number of a redrive"),
}


class Operation(NamedTuple):
    """`answer` is the struct of a 200; None when it is a Download. A handler's docstring is its documentation: the first line
    is the summary."""

    method: str
    path: str
    handler: Handler
    answer: type[msgspec.Struct] | None
    query: type[msgspec.Struct] = NoParameters
    body: type[msgspec.Struct] | None = None
    tag: str = "broker"

    @property
    def name(self) -> str:
        name: str = self.handler.__name__
        return name

    @property
    def path_parts(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)


def route(operation: Operation, backend: Backend, outgoing: Outgoing) -> Route:
    """The route that answers `operation`. Whatever comes, an answer goes out."""

    async def endpoint(request: Request) -> Response:
        try:
            return await _answer(operation, backend, outgoing, request)
        except (LogsvcError, Refusal) as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except Exception as error:
            logger.exception("%s %s failed", operation.method, operation.path)
            return error_response(InternalError(f"it failed in the broker: {type(error).__name__}; see its log"))

    return Route(PREFIX + operation.path, endpoint, methods=[operation.method], name=operation.name)


async def _answer(operation: Operation, backend: Backend, outgoing: Outgoing, request: Request) -> Response:
    body = None
    if operation.body is not None:
        check_write(request, backend)
        body = parse_body(await _read_body(request), operation.body)
    given = Given(
        parse_path(request.path_params),
        parse_query(request.query_params, operation.query),
        body,
        "unknown" if request.client is None else f"{request.client.host}:{request.client.port}",
    )
    made = await operation.handler(backend, given)
    if isinstance(made, Download):
        return _download(made, outgoing)
    return outgoing.response(msgspec.json.encode(made), "application/json")


def _download(made: Download, outgoing: Outgoing) -> Response:
    if made.body is None:
        return Response(status_code=204)
    disposition = {"content-disposition": f'attachment; filename="{made.name}"'}
    return outgoing.response(made.body, "application/octet-stream", disposition)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise Refusal(413, "BODY_TOO_LARGE", f"the body is larger than {BODY_BYTES_MAX} bytes, the most that is taken")
    return bytes(body)


def parse_path(parts: Mapping[str, str]) -> dict[str, Any]:
    """The variable parts of a path. Raises InvalidRequest for what is no number where one belongs."""
    return {name: _whole_number(name, text) if PATH_PARTS[name][0] is int else text for name, text in parts.items()}


def parse_query(query: QueryParams, kind: type[msgspec.Struct]) -> Any:
    """The parameters behind the `?` as a `kind`. Raises InvalidRequest that says what is taken.

    A field that takes a list may be given several times, others once.
    """
    schemas = _schemas(kind)
    values: dict[str, Any] = {}
    for name in query:
        schema = schemas.get(name)
        if schema is None:
            there = f"there are {', '.join(schemas)}" if schemas else "there are none here"
            raise InvalidRequest(f"unknown parameter {name[:SHOWN_CHARACTERS]!r}; {there}")
        given = query.getlist(name)
        types = _types(schema)
        if len(given) > 1 and "array" not in types:
            raise InvalidRequest(f"{name} is given {len(given)} times; it is taken once")
        parsed = [_parse(name, text, types) for text in given]
        values[name] = parsed if "array" in types else parsed[0]
    return _convert(values, kind)


def parse_body(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """A JSON body as a `kind`. Raises InvalidRequest."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not what is taken here: {error}") from None


def _convert(values: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        # As in "Expected `int` <= 500 - at `$.limit`".
        what, _, where = str(error).partition(" - at ")
        raise InvalidRequest(f"{where.strip('`').removeprefix('$.') or 'parameters'}: {what[:1].lower()}{what[1:]}") from None


def _parse(name: str, text: str, types: set[str]) -> Any:
    if "integer" in types and "string" not in types:
        return _whole_number(name, text)
    if "boolean" in types:
        if text not in ("true", "false"):
            raise InvalidRequest(f"{name} is {text[:SHOWN_CHARACTERS]!r}; it takes true or false")
        return text == "true"
    return text


def _whole_number(name: str, text: str) -> int:
    # Not int() alone: it takes spaces, underscores and the digits of every script, and text of any length.
    if not _WHOLE_NUMBER.match(text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidRequest(f"{name} is {text[:SHOWN_CHARACTERS]!r}; it takes a whole number that fits 64 bits")
    return int(text)


@cache
def _schemas(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON schema of each field."""
    _, components = msgspec.json.schema_components([kind])
    fields: dict[str, Any] = components[kind.__name__]["properties"]
    return fields


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types a schema allows, those of its items included."""
    found = {schema["type"]} if "type" in schema else set()
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        found |= _types(inner)
    return found
