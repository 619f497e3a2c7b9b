"""A small world round the coordinator: clients that follow the protocol, badly at times, on logs that are only numbers.

A client joins, heartbeats, reads its partitions in order, parks what must wait, fails what its handler fails, asks for
retries, commits, sends again what was not answered, and drops everything when it is fenced. The world may lose its answers,
let it vanish, freeze or die of a record, jump the clock, restart the coordinator and hold back or repeat dead letters. It
fails so much at times that the breaker opens, and goes on reading then, which a good client would not. What must always hold
is asserted where it happens, in the coordinator's terms: an outcome counts when a commit that carries it was accepted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from logsvc.coordinator.events import DeadLetterFailed, DeadLetterWritten, Now, WriteDeadLetter
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common.errors import GroupError
from logsvc_common.messages import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    Failure,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    Parked,
    TopicPartitions,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import FakeLogs, Harness

PARTITIONS = 3
KEYS = 2
SESSION_MS = 3_000
BLOCKING = ("waiting", "parked", "delivered", "paused")
FINAL = ("dead_lettered", "discarded", "done")


def key_of(offset: int) -> int:
    return offset % KEYS


@dataclass
class Reading:
    """How a client stands in one partition it owns."""

    position: int
    tracked: dict[int, int]  # offsets it must not read from the log again, and their keys
    blocking: set[int]  # those that later records of their key wait behind
    in_hand: dict[int, int] = field(default_factory=dict)  # retries it was given, and their attempt
    isolated: bool = False  # it says before each record that it will try that one


@dataclass
class Client:
    name: str
    epoch: int = JOIN_EPOCH
    readings: dict[int, Reading] = field(default_factory=dict)
    assignment: set[int] = field(default_factory=set)
    report_owned: bool = True
    poll: int = 1
    polled: int | None = None  # the partition of a poll that was not answered: it is sent again before any other
    unanswered: CommitPartition | None = None
    gone: bool = False

    def drop_everything(self) -> None:
        self.epoch, self.readings, self.assignment, self.unanswered = JOIN_EPOCH, {}, set(), None
        self.report_owned = True
        self.poll, self.polled = self.poll + 1, None


class World:
    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        # Isolated after one death already: two in a row of one partition are too seldom here.
        self.broker = Harness(partitions=PARTITIONS, limits=CoordinatorLimits(suspect_deaths=1))
        self.broker.logs = FakeLogs(t=[0] * PARTITIONS)
        self.broker.coordinator = self.broker._fresh()
        self.clients: dict[str, Client] = {}
        self.committed = [-1] * PARTITIONS
        self.outcomes: dict[tuple[int, int], list[int]] = {}  # (partition, key) -> offsets in the order they ended
        self.handled: set[tuple[int, int]] = set()
        self.handler_failures: dict[tuple[int, int], int] = {}
        self.letters: list[tuple[int, int]] = []
        self.asked: list[WriteDeadLetter] = []
        self.handed_out = 0
        self.epochs = 0
        self.deaths = 0
        self.charged = 0  # deaths that were those of one record
        self.pauses = 0

    # The coordinator's side

    def take_effects(self) -> None:
        self.asked += self.broker.letters_asked_for()
        self.broker.effects.clear()

    def restart(self) -> None:
        self.asked.clear()  # what was asked for in memory is gone; the intents are not
        self.broker.effects.clear()
        self.broker.restart()
        self.take_effects()

    def pass_time(self, ms: int) -> None:
        before = [self.recorded(partition) for partition in range(PARTITIONS)]
        self.broker.pass_time(ms)
        self.take_effects()
        for partition in range(PARTITIONS):
            self.charged += before[partition][1] != self.recorded(partition)[1]
            self.note_outcomes(partition, before[partition])
            self.committed[partition] = max(self.committed[partition], self.recorded(partition)[0])

    def jump_clock(self, ms: int) -> None:
        now = self.broker.now
        self.broker.now = Now(now.wall_ms + ms, now.monotonic_ms)

    def produce(self, partition: int, records: int) -> None:
        self.broker.logs.topics["t"][partition] += records

    def write_letter(self, fails: bool, reported: bool) -> None:
        """Carry out the oldest effect; its completion may be lost, as by a crash right after the letter."""
        if not self.asked:
            return
        effect = self.asked.pop(0)
        if fails:
            self.broker.handle(DeadLetterFailed("g", "t", effect.partition, effect.offset, "disk full"))
            return
        place = (effect.partition, effect.offset)
        if place not in self.letters:  # the shell looks for it first
            self.letters.append(place)
        if not reported:
            self.restart()
            return
        self.broker.handle(DeadLetterWritten("g", "t", *place, self.letters.index(place)))
        self.take_effects()

    # The clients' side

    def client(self, name: str) -> Client:
        if name not in self.clients or self.clients[name].gone:
            self.clients[name] = Client(name if name not in self.clients else name + "'")
        return self.clients[name]

    def heartbeat(self, client: Client, *, lost: bool = False) -> None:
        joins = client.epoch == JOIN_EPOCH
        owned = [TopicPartitions("t", sorted(client.readings))] if client.report_owned and not joins else None
        request = GroupHeartbeat(
            "g",
            client.name,
            client.epoch,
            topics=["t"] if joins else None,
            session_timeout_ms=SESSION_MS if joins else None,
            owned=owned,
            retry=self.policy if joins else None,
        )
        try:
            reply = self.broker.handle(request).reply
        except GroupError:
            if not lost:
                client.drop_everything()
            return
        self.check_owners()
        if lost:
            client.report_owned = True
            return
        assert isinstance(reply, GroupHeartbeatReply)
        client.epoch = reply.member_epoch
        self.epochs = max(self.epochs, client.epoch)
        client.report_owned = reply.assignment is not None
        if reply.assignment is not None:
            client.assignment = {partition for entry in reply.assignment for partition in entry.partitions}

    def reconcile(self, client: Client) -> None:
        """Give up and take what the last answer said; the next heartbeat reports it."""
        for partition in client.readings.keys() - client.assignment:
            del client.readings[partition]
            if client.unanswered is not None and client.unanswered.partition == partition:
                client.unanswered = None
            if client.polled == partition:
                client.poll, client.polled = client.poll + 1, None
            client.report_owned = True
        for partition in client.assignment - client.readings.keys():
            reply = self.broker.handle(FetchOffsets("g", [FetchOffsetsPartition("t", partition)])).reply
            assert isinstance(reply, FetchOffsetsReply)
            result = reply.results[0]
            client.readings[partition] = Reading(
                max(0, result.committed),
                {entry.offset: entry.key_hash or 0 for entry in result.outstanding},
                {entry.offset for entry in result.outstanding if entry.state in BLOCKING},
                isolated=result.isolated,
            )
            client.report_owned = True

    def leave(self, client: Client) -> None:
        self.broker.handle(GroupHeartbeat("g", client.name, LEAVE_EPOCH))
        client.gone = True

    def read(
        self, client: Client, partition: int, count: int, fails: Callable[[int], bool], *, ahead: bool, lost: bool
    ) -> None:
        """Handle the next records of a partition and commit.

        `ahead` reports failures before the offset that passes them. What was handled below them is then read again by the
        next owner and may fail then, so the order of outcomes is promised only to those who send both in one message.
        """
        ahead = ahead and self.policy.ordering == "none"
        reading = client.readings.get(partition)
        if reading is None or client.unanswered is not None:
            return
        failed: list[Failure] = []
        parked: list[Parked] = []
        blocked = {reading.tracked[offset] for offset in reading.blocking}
        position = reading.position
        for offset in range(position, min(position + count, self.broker.logs.topics["t"][partition])):
            position = offset + 1
            if offset in reading.tracked:
                continue
            if self.policy.ordering == "key" and key_of(offset) in blocked:
                parked.append(Parked(offset, key_of(offset)))
                continue
            if self.policy.ordering == "partition" and (blocked or failed):
                position = offset
                break
            if reading.isolated:
                # One at a time: what was read before it goes with the commit that says which it is.
                if failed or not self.attempt(client, CommitPartition("t", partition, offset, [], parked), offset):
                    position = offset
                    break
                parked, count = [], 0
            self.handle_record(client, partition, offset)
            if fails(offset):
                failed.append(self.failure(partition, offset, 1))
                blocked.add(key_of(offset))
            if count == 0:
                break
        if client.readings.get(partition) is not reading:
            return
        part = CommitPartition("t", partition, -1 if ahead else position, failed, parked)
        self.commit(client, part, lost=lost)

    def attempt(self, client: Client, part: CommitPartition, offset: int) -> bool:
        """Say that this record is tried next; False when it must not be."""
        reading = client.readings[part.partition]
        self.commit(client, replace(part, attempting=offset, attempting_key_hash=key_of(offset)), lost=False)
        return client.readings.get(part.partition) is reading

    def die(self, client: Client, partition: int) -> None:
        """The handler ends the process, with the next new record in its hands."""
        reading = client.readings.get(partition)
        if reading is None or client.unanswered is not None:
            return
        offset, end = reading.position, self.broker.logs.topics["t"][partition]
        blocked = {reading.tracked[blocking] for blocking in reading.blocking}
        waits = self.policy.ordering == "partition" if blocked else False
        if offset >= end or offset in reading.tracked or key_of(offset) in blocked or waits:
            return
        if reading.isolated and not self.attempt(client, CommitPartition("t", partition, offset), offset):
            return
        self.handle_record(client, partition, offset)
        if reading.isolated:
            self.handler_failures[partition, offset] = self.handler_failures.get((partition, offset), 0) + 1
        self.deaths += 1
        client.gone = True

    def retry(self, client: Client, partition: int, fails: Callable[[int], bool], *, lost_poll: bool, lost: bool) -> None:
        partition = partition if client.polled is None else client.polled
        reading = client.readings.get(partition)
        if reading is None or client.unanswered is not None:
            return
        client.polled = partition
        request = FetchRetries(
            "g", client.name, client.epoch, [FetchOffsetsPartition("t", partition)], 0, 2, client.poll, behind_max=1
        )
        try:
            reply = self.broker.handle(request).reply
        except GroupError:
            client.drop_everything()
            return
        if lost_poll:
            return
        client.poll += 1
        client.polled = None
        assert isinstance(reply, FetchRetriesReply)
        reading.isolated = bool(reply.isolated)
        for result in reply.results:
            for record in result.records:
                assert record.attempt <= self.policy.max_attempts
                assert record.attempt - 1 <= self.handler_failures.get((partition, record.offset), 0), (
                    "a hand-out spent an attempt"
                )
                reading.in_hand[record.offset] = record.attempt
                self.handed_out += 1
        done: list[int] = []
        failed: list[Failure] = []
        behind: set[int] = set()
        for offset, attempt in sorted(reading.in_hand.items()):
            if self.waits_behind(reading, offset, behind):
                continue
            if reading.isolated and (done or failed or not self.attempt(client, CommitPartition("t", partition), offset)):
                break
            self.handle_record(client, partition, offset)
            if fails(offset):
                failed.append(self.failure(partition, offset, attempt))
                behind.add(key_of(offset))
            else:
                done.append(offset)
        if (done or failed) and client.readings.get(partition) is reading:
            self.commit(client, CommitPartition("t", partition, -1, failed, [], done), lost=lost)

    def waits_behind(self, reading: Reading, offset: int, failed_keys: set[int]) -> bool:
        """True for a record in hand that must wait, because an earlier one of its key has failed, just now or before."""
        if self.policy.ordering != "key":
            return False
        earlier = {each for each in reading.blocking if each < offset and key_of(each) == key_of(offset)}
        return key_of(offset) in failed_keys or bool(earlier - reading.in_hand.keys())

    def failure(self, partition: int, offset: int, attempt: int) -> Failure:
        place = (partition, offset)
        self.handler_failures[place] = self.handler_failures.get(place, 0) + 1
        return Failure(offset, "boom", "E", "", key_of(offset), attempt)

    def resend(self, client: Client, *, lost: bool) -> None:
        if client.unanswered is not None:
            self.commit(client, client.unanswered, lost=lost)

    def commit(self, client: Client, part: CommitPartition, *, lost: bool) -> None:
        before = self.recorded(part.partition)
        client.unanswered = part
        try:
            reply = self.broker.handle(Commit("g", client.name, client.epoch, [part], self.policy)).reply
        except GroupError:
            assert self.recorded(part.partition) == before
            client.drop_everything()
            return
        assert isinstance(reply, CommitReply)
        result = reply.results[0]
        if result.error_code:
            assert self.recorded(part.partition) == before
            client.drop_everything()
            return
        self.take_effects()
        self.note_outcomes(part.partition, before)
        assert result.committed >= self.committed[part.partition], "the committed offset went back"
        self.committed[part.partition] = result.committed
        for verdict in result.verdicts:
            assert verdict.attempts <= self.policy.max_attempts
            assert verdict.attempts <= self.handler_failures[part.partition, verdict.offset]
        if lost:
            return
        client.unanswered = None
        reading = client.readings[part.partition]
        reading.isolated = result.isolated
        self.pauses += result.full
        reading.position = max(reading.position, part.offset)
        for parked in part.parked:
            reading.tracked[parked.offset] = parked.key_hash
            reading.blocking.add(parked.offset)
        for verdict in result.verdicts:
            reading.tracked[verdict.offset] = key_of(verdict.offset)
            (reading.blocking.discard if verdict.state in FINAL else reading.blocking.add)(verdict.offset)
            reading.in_hand.pop(verdict.offset, None)
        for offset in part.done:
            reading.blocking.discard(offset)
            reading.in_hand.pop(offset, None)

    # What must hold

    def recorded(self, partition: int) -> tuple[int, dict[int, str], list[str]]:
        """The committed offset and the recorded entries of a partition, and the letters on their way."""
        group = self.broker.coordinator._groups.get("g")
        progress = group.progress.get(("t", partition)) if group is not None else None
        if progress is None:
            return -1, {}, []
        entries = {offset: str(entry.state) for offset, entry in progress.failed.entries().items()}
        return progress.failed.committed, entries, sorted(map(str, progress.intents))

    def note_outcomes(self, partition: int, before: tuple[int, dict[int, str], list[str]]) -> None:
        """What has ended by a commit, in the order it did, compared with what was recorded before it."""
        old_committed, old, _ = before
        committed, new, _ = self.recorded(partition)
        ended = [offset for offset, state in old.items() if state in BLOCKING and new.get(offset, "done") not in BLOCKING]
        fresh = range(max(0, old_committed), max(0, committed))
        ended += [offset for offset in fresh if offset not in old and new.get(offset, "done") not in BLOCKING]
        ended += [offset for offset in new if offset >= committed and offset not in old and new[offset] not in BLOCKING]
        for offset in sorted(ended):
            order = self.outcomes.setdefault((partition, key_of(offset)), [])
            assert offset not in order, f"offset {offset} ended twice"
            if self.policy.ordering != "none":
                assert not order or order[-1] < offset, f"offset {offset} ended after {order[-1]}"
            order.append(offset)

    def handle_record(self, client: Client, partition: int, offset: int) -> None:
        """The handler runs: no other member the group knows may be reading the partition."""
        group = self.broker.coordinator._groups.get("g")
        known = group.members if group is not None else {}
        reading = [c for c in self.clients.values() if partition in c.readings and c.name in known and not c.gone]
        assert client not in reading or reading == [client], f"two members read partition {partition}"
        self.handled.add((partition, offset))

    def check_owners(self) -> None:
        group = self.broker.coordinator._groups["g"]
        held = [p for member in group.members.values() for p in (*member.assigned, *member.revoking)]
        assert len(held) == len(set(held)), "a partition is held by two members"
        assert sorted(held) == sorted(group.owners)
        targets = [p for member in group.members.values() for p in member.target]
        assert len(targets) == len(set(targets))

    def check_letters(self) -> None:
        assert len(self.letters) == len(set(self.letters))

    def drain(self, *, by_a_newcomer: bool) -> None:
        """Everything calms down: those who are there, or a newcomer after a restart, go on until nothing is left to do."""
        if by_a_newcomer:
            for client in self.clients.values():
                client.gone = True
            self.restart()
            self.client("last")
        for _ in range(400):
            for client in [client for client in self.clients.values() if not client.gone] or [self.client("last")]:
                self.heartbeat(client)
                self.reconcile(client)
                for partition in list(client.readings):
                    self.resend(client, lost=False)
                    self.read(client, partition, 5, lambda _: False, ahead=False, lost=False)
                    self.retry(client, partition, lambda _: False, lost_poll=False, lost=False)
            while self.asked:
                self.write_letter(fails=False, reported=True)
            self.pass_time(700)
            if self.finished():
                break
        assert self.finished(), "work is left that nobody is given"
        for partition, end in enumerate(self.broker.logs.topics["t"]):
            for offset in range(end):
                assert (partition, offset) in self.handled or (partition, offset) in self.letters
                assert offset in self.outcomes[partition, key_of(offset)]
        self.check_letters()

    def finished(self) -> bool:
        ends = self.broker.logs.topics["t"]
        states = [self.recorded(partition) for partition in range(PARTITIONS)]
        return all(max(0, committed) == ends[p] and not entries for p, (committed, entries, _) in enumerate(states))
