"""The console's files: read from the package's folder `logsvc/console`, answered with an ETag and a strict policy.

Which files there are is the folder's own listing, looked up by the whole path: what a request asks for never becomes a path
on the disk, so nothing outside the folder can be reached. A browser asks again each time and mostly hears 304: after an
upgrade nobody sees half of the old page.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import logsvc
from logsvc.listeners.api.errors import Refusal, error_response

FOLDER = Path(logsvc.__file__).parent / "console"
INDEX = "index.html"
FILES_MAX = 500  # more than the console has: something else is in the folder then

# What is not listed is not served. The types are fixed here: a machine's own table may say text/plain for .js.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}

# Styles that scripts set on elements (CSSOM) are allowed by this; inline scripts and style attributes in HTML are not.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _File(NamedTuple):
    body: bytes
    etag: str


def _listing(folder: Path) -> dict[str, Path]:
    """The files that may be served, by their path below `folder`."""
    found: dict[str, Path] = {}
    for path in folder.rglob("*"):
        if len(found) >= FILES_MAX:
            break
        if path.suffix in TYPES and path.is_file() and not path.is_symlink():
            found[path.relative_to(folder).as_posix()] = path
    return found


def _read(folder: Path, name: str) -> _File | None:
    path = _listing(folder).get(name)
    if path is None:
        return None
    body = path.read_bytes()
    return _File(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def routes(folder: Path = FOLDER) -> list[Route]:
    """`/` leads to the console, which is below `/console/`."""

    async def home(_: Request) -> Response:
        return RedirectResponse("/console/", status_code=307)

    async def file(request: Request) -> Response:
        name = request.path_params["name"] or INDEX
        found = await asyncio.to_thread(_read, folder, name)
        if found is None:
            return error_response(Refusal(404, "NOT_FOUND", f"the console has no file {name[:200]!r}"))
        headers = {"etag": found.etag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if found.etag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers, media_type=TYPES[Path(name).suffix])

    return [Route("/", home), Route("/console", home), Route("/console/{name:path}", file)]
