"""The broker: its handlers put together, and the one timer that everything waiting on time shares.

Runs in the thread of one event loop and owns all state; only fsyncs run elsewhere (see `group_commit`). Loop, threads,
clocks, disk and randomness are handed in, so that a simulation can run the whole of it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import logsvc
from logsvc.broker.admin import AdminHandler
from logsvc.broker.appender import Appender
from logsvc.broker.client_quotas import ClientQuotas
from logsvc.broker.dispatcher import Dispatcher, Handler
from logsvc.broker.exchange import Exchange, LocalAnswer, Send
from logsvc.broker.fetch import FetchHandler
from logsvc.broker.group_commit import GroupCommit
from logsvc.broker.groups import GroupsHandler
from logsvc.broker.history import History
from logsvc.broker.history_keeper import HistoryKeeper
from logsvc.broker.letter_piles import LetterPiles
from logsvc.broker.produce import ProduceHandler
from logsvc.broker.sampler import Sampler
from logsvc.broker.scrubber import Scrubber
from logsvc.broker.throttle import Throttle
from logsvc.broker.upkeep import Upkeep
from logsvc.clock import Clock
from logsvc.config import ServerSettings
from logsvc.metrics import BrokerMetrics
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import Buffer
from logsvc_common.errors import BrokerStopping
from logsvc_common.messages import APIS, Api, Hello, HelloReply, Request
from logsvc_common.names import is_internal

logger = logging.getLogger(__name__)

STALLED_MS = 2_000  # a timer this late means that the process was stopped, or its disk; nobody could be heard meanwhile


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """What the broker uses of an event loop; asyncio's in life, one with a clock of its own in a simulation."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...


