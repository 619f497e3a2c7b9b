"""A whole broker in a thread of this process: the real one, on a real folder, on ports nobody else has.

What runs is `logsvc.app.App`, in an event loop of its own. Only signals are missing, since they belong to the process. Use it
in tests and demos; it shares this process's interpreter, so measure with `logsvc.testing.process` instead.
"""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from logsvc.app import App
from logsvc.config import ServerSettings

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 30.0


class EmbeddedBroker:
    """A broker that runs in a thread. Made by `embedded_broker`; `stop` and `restart` serve tests of what clients do then."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        self._ended: Future[None] = Future()
        self.server = ""
        self.http_url: str | None = None
        self.data_dir = Path(settings.data_dir)

    def start(self) -> None:
        """Returns when clients can connect. Raises what the broker raises when it cannot start."""
        if self._thread is not None:
            raise RuntimeError("the broker runs already")
        started: Future[None] = Future()
        self._ended = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="logsvc broker", daemon=True)
        self._thread.start()
        try:
            started.result(START_TIMEOUT_SECONDS)
        except BaseException:
            self._thread.join(STOP_TIMEOUT_SECONDS)
            self._thread = None
            raise

    def stop(self) -> None:
        """Shut down as SIGTERM does: what is acked stays. Returns when the folder is free again; twice does no harm."""
        if self._thread is None or self._loop is None or self._stop_asked is None:
            return
        self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._ended.result(STOP_TIMEOUT_SECONDS)
        self._thread.join(STOP_TIMEOUT_SECONDS)
        self._thread = None

    def restart(self) -> None:
        """Stop, and start again on the same folder and the same ports, so that clients find it where it was."""
        self.stop()
        http_port = int(self.http_url.rpartition(":")[2]) if self.http_url else -1
        self._settings = self._settings.model_copy(update={"bind": self.server, "http_port": http_port})
        self.start()

    def _run(self, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:  # noqa: BLE001 the thread has nobody to raise to: its starter or its stopper gets the error
            (self._ended if started.done() else started).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = asyncio.Event()
        app = App(self._settings)
        await app.start()
        self.server, self.http_url = app.endpoint, app.http_url
        started.set_result(None)
        await self._stop_asked.wait()
        await app.stop()


@contextmanager
def embedded_broker(data_dir: str | Path | None = None, **settings: Any) -> Iterator[EmbeddedBroker]:
    """Run a broker while the block runs: on `data_dir`, or on a temporary folder that is removed afterwards.

    Ports are random ones of 127.0.0.1; `settings` are fields of `logsvc.config.ServerSettings` (`http_port=-1` for no HTTP).
    Yields an EmbeddedBroker: `server` is the address for clients, `http_url` where metrics are. Raises StartError when the
    broker cannot start.
    """
    ports = {"bind": "tcp://127.0.0.1:0", "http_port": 0}
    with tempfile.TemporaryDirectory(prefix="logsvc-") as temporary:
        folder = Path(data_dir) if data_dir is not None else Path(temporary, "data")
        broker = EmbeddedBroker(ServerSettings(**{**ports, **settings, "data_dir": str(folder)}))
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()
