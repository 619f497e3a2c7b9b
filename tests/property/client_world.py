"""A group consumer's engine against a model broker, over a network that loses answers, on a clock made of integers.

The engine, the handout, the fetcher, the membership and the progress are the real ones; so is the broker's rule for failed
offsets (`logsvc_common.delivery`). What is modelled: one group, one topic, one member at a time; a log that does not change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from logsvc_client.connection import Reply
from logsvc_client.engine import Engine
from logsvc_client.fetcher import Fetcher
from logsvc_client.handout import Handout
from logsvc_client.kept import RECORD_BYTES, KeptRecords
from logsvc_client.membership import Membership, grouped
from logsvc_client.records import Record, TopicPartition
from logsvc_common.batch import Buffer, RecordData, encode
from logsvc_common.delivery import FailedOffsets, State
from logsvc_common.errors import Disconnected, FencedMemberEpoch, LogsvcError, UnknownMember
from logsvc_common.keys import murmur2
from logsvc_common.messages import (
    Commit,
    CommitReply,
    CommitResult,
    Fetch,
    FetchOffsets,
    FetchOffsetsReply,
    FetchOffsetsResult,
    FetchReply,
    FetchResult,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    ListOffsets,
    ListOffsetsReply,
    ListOffsetsResult,
    Message,
    Request,
    RetriesResult,
)
from logsvc_common.retry import RetryPolicy

TOPIC = "t"
BEHIND = 3  # records of a key that the broker hands out behind one that is due
KEPT_RECORDS = 4
PARTITIONS = 2
RECORDS = 12  # of each partition
BATCH_RECORDS = 3
KEYS: list[bytes | None] = [b"a", b"b", None, b"a"]
Answer = tuple[Message | LogsvcError, Sequence[Buffer]]


def key_of(offset: int) -> bytes | None:
    return KEYS[offset % len(KEYS)]


BATCHES = {
    base: encode(
        [RecordData(b"%d" % offset, key_of(offset), 1_000) for offset in range(base, base + BATCH_RECORDS)], base_offset=base
    )
    for base in range(0, RECORDS, BATCH_RECORDS)
}


class ModelBroker:
    """One group's coordinator, and the log it reads. Dead letters are counted, not kept."""

    def __init__(self) -> None:
        self.member_id = ""
        self.epoch = 0
        self.failed = {number: FailedOffsets() for number in range(PARTITIONS)}
        self.dead_letters: list[tuple[int, int]] = []
        self.policy = RetryPolicy()
        self.paused: set[int] = set()  # partitions that are called full
        self.isolated: set[int] = set()
        self.attempting: dict[int, int] = {}  # by partition: the record that the last commit has named

    def handle(self, request: Request, now_ms: int) -> Answer:
        match request:
            case GroupHeartbeat():
                return self._heartbeat(request), ()
            case FetchOffsets():
                return self._offsets(), ()
            case ListOffsets():
                results = [ListOffsetsResult(topic=TOPIC, partition=each.partition, offset=0) for each in request.partitions]
                return ListOffsetsReply(results), ()
            case Fetch():
                return self._fetch(request)
            case Commit():
                return self._refused(request) or self._commit(request, now_ms), ()
            case FetchRetries():
                refused = self._refused(request)
                return (refused, ()) if refused else self._retries(request, now_ms)
        raise AssertionError(f"the model does not know {request}")

    def expel(self) -> None:
        """The member's session is over: its partitions go to whoever joins next."""
        self.member_id = ""
        self.attempting.clear()
        for failed in self.failed.values():
            failed.release()

    def _refused(self, request: Commit | FetchRetries) -> LogsvcError | None:
        if request.member_id != self.member_id:
            return UnknownMember("not a member")
        return None if request.member_epoch == self.epoch else FencedMemberEpoch("another epoch")

    def _heartbeat(self, request: GroupHeartbeat) -> Message | LogsvcError:
        if request.member_epoch == 0:
            self.expel()
            self.member_id = request.member_id
            self.epoch += 1
        elif request.member_id != self.member_id:
            return UnknownMember("not a member")
        elif request.member_epoch < 0:
            self.expel()
            return GroupHeartbeatReply(request.member_id, -1, 1_000)
        everything = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        assignment = grouped(everything) if request.member_epoch == 0 else None
        return GroupHeartbeatReply(self.member_id, self.epoch, 1_000, assignment)

    def _offsets(self) -> FetchOffsetsReply:
        return FetchOffsetsReply(
            [
                FetchOffsetsResult(
                    topic=TOPIC,
                    partition=number,
                    committed=failed.committed,
                    outstanding=failed.outstanding(),
                    full=self._full(number),
                    isolated=number in self.isolated,
                )
                for number, failed in self.failed.items()
            ]
        )

    def _full(self, number: int) -> bool:
        return number in self.paused or self.failed[number].full(100)

    def _fetch(self, request: Fetch) -> Answer:
        results, payload = [], []
        for asked in request.partitions:
            if asked.offset < RECORDS:
                results.append(FetchResult(topic=TOPIC, partition=asked.partition, high_watermark=RECORDS))
                payload.append(BATCHES[asked.offset - asked.offset % BATCH_RECORDS])
        return FetchReply(results), payload

    def _commit(self, request: Commit, now_ms: int) -> CommitReply:
        results = []
        for part in request.partitions:
            failed = self.failed[part.partition]
            plan = failed.plan(part, request.retry or self.policy, now_ms, lambda: 0.5)
            failed.set_committed(plan.committed)
            for offset, entry in plan.changes.items():
                failed.put(offset, entry)
            self.dead_letters += [(part.partition, exhausted.failure.offset) for exhausted in plan.exhausted]
            results.append(
                CommitResult(
                    topic=TOPIC,
                    partition=part.partition,
                    committed=plan.committed,
                    verdicts=plan.verdicts,
                    full=self._full(part.partition),
                    isolated=part.partition in self.isolated,
                )
            )
            self.attempting[part.partition] = part.attempting
            self._complete_letters(failed)
        return CommitReply(results)

    def _complete_letters(self, failed: FailedOffsets) -> None:
        for offset, entry in failed.entries().items():
            if entry.state is State.DEAD_LETTERING:
                for done, following in failed.plan_letter_written(offset).changes.items():
                    failed.put(done, following)

    def _retries(self, request: FetchRetries, now_ms: int) -> Answer:
        results, payload = [], []
        for asked in request.partitions:
            alone = asked.partition in self.isolated
            count = 1 if alone else request.max_records
            due = self.failed[asked.partition].due(
                now_ms, count, request.poll, alone=alone, behind=min(BEHIND, request.behind_max)
            )
            if due:
                results.append(RetriesResult(topic=TOPIC, partition=asked.partition, records=due))
                bases = sorted({record.offset - record.offset % BATCH_RECORDS for record in due})
                if not request.without_records:
                    payload.append(b"".join(BATCHES[base] for base in bases))
        full = [TopicPartition(TOPIC, number) for number in self.failed if self._full(number)]
        isolated = [TopicPartition(TOPIC, number) for number in self.isolated]
        return FetchRetriesReply(results, grouped(full), grouped(isolated)), payload


