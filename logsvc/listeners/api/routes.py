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
from logsvc.listeners.api.operations import PREFIX, Operation, route

OPERATIONS: tuple[Operation, ...] = (
    *broker.OPERATIONS,
    *topics.OPERATIONS,
    *records.OPERATIONS,
    *groups.OPERATIONS,
    *dead_letters.OPERATIONS,
    *redrives.OPERATIONS,
)


def routes(backend: Backend) -> list[Route]:
    """Every route of the API, the last one for whatever else is asked for below /api."""
    made: list[bytes] = []

    async def openapi(_: Request) -> Response:
        if not made:
            made.append(msgspec.json.encode(document(OPERATIONS)))
        return Response(made[0], media_type="application/json")

    async def nothing_there(request: Request) -> Response:
        path = request.url.path[:200]
        return error_response(
            Refusal(404, "NOT_FOUND", f"there is nothing at {path}; {PREFIX}/openapi.json lists what there is")
        )

    return [
        *(route(operation, backend) for operation in OPERATIONS),
        Route(f"{PREFIX}/openapi.json", openapi),
        Route("/api/{rest:path}", nothing_there, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    ]


def with_errors(app: Starlette) -> Starlette:
    """Give `app` answers in JSON for what no route answers: paths that are not there, methods that are not taken."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).name
        allowed = (error.headers or {}).get("Allow")
        message = f"{error.detail}; it takes {allowed}" if allowed else str(error.detail)
        return error_response(Refusal(error.status_code, code, message, error.headers))

    app.add_exception_handler(HTTPException, refused)
    return app
