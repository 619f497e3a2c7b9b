"""The composition root: what a broker is made of, and the order in which it starts and stops.

    start                                              stop
    1  HTTP port taken (told early when in use)        1  no more requests are read
    2  data folder locked, every partition recovered   2  long polls answered, appends synced, answers sent
    3  groups rebuilt from their log                   3  ZeroMQ closed
    4  ZeroMQ bound and read: clients are served       4  HTTP closed
    5  HTTP served: metrics, health, API, console      5  every log closed with a checkpoint, the folder unlocked

A start that fails undoes what it had done and raises a StartError that says what to do next.
"""

import asyncio
import contextlib
import gc
import logging
import random
import resource
import secrets
import signal
import sys
from collections.abc import Callable

from logsvc.broker.loop import Broker
from logsvc.broker.sync_threads import SyncThreads
from logsvc.clock import Clock, SystemClock
from logsvc.config import ServerSettings
from logsvc.listeners.api.backend import Backend, allowed_hosts
from logsvc.listeners.http import DegradedPartition, Health, HttpListener
from logsvc.listeners.zmq_router import ZmqRouter
from logsvc.metrics import BrokerMetrics
from logsvc.storage.disk import Disk, RealDisk
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionState

logger = logging.getLogger(__name__)

HTTP_OFF = -1
# A worker that ends its fsync must get the interpreter back soon, even while the loop is busy: an ack waits for it.
SWITCH_SECONDS = 0.0005


class App:
    """One broker. `start` and `stop` run in the same event loop; a stopped App is not started again."""

    def __init__(self, settings: ServerSettings, *, disk: Disk | None = None, clock: Clock | None = None) -> None:
        self._settings = settings
        self._disk = disk or RealDisk()
        self._clock = clock or SystemClock()
        self._started_ms = self._clock.wall_ms()
        self._ready = False
        self._stopping = False
        self._logs: LogDirectory | None = None
        self._broker: Broker | None = None
        self._sync_threads: SyncThreads | None = None
        self._router: ZmqRouter | None = None
        self._http: HttpListener | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect, as `tcp://HOST:PORT` with the real port; after `start`."""
        assert self._router is not None, "not started"
        return self._router.endpoint

    @property
    def http_url(self) -> str | None:
        """Where metrics and health are, or None when they are switched off; after `start`."""
        return self._http.url if self._http is not None else None

    @property
    def data_dir(self) -> str:
        return self._settings.data_dir

    async def start(self) -> None:
        """Serve. Raises StartError (port in use, folder locked or unusable) after undoing what was done."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        sys.setswitchinterval(SWITCH_SECONDS)
        _raise_file_limit()
        metrics = BrokerMetrics(kafka_names=settings.kafka_exporter_metrics)
        if settings.http_port != HTTP_OFF:
            self._http = HttpListener(host=settings.http_host, port=settings.http_port, metrics=metrics, health=self._health)
            self._http.bind()
        self._logs = LogDirectory.open(
            self._disk, settings.data_dir, now_ms=self._clock.wall_ms(), reserve_bytes=settings.disk_reserve_bytes
        )
        self._sync_threads = SyncThreads(settings.sync_threads)
        self._broker = broker = Broker(
            settings,
            self._logs,
            metrics,
            self._clock,
            broker_id=secrets.token_hex(8),
            random_63=lambda: secrets.randbits(63),
            unit=random.random,
            loop=asyncio.get_running_loop(),
            run_in_thread=self._sync_threads.submit,
            send=lambda peer, frames: router.send(peer, frames),
            unsaturated=lambda: router.resume(),
            held_bytes=lambda: router.held_bytes,
        )
        broker.load()
        metrics.source = broker.samples
        self._router = router = ZmqRouter(
            settings.bind,
            broker.receive,
            lambda: broker.saturated,
            frame_bytes_max=settings.frame_bytes_max,
            peer_queue_bytes_max=settings.peer_queue_bytes_max,
            queue_bytes_max=settings.queue_bytes_max,
        )
        router.start()
        self._ready = True
        if self._http is not None:
            await self._http.start(self._backend(broker, router))

    async def stop(self) -> None:
        """Stop in good order. May be called at any time, also after a start that failed, also twice."""
        if self._stopping:
            return
        self._stopping = True
        if self._router is not None:
            self._router.stop_reading()
        if self._broker is not None:
            await self._broker.stop()
        if self._sync_threads is not None:
            await asyncio.to_thread(self._sync_threads.stop)
        if self._router is not None:
            self._router.stop()
        if self._http is not None:
            await self._http.stop()
        if self._logs is not None:
            self._logs.close()

    def _backend(self, broker: Broker, router: ZmqRouter) -> Backend:
        assert self._logs is not None
        return Backend(
            call=broker.call,
            clock=self._clock,
            endpoint=router.endpoint,
            hosts=allowed_hosts(self._settings.http_host, self._settings.http_allowed_hosts),
            writes=self._settings.console_writes,
            token=secrets.token_urlsafe(),
            health=self._health,
            history=broker.history,
            disk_space=self._logs.disk_space,
        )

    def _health(self) -> Health:
        degraded = []
        if self._logs is not None:
            degraded = [
                DegradedPartition(log.topic, log.partition, str(log.state), log.state_reason)
                for topic in self._logs.topics.values()
                for log in topic.partitions
                if log.state is not PartitionState.ONLINE
            ]
        return Health(recovered=self._ready, stopping=self._stopping, started_ms=self._started_ms, degraded=degraded)


def _raise_file_limit() -> None:
    """Allow as many open files as the system does: each partition keeps one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(settings: ServerSettings, announce: Callable[[App], None]) -> None:
    """Run a broker until SIGTERM or SIGINT, then stop it in good order. `announce` is called when it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(settings)
    await app.start()
    # What was loaded stays: a full garbage collection, which keeps the loop waiting, need not look at it again and again.
    gc.freeze()
    try:
        announce(app)
        await stop.wait()
        logger.info("stopping")
    finally:
        await app.stop()
