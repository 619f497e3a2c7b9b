"""Holds answers against the OpenAPI document: the path is documented, so is the status, and the body fits its schema."""

import re
from functools import cache
from typing import Any, NamedTuple

import jsonschema
import msgspec

from logsvc.listeners.api.openapi import document
from logsvc.listeners.api.operations import PREFIX
from logsvc.listeners.api.routes import OPERATIONS


class Documented(NamedTuple):
    """An operation of the document. `path` as it stands there."""

    method: str
    path: str
    responses: dict[str, Any]


@cache
def api_document() -> dict[str, Any]:
    """The document as a client reads it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document(OPERATIONS)))
    return decoded


@cache
def documented() -> list[tuple[re.Pattern[str], Documented]]:
    return [
        (re.compile(re.sub(r"{\w+}", "[^/]+", path) + r"\Z"), Documented(method.upper(), path, operation["responses"]))
        for path, methods in api_document()["paths"].items()
        for method, operation in methods.items()
    ]


def find(method: str, path: str) -> Documented | None:
    """The operation that answers a request."""
    return next((found for pattern, found in documented() if found.method == method and pattern.match(path)), None)


@cache
def validator(reference: str) -> Any:
    schema = {"$ref": reference, "components": api_document()["components"]}
    return jsonschema.Draft202012Validator(schema)


def check_answer(method: str, target: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """AssertionError unless the answer to a request below PREFIX is one that is documented."""
    path = target.partition("?")[0]
    if not path.startswith(PREFIX) or path.endswith("/openapi.json") or method == "HEAD":
        return
    found = find(method, path)
    responses = found.responses if found is not None else {"default": {"content": _error_content()}}
    response = responses.get(str(status)) or responses["default"]
    content = response.get("content", {})
    if not content:
        assert body == b"", f"{status} of {method} {path} has a body"
        return
    kind = headers["content-type"].partition(";")[0]
    assert kind in content, f"{status} of {method} {path} is {kind}, documented is {list(content)}"
    if kind == "application/json":
        assert status >= 400 or str(status) in responses, f"{status} of {method} {path} is not documented"
        validator(content[kind]["schema"]["$ref"]).validate(msgspec.json.decode(body))


def _error_content() -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
