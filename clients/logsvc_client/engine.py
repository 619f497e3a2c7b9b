"""The consumer's engine: it lives on the I/O thread, keeps the membership alive, reads ahead and commits.

Users' threads take records through `Handout`, under the same lock. The engine is a shell: what to fetch, when to
heartbeat and what to commit is decided by the pure machines `Fetcher`, `Membership`, `PartitionProgress` and `Commits`.

Partitions move in two steps, so that two members never read one at the same time. The user's thread, when it next takes
records, stops reading what is no longer assigned; the engine reports it given up only when everything handed out of it is
settled and committed. New partitions begin at once.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from logsvc_client.commits import Commits
from logsvc_client.fetcher import COMMITTED, Fetcher, SentFetch, names
from logsvc_client.kept import KeptRecords
from logsvc_client.membership import Membership
from logsvc_client.positions import Positions
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import TopicPartition
from logsvc_client.redelivery import TOGETHER_MS, Redelivery
from logsvc_client.transport import IDLE_MS, Transport, unreachable
from logsvc_common.batch import Buffer
from logsvc_common.errors import FencedInstanceId, GroupError, InvalidRequest, LogsvcError, UnknownTopic, from_wire
from logsvc_common.messages import (
    EARLIEST,
    Commit,
    CommitReply,
    FetchReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    Message,
    Metadata,
    MetadataReply,
    Request,
)
from logsvc_common.retry import RetryPolicy

log = logging.getLogger(__name__)

METADATA_MAX_AGE_MS = 300_000
METADATA_RETRY_MS = 1_000

Send = Callable[[], None]


class Engine:
    """The service behind Consumer and AsyncConsumer. `lock` guards everything in it."""

    def __init__(
        self,
        transport: Transport,
        fetcher: Fetcher,
        *,
        topics: Sequence[str],
        membership: Membership | None,
        group: str | None,
        retry: RetryPolicy,
        auto_commit_interval_ms: int | None,
        connect_timeout_ms: int,
    ) -> None:
        self.lock = threading.Lock()
        self.transport = transport
        self.fetcher = fetcher
        self.membership = membership
        self.group = group
        self.retry = retry
        self.on_news: Callable[[], None] = lambda: None  # called without the lock when `take` may have something to do
        self.on_changed: Callable[[], None] = lambda: None  # called with the lock: not all handed out may be begun any more
        self.progress: dict[TopicPartition, PartitionProgress] = {}
        self.revoking: dict[TopicPartition, PartitionProgress] = {}
        self.error: LogsvcError | None = None  # for the user's next call
        self.lost: LogsvcError | None = None  # why what was handed out last cannot be committed any more
        self.closing = False
        self._discover = [] if membership is not None else list(topics)
        self._discover_at_ms = 0
        self._discovering = False
        self._commits = Commits(group, membership) if group is not None else None
        self._commit_interval_ms = auto_commit_interval_ms
        self._commit_at_ms = 0
        self._verdicts_at_ms = 0
        self.hungry = True  # the user waits for records: whatever may bring some is done at once
        self._commit_waiters: list[Future[None]] = []
        self._commit_waiters_under_way: list[Future[None]] = []
        self.kept = KeptRecords()
        self.redelivery = Redelivery(self)
        self._positions = Positions(self)
        self._connect_by_ms = transport.now_ms() + connect_timeout_ms
        self._connect_timeout_ms = connect_timeout_ms
        self._connected = False

    # What users' threads call, with the lock held

    def set_retry(self, retry: RetryPolicy) -> None:
        """The policy for failures from now on."""
        self.retry = retry
        if self.membership is not None:
            self.membership.set_retry(retry, self.transport.now_ms())
            self.transport.wake()

    def reconcile(self) -> None:
        """Follow the group's assignment: stop with what is gone, begin with what is new."""
        membership = self.membership
        if membership is None or membership.target is None or self.closing:
            return
        # In order: what a client does is to follow from what it was told, not from how a set is hashed.
        gone = sorted(self.progress.keys() - membership.target)
        for tp in gone:
            self.fetcher.remove(tp)
            self.revoking[tp] = self.progress.pop(tp)
        new = sorted(membership.target - self.progress.keys() - self.revoking.keys())
        for tp in new:
            self.begin(tp)
        if gone or new:
            log.info("group %s: gives up %s, takes %s", self.group, names(gone), names(new))
            self._tell_owned()
            self.transport.wake()

    def begin(self, tp: TopicPartition) -> None:
        """Begin with a partition where the group, or `auto_offset_reset`, says."""
        if self.group is not None:
            self.progress[tp] = PartitionProgress(tp, kept=self.kept)
            self.fetcher.add(tp, COMMITTED)
        else:
            self.fetcher.add(tp, self.fetcher.start_anywhere())

    def update_held(self, tp: TopicPartition) -> None:
        """Whether, and how, new records of a partition may be read and handed out has perhaps changed."""
        partition, progress = self.fetcher.partitions.get(tp), self.progress.get(tp)
        if partition is not None and progress is not None:
            held = progress.full or progress.overdue or (self.retry.ordering == "partition" and progress.failing)
            if held != partition.held:
                partition.set_held(held)
                self.on_changed()
            if progress.isolated != partition.isolated:
                self.fetcher.set_isolated(partition, progress.isolated)
                self.on_changed()

    def commit(self) -> "Future[None]":
        """Commit all that is settled; the future ends when the broker has it.

        After the membership was lost, the first one fails with the reason, unless records were taken since.
        """
        told: Future[None] = Future()
        told.set_running_or_notify_cancel()
        lost, self.lost = self.lost, None
        if lost is not None:
            told.set_exception(lost)
        elif self._commits is None:
            told.set_exception(InvalidRequest("a consumer without a group has nothing to commit to"))
        elif not self._commits.busy and not any(progress.pending for progress in self._all_progress()):
            told.set_result(None)
        else:
            self._commit_waiters.append(told)
            self.transport.wake()
        return told

    def tell_soon(self) -> None:
        """A verdict is to be told: now, or with the others of these few milliseconds."""
        if self.hungry or self.transport.now_ms() >= self._verdicts_at_ms:
            self.transport.wake()

    def set_hungry(self, hungry: bool) -> None:
        """Whether the user waits for records."""
        was_hungry, self.hungry = self.hungry, hungry  # Before the wake-up: whoever is woken looks at it.
        if hungry and not was_hungry:
            self.transport.wake()

    def _all_progress(self) -> list[PartitionProgress]:
        return [*self.revoking.values(), *self.progress.values()]

    # What the I/O thread calls

    def step(self, now_ms: int) -> int:
        ready = self.transport.ready
        with self.lock:
            if ready:
                self._connected = True
                sends = self._plan(now_ms)
            else:
                sends = []
                if not self._connected and now_ms >= self._connect_by_ms and self.error is None:
                    self.error = unreachable(self.transport, "Consumer", self._connect_timeout_ms)
                    self._connect_by_ms = now_ms + self._connect_timeout_ms
                    sends.append(self.on_news)
        for send in sends:
            send()
        with self.lock:
            return self._next_due_ms(now_ms) if ready else min(now_ms + IDLE_MS, self._connect_by_ms)

    def stopped(self, error: LogsvcError) -> None:
        with self.lock:
            self.closing = True
            self.error = error
            waiters = self._commit_waiters + self._commit_waiters_under_way
            self._commit_waiters, self._commit_waiters_under_way = [], []
        for waiter in waiters:
            waiter.set_exception(error)
        self.on_news()

    def _plan(self, now_ms: int) -> list[Send]:
        """What to send now. Sending happens without the lock, because a reply may come before it returns."""
        sends: list[Send] = []
        self._drop_revoked()
        if self._discover and not self._discovering and now_ms >= self._discover_at_ms:
            self._discovering = True
            sends.append(self.sending(Metadata(self._discover), self._discovered))
        if self.membership is not None and not self.closing:
            heartbeat = self.membership.next_heartbeat(now_ms)
            if heartbeat is not None:
                sends.append(self.sending(heartbeat, partial(self._heartbeat_answered, heartbeat)))
        sends.extend(self._plan_commit(now_ms))
        if not self.closing:
            sends.extend(self._positions.plan(now_ms))
            for sent in self.fetcher.plan(now_ms):
                timeout_ms = self.transport.request_timeout_ms + sent.body.max_wait_ms
                sends.append(self.sending(sent.body, partial(self._fetched, sent), timeout_ms))
            sends.extend(self.redelivery.plan(now_ms))
        return sends

    def sending(
        self, body: Request, reply: Callable[[Message | LogsvcError, Sequence[Buffer]], None], timeout_ms: int | None = None
    ) -> Send:
        """Sending `body`, put off until the lock is free."""
        return lambda: self.transport.send(body, (), reply, timeout_ms)

    def _next_due_ms(self, now_ms: int) -> int:
        times = [now_ms + IDLE_MS, self.fetcher.next_due_ms(now_ms)]
        if self.membership is not None:
            times.append(self.membership.next_due_ms())
            times.append(self.redelivery.next_due_ms())
        if self._commits is not None:
            times.append(self._commits.next_due_ms())
            if not self._commits.busy:
                times.append(self._verdicts_at_ms)
                if self._commit_interval_ms is not None:
                    times.append(self._commit_at_ms)
        if self._discover and not self._discovering:
            times.append(self._discover_at_ms)
        # A time that has passed is waited for by an event, not by the clock, or it would have been acted on.
        return min(time_ms for time_ms in times if time_ms is not None and time_ms > now_ms)

    # Topics without a group

    def _discovered(self, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        now_ms = self.transport.now_ms()
        with self.lock:
            self._discovering = False
            self._discover_at_ms = now_ms + (METADATA_MAX_AGE_MS if isinstance(answer, MetadataReply) else METADATA_RETRY_MS)
            for topic in answer.topics if isinstance(answer, MetadataReply) else []:
                if topic.error_code:
                    self.error = from_wire(topic.error_code, topic.error_message)
                    self._discover_at_ms = now_ms + METADATA_RETRY_MS
                    continue
                known = {tp for tp in self.fetcher.partitions if tp.topic == topic.topic}
                for number in range(topic.partition_count):
                    tp = TopicPartition(topic.topic, number)
                    if tp not in known:
                        # A partition that was added later is read from its start, or its first records would be missed.
                        self.fetcher.add(tp, EARLIEST if known else self.fetcher.start_anywhere())
        self.on_news()

    # Membership

    def _heartbeat_answered(self, sent: GroupHeartbeat, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        membership = self.membership
        assert membership is not None
        now_ms = self.transport.now_ms()
        waiters: list[Future[None]] = []
        with self.lock:
            if isinstance(answer, GroupHeartbeatReply):
                membership.answered(answer, sent, now_ms)
            else:
                error = answer if isinstance(answer, LogsvcError) else InvalidRequest(f"answered with {answer!r}")
                if membership.refused(error, now_ms):
                    log.warning("group %s: membership lost: %s", self.group, error)
                    held = bool(self.progress)
                    waiters = self._lose_all()
                    self.lost = error if held and not waiters else None
                    if isinstance(error, FencedInstanceId):
                        self.error = error
                elif not error.retriable and not isinstance(error, GroupError):
                    self.error = error
        for waiter in waiters:
            waiter.set_exception(error)
        self.on_news()

    def _lose_all(self) -> list["Future[None]"]:
        """Everything held is somebody else's now. Returns whoever waits for a commit that will not be."""
        assert self._commits is not None
        self.on_changed()
        for tp in list(self.fetcher.partitions):
            self.fetcher.remove(tp)
        for progress in self._all_progress():
            self.kept.drop_partition(progress.tp)
        self.progress.clear()
        self.revoking.clear()
        self.redelivery.due.clear()
        self._commits.give_up()
        waiters = self._commit_waiters + self._commit_waiters_under_way
        self._commit_waiters, self._commit_waiters_under_way = [], []
        return waiters

    def _drop_revoked(self) -> None:
        for tp, progress in list(self.revoking.items()):
            if progress.settled and not progress.in_hand:
                del self.revoking[tp]
                self.kept.drop_partition(tp)
                self._tell_owned()

    def _tell_owned(self) -> None:
        assert self.membership is not None
        self.membership.set_owned(self.progress.keys() | self.revoking.keys(), self.transport.now_ms())

    def leave(self) -> "Future[None]":
        """Leave the group; the future ends when the broker knows, or cannot be told."""
        told: Future[None] = Future()
        told.set_running_or_notify_cancel()

        def left(_answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
            told.set_result(None)  # Whatever the answer: a member that cannot leave runs into its session timeout.

        def send() -> None:
            with self.lock:
                heartbeat = self.membership.leave() if self.membership is not None else None
            if heartbeat is None or not self.transport.ready:
                told.set_result(None)
            else:
                self.transport.send(heartbeat, (), left)

        self.transport.post(send)
        return told

    # Records

    def _fetched(self, sent: SentFetch, answer: Message | LogsvcError, payload: Sequence[Buffer]) -> None:
        now_ms = self.transport.now_ms()
        with self.lock:
            if isinstance(answer, FetchReply):
                news = self.fetcher.received(sent, answer, payload, now_ms)
            else:
                error = answer if isinstance(answer, LogsvcError) else InvalidRequest(f"answered with {answer!r}")
                self.fetcher.lost(sent, error, now_ms)
                news = not error.retriable
        if news:
            self.on_news()

    # Commits

    def _plan_commit(self, now_ms: int) -> list[Send]:
        commits = self._commits
        if commits is None:
            return []
        if commits.may_begin(now_ms):
            interval_ms = self._commit_interval_ms
            timely = interval_ms is not None and now_ms >= self._commit_at_ms
            everything = self._all_progress()
            told = self.hungry or now_ms >= self._verdicts_at_ms
            if timely or self._commit_waiters or self.revoking or any((p.urgent and told) or p.names_next for p in everything):
                if timely:
                    self._commit_at_ms = now_ms + (interval_ms or 0)
                self._verdicts_at_ms = now_ms + TOGETHER_MS
                waiters, self._commit_waiters = self._commit_waiters, []
                if not commits.begin(everything, self.retry):
                    return [partial(waiter.set_result, None) for waiter in waiters]
                self._commit_waiters_under_way = waiters
        request = commits.next_request(now_ms)
        return [] if request is None else [self.sending(request, partial(self._commit_answered, request))]

    def _commit_answered(self, sent: Commit, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        assert self._commits is not None
        if not isinstance(answer, CommitReply | LogsvcError):
            answer = InvalidRequest(f"answered with {answer!r}")
        with self.lock:
            errors = self._commits.answered(sent, answer, self.transport.now_ms())
            if errors is None:
                return
            for part in sent.partitions:
                tp = TopicPartition(part.topic, part.partition)
                self.update_held(tp)
                if tp in self.progress:
                    self.redelivery.collect(self.progress[tp])
            waiters, self._commit_waiters_under_way = self._commit_waiters_under_way, []
            if self._commits.more and not errors:
                waiters, self._commit_waiters = [], waiters + self._commit_waiters
            if errors:
                log.warning("group %s: a commit failed: %s", self.group, errors[0])
                # Partitions that went to others, or whose topic is gone, are nobody's error.
                if not waiters and not isinstance(errors[0], GroupError | UnknownTopic):
                    self.error = errors[0]
        for waiter in waiters:
            if errors:
                waiter.set_exception(errors[0])
            else:
                waiter.set_result(None)
        self.on_news()
