"""A scripted day of a broker on a simulated disk: the same clients, requests and restarts each time, so that its disk
operations can be counted and each of them be made to fail.

Every client is a generator. It sends what it wants, and where it gets no good answer (refused, or the broker died) it yields
and sends the same again in the next round, as a real client with retries does. `Shop.day` runs the rounds, with time passing,
a clean stop, a kill and a power cut at fixed places. `Shop.recover` then starts a broker on a healthy disk, lets every
client finish, and `Shop.check` holds what there is against what the clients were told.

What a day contains: topics made, altered and deleted; batches of idempotent producers over several segments, several in
flight; a trim, retention by size, compaction; a commit with a failing record, its dead letter, its redrive, its retry.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from logsvc.testing.simulated_disk import Operation, SimulatedCrash, SimulatedDisk
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import (
    InternalError,
    LogsvcError,
    OffsetOutOfRange,
    TopicExists,
    UnknownError,
    UnknownTopic,
    from_wire,
)
from logsvc_common.frames import DecodedResponse, decode_body
from logsvc_common.messages import (
    AlterTopic,
    Commit,
    CommitPartition,
    CreateTopic,
    DeleteTopic,
    DescribeGroup,
    DescribeGroupReply,
    Failure,
    FetchOffsetsPartition,
    FetchRetries,
    FetchRetriesReply,
    ListRedrives,
    ListRedrivesReply,
    Message,
    Produce,
    ProducePartition,
    ProduceReply,
    Request,
    StartRedrive,
    TrimTopic,
)
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import START_MS, SimulatedService, SimulatedTime
from tests.simulation.workers import sleep

Client = Iterator[None]
Hook = Callable[[Operation], None]

GROUP, LETTERS = "billing", "dlq.orders.billing"
POISON = 2  # the offset of orders-0 that its consumer cannot handle
READ = 6  # the consumer commits this far
TRIM_TO = 5  # of history-0, from which retention takes as well
RETENTION_BYTES = 1_100
IN_FLIGHT_MAX = 4
BATCH_ROUNDS = 6  # two batches a round
VALUE_BYTES = 250  # of a batch: three or four fill a segment
ROUND_MS = 2_000
UPKEEP_MS = 61_000
ROUNDS_MAX = 80  # in which every client must be done once the disk is healthy
SEGMENT = {"segment.bytes": "1024", "index.interval.bytes": "256"}
ONCE = RetryPolicy(max_attempts=1)
DONE = object()


@dataclass
class Producer:
    """An idempotent producer of one partition. `acked` are base offsets by batch number, in order."""

    topic: str
    partition: int
    producer_id: int
    keys: int
    batches: list[list[RecordData]] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)

    def add(self) -> None:
        number = len(self.batches)
        value = b"%s-%d batch %d " % (self.topic.encode(), self.partition, number)
        key = b"key %d" % (number % self.keys)
        count = 1 + number % 2
        self.batches.append([RecordData(value.ljust(VALUE_BYTES // count, b"."), key, START_MS + number) for _ in range(count)])

    def raw(self, number: int) -> bytes:
        sequence = sum(len(batch) for batch in self.batches[:number])
        return encode(self.batches[number], producer_id=self.producer_id, producer_epoch=0, base_sequence=sequence)

    @property
    def acked_records(self) -> int:
        return sum(len(batch) for batch in self.batches[: len(self.acked)])

    def in_flight(self) -> range:
        """The batches to send now. The first one goes alone: a producer the broker does not know may begin anywhere."""
        first = len(self.acked)
        return range(first, min(len(self.batches), first + (IN_FLIGHT_MAX if first else 1)))

    def request(self, number: int) -> tuple[Request, list[bytes]]:
        return Produce([ProducePartition(self.topic, self.partition)]), [self.raw(number)]

    def records(self) -> list[RecordData]:
        """The log as it must be: every batch once, in order."""
        return [record for batch in self.batches for record in batch]


class Shop:
    """The disk, the broker on it (None while there is none), its clients and what they were told."""

    def __init__(self, hook: Hook | None = None) -> None:
        self.disk = SimulatedDisk()
        self.hook = hook
        self.disk.hook = hook
        self.time = SimulatedTime()
        self.service: SimulatedService | None = None
        self.lives = 0
        self.starts: list[int] = []  # the disk operations there had been when each life began,
        self.started: list[int] = []  # and when its broker served
        self.crashed = False
        self.refusals: list[LogsvcError] = []
        self.handled: list[int] = []
        self.producers = [
            Producer("orders", 0, 71, keys=3),
            Producer("table", 0, 73, keys=2),
            Producer("history", 0, 74, keys=9),
            Producer("passing", 0, 75, keys=9),
        ]
        self.clients: dict[str, Client] = {
            "orders": self._create("orders"),
            "table": self._create("table", cleanup_policy="compact"),
            "history": self._keep_history(),
            "passing": self._pass(self.producers[3]),
            **{f"{p.topic}-{p.partition}": self._produce(p) for p in self.producers[:3]},
            "billing": self._bill(),
            "trim": self._trim(),
        }
        self.finished: set[str] = set()
        self.deleted = self.trimmed = False

    # -- a broker and its lives ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life. A start that is refused leaves no broker; a crash in it is taken note of."""
        self.lives += 1
        self.starts.append(self.disk.operations)
        try:
            self.service = SimulatedService(self.lives, self.disk, self.time)
        except LogsvcError as error:
            self._refused(error)
            self.disk.locks.clear()
        except SimulatedCrash:
            self.crashed = True
        self.started.append(self.disk.operations)

    def die(self, *, power_cut: bool) -> None:
        """End this life; the disk is what the next one finds."""
        self.service, self.crashed = None, False
        later = SimulatedTime()
        later.now_ms = self.time.now_ms
        self.time = later
        if power_cut:
            operations, self.disk = self.disk.operations, self.disk.crash(Random(self.disk.operations), ordered=True)
            self.disk.operations = operations
        self.disk.kill().hook = self.hook

    def stop(self) -> None:
        """End this life in good order, as SIGTERM does."""
        if self.service is None:
            return
        try:
            self.service.logs.close()
        except LogsvcError as error:
            self._refused(error)
        except SimulatedCrash:
            self.crashed = True
            return
        self.die(power_cut=False)

    def let(self, milliseconds: int) -> None:
        """Time passes: retention, compaction, retries."""
        if self.service is None or self.crashed:
            return
        try:
            sleep(self.service, milliseconds)
        except SimulatedCrash:
            self.crashed = True

    def _refused(self, error: LogsvcError) -> None:
        """No good answer: take note. It is a typed error, never a fault of the broker."""
        assert not isinstance(error, InternalError | UnknownError), error
        self.refusals.append(error)

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self, body: Request, *done_if: type[LogsvcError]) -> Message | LogsvcError | None:
        """The answer, None when there is no good one. An error of `done_if` is one: it says that this was done before."""
        if self.service is None or self.crashed:
            return None
        try:
            reply, _ = self.service.ask(body)
        except SimulatedCrash:
            self.crashed = True
            return None
        except LogsvcError as error:
            if isinstance(error, done_if):
                return error
            return self._refused(error)
        for result in getattr(reply, "results", ()):
            if result.error_code:
                return self._refused(from_wire(result.error_code, result.error_message))
        return reply

    def until_done(self, body: Request, *done_if: type[LogsvcError]) -> Client:
        while self.ask(body, *done_if) is None:
            yield

    def send(self, producer: Producer) -> list[int]:
        """Send what is not acknowledged and wait for nothing; the numbers of the requests."""
        sent: list[int] = []
        try:
            for batch in producer.in_flight():
                if self.service is None or self.crashed:
                    break
                sent.append(self.service.send(*producer.request(batch)))
        except SimulatedCrash:
            self.crashed = True
        return sent

    def flush(self, producer: Producer) -> None:
        """Send what is not acknowledged, several batches at once, and take note of the answers."""
        sent, service = self.send(producer), self.service
        if service is None or self.crashed:
            return
        try:
            service.time.run(lambda: all(number in service.answers for number in sent))
        except SimulatedCrash:
            self.crashed = True
        for number in sent:
            found = service.answers.pop(number, None)
            if found is None or self._told(producer, found) is None:
                break  # what came behind it is sent again with it

    def _told(self, producer: Producer, answer: DecodedResponse) -> int | None:
        try:
            result = decode_body(answer, ProduceReply).results[0]
            if result.error_code:
                raise from_wire(result.error_code, result.error_message)
        except LogsvcError as error:
            return self._refused(error)
        producer.acked.append(result.base_offset)
        return result.base_offset

    # -- the clients --------------------------------------------------------------------------------------------------

    def _create(self, topic: str, partitions: int = 1, **settings: str) -> Client:
        config = {name.replace("_", "."): value for name, value in settings.items()}
        return self.until_done(CreateTopic(topic, partitions, SEGMENT | config), TopicExists)

    def _produce(self, producer: Producer) -> Client:
        """Two batches a round, over several segments; then what is left of them."""
        for _ in range(BATCH_ROUNDS):
            producer.add()
            producer.add()
            self.flush(producer)
            yield
        while len(producer.acked) < len(producer.batches):
            self.flush(producer)
            yield

    def _keep_history(self) -> Client:
        yield from self._create("history")
        yield
        yield from self.until_done(AlterTopic("history", None, {"retention.bytes": str(RETENTION_BYTES)}))

    def _pass(self, producer: Producer) -> Client:
        """A topic that goes and comes again under its name: nothing of the first one may show in the second."""
        yield from self._create(producer.topic)
        producer.add()
        while not producer.acked:
            self.flush(producer)
            yield
        yield from self.until_done(Commit("reader", "", -1, [CommitPartition(producer.topic, 0, 1)]))
        yield
        yield from self.until_done(DeleteTopic(producer.topic), UnknownTopic)
        self.deleted = True
        yield
        yield from self._create(producer.topic)

    def _trim(self) -> Client:
        while self.producers[2].acked_records < TRIM_TO + 1:
            yield
        yield from self.until_done(TrimTopic("history", 0, TRIM_TO), OffsetOutOfRange)
        self.trimmed = True

    def _bill(self) -> Client:
        """Read some, fail one, see it become a letter, have it redriven, handle it."""
        while self.producers[0].acked_records < READ:
            yield
        failure = Failure(POISON, "no such customer", "app.NoCustomer", key_hash=1)
        yield from self.until_done(Commit(GROUP, "", -1, [CommitPartition("orders", 0, READ, failed=[failure])], ONCE))
        while self._unfinished() != {}:
            yield
        request = StartRedrive(GROUP, "orders", token="today")
        yield from self.until_done(request)
        while not self._redriven():
            yield
        poll = 0
        while POISON not in self.handled:
            poll += 1
            wanted = [FetchOffsetsPartition("orders", 0)]
            reply = self.ask(FetchRetries(GROUP, "", -1, wanted, max_wait_ms=0, poll=poll))
            if isinstance(reply, FetchRetriesReply) and reply.results:
                self.handled += [record.offset for record in reply.results[0].records]
            else:
                yield
        yield from self.until_done(Commit(GROUP, "", -1, [CommitPartition("orders", 0, READ, done=[POISON])]))

    def _unfinished(self) -> dict[str, int] | None:
        """The group's failures by state; None when nobody says."""
        reply = self.ask(DescribeGroup(GROUP))
        if not isinstance(reply, DescribeGroupReply) or not reply.partitions:
            return None
        return reply.partitions[0].failed

    def _redriven(self) -> bool:
        reply = self.ask(ListRedrives(GROUP))
        return isinstance(reply, ListRedrivesReply) and [redrive.state for redrive in reply.redrives] == ["done"]

    # -- the day ------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Every client does what it can; then a little time passes."""
        if self.service is None:
            self.start()  # again, as a supervisor does, should it have been refused
        for name, client in self.clients.items():
            if name not in self.finished and next(client, DONE) is DONE:
                self.finished.add(name)
            if self.crashed:
                return
        self.let(ROUND_MS)

    def day(self) -> None:
        """The script. It goes on whatever fails; a crash ends it (`crashed`)."""
        for step in self._steps():
            step()
            if self.crashed:
                return

    def _steps(self) -> Iterator[Callable[[], None]]:
        yield from [self.round] * 3
        yield self.stop
        yield from [self.round] * 2
        yield lambda: self.let(UPKEEP_MS)
        yield self._die_with_batches_in_flight
        yield from [self.round] * 2
        yield lambda: self._die_with_batches_in_flight(power_cut=True)
        yield from [self.round] * 2
        yield lambda: self.let(UPKEEP_MS)
        yield self.stop

    def _die_with_batches_in_flight(self, *, power_cut: bool = False) -> None:
        for producer in self.producers[:3]:
            self.send(producer)
        if not self.crashed:
            self.die(power_cut=power_cut)

    def recover(self, *, power_cut: bool) -> None:
        """What stopped stops; then a broker on a healthy disk, until every client is done."""
        self.hook = None
        self.die(power_cut=power_cut)
        self.start()
        assert self.service is not None, f"no start on a healthy disk: {self.refusals[-1:]}"
        self.finish()

    def finish(self) -> None:
        """Rounds until every client is done."""
        for _ in range(ROUNDS_MAX):
            if len(self.finished) == len(self.clients):
                return
            self.round()
        waiting = sorted(self.clients.keys() - self.finished)
        raise AssertionError(f"not done after {ROUNDS_MAX} rounds: {waiting}; {self.refusals[-3:]}")