class Broker:
    """`run_in_thread` runs an fsync in a worker; `send` carries answers out, and `held_bytes` says how much of them their peers
    have not taken; `unsaturated` is called when requests may be read again."""

    def __init__(
        self,
        settings: ServerSettings,
        logs: LogDirectory,
        metrics: BrokerMetrics,
        clock: Clock,
        *,
        broker_id: str,
        random_63: Callable[[], int],
        unit: Callable[[], float],
        loop: Loop,
        run_in_thread: Callable[[Callable[[], None]], object],
        send: Send,
        unsaturated: Callable[[], None],
        held_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._broker_id = broker_id
        self._loop = loop
        self._timer: Timer | None = None
        self._timer_ms = 0
        self._retention_due_ms = clock.monotonic_ms() + settings.retention_check_ms
        self.stopping = False
        self.history = History()
        self._history_due_ms = clock.monotonic_ms()

        logs.removals.run_in_thread = run_in_thread
        group_commit = GroupCommit(
            run_in_thread,
            loop.call_soon,
            lambda call: loop.call_soon_threadsafe(self._from_thread, call),
            metrics.fsync_duration_seconds.observe,
            clock.seconds,
        )
        self._upkeep = Upkeep(logs, run_in_thread, lambda call: loop.call_soon_threadsafe(self._from_thread, call))
        self._scrubber = Scrubber(
            logs,
            metrics.scrub,
            bytes_per_second=settings.scrub_bytes_per_second,
            interval_ms=settings.scrub_interval_ms,
            monotonic_ms=clock.monotonic_ms,
            unit=unit,
            run_in_thread=run_in_thread,
            from_thread=lambda call: loop.call_soon_threadsafe(self._from_thread, call),
        )
        self._appender = Appender(group_commit, self._readable, self._count_appended, metrics.append_duration_seconds.observe)
        quotas = ClientQuotas(settings.quotas(), logs.quotas.clients)
        self._throttle = Throttle(quotas, logs.quotas, clock.monotonic_ms, count=metrics.throttled, arm=self._arm)
        self._fetch = FetchHandler(
            logs, clock.monotonic_ms, self._count_fetched, self._throttle, held_bytes, settings.queue_bytes_max
        )
        self._produce = ProduceHandler(
            logs, self._appender, clock.wall_ms, settings.in_flight_bytes_max, unsaturated, self._throttle
        )
        self.groups = GroupsHandler(logs, self._appender, clock, metrics, unit=unit)
        self._admin = AdminHandler(
            logs,
            partitions_max=settings.partitions_max,
            new_producer_id=random_63,
            changed=self._topic_changed,
            forget=self.groups.forget_topic,
            deleted=self._topic_deleted,
        )
        self.letter_piles = LetterPiles(logs)
        self.samples = Sampler(logs, self.letter_piles, self.groups.samples, self._scrubber.round_age_ms, clock.wall_ms).samples
        self._keeper = HistoryKeeper(self.history, logs, metrics, self.groups.samples, clock, loop.call_later)
        self._dispatcher = Dispatcher(self._handlers(), send, metrics)

    def _handlers(self) -> dict[Api, Handler]:
        return {
            Api.HELLO: self._hello,
            Api.METADATA: self._admin.metadata,
            Api.CREATE_TOPIC: self._admin.create,
            Api.ALTER_TOPIC: self._admin.alter,
            Api.DELETE_TOPIC: self._admin.delete,
            Api.TRIM_TOPIC: self._admin.trim,
            Api.INIT_PRODUCER_ID: self._admin.init_producer_id,
            Api.PRODUCE: self._produce.handle,
            Api.FETCH: self._fetch.handle,
            Api.LIST_OFFSETS: self._admin.list_offsets,
            Api.ALTER_QUOTA: self._throttle.alter,
            Api.LIST_QUOTAS: self._throttle.list,
            **self.groups.handlers(),
        }

    def load(self) -> None:
        """Rebuild the groups from their log; call once, before the first request."""
        self.groups.load()
        self._arm()

    def receive(self, peer: bytes, frames: Sequence[Buffer]) -> None:
        """One message from a peer."""
        self._dispatcher.receive(peer, frames)
        self._arm()

    async def call(self, body: Request, payload: Sequence[Buffer] = ()) -> LocalAnswer:
        """One request of this process, by the handlers that requests of peers go to; (body, payload) of its answer.

        Raises the typed error it is refused with, InvalidRequest when it breaks a limit of its message, BrokerStopping.
        """
        if self.stopping:
            raise BrokerStopping("the broker is shutting down")
        answer = self._dispatcher.call(body, payload)
        self._arm()
        return await answer

    def _from_thread(self, call: Callable[[], None]) -> None:
        call()
        self._arm()

    @property
    def saturated(self) -> bool:
        """True while so many bytes wait for an fsync that no more requests should be read."""
        return self._produce.saturated

    async def stop(self) -> None:
        """Answer every request that can be answered. No more may come."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self._throttle.stop()
        self._fetch.stop()
        self.groups.stop()
        try:
            await asyncio.wait_for(self._dispatcher.idle.wait(), self._settings.shutdown_timeout_ms / 1000)
        except TimeoutError:
            logger.warning("stopping with %d requests unanswered", self._dispatcher.open_requests)

    # Time

    def _arm(self) -> None:
        """Set the timer for whatever is due first."""
        if self.stopping:
            return
        monotonic_ms = self._clock.monotonic_ms()
        flush_ms = self._appender.next_due_ms()
        if flush_ms is not None:
            flush_ms = monotonic_ms + max(0, flush_ms - self._clock.wall_ms())
        waits = (
            self._fetch.parked.next_deadline_ms(),
            self._throttle.next_deadline_ms(),
            self._scrubber.next_due_ms(),
            self.groups.next_deadline_ms(),
            flush_ms,
        )
        first_ms = min([self._retention_due_ms, self._history_due_ms, *(wait for wait in waits if wait is not None)])
        if self._timer is not None:
            if self._timer_ms <= first_ms:
                return
            self._timer.cancel()
        self._timer_ms = first_ms
        self._timer = self._loop.call_later(max(0, first_ms - monotonic_ms) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        monotonic_ms = self._clock.monotonic_ms()
        late_ms = monotonic_ms - self._timer_ms
        try:
            if late_ms > STALLED_MS:
                logger.warning("nothing has run here for %d ms: every member of a group gets a full session", late_ms)
                self.groups.stalled()
            self._throttle.expire(monotonic_ms)
            self._fetch.expire(monotonic_ms)
            self.groups.expire(monotonic_ms)
            self._appender.sync_due(self._clock.wall_ms())
            self._scrubber.run(monotonic_ms)
            if monotonic_ms >= self._history_due_ms:
                self._history_due_ms = monotonic_ms + self.history.interval_ms
                self._keeper.begin()
            if monotonic_ms >= self._retention_due_ms:
                self._retention_due_ms = monotonic_ms + self._settings.retention_check_ms
                self._upkeep.run(self._clock.wall_ms())
        except Exception:
            logger.exception("a timed task failed")
        self._arm()

    # What one part tells the others

    def _readable(self, log: PartitionLog, size: int) -> None:
        self._fetch.readable(log, size)

    def _topic_changed(self, topic: str) -> None:
        self.groups.topics_changed()

    def _topic_deleted(self, topic: str, partitions: list[PartitionLog]) -> None:
        for log in partitions:
            self._fetch.gone(log)
        self._metrics.drop_topic(topic)
        self.groups.topic_deleted(topic)

    def _count_appended(self, topic: str, records: int, size: int) -> None:
        if is_internal(topic):
            return  # how groups go on is not what people send
        counters = self._metrics.topic(topic)
        counters.appended_records.inc(records)
        counters.appended_bytes.inc(size)

    def _count_fetched(self, topic: str, size: int) -> None:
        self._metrics.topic(topic).fetched_bytes.inc(size)

    def _hello(self, exchange: Exchange[Hello]) -> None:
        self._throttle.greeted(exchange.peer, exchange.body.client_id)
        exchange.reply(
            HelloReply(
                broker_id=self._broker_id,
                software=f"logsvc/{logsvc.__version__}",
                frame_bytes_max=self._settings.frame_bytes_max,
                apis=[(int(api), entry.version_min, entry.version_max) for api, entry in APIS.items()],
            )
        )