@dataclass
class InFlight:
    request: Request
    reply: Reply
    answer: Answer | None = None  # set when the broker has handled it


class SimulatedTransport:
    """Takes the place of `Transport`: what is sent waits here until the test says what becomes of it."""

    server = "simulated"
    request_timeout_ms = 30_000
    ready = True

    def __init__(self, clock: Callable[[], int]) -> None:
        self.now_ms = clock
        self.in_flight: list[InFlight] = []

    def send(self, body: Request, payload: Sequence[Buffer], reply: Reply, timeout_ms: int | None = None) -> None:
        self.in_flight.append(InFlight(body, reply))

    def wake(self) -> None:
        """The test steps the engine anyway."""


@dataclass
class World:
    """A consumer and its broker; what was handled, in the order it was."""

    ordering: str
    one_by_one: bool
    fails: dict[tuple[int, int], int]  # how often the handler fails each record
    now_ms: int = 1_000_000
    broker: ModelBroker = field(default_factory=ModelBroker)
    handled: list[tuple[int, int]] = field(default_factory=list)
    handled_in_epoch: list[tuple[int, int, int]] = field(default_factory=list)
    hand: list[Record] = field(default_factory=list)
    consumers: int = 0
    disturbed: bool = False  # a member was lost: what it had handled may be handled again

    def __post_init__(self) -> None:
        self.policy = RetryPolicy(max_attempts=3, initial_ms=50, max_ms=100, ordering=self.ordering)
        self.broker.policy = self.policy
        self.start()

    def start(self) -> None:
        """A consumer begins; the one before, if any, has crashed."""
        self.consumers += 1
        self.transport = SimulatedTransport(lambda: self.now_ms)
        fetcher = Fetcher(
            reset="earliest",
            max_wait_ms=500,
            min_bytes=1,
            fetch_bytes_max=1 << 20,
            partition_bytes_max=1_000,
            buffer_bytes=1 << 20,
            missing_is_error=False,
        )
        self.engine = Engine(
            self.transport,  # type: ignore[arg-type]
            fetcher,
            topics=[TOPIC],
            membership=Membership("g", f"member-{self.consumers}", [TOPIC]),
            group="g",
            retry=self.policy,
            auto_commit_interval_ms=1_000,
            connect_timeout_ms=10_000,
        )
        # Little room: some of the records that are due again have to be asked for.
        self.engine.kept = KeptRecords(bytes_max=KEPT_RECORDS * (RECORD_BYTES + 20))
        self.handout = Handout(self.engine, settle_on_take=True)
        self.hand = []

    # What can happen

    def step(self) -> None:
        self.engine.step(self.now_ms)

    def arrive(self) -> None:
        """The oldest request on its way reaches the broker."""
        for entry in self.transport.in_flight:
            if entry.answer is None:
                entry.answer = self.broker.handle(entry.request, self.now_ms)
                return

    def answer(self, place: int) -> None:
        """One of the answers comes back; the broker need not answer in order."""
        answered = [entry for entry in self.transport.in_flight if entry.answer is not None]
        if answered:
            entry = answered[place % len(answered)]
            self.transport.in_flight.remove(entry)
            assert entry.answer is not None
            entry.reply(*entry.answer)

    def disconnect(self) -> None:
        lost, self.transport.in_flight = self.transport.in_flight, []
        for entry in lost:
            entry.reply(Disconnected("gone"), ())

    def lose_answers(self) -> None:
        """The broker does what it was asked to, and nobody hears of it."""
        self.step()
        while any(entry.answer is None for entry in self.transport.in_flight):
            self.arrive()
        self.disconnect()

    def crash(self) -> None:
        self.disturbed = True
        self.broker.expel()
        self.start()

    def expel(self) -> None:
        self.disturbed = True
        self.broker.expel()

    def take(self, count: int) -> None:
        """Only when everything in hand was handled: that is what settling in bulk means."""
        if self.one_by_one or not self.hand:
            self.hand += self.handout.take(count, one_by_one=self.one_by_one, all_judged=self.one_by_one and not self.hand)

    def handle(self, place: int) -> None:
        """One record through the handler: the first of its lane, as the workers have it; the first of all in bulk."""
        if not self.hand:
            return
        record = self.hand[place % len(self.hand) if self.one_by_one else 0]
        lane = self._lane(record)
        if lane is not None:
            record = next(other for other in self.hand if self._lane(other) == lane)
        self.hand.remove(record)
        if (self.handout.restless or record.key in self.handout.stirred) and not self.handout.admit(record):
            return
        self._check_order(record)
        self._check_alone(record)
        where = (record.partition, record.offset)
        if self.fails.get(where, 0) > 0:
            self.fails[where] -= 1
            self.handout.fail(record, ValueError("no"))
            return
        self.handled.append(where)
        self.handled_in_epoch.append((self.broker.epoch, *where))
        if self.one_by_one:
            self.handout.finish(record)

    def _lane(self, record: Record) -> tuple[int, object] | None:
        if self.ordering == "partition":
            return record.partition, None
        return None if self.ordering == "none" or record.key is None else (record.partition, murmur2(record.key))

    def _check_order(self, record: Record) -> None:
        """Whatever comes before a record in its lane has had its outcome."""
        lane = self._lane(record)
        if lane is None:
            return
        over = {*self.handled, *self.broker.dead_letters}
        for offset in range(record.offset):
            if self.ordering == "partition" or key_of(offset) == record.key:
                assert (record.partition, offset) in over, f"{record.partition}-{record.offset} came before {offset}"

    def _check_alone(self, record: Record) -> None:
        """What begins in an isolated partition was named to the broker; nothing new begins in a full one."""
        progress = self.engine.progress.get(record.topic_partition)
        if progress is None:
            return
        redelivered = progress.is_redelivered(record)
        named = self.broker.attempting.get(record.partition) == record.offset
        if progress.isolated and (self.one_by_one or not redelivered) and not self.disturbed:
            assert named, f"{record.partition}-{record.offset} began, and the broker does not know"
        if progress.full and not redelivered and not self.disturbed:
            assert named, f"{record.partition}-{record.offset} began in a partition that is full"

    # The end

    def settle(self) -> None:
        """Nothing goes wrong any more: everything is handled and committed, of isolated partitions one at a time."""
        self.broker.paused.clear()
        for _ in range(400):
            self.now_ms += 40
            self.step()
            for _ in range(len(self.transport.in_flight)):
                self.arrive()
            for _ in range(len(self.transport.in_flight)):
                self.answer(0)
            self.take(5)
            while self.hand:
                self.handle(0)
            if all(f.committed == RECORDS and not len(f) for f in self.broker.failed.values()):
                return
        left = {number: (failed.committed, failed.counts()) for number, failed in self.broker.failed.items()}
        raise AssertionError(f"it never ends: {left}")
