"""Consumer processes in a simulation: the library's real engine, handout and membership, and user code around them.

What the library does with threads (`Consumer.run`, iteration, `poll`) is written here as generators that say for what they
wait: a number of milliseconds of a handler's work, or NEWS. Each is the loop of the library, line by line, without its waits.

    run        `Worker._run_here`: one record at a time, a verdict for each
    lanes      `Worker._run_lanes`: the same on several threads, in the order of each key
    iterate    `Consumer.__iter__`: what was given counts as handled when more is taken
    poll       `Consumer.poll`: likewise, a list at a time; failures are reported while the list is worked through
    reader     `poll` without a group
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple

from logsvc_client.engine import Engine
from logsvc_client.fetcher import Fetcher
from logsvc_client.handling import QUEUED_PER_WORKER, RUN_WAIT_SECONDS
from logsvc_client.handout import Handout
from logsvc_client.membership import Membership
from logsvc_client.records import Record
from logsvc_client.worker import lane_of
from logsvc_common.errors import ClientClosed, LogsvcError
from logsvc_common.retry import RetryPolicy
from tests.simulation.clients import SimulatedTransport
from tests.simulation.service import SimulatedTime

NEWS = -1.0
ITERATION_WAIT_MS = 1_000
AFTER_ERROR_MS = 500.0  # a user who is told of an error looks at it, and goes on
Work = Generator[float, None, None]


class Verdict(NamedTuple):
    """What the handler makes of a record: how long it takes, and then what."""

    ms: float
    outcome: str  # `ok`, `failed`, or `died`


class Style(NamedTuple):
    """How the user takes records."""

    kind: str  # one of the module's
    lanes: int = 1
    records_max: int = 20
    commit_every: int = 0  # polls after which the user commits by hand and waits for it; 0: only automatically


class HandlerError(Exception):
    """The handler cannot handle a record."""


class Handled(NamedTuple):
    """A record as a handler was given it. `outcome` is None while it is at it."""

    member: str
    record: Record
    outcome: str | None


class SimulatedMember:
    """One consumer process, from its start to its death or clean end. `group` None: a reader on its own."""

    def __init__(
        self,
        time: SimulatedTime,
        transport: SimulatedTransport,
        topic: str,
        group: str | None,
        style: Style,
        *,
        retry: RetryPolicy,
        session_timeout_ms: int,
        handle: Callable[[Record], Verdict],
        tell: Callable[[Handled], None],
        died: Callable[["SimulatedMember"], None],
        fetch_bytes: int = 600,
    ) -> None:
        self.name, self.topic, self.group, self.style = transport.name, topic, group, style
        self.transport = transport
        self.ended = False
        self.errors: list[LogsvcError] = []
        self._time, self._handle_of, self._tell, self._died = time, handle, tell, died
        membership = None
        if group is not None:
            membership = Membership(group, transport.name, [topic], session_timeout_ms=session_timeout_ms, retry=retry)
        fetcher = Fetcher(
            reset="earliest",
            max_wait_ms=500,
            min_bytes=1,
            fetch_bytes_max=4 * fetch_bytes,
            partition_bytes_max=fetch_bytes,
            buffer_bytes=1 << 16,
            missing_is_error=membership is None,
        )
        self.engine = Engine(
            transport,  # type: ignore[arg-type]
            fetcher,
            topics=[topic],
            membership=membership,
            group=group,
            retry=retry,
            auto_commit_interval_ms=300,
            connect_timeout_ms=600_000,
        )
        self.handout = Handout(self.engine, settle_on_take=True)
        self.engine.on_news = self._news
        self._hungry: dict[Work, int] = {}  # who waits for news, and the number of that wait
        self._waits = 0
        self._sore = False
        self._stopping = False
        self._lanes: list[deque[Record]] = [deque() for _ in range(style.lanes)]
        transport.start(self.engine)
        work = {"run": self._run, "lanes": self._run_lanes, "iterate": self._iterate}.get(style.kind, self._poll)
        self._working = 0
        self._begin(work())
        if style.kind == "lanes":
            for lane in self._lanes:
                self._begin(self._lane(lane))

    # Turns

    def _begin(self, work: Work) -> None:
        self._working += 1
        self._go_on(work)

    def _go_on(self, work: Work) -> None:
        """One turn of the user's code, as far as it gets without waiting."""
        transport = self.transport
        if not transport.alive or self.ended:
            return
        if self._time.now_ms < transport.frozen_until_ms:
            self._later(transport.frozen_until_ms - self._time.now_ms, work)
            return
        try:
            wait_ms = next(work)
        except StopIteration:
            self._working -= 1
            return
        if wait_ms == NEWS:
            self._waits += 1
            self._hungry[work] = self._waits
            self._time.call_later(RUN_WAIT_SECONDS, self._wake, work, self._waits)
        else:
            self._later(wait_ms, work)

    def _later(self, ms: float, work: Work) -> None:
        self._time.call_later(ms / 1_000, self._go_on, work)

    def _wake(self, work: Work, wait: int) -> None:
        if self._hungry.get(work) == wait:
            del self._hungry[work]
            self._go_on(work)

    def _news(self) -> None:
        hungry, self._hungry = self._hungry, {}
        for work in hungry:
            self._time.call_soon(self._go_on, work)

    # The user's code

    def _take(self, records_max: int, **how: bool) -> list[Record]:
        try:
            return self.handout.take(records_max, **how)
        except ClientClosed:
            raise
        except LogsvcError as error:
            self.errors.append(error)
            self._sore = True
            return []

    def _rest(self) -> float:
        """How long the user waits when there was nothing to take."""
        sore, self._sore = self._sore, False
        return AFTER_ERROR_MS if sore else NEWS

    def _handle(self, record: Record, *, one_by_one: bool) -> Work:
        """One record through the handler, and its verdict."""
        ms, outcome = self._handle_of(record)
        self._tell(Handled(self.name, record, None))
        if ms:
            yield ms
        self._tell(Handled(self.name, record, outcome))
        if outcome == "died":
            self.kill()
            self._died(self)
            yield 0.0  # never to be resumed
        elif outcome == "failed":
            self.handout.fail(record, HandlerError(f"cannot handle {record.offset}"))
        elif one_by_one:
            self.handout.finish(record)

    def _run(self) -> Work:
        handout = self.handout
        while not self._stopping:
            records = self._take(QUEUED_PER_WORKER, one_by_one=True, all_judged=True)
            for record in records:
                if self._stopping:
                    return
                if (handout.restless or record.key in handout.stirred) and not handout.admit(record):
                    continue
                yield from self._handle(record, one_by_one=True)
            if not records:
                yield self._rest()

    def _run_lanes(self) -> Work:
        turn, ordering = 0, self.handout.ordering
        while not self._stopping:
            room = QUEUED_PER_WORKER * len(self._lanes) - sum(map(len, self._lanes))
            records = self._take(room, one_by_one=True) if room > 0 else []
            for record in records:
                turn += 1
                self._lanes[lane_of(record, ordering, turn) % len(self._lanes)].append(record)
            if records:
                self._news()
            else:
                yield self._rest()

    def _lane(self, lane: deque[Record]) -> Work:
        while not self._stopping:
            if not lane:
                yield NEWS
                continue
            record = lane.popleft()
            if not self.handout.restless or self.handout.admit(record):
                yield from self._handle(record, one_by_one=True)
            if not lane:
                self._news()

    def _iterate(self) -> Work:
        handout = self.handout
        while not self._stopping:
            records = self._take(self.style.records_max)
            if not records:
                yield self._rest()
                continue
            handout.cursor, turn, calm = 0, handout.turn, handout.calm or self
            for given, record in enumerate(records, 1):
                if handout.calm is not calm:
                    if handout.turn != turn or self._stopping:
                        break
                    if not handout.admit(record):
                        handout.cursor = given
                        continue
                handout.cursor = given
                yield from self._handle(record, one_by_one=False)

    def _poll(self) -> Work:
        polls = 0
        while not self._stopping:
            records = self._take(self.style.records_max)
            for record in records:
                yield from self._handle(record, one_by_one=False)
            polls += 1
            if self.group is not None and self.style.commit_every and records and polls % self.style.commit_every == 0:
                yield from self._commit()
            if not records:
                yield self._rest()

    def _commit(self) -> Work:
        self.handout.settle()
        with self.engine.lock:
            told = self.engine.commit()
        yield from self._until(told)
        if told.done() and told.exception() is not None:
            error = told.exception()
            assert isinstance(error, LogsvcError)
            self.errors.append(error)

    # The end

    def kill(self) -> None:
        """kill -9: nobody is told."""
        self.ended = True
        self.transport.kill()

    def stop(self) -> None:
        """The user ends it: handlers finish, then `Consumer.close`. What the broker does not answer in time is left undone."""
        self._stopping = True
        self.handout.unsettle()
        self._news()
        self._begin(self._close())

    def _close(self) -> Work:
        while self._working > 1:
            yield 5.0
        self.handout.settle()
        if self.group is not None:
            with self.engine.lock:
                told = self.engine.commit()
            yield from self._until(told)
            with self.engine.lock:
                self.engine.closing = True
            yield from self._until(self.engine.leave())
        self.kill()

    @staticmethod
    def _until(told) -> Work:  # type: ignore[no-untyped-def]
        for _ in range(50):
            if told.done():
                return
            yield 20.0
