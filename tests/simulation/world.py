"""The whole service in one thread, from one seed: producers, groups, readers, an operator, a network, a broker, a disk.

    plan_of(seed) -> World.run() -> chaos: `nemesis` lets things go wrong while everybody works
                                 -> calm: nothing goes wrong any more; everything must be handled or dead-lettered in time
                                 -> one more power cut; what the last broker finds is what the history is judged by

Everything is drawn from the seed, each part from a stream of its own, so that a change of one does not shift the others.
"""

import logging
from random import Random
from typing import TypeVar

from logsvc.storage.partition_log import PartitionState
from logsvc_client.producer_batch import BatchSettings
from logsvc_client.records import Record, RecordMetadata
from logsvc_common.errors import LogsvcError
from logsvc_common.messages import (
    CreateTopic,
    DescribeGroup,
    DescribeGroupReply,
    GroupPartition,
    Message,
    Request,
    TopicReply,
)
from tests.history.log import Anomaly, Place, Sent
from tests.simulation.clients import SimulatedProducer, SimulatedTransport
from tests.simulation.host import Host
from tests.simulation.ledger import Ledger, value_of
from tests.simulation.members import Handled, SimulatedMember, Style, Verdict
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network
from tests.simulation.plan import ATTEMPTS_MAX, GROUPS, SESSION_MS, TOPIC, Plan, plan_of
from tests.simulation.service import START_MS, SimulatedService, SimulatedTime
from tests.simulation.trace import Print, Trace

CALM_MS_MAX = 150_000  # of virtual time, until all must be over once nothing goes wrong any more
RETURN_MS = (100, 1_500)  # until whoever supervises a process has started it again
STEPS_MAX = 3_000_000

ResponseT = TypeVar("ResponseT", bound=Message)


