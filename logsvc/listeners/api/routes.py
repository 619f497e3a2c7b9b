"""Every operation of the API, as routes."""

from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logsvc.listeners.api import broker, dead_letters, groups, records, redrives, topics
from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.errors import Refusal, error_response
from logsvc.listeners.api.openapi import document
from logsvc.listeners.api.operations import PREFIX, SHOWN_CHARACTERS, Operation, route
from logsvc.listeners.api.outgoing import Outgoing

OPERATIONS: tuple[Operation, ...] = (
    *broker.OPERATIONS,
    *topics.OPERATIONS,
    *records.OPERATIONS,
    *groups.OPERATIONS,
    *dead_letters.OPERATIONS,
    *redrives.OPERATIONS,
)


def routes(backend: Backend) -> list[Route]:
    """Every route of the API, its document among them."""
    made: list[bytes] = []
    outgoing = Outgoing()

    async def openapi(_: Request) -> Response:
        if not made:
            made.append(msgspec.json.encode(document(OPERATIONS)))
        return Response(made[0], media_type="application/json")

    return [
        *(route(operation, backend, outgoing) for operation in OPERATIONS),
        Route(f"{PREFIX}/openapi.json", openapi),
    ]


def with_errors(app: Starlette) -> Starlette:
    """Give `app` answers in JSON for what no route answers: paths that are not there, methods that are not taken."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).name
        path = request.scope["path"][:SHOWN_CHARACTERS]  # request.url would fail where the query is not UTF-8
        message = f"{request.method} {path}: {error.detail}"
        if error.status_code == HTTPStatus.NOT_FOUND:
            message = f"there is nothing at {path}; {PREFIX}/openapi.json lists what there is"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} does not take {request.method}, only {(error.headers or {}).get('Allow')}"
        return error_response(Refusal(error.status_code, code, message, error.headers))

    app.add_exception_handler(HTTPException, refused)
    return app
