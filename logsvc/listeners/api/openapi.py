"""The OpenAPI 3.1 document, made from the operations: their paths, the structs they take and give, their docstrings.

It is made when it is first asked for, and kept.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

import logsvc
from logsvc.listeners.api.errors import ErrorAnswer
from logsvc.listeners.api.operations import BODY_BYTES_MAX, PATH_PARTS, PREFIX, Operation

JSON_SCHEMA = {int: {"type": "integer"}, str: {"type": "string"}}
TOKEN_SCHEME = "token"

# Each operation may also answer with any other error, in the same form: `default`.
REASONS = {
    "400": "The request is not one that can be met; the message says what is taken",
    "403": "Not allowed: the host, or for what changes something the origin, the token, or writes being off",
    "404": "What the path names is not there",
    "413": f"The body is larger than {BODY_BYTES_MAX} bytes",
    "415": "The body is not application/json",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    structs = {struct for op in operations for struct in (op.answer, op.query, op.body) if struct is not None} | {ErrorAnswer}
    _, components = msgspec.json.schema_components(sorted(structs, key=lambda s: s.__name__), ref_template=_reference("{name}"))
    queries = {op.query.__name__ for op in operations}
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        parameters = components[op.query.__name__]["properties"]
        paths.setdefault(PREFIX + op.path, {})[op.method.lower()] = _operation(op, parameters)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "logsvc",
            "version": logsvc.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "What the console shows, as JSON. Times are milliseconds since the epoch (`*_ms`), sizes bytes "
            "(`*_bytes`). Fields may be added; none is taken away or changes its meaning within v1.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: _tidy(schema) for name, schema in sorted(components.items()) if name not in queries},
            "securitySchemes": {TOKEN_SCHEME: {"type": "apiKey", "in": "header", "name": "X-Logsvc-Token"}},
        },
    }


def _reference(name: str) -> str:
    return f"#/components/schemas/{name}"


def _operation(op: Operation, parameters: dict[str, Any]) -> dict[str, Any]:
    summary, _, text = inspect.cleandoc(op.handler.__doc__ or "").partition("\n")
    made: dict[str, Any] = {"operationId": op.name, "tags": [op.tag], "summary": summary}
    if text.strip():
        made["description"] = " ".join(text.split())
    made["parameters"] = [
        *({"name": part, "in": "path", "required": True, **_path_part(part)} for part in op.path_parts),
        *({"name": name, "in": "query", "required": False, **_query_part(schema)} for name, schema in parameters.items()),
    ]
    if op.body is not None:
        made["requestBody"] = {"required": True, "content": _json(op.body.__name__)}
        made["security"] = [{TOKEN_SCHEME: []}]
    made["responses"] = {**_answers(op), **{status: _error(REASONS[status]) for status in statuses(op)}}
    made["responses"]["default"] = _error("Any other error")
    return made


def statuses(op: Operation) -> list[str]:
    """The errors that an operation is known for."""
    found = ["403"]
    if op.path_parts or op.query.__struct_fields__ or op.body is not None:
        found.append("400")
    if op.path_parts:
        found.append("404")
    if op.body is not None:
        found += ["413", "415"]
    return sorted(found)


def _answers(op: Operation) -> dict[str, Any]:
    if op.answer is not None:
        return {
            "200": {"description": (op.answer.__doc__ or "").partition(".")[0].strip(), "content": _json(op.answer.__name__)}
        }
    return {
        "200": {"description": "The bytes", "content": {"application/octet-stream": {}}},
        "204": {"description": "There are none"},
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _reference(name)}}}


def _error(reason: str) -> dict[str, Any]:
    return {"description": reason, "content": _json(ErrorAnswer.__name__)}


def _path_part(name: str) -> dict[str, Any]:
    kind, text = PATH_PARTS[name]
    return {"description": text, "schema": JSON_SCHEMA[kind]}


def _query_part(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out; without the null that stands for that inside."""
    variants = [dict(variant) for variant in schema.get("anyOf", [schema]) if variant.get("type") != "null"]
    chosen = next((variant for variant in variants if variant.get("type") == "array"), variants[0])
    description = chosen.pop("description", schema.get("description", ""))
    if schema.get("default") not in (None, []):
        chosen["default"] = schema["default"]
    return {"schema": chosen, **({"description": description} if description else {})}


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Descriptions come from docstrings: without their line breaks."""
    return {**schema, "description": " ".join(schema.get("description", "").split())}