class World:
    """One simulation. `show` prints the trace as it comes."""

    def __init__(self, seed: int, show: Print | None = None, plan: Plan | None = None) -> None:
        self.seed = seed
        self.plan = plan or plan_of(seed)
        self.time = SimulatedTime()
        self.trace = Trace(self.time.monotonic_ms, show)
        self.network = Network(self.time, self.stream("network"), self.trace)
        self.host = Host(seed, self.stream("host"), self.time, self.network, self.trace)
        self.host.recovered.append(self._note_recovered)
        self.ledger = Ledger(TOPIC, self.plan.partitions)
        self.wrong: list[Anomaly] = []
        self.calm = False
        self.producers: dict[int, SimulatedProducer] = {}
        self.members: dict[tuple[str | None, int], SimulatedMember] = {}
        self.absent: set[str] = set()  # groups whose members are kept away
        self.rng = self.stream("world")
        self._names: dict[str, int] = {}
        self._tries: dict[tuple[str | None, int], int] = {}
        self._open: dict[int, set[int]] = {}  # by producer: records on their way
        self._moments: dict[tuple[str, int], int] = {}
        self._sent = 0
        self.operator = self.transport("operator", 3_000)
        self.operator.start()
        self.nemesis = Nemesis(self)

    def stream(self, name: str) -> Random:
        """Random numbers of one part."""
        return Random(f"{self.seed}/{name}")

    def transport(self, name: str, request_timeout_ms: int | None = None) -> SimulatedTransport:
        """A connection of a new process."""
        life = self._names[name] = self._names.get(name, 0) + 1
        timeout_ms = request_timeout_ms or self.plan.request_timeout_ms
        whole = f"{name}.{life}"
        return SimulatedTransport(self.network, self.stream(whole), whole, request_timeout_ms=timeout_ms, observe=self._observe)

    # The run

    def run(self) -> list[Anomaly]:
        """Everything that is wrong with it."""
        watch = _Watch(self)
        loggers = [logging.getLogger(name) for name in ("logsvc", "logsvc_client")]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(watch)
            logger.propagate = False  # what it says is in the trace
        try:
            self._run()
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.removeHandler(watch)
                logger.propagate = propagate
        return self.wrong

    def _run(self) -> None:
        self.trace("world", f"seed {self.seed}: {self.plan.describe()}")
        self.host.start()
        self.ask(CreateTopic(TOPIC, self.plan.partitions, {"segment.bytes": str(self.plan.segment_bytes)}), TopicReply)
        self._people_come()
        self.nemesis.begin()
        self._until_ms(START_MS + self.plan.chaos_ms)
        self._be_calm()
        limit_ms = self.time.now_ms + CALM_MS_MAX
        while not self._over():
            self._until_ms(self.time.now_ms + 500)
            for (group, number), member in list(self.members.items()):
                self._return(group, number, member.style)
            if self.time.now_ms > limit_ms:
                self.wrong.append(Anomaly("stuck", f"not over {CALM_MS_MAX} ms after the last fault: {self._left()}"))
                break
        self._end()

    def _until_ms(self, at_ms: int) -> None:
        reached: list[bool] = []
        self.time.call_later(max(0, at_ms - self.time.now_ms) / 1_000, reached.append, True)
        for _ in range(STEPS_MAX):
            if reached:
                return
            self.host.step()
        raise AssertionError(f"time does not go on: {STEPS_MAX} steps, and it is {self.time.monotonic_ms()} ms")

    def _people_come(self) -> None:
        plan = self.plan
        for number in range(plan.producers):
            self.begin_producer(number)
        for number, style in enumerate(plan.billing):
            self.begin_member(GROUPS[0], number, style)
        for number, style in enumerate(plan.audit):
            self.begin_member(GROUPS[1], number, style)
        for number in range(plan.readers):
            self.begin_member(None, number, Style("poll", records_max=10))
        send_ms = sorted(self.rng.uniform(0, plan.chaos_ms) for _ in range(plan.records))
        # In bursts too: what comes together fills batches.
        for at_ms in send_ms:
            self.time.call_later((at_ms if self.rng.random() < 0.5 else at_ms // 500 * 500) / 1_000, self._send)

    def _be_calm(self) -> None:
        self.trace("world", "calm")
        self.calm = self.network.calm = self.host.calm = True
        self.nemesis.end()
        self.host.disk.heal()
        self.network.heal_all()
        self.host.slow_until_ms = 0
        for group in sorted(self.absent):
            self.come_back(group)

    # People

    def begin_producer(self, number: int) -> None:
        plan = self.plan
        transport = self.transport(f"producer {number}")
        settings = BatchSettings(
            linger_ms=plan.linger_ms,
            batch_bytes=plan.batch_bytes,
            buffer_bytes=1 << 20,
            delivery_timeout_ms=plan.delivery_timeout_ms,
            max_in_flight=plan.max_in_flight,
            idempotent=True,
            codec=0,
        )
        rng = self.stream(f"choices of {transport.name}")
        self._open[number] = set()
        self.producers[number] = SimulatedProducer(transport, settings, lambda: rng.getrandbits(31), self._delivered)

    def end_producer(self, number: int) -> None:
        """kill -9: what was on its way is in doubt, and another process begins."""
        self.producers[number].transport.kill()
        for record in sorted(self._open[number]):
            self._delivered(record, None, None)
        self.begin_producer(number)

    def _send(self) -> None:
        number, self._sent = self._sent, self._sent + 1
        which = self.rng.randrange(self.plan.producers)
        producer = self.producers[which]
        key = b"%s key %d" % (producer.transport.name.encode(), self.rng.randrange(self.plan.keys))
        value = value_of(number, self.rng.choice([0, 20, 90]))
        self.ledger.values[number] = value
        self.ledger.sent.append(Sent(number, key))
        self._open[which].add(number)
        producer.send(number, TOPIC, value, key)

    def _delivered(self, number: int, metadata: RecordMetadata | None, error: LogsvcError | None) -> None:
        for numbers in self._open.values():
            numbers.discard(number)
        if metadata is None:
            self.trace("world", f"record {number} failed: {error}")
            self.ledger.failed.add(number)
        else:
            self.trace("world", f"record {number} acknowledged at {metadata.partition}/{metadata.offset}")
            self.ledger.acked.setdefault(number, []).append(Place(metadata.partition, metadata.offset))

    def begin_member(self, group: str | None, number: int, style: Style) -> None:
        name = f"{group or 'reader'} {number}"
        transport = self.transport(name)
        rng = self.stream(f"work of {transport.name}")

        def handle(record: Record) -> Verdict:
            return self._verdict(group, record, rng)

        def tell(handled: Handled) -> None:
            self.trace(handled.member, f"{handled.record.partition}/{handled.record.offset} {handled.outcome or 'begins'}")
            self.ledger.handled(group, handled)

        self.members[group, number] = SimulatedMember(
            self.time,
            transport,
            TOPIC,
            group,
            style,
            retry=self.plan.policy(group or GROUPS[1]),
            session_timeout_ms=SESSION_MS,
            handle=handle,
            tell=tell,
            died=lambda member: self.return_later(group, number, style),
        )

    def _verdict(self, group: str | None, record: Record, rng: Random) -> Verdict:
        ms = rng.choice([0.0, 0.0, 0.0, 1.0, 5.0, 40.0])
        if group is None:
            return Verdict(ms, "ok")
        number = int((record.value or b"-1").split(b" ", 1)[0])
        tries = self._tries[group, number] = self._tries.get((group, number), 0) + 1
        if group == GROUPS[0] and number in self.plan.poison:
            return Verdict(ms, "died")
        return Verdict(ms, "failed" if tries <= self.plan.failures(group, number) else "ok")

    def return_later(self, group: str | None, number: int, style: Style) -> None:
        """Somebody starts it again."""
        self.time.call_later(self.rng.uniform(*RETURN_MS) / 1_000, self._return, group, number, style)

    def come_back(self, group: str) -> None:
        """Its members are wanted again."""
        self.absent.discard(group)
        for (name, number), member in list(self.members.items()):
            if name == group:
                self._return(name, number, member.style)

    def _return(self, group: str | None, number: int, style: Style) -> None:
        if group not in self.absent and self.members[group, number].ended:
            # A reader keeps no position anywhere: the one that returns is another reader.
            self.begin_member(group, number, style)

    def _observe(self, who: str, body: Request, answer: Message | LogsvcError | None, sent_ms: int) -> None:
        if answer is None:
            self.trace.detail(who, body)
            self._moments[who, id(body)] = self.ledger.sending(who, body)
        else:
            self.trace.detail(who, answer)
            self.ledger.answered(body, answer, self._moments.pop((who, id(body))))

    # The end

    def _over(self) -> bool:
        service = self.host.service
        if service is None or self._sent < self.plan.records or any(self._open.values()):
            return False
        return not self._left()

    def _left(self) -> str:
        """What is not done, in words; the operator asks the broker."""
        described: dict[str, dict[int, GroupPartition]] = {}
        for group in GROUPS:
            try:
                reply = self.ask(DescribeGroup(group), DescribeGroupReply)
                described[group] = {each.partition: each for each in reply.partitions if each.topic == TOPIC}
            except LogsvcError as error:
                described[group] = {}
                self.trace("operator", f"group {group}: {error}")
        service = self.host.service
        if service is None:
            return "the broker is down"
        if ill := self.host.ill():
            return ill  # its end is not known
        left = []
        for log in service.logs.topics[TOPIC].partitions:
            for group, partitions in described.items():
                found = partitions.get(log.partition)
                committed, failed = (found.committed, found.failed) if found is not None else (-1, {})
                if (committed < log.end_offset and log.end_offset > log.start_offset) or any(failed.values()):
                    left.append(f"{group} in {log.partition}: {committed} of {log.end_offset}, {failed}")
        for (group_, _), member in self.members.items():
            if group_ is None:
                left += self._unread(member, service)
        return "; ".join(left)

    def ask(self, body: Request, expected: type[ResponseT]) -> ResponseT:
        """The operator asks, and waits for the answer. Raises the broker's error."""
        answered = self.operator.submit(body, expected, 60_000)
        while not answered.done():
            self.host.step()
        return answered.result()

    def _unread(self, reader: SimulatedMember, service: SimulatedService) -> list[str]:
        reached = {polled.partition: polled.found.offset + 1 for polled in self.ledger.polled.get(reader.name, [])}
        return [
            f"{reader.name} in {log.partition}: {reached.get(log.partition)} of {log.end_offset}"
            for log in service.logs.topics[TOPIC].partitions
            if reached.get(log.partition, 0) < log.end_offset and log.end_offset > log.start_offset
        ]

    def _note_recovered(self, service: SimulatedService) -> None:
        for log in service.logs.all_partitions():
            if log.state is PartitionState.READ_ONLY:  # nothing rots here, so nothing can be corrupt
                self.wrong.append(Anomaly("corrupt", f"{log!r}: {log.state_reason}"))

    def _end(self) -> None:
        for producer in self.producers.values():
            producer.transport.kill()
        for (group, _), member in self.members.items():
            if group is None:
                self.ledger.readers.add(member.name)
            member.kill()
        self.host.die("power cut")
        while self.host.service is None:
            self.host.step()
        try:
            self.wrong += self.ledger.anomalies(self.host.service, GROUPS, ATTEMPTS_MAX)
        except LogsvcError as error:
            self.wrong.append(Anomaly("lost-write", f"what is left cannot be read: {error}"))
        self.trace("world", f"over: {len(self.wrong)} anomalies")


class _Watch(logging.Handler):
    """A fault that the product has caught and logged with its traceback is a fault all the same."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.trace("log", record.getMessage())
        if record.exc_info is not None and record.exc_info[1] is not None:
            self._world.wrong.append(Anomaly("internal-error", f"{record.getMessage()}: {record.exc_info[1]!r}"))
