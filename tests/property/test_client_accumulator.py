"""The producer's accumulator against a model of the broker and of a network that loses things.

Whatever happens on the way (connections that break before or after the broker has appended, requests refused in a row,
timeouts), at the end: every record acknowledged is in the log at the offset it was told, none is there twice, the records
of a partition are in the order they were sent, every record has ended, and all memory is free again.
"""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc_client.accumulator import Accumulator
from logsvc_client.producer_batch import BatchSettings, NewRecord, ProducerBatch
from logsvc_common.batch import decode, parse_header
from logsvc_common.errors import BrokerOverloaded, CorruptBatch, OutOfOrderSequence

PARTITIONS = 2
STEPS_MAX = 60


class ModelBroker:
    """One producer's view of a broker: logs, and the last five batches of each partition (KIP-98)."""

    def __init__(self) -> None:
        self.logs: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.epochs = [-1] * PARTITIONS
        self.remembered: list[list[tuple[int, int, int]]] = [[] for _ in range(PARTITIONS)]

    def append(self, partition: int, data: bytearray) -> int:
        header = parse_header(data)
        sequence, count = header.base_sequence, header.record_count
        remembered = self.remembered[partition]
        if header.producer_epoch > self.epochs[partition]:
            if self.epochs[partition] >= 0 and sequence != 0:
                raise OutOfOrderSequence("a new epoch begins at 0")
            self.epochs[partition] = header.producer_epoch
            remembered.clear()
        else:
            for known, known_count, offset in remembered:
                if (known, known_count) == (sequence, count):
                    return offset
            if remembered and sequence != remembered[-1][0] + remembered[-1][1]:
                raise OutOfOrderSequence("a gap")
        offset = len(self.logs[partition])
        self.logs[partition] += [raw.value or b"" for raw in decode(data)]
        remembered.append((sequence, count, offset))
        del remembered[:-5]
        return offset


class World:
    """An accumulator, a connection that keeps order until it breaks, and a broker."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.broker = ModelBroker()
        settings_of_batches = BatchSettings(
            linger_ms=5,
            batch_bytes=200,
            buffer_bytes=200_000,
            delivery_timeout_ms=1_000,
            max_in_flight=5,
            idempotent=True,
            codec=0,
        )
        self.made = Accumulator(settings_of_batches, choose=lambda: 0)
        self.made.set_topic("t", PARTITIONS, 1 << 20)
        self.sent: list[tuple[int, bytes, ProducerBatch, int]] = []
        self.wire: deque[tuple[ProducerBatch, bytes]] = deque()  # requests on their way to the broker
        self.answers: deque[tuple[ProducerBatch, int | Exception]] = deque()
        self.epoch = -1

    def send(self, partition: int, size: int) -> None:
        value = b"%08d" % len(self.sent) + b"x" * size
        batch = self.made.add(NewRecord("t", value, None, [], partition, 1, None), self.now_ms)
        if isinstance(batch, ProducerBatch):
            self.sent.append((partition, value, batch, batch.count - 1))

    def step(self) -> None:
        self.made.expire(self.now_ms)
        if self.made.needs_epoch:
            self.epoch += 1
            self.made.new_producer(1, self.epoch)
        for request in self.made.drain(self.now_ms):
            for batch in request:
                self.wire.append((batch, bytes(batch.encoded(1, self.epoch))))

    def arrive(self, refuse: bool, condemn: bool) -> None:
        if not self.wire:
            return
        batch, data = self.wire.popleft()
        if refuse or condemn:
            self.answers.append((batch, BrokerOverloaded("busy") if refuse else CorruptBatch("no")))
            return
        try:
            self.answers.append((batch, self.broker.append(batch.queue.partition, bytearray(data))))
        except OutOfOrderSequence as error:
            self.answers.append((batch, error))

    def answer(self) -> None:
        if not self.answers:
            return
        batch, outcome = self.answers.popleft()
        if isinstance(outcome, int):
            self.made.acked(batch, outcome)
        else:
            assert isinstance(outcome, BrokerOverloaded | OutOfOrderSequence | CorruptBatch)
            self.made.refused(batch, outcome, self.now_ms)

    def disconnect(self) -> None:
        """What was sent may have arrived or not; no answer comes back."""
        lost = [batch for batch, _ in self.answers] + [batch for batch, _ in self.wire]
        self.answers.clear()
        self.wire.clear()
        for batch in lost:
            self.made.lost(batch)

    def settle(self) -> None:
        """The network is well again: everything comes to an end."""
        for _ in range(500):
            if not self.made.unfinished() and not self.wire and not self.answers:
                return
            self.now_ms += 50
            self.step()
            while self.wire:
                self.arrive(refuse=False, condemn=False)
            while self.answers:
                self.answer()
        raise AssertionError(f"records that never end: {len(self.made.unfinished())} batches")


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, PARTITIONS - 1), st.sampled_from([0, 50, 150])),
    st.tuples(st.just("step"), st.sampled_from([10, 1, 30, 400])),
    st.tuples(st.just("arrive"), st.sampled_from(["well", "well", "well", "refused", "condemned"])),
    st.tuples(st.just("answer")),
    st.tuples(st.just("disconnect")),
)


@settings(max_examples=1_500, deadline=None)
@given(st.lists(ACTIONS, min_size=10, max_size=STEPS_MAX))
def test_no_record_is_lost_doubled_or_out_of_order(actions: list[tuple[object, ...]]) -> None:
    world = World()
    for action in actions:
        match action:
            case ("send", int(partition), int(size)):
                world.send(partition, size)
            case ("step", int(ms)):
                world.now_ms += ms
                world.step()
            case ("arrive", str(fate)):
                world.arrive(refuse=fate == "refused", condemn=fate == "condemned")
            case ("answer",):
                world.answer()
            case ("disconnect",):
                world.disconnect()
    world.settle()

    for partition, log in enumerate(world.broker.logs):
        assert len(set(log)) == len(log), "a record is in the log twice"
        assert log == sorted(log), "records of a partition are out of order"
        for of, value, batch, index in world.sent:
            if of == partition and batch.error is None:
                assert log[batch.base_offset + index] == value, "an acknowledged record is not where it should be"
    assert all(batch.done for _, _, batch, _ in world.sent)
    assert world.made.free_bytes == 200_000
