"""Consumers in a simulation: they follow the protocol as `docs/groups.md` says a client must, on the virtual clock.

A worker is stepped by the test. Its handler says what becomes of a record by returning, by raising `HandlerError` (a failure),
or by raising `Died`: then the process is gone, with all it knew, and nobody tells the broker. Work is handled in batches and
committed once a batch, as a fast consumer does, except where the broker asks for one record at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from logsvc_common.batch import RawRecord, RecordData, decode, encode, split
from logsvc_common.errors import GroupError
from logsvc_common.keys import murmur2
from logsvc_common.messages import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    CreateTopic,
    Failure,
    Fetch,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchPartition,
    FetchReply,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    Parked,
    Produce,
    ProducePartition,
    TopicPartitions,
)
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService

SESSION_MS = 6_000
RESOLVED = ("dead_lettered", "discarded", "done")


class Died(Exception):
    """The handler has ended its process."""


class HandlerError(Exception):
    """The handler cannot handle a record."""


Handler = Callable[[int, RawRecord], None]


def sleep(service: SimulatedService, ms: int) -> None:
    """Let virtual time pass."""
    fired: list[bool] = []
    service.time.call_later(ms / 1000, fired.append, True)
    service.time.run(lambda: bool(fired))


def produce(service: SimulatedService, topic: str, partitions: int, records: int, *, keys: int = 97) -> None:
    """A topic of `records` records in each partition, with `keys` different keys."""
    service.ask(CreateTopic(topic, partitions))
    for partition in range(partitions):
        for begin in range(0, records, 1_000):
            numbers = range(begin, min(begin + 1_000, records))
            batch = encode([RecordData(b"%d" % n, b"key %d" % (n % keys), 1_000 + n) for n in numbers])
            service.ask(Produce([ProducePartition(topic, partition)]), [batch])


def letters(service: SimulatedService, topic: str, group: str) -> list[tuple[int, int]]:
    """The dead letters of a group: partition and offset of each record."""
    found = service.logs.topics.get(f"dlq.{topic}.{group}")
    placed = []
    for log in found.partitions if found is not None else ():
        data = log.read(log.start_offset, 64 << 20, up_to=log.end_offset)
        for _, batch in split(data):
            for record in decode(batch):
                headers = dict(record.headers)
                placed.append((int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"])))
    return placed


@dataclass
class Reading:
    """One partition of a worker."""

    position: int
    full: bool
    isolated: bool
    ahead: set[int]  # not to be handled when they are read: they come as retries, or are finished
    lanes: dict[int, set[int]]  # unfinished offsets by the hash of their key
    failed: list[Failure] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


class Worker:
    """One process, from its start to its death or end."""

    def __init__(
        self,
        service: SimulatedService,
        name: str,
        handle: Handler,
        *,
        group: str = "g",
        topic: str = "t",
        instance_id: str | None = None,
        retry: RetryPolicy,
        batch: int = 100,
        record_ms: float = 0.0,
    ) -> None:
        self.service, self.name, self.handle = service, name, handle
        self.group, self.topic, self.instance_id, self.retry = group, topic, instance_id, retry
        self.batch, self.record_ms = batch, record_ms
        self.epoch = JOIN_EPOCH
        self.readings: dict[int, Reading] = {}
        self.heartbeat_ms = 0
        self.poll = 0
        self.handed_out = 0

    # Membership

    def heartbeat(self) -> None:
        now_ms = self.service.time.now_ms
        if now_ms < self.heartbeat_ms:
            return
        joins = self.epoch == JOIN_EPOCH
        request = GroupHeartbeat(
            self.group,
            self.name,
            self.epoch,
            instance_id=self.instance_id,
            topics=[self.topic] if joins else None,
            session_timeout_ms=SESSION_MS if joins else None,
            owned=None if joins else [TopicPartitions(self.topic, sorted(self.readings))],
            retry=self.retry if joins else None,
        )
        reply, _ = self.service.ask(request)
        assert isinstance(reply, GroupHeartbeatReply)
        self.epoch, self.heartbeat_ms = reply.member_epoch, now_ms + reply.heartbeat_interval_ms
        if reply.assignment is None:
            return
        target = {number for entry in reply.assignment for number in entry.partitions}
        for partition in self.readings.keys() - target:
            del self.readings[partition]
            self.heartbeat_ms = now_ms
        for partition in sorted(target - self.readings.keys()):
            self.readings[partition] = self.locate(partition)
            self.heartbeat_ms = now_ms

    def locate(self, partition: int) -> Reading:
        reply, _ = self.service.ask(FetchOffsets(self.group, [FetchOffsetsPartition(self.topic, partition)]))
        assert isinstance(reply, FetchOffsetsReply)
        found = reply.results[0]
        reading = Reading(max(0, found.committed), found.full, found.isolated, set(), {})
        for entry in found.outstanding:
            reading.ahead.add(entry.offset)
            if entry.state in ("waiting", "parked", "delivered", "paused") and entry.key_hash is not None:
                reading.lanes.setdefault(entry.key_hash, set()).add(entry.offset)
        return reading

    def leave(self, epoch: int = LEAVE_EPOCH) -> None:
        self.service.ask(GroupHeartbeat(self.group, self.name, epoch, self.instance_id))

    # Work

    def step(self) -> int:
        """Heartbeat, then handle what is due and what is new. Returns how many records the handler was given."""
        before = self.handed_out
        try:
            self.heartbeat()
            self.retries()
            for partition in list(self.readings):
                self.read(partition)
        except GroupError:
            self.epoch, self.readings, self.heartbeat_ms = JOIN_EPOCH, {}, 0
        return self.handed_out - before

    def retries(self) -> None:
        if not self.readings:
            return
        self.poll += 1
        asked = [FetchOffsetsPartition(self.topic, partition) for partition in self.readings]
        reply, frames = self.service.ask(FetchRetries(self.group, self.name, self.epoch, asked, 0, 500, self.poll))
        assert isinstance(reply, FetchRetriesReply)
        full = {number for entry in reply.full for number in entry.partitions}
        isolated = {number for entry in reply.isolated for number in entry.partitions}
        for partition, reading in self.readings.items():
            reading.full, reading.isolated = partition in full, partition in isolated
        for result, frame in zip(reply.results, frames, strict=True):
            records = {record.offset: record for _, batch in split(frame) for record in decode(batch)}
            reading = self.readings[result.partition]
            for due in result.records:
                self.take(result.partition, reading, records[due.offset], due.attempt)
            self.commit(result.partition, reading)

    def read(self, partition: int) -> None:
        reading = self.readings[partition]
        if reading.full:
            return
        reply, frames = self.service.ask(Fetch([FetchPartition(self.topic, partition, reading.position, 1 << 20)], 0))
        assert isinstance(reply, FetchReply)
        records = [record for frame in frames for _, batch in split(frame) for record in decode(batch)]
        for record in [record for record in records if record.offset >= reading.position][: self.batch]:
            hash_ = murmur2(record.key or b"")
            if record.offset in reading.ahead:
                reading.ahead.discard(record.offset)
            elif reading.lanes.get(hash_):
                reading.parked.append(Parked(record.offset, hash_))
                reading.lanes[hash_].add(record.offset)
            elif not self.take(partition, reading, record, 1, new=True):
                break
            reading.position = record.offset + 1
            if reading.failed:
                self.commit(partition, reading)
            if reading.full:
                break
        self.commit(partition, reading)

    def take(self, partition: int, reading: Reading, record: RawRecord, attempt: int, *, new: bool = False) -> bool:
        """Hand one record to the handler; False when the broker says that it must wait."""
        hash_ = murmur2(record.key or b"")
        if reading.isolated:
            self.commit(partition, reading, attempting=record.offset, key_hash=hash_)
            if reading.full and new:
                return False
        self.handed_out += 1
        if self.record_ms:
            sleep(self.service, round(self.record_ms))
        try:
            self.handle(partition, record)
        except HandlerError as error:
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            reading.failed.append(Failure(record.offset, str(error), name, "", hash_, attempt))
            reading.lanes.setdefault(hash_, set()).add(record.offset)
        else:
            if not new:
                reading.done.append(record.offset)
                reading.lanes.get(hash_, set()).discard(record.offset)
        return True

    def commit(self, partition: int, reading: Reading, *, attempting: int = -1, key_hash: int | None = None) -> None:
        part = CommitPartition(
            self.topic, partition, reading.position, reading.failed, reading.parked, reading.done, attempting, key_hash
        )
        reply, _ = self.service.ask(Commit(self.group, self.name, self.epoch, [part], self.retry))
        assert isinstance(reply, CommitReply)
        result = reply.results[0]
        assert result.error_code == 0, result.error_message
        reading.full, reading.isolated = result.full, result.isolated
        hashes = {failure.offset: failure.key_hash for failure in reading.failed}
        for verdict in result.verdicts:
            if verdict.state in RESOLVED:
                reading.lanes.get(hashes[verdict.offset] or 0, set()).discard(verdict.offset)
        reading.failed, reading.parked, reading.done = [], [], []
