"""Groups: the shell round the coordinator.

The coordinator decides; here its records are written as one atomic batch to `__logsvc_groups` and replayed, and when they
are durable the answer goes out and the effects run. An append that is refused (disk full) changes nothing: records are
replayed only once they are in the log. An answer without records still waits for what was appended before it: it may tell
of it.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from logsvc.broker.appender import Appender
from logsvc.broker.dead_letters import DeadLetterWriter
from logsvc.broker.dispatcher import Handler, guarded
from logsvc.broker.due_records import DueRecords
from logsvc.broker.exchange import Exchange
from logsvc.broker.group_admin import GroupAdmin, answer
from logsvc.broker.group_commit import Done
from logsvc.broker.group_views import GroupViews
from logsvc.broker.lag_clock import SCRAPE_SECONDS_MAX
from logsvc.broker.parked import Parked
from logsvc.broker.record_reader import RecordReader
from logsvc.broker.redrive import read_letters
from logsvc.clock import Clock
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import (
    DeadLetterFailed,
    DeadLetterWritten,
    Effect,
    Event,
    LettersRedriven,
    Now,
    Outcome,
    ReadLetters,
    RecordsRetried,
    RetriesChanged,
    StateRecord,
    Tick,
    TopicDeleted,
    TopicsChanged,
    WriteDeadLetter,
)
from logsvc.coordinator.state_log import RecordType
from logsvc.coordinator.state_log import decode as decode_state
from logsvc.metrics import BrokerMetrics, Sample
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import RecordData, check_crc, decode, encode, parse_header, split
from logsvc_common.errors import CorruptBatch, LogsvcError, PartitionCorrupt
from logsvc_common.messages import (
    LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
    Api,
    CancelRedrive,
    Commit,
    CommitReply,
    FetchOffsets,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    ListRedrives,
    StartRedrive,
)
from logsvc_common.names import GROUPS_TOPIC

logger = logging.getLogger(__name__)

RETRIES_WAIT_MS_MAX = 60_000
RETRIES_BYTES_MAX = 16 << 20  # of records in one answer, plus at most one; the others are due as before
LOAD_BYTES = 8 << 20  # read at a time while the state is rebuilt
# One batch holds whatever one request changes: a commit may carry many failures with their texts.
GROUPS_TOPIC_SETTINGS = {"cleanup.policy": "compact", "segment.bytes": str(16 << 20), "max.message.bytes": str(64 << 20)}


class GroupsHandler:
    """Everything that has to do with groups. `load` first, then `handlers` are ready."""

    def __init__(
        self,
        logs: LogDirectory,
        appender: Appender,
        clock: Clock,
        metrics: BrokerMetrics,
        *,
        unit: Callable[[], float],
    ) -> None:
        self._logs = logs
        self._appender = appender
        self._clock = clock
        self._metrics = metrics
        self._coordinator = Coordinator(_LogView(logs), unit=unit)
        reader = RecordReader()
        self._due = DueRecords(logs, reader)
        self._letters = DeadLetterWriter(logs, appender, reader, clock.wall_ms, self.topics_changed)
        self._parked: Parked[str, tuple[Exchange[FetchRetries], int]] = Parked()
        self._stopping = False
        self._unavailable: LogsvcError | None = None
        self._log: PartitionLog
        self._views = GroupViews(self._coordinator, logs, self._now, clock.seconds)
        self._admin = GroupAdmin(self._coordinator, logs, clock, metrics, self._handle)

    # State

    def load(self) -> None:
        """Rebuild the state from its log, making that on the first start, and take up what was left undone.

        When the log cannot be read whole, topics are served all the same, and whatever has to do with groups is refused
        with the reason: half a state would hand out again what is done.
        """
        try:
            self._load()
        except LogsvcError as error:
            why = f"groups are not served, their log {GROUPS_TOPIC} cannot be read: {error.message}"
            if isinstance(error, CorruptBatch | PartitionCorrupt):
                self._unavailable = PartitionCorrupt(f"{why}; stop the broker and run: logsvc verify DATA_DIR --repair")
            else:
                self._unavailable = type(error)(why)
            logger.error("%s", self._unavailable)

    def handlers(self) -> dict[Api, Handler]:
        """What to do for each api of groups; all refuse while the groups are not served."""
        handlers: dict[Api, Handler] = {
            Api.GROUP_HEARTBEAT: self.heartbeat,
            Api.COMMIT: self.commit,
            Api.FETCH_OFFSETS: self.fetch_offsets,
            Api.FETCH_RETRIES: self.fetch_retries,
            Api.LIST_GROUPS: self._views.list_groups,
            Api.DESCRIBE_GROUP: self._views.describe_group,
            Api.CONFIGURE_GROUP: self._admin.configure,
            Api.RESET_GROUP: self._admin.reset,
            Api.DELETE_GROUP: self._admin.delete,
            Api.RESUME_GROUP: self._admin.resume,
            Api.START_REDRIVE: self.redrive,
            Api.LIST_REDRIVES: self.redrive,
            Api.CANCEL_REDRIVE: self.redrive,
        }
        return {api: partial(self._if_served, handler) for api, handler in handlers.items()}

    def _if_served(self, handler: Handler, exchange: Exchange[Any]) -> None:
        if self._unavailable is not None:
            raise self._unavailable
        handler(exchange)

    def samples(self, read_seconds_max: float = SCRAPE_SECONDS_MAX) -> Iterator[Sample | None]:
        """Every group for the metrics, in short steps; none while the groups are not served. See `lag_clock` for the budget."""
        return iter(()) if self._unavailable is not None else self._views.samples(read_seconds_max)

    def _load(self) -> None:
        if GROUPS_TOPIC not in self._logs.topics:
            self._logs.create_topic(GROUPS_TOPIC, 1, GROUPS_TOPIC_SETTINGS, internal=True)
        self._log = self._logs.partition(GROUPS_TOPIC, 0)
        for record in _records(self._log):
            self._coordinator.replay(record)
        self._carry_out(self._coordinator.loaded(self._now()), _ignore)

    def _now(self) -> Now:
        return Now(self._clock.wall_ms(), self._clock.monotonic_ms())

    def _handle(self, event: Event, done: Callable[[Outcome, LogsvcError | None], None]) -> None:
        """Decide about `event` and make it true; `done` follows when it is durable. Raises what the coordinator refuses."""
        self._carry_out(self._coordinator.handle(event, self._now()), done)

    def _carry_out(self, outcome: Outcome, done: Callable[[Outcome, LogsvcError | None], None]) -> None:
        def durable(error: LogsvcError | None) -> None:
            done(outcome, error)
            if error is None:
                for effect in outcome.effects:
                    self._effect(effect)

        if not outcome.records:
            self._appender.when_durable(self._log, durable)
            return
        now_ms = self._clock.wall_ms()
        batch = encode(RecordData(record.value, record.key, now_ms) for record in outcome.records)
        self._appender.append(self._log, batch, parse_header(batch), now_ms, lambda _, error: durable(error))
        for record in outcome.records:
            self._coordinator.replay(record)

    def _effect(self, effect: Effect) -> None:
        match effect:
            case RetriesChanged():
                self._look_again(self._parked.wake(effect.group), answer=effect.answer)
            case WriteDeadLetter():
                self._letters.write(effect, partial(self._letter_written, effect))
            case ReadLetters():
                self._by_itself(read_letters(self._logs, effect))
            case RecordsRetried():
                self._metrics.group(effect.group, effect.topic).retries.inc(effect.count)
            case LettersRedriven():
                self._metrics.group(effect.group, effect.topic).redriven.inc(effect.count)

    def _letter_written(self, effect: WriteDeadLetter, letter_offset: int, error: LogsvcError | None) -> None:
        failure = (effect.group, effect.topic, effect.partition, effect.offset)
        if error is None:
            self._metrics.dead_letters(effect.group, effect.topic, effect.reason).inc()
            self._by_itself(DeadLetterWritten(*failure, letter_offset))
        else:
            logger.warning("the dead letter of %s-%d offset %d could not be written yet: %s", *failure[1:], error)
            self._by_itself(DeadLetterFailed(*failure, error.message))

    def _by_itself(self, event: Event) -> None:
        """Handle an event that nobody waits for."""
        if self._unavailable is not None:
            return
        try:
            self._handle(event, self._told_by_itself)
        except LogsvcError as error:
            logger.warning("%s was refused: %s", type(event).__name__, error)

    def _told_by_itself(self, outcome: Outcome, error: LogsvcError | None) -> None:
        self._count_rebalances(outcome)
        if error is not None:
            logger.error("group state could not be made durable: %s", error)

    # Requests

    def heartbeat(self, exchange: Exchange[GroupHeartbeat]) -> None:
        def done(outcome: Outcome, error: LogsvcError | None) -> None:
            answer(exchange, outcome, error)
            self._count_rebalances(outcome)

        if exchange.body.member_epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH):
            self._end_polls(exchange.body.group, exchange.body.member_id)
        self._handle(exchange.body, done)

    def commit(self, exchange: Exchange[Commit]) -> None:
        def done(outcome: Outcome, error: LogsvcError | None) -> None:
            answer(exchange, outcome, error)
            if error is None and isinstance(outcome.reply, CommitReply):
                self._count_failures(exchange.body, outcome.reply)

        self._handle(exchange.body, done)

    def fetch_offsets(self, exchange: Exchange[FetchOffsets]) -> None:
        self._handle(exchange.body, partial(answer, exchange))

    def redrive(self, exchange: Exchange[StartRedrive | ListRedrives | CancelRedrive]) -> None:
        self._handle(exchange.body, partial(answer, exchange))

    def fetch_retries(self, exchange: Exchange[FetchRetries]) -> None:
        wait_ms = max(0, min(exchange.body.max_wait_ms, RETRIES_WAIT_MS_MAX))
        self._poll_retries(exchange, self._clock.monotonic_ms() + wait_ms)

    def _poll_retries(self, exchange: Exchange[FetchRetries], deadline_ms: int) -> None:
        """Answer with what is due; else park until something may be, at `deadline_ms` (monotonic) the latest."""
        request = exchange.body
        now = self._now()
        outcome = self._coordinator.handle(request, now)
        reply = outcome.reply
        assert isinstance(reply, FetchRetriesReply)
        if not reply.results and now.monotonic_ms < deadline_ms and not self._stopping:
            look_ms = deadline_ms
            due_ms = self._coordinator.next_due_ms(request, now)
            if due_ms is not None:
                look_ms = min(look_ms, now.monotonic_ms + max(1, due_ms - now.wall_ms))
            if self._parked.add((exchange, deadline_ms), [request.group], deadline_ms=look_ms):
                return
        frames: list[bytes] = []
        if not request.without_records:
            whole = self._due.read(request.group, reply.results, RETRIES_BYTES_MAX)
            self._coordinator.put_back(request.group, whole.left_out)
            reply, frames = replace(reply, results=whole.results), whole.frames
        for effect in outcome.effects:
            self._effect(effect)
        exchange.reply(reply, frames)

    def _end_polls(self, group: str, member_id: str) -> None:
        """A member leaves: its poll ends empty. It would end in UnknownMember, and count as an error that nobody made."""
        polls = self._parked.wake(group)
        for exchange, _ in polls:
            if exchange.body.member_id == member_id:
                exchange.reply(FetchRetriesReply([]))
        self._look_again([poll for poll in polls if poll[0].is_open])

    def _look_again(self, polls: list[tuple[Exchange[FetchRetries], int]], *, answer: bool = False) -> None:
        """Poll again for those that wait; with `answer`, answer them whatever there is."""
        for exchange, deadline_ms in polls:
            deadline_ms = 0 if answer else deadline_ms
            guarded(lambda exchange, deadline_ms=deadline_ms: self._poll_retries(exchange, deadline_ms), exchange)  # type: ignore[misc]

    # What happens without a request

    def topics_changed(self) -> None:
        """A topic was made or has grown."""
        self._by_itself(TopicsChanged())

    def forget_topic(self, topic: str, done: Done) -> None:
        """Forget all that groups have recorded about a topic that is about to go; `done` when that is durable. Raises."""
        if self._unavailable is not None:
            raise self._unavailable
        self._handle(TopicDeleted(topic), lambda _, error: done(error))

    def topic_deleted(self, topic: str) -> None:
        """It is gone; what was committed while it went is forgotten as well."""
        self._by_itself(TopicDeleted(topic))

    def expire(self, monotonic_ms: int) -> None:
        """Do what time has made due."""
        self._look_again(self._parked.expire(monotonic_ms))
        deadline_ms = self._coordinator.next_deadline_ms()
        if deadline_ms is not None and deadline_ms <= monotonic_ms:
            self._by_itself(Tick())

    def stalled(self) -> None:
        """Time has passed in which nobody could be heard: that ends no session."""
        self._coordinator.stalled(self._now())

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `expire` is useful."""
        times = (self._parked.next_deadline_ms(), self._coordinator.next_deadline_ms())
        return min((at for at in times if at is not None), default=None)

    def stop(self) -> None:
        """Answer all polls."""
        self._stopping = True
        self._look_again(self._parked.drain())

    # Counting

    def _count_failures(self, request: Commit, reply: CommitReply) -> None:
        for part, result in zip(request.partitions, reply.results, strict=True):
            if part.failed and not result.error_code:
                self._metrics.group(request.group, part.topic).failures.inc(len(part.failed))

    def _count_rebalances(self, outcome: Outcome) -> None:
        for record in outcome.records:
            state = decode_state(record)
            if state.type is RecordType.GROUP and state.value is not None and state.value.epoch:
                self._metrics.rebalances(state.group).inc()


def _ignore(_outcome: Outcome, error: LogsvcError | None) -> None:
    if error is not None:
        logger.error("group state could not be made durable: %s", error)


def _records(log: PartitionLog) -> Iterator[StateRecord]:
    offset = log.start_offset
    # Read to the end and not up to the end offset: a log that could not be opened has none, and says so when it is read.
    while data := log.read(offset, LOAD_BYTES, up_to=log.end_offset):
        for header, batch in split(data, offset):
            check_crc(batch, header)
            for record in decode(batch):
                assert record.key is not None, "a state record without a key"
                yield StateRecord(record.key, record.value)
            offset = header.next_offset


class _LogView:
    """The coordinator's read-only view of the partition logs."""

    def __init__(self, logs: LogDirectory) -> None:
        self._logs = logs

    def partition_count(self, topic: str) -> int | None:
        found = self._logs.topics.get(topic)
        return None if found is None else len(found.partitions)

    def start_offset(self, topic: str, partition: int) -> int:
        return self._logs.partition(topic, partition).start_offset

    def check_online(self, topic: str, partition: int) -> None:
        self._logs.partition(topic, partition).check_online()

    def end_offset(self, topic: str, partition: int) -> int:
        return self._logs.partition(topic, partition).high_watermark
