"""The HTTP side: metrics, health, JSON API and console, served by uvicorn inside the broker's own event loop.

    GET /metrics    200   Prometheus text, or OpenMetrics when the scraper asks for it
    GET /healthz    200   the loop lives; the body names partitions that are not online
    GET /readyz     200   recovery is done and the broker is not stopping; 503 otherwise
    /api/v1/...           the JSON API: `logsvc.listeners.api`
    GET /console/   200   the console's page, where / leads: `logsvc.listeners.console_files`

Everything else is 404. `/healthz` stays 200 with a failed partition: restarting the process is what a supervisor does on a
failing liveness check, and the other partitions are still serving. Alert on `logsvc_partition_state` instead.

`bind` reserves the port early, so that a port in use is told before anything else starts; `start` imports the web stack,
about 0.1 s, and is called once ZeroMQ answers.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import logsvc
from logsvc.listeners.scrape import Scrapes
from logsvc.metrics import BrokerMetrics
from logsvc_common.errors import AddressInUse, StartError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from logsvc.listeners.api.backend import Backend

GRACE_SECONDS = 2  # how long a scrape being answered may hold up a shutdown
BACKLOG = 64
NAMED_PARTITIONS_MAX = 100  # degraded partitions named in a health answer


class DegradedPartition(NamedTuple):
    """A partition that is not online: `state` is `read_only` or `failed`, `reason` says why."""

    topic: str
    partition: int
    state: str
    reason: str = ""


class Health(NamedTuple):
    """What the broker says about itself. `recovered`: every partition has been opened, whatever came of it."""

    recovered: bool = False
    stopping: bool = False
    started_ms: int = 0
    degraded: Sequence[DegradedPartition] = ()


class HttpListener:
    """Serves one broker's pages on one loopback port."""

    def __init__(self, *, host: str, port: int, metrics: BrokerMetrics, health: Callable[[], Health]) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._health = health
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, as `http://HOST:PORT`; after `bind`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def port(self) -> int:
        """The port; after `bind` the real one, also when 0 was asked for."""
        return self._port

    def bind(self) -> None:
        """Take the port. Raises AddressInUse or another StartError, with what to do next, when that cannot be."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, self._port))
        except OSError as error:
            bound.close()
            raise self._why_not(error) from error
        bound.setblocking(False)
        self._socket = bound
        self._port = bound.getsockname()[1]

    def _why_not(self, error: OSError) -> StartError:
        where = f"{self._host}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return AddressInUse(
                f"the HTTP port {where} is in use; stop what holds it, or choose another: --http-port PORT (0 = any free one)"
            )
        if error.errno == errno.EACCES:
            return StartError(f"no right to listen on {where}; choose a port above 1023: --http-port PORT")
        return StartError(f"cannot listen for HTTP on {where}: {error.strerror or error}; choose another: --http-host HOST")

    async def start(self, backend: "Backend | None" = None) -> None:
        """Serve. Returns when requests are answered. Without a backend there are metrics and health only."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        serves = asyncio.Event()
        self._server = _make_server(build_app(self._metrics, self._health, backend), serves.set)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http listener")
        self._serving.add_done_callback(lambda _: serves.set())
        await serves.wait()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Finish the requests being answered and close the port. May be called at any time, also twice."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
        elif self._socket is not None:
            self._socket.close()
        self._socket = self._server = self._serving = None


def _make_server(app: "ASGIApp", on_serving: Callable[[], None]) -> "uvicorn.Server":
    import uvicorn  # not before it is needed: the broker answers ZeroMQ first

    from logsvc.listeners.http_connections import BoundedConnection

    class Listener(uvicorn.Server):
        """One listener of an application: the signals are the application's, and it wants to know when this one serves."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_serving()

    return Listener(
        uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def build_app(metrics: BrokerMetrics, health: Callable[[], Health], backend: "Backend | None" = None) -> "ASGIApp":
    """All pages, as an ASGI application."""
    pages = _pages(metrics, health)
    if backend is None:
        return pages
    from logsvc.listeners import console_files
    from logsvc.listeners.api import routes, security

    pages.router.routes += [*routes.routes(backend), *console_files.routes()]
    return security.Guard(routes.with_errors(pages), backend.hosts)


def _pages(metrics: BrokerMetrics, health: Callable[[], Health]) -> "Starlette":
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    scrapes = Scrapes(metrics)

    async def metrics_page(request: Request) -> Response:
        return await scrapes.answer(request.headers.get("accept", ""))

    async def healthz(_: Request) -> Response:
        now = health()
        return JSONResponse(
            {
                "status": "degraded" if now.degraded else "ok",
                "version": logsvc.__version__,
                "started_ms": now.started_ms,
                "degraded_partition_count": len(now.degraded),
                "degraded_partitions": [partition._asdict() for partition in now.degraded[:NAMED_PARTITIONS_MAX]],
            }
        )

    async def readyz(_: Request) -> Response:
        now = health()
        if now.stopping:
            return JSONResponse({"status": "stopping"}, status_code=503)
        if not now.recovered:
            return JSONResponse({"status": "recovering"}, status_code=503)
        return JSONResponse({"status": "ready"})

    app = Starlette(routes=[Route("/metrics", metrics_page), Route("/healthz", healthz), Route("/readyz", readyz)])
    app.router.redirect_slashes = False
    return app
