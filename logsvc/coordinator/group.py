"""One consumer group: its members, who is to read what, who does, and how far it has come.

The manner of KIP-848. The group epoch rises whenever members, subscriptions or partition counts change, and with it the
target: what each member is to read in the end. Members go there one by one, on their own heartbeats. A member that has too
much is told to give it up, keeps its old epoch meanwhile, and moves to the group's epoch when it has reported that it did;
a member that gets something is told so only once nobody else holds it. Hence the invariant: `owners` has one member per
partition, counting what is being given up.

`Group` holds what was replayed and changes only in `apply`. The functions decide, and return the members as they should be.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from logsvc.coordinator.assignors import ASSIGNORS, DEFAULT_ASSIGNOR, Subscriber
from logsvc.coordinator.events import LogView, StateRecord, TopicPartition
from logsvc.coordinator.flood import Flood
from logsvc.coordinator.redriven import RedrivenLetters
from logsvc.coordinator.state_log import (
    CommittedOffset,
    Decoded,
    GroupConfig,
    GroupMeta,
    Intent,
    Member,
    RecordType,
    Redriven,
    RedriveTask,
    Suspicion,
    config_record,
    failure_record,
    group_record,
    intent_record,
    member_record,
    offset_key,
    offset_record,
    redrive_record,
    redriven_record,
    suspect_record,
)
from logsvc_common.breaker import DEFAULT_BREAKER
from logsvc_common.delivery import FailedOffsets
from logsvc_common.messages import TopicPartitions

NO_META = GroupMeta(0, DEFAULT_ASSIGNOR, {})


class Progress:
    """How far a group has come in one partition."""

    __slots__ = ("failed", "intents", "key", "seen", "suspicion", "time_ms")

    def __init__(self, key: bytes) -> None:
        self.failed = FailedOffsets()
        self.intents: dict[int, Intent] = {}
        self.key = key  # of the offset record, ready-made, because every commit writes one
        self.time_ms = -1
        self.suspicion: Suspicion | None = None
        self.seen = -1  # soft: all below was reported on, one way or another

    def __bool__(self) -> bool:
        return self.failed.committed >= 0 or len(self.failed) > 0 or bool(self.intents) or self.suspicion is not None


class Group:
    """What the internal log says about one group."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.meta = NO_META
        self.members: dict[str, Member] = {}
        self.owners: dict[TopicPartition, str] = {}
        self.progress: dict[TopicPartition, Progress] = {}
        self.config: GroupConfig | None = None
        self.flood = Flood()  # soft, but for its settings
        self.newest_poll: dict[str, int] = {}  # soft: by member, the highest number of its polls for retries
        self.redrives: dict[int, RedriveTask] = {}
        self.redriven: dict[TopicPartition, RedrivenLetters] = {}  # by partition of a dead-letter topic

    def __bool__(self) -> bool:
        """False when no record speaks of the group any more."""
        return self.meta is not NO_META or any((self.members, self.progress, self.config, self.redrives, self.redriven))

    @property
    def state(self) -> str:
        """`empty`, `reconciling` or `stable`. Targets are computed at once, so `assigning` is never seen."""
        if not self.members:
            return "empty"
        settled = all(
            member.epoch == self.meta.epoch and not member.revoking and member.assigned.keys() == member.target
            for member in self.members.values()
        )
        return "stable" if settled else "reconciling"

    def progress_of(self, topic: str, partition: int) -> Progress:
        """The progress in a partition; one that is not kept when the group has none there."""
        progress = self.progress.get((topic, partition))
        return Progress(offset_key(self.name, topic, partition)) if progress is None else progress

    # Replay

    def apply(self, record: Decoded) -> None:
        value = record.value
        if record.type is RecordType.GROUP:
            self.meta = NO_META if value is None else value
        elif record.type is RecordType.MEMBER:
            self._apply_member(record.path[0], value)
        elif record.type is RecordType.GROUP_CONFIG:
            self.config = value
            self.flood.configure(DEFAULT_BREAKER if value is None else value.breaker)
        elif record.type is RecordType.REDRIVE:
            self.redrives.pop(record.path[0], None)
            if value is not None:
                self.redrives[record.path[0]] = value
        elif record.type is RecordType.REDRIVEN:
            topic, partition, block = record.path
            self._apply_redriven(topic, partition, block, value)
        else:
            self._apply_progress(record)

    def _apply_member(self, member_id: str, member: Member | None) -> None:
        old = self.members.pop(member_id, None)
        if member is not None:
            self.members[member_id] = member
        else:
            self.newest_poll.pop(member_id, None)
        before = {} if old is None else {**old.assigned, **old.revoking}
        after = {} if member is None else {**member.assigned, **member.revoking}
        for partition, _ in before.items() ^ after.items():  # taken, given, or given anew under another epoch
            self.release(partition)
        for partition in before.keys() - after.keys():
            del self.owners[partition]
        self.owners.update(dict.fromkeys(after, member_id))

    def is_stale(self, member_id: str, poll: int) -> bool:
        """True for a poll that its member does not wait for any more, because it has sent a later one since. Those of number 0
        are not counted."""
        newest = self.newest_poll[member_id] = max(poll, self.newest_poll.get(member_id, 0))
        return 0 < poll < newest

    def release(self, partition: TopicPartition) -> None:
        """What was handed out of this partition is due again."""
        progress = self.progress.get(partition)
        if progress is not None:
            progress.failed.release()

    def _apply_redriven(self, topic: str, partition: int, block: int, value: Redriven | None) -> None:
        letters = self.redriven.setdefault((topic, partition), RedrivenLetters())
        letters.put(block, value)
        if not letters:
            del self.redriven[topic, partition]

    def _apply_progress(self, record: Decoded) -> None:
        topic, partition, *rest = record.path
        progress = self.progress.get((topic, partition))
        if progress is None:
            if record.value is None:
                return
            progress = self.progress[topic, partition] = self.progress_of(topic, partition)
        value = record.value
        if record.type is RecordType.OFFSET:
            committed = -1 if value is None else value.committed
            if committed < progress.failed.committed:
                progress.seen = -1
            progress.failed.set_committed(committed)
            progress.time_ms = -1 if value is None else value.time_ms
        elif record.type is RecordType.FAILURE:
            progress.failed.put(rest[0], value)
        elif record.type is RecordType.SUSPECT:
            progress.suspicion = value
        elif value is None:
            progress.intents.pop(rest[0], None)
        else:
            progress.intents[rest[0]] = value
        if value is None and not progress:
            del self.progress[topic, partition]

    def snapshot(self) -> Iterable[StateRecord]:
        """The records that rebuild this group, and no others."""
        if self.meta is not NO_META:
            yield group_record(self.name, self.meta)
        if self.config is not None:
            yield config_record(self.name, self.config)
        for member_id, member in sorted(self.members.items()):
            yield member_record(self.name, member_id, member)
        for (topic, partition), progress in sorted(self.progress.items()):
            if progress.failed.committed >= 0:
                yield offset_record(progress.key, CommittedOffset(progress.failed.committed, progress.time_ms))
            for offset, entry in progress.failed.entries().items():
                yield failure_record(self.name, topic, partition, offset, entry)
            for offset, intent in sorted(progress.intents.items()):
                yield intent_record(self.name, topic, partition, offset, intent)
            if progress.suspicion is not None:
                yield suspect_record(self.name, topic, partition, progress.suspicion)
        for redrive_id, task in sorted(self.redrives.items()):
            yield redrive_record(self.name, redrive_id, task)
        for (topic, partition), letters in sorted(self.redriven.items()):
            for block, redriven in sorted(letters.blocks.items()):
                yield redriven_record(self.name, topic, partition, block, redriven)


class Change(NamedTuple):
    """What a membership event comes to: the group's new meta (None: as it is), and the members that differ (None: gone)."""

    meta: GroupMeta | None
    members: dict[str, Member | None]

    def records(self, group: str) -> list[StateRecord]:
        made = [] if self.meta is None else [group_record(group, self.meta)]
        return made + [member_record(group, member_id, member) for member_id, member in self.members.items()]


def partition_counts(members: Mapping[str, Member], logs: LogView) -> dict[str, int]:
    """How many partitions each subscribed topic has; topics that do not exist are left out."""
    counts = {topic: logs.partition_count(topic) for member in members.values() for topic in member.topics}
    return {topic: count for topic, count in sorted(counts.items()) if count is not None}


def preferred_assignor(members: Mapping[str, Member]) -> str:
    """The assignor most members ask for, the first by name among equals; the default when nobody asks."""
    votes: dict[str, int] = {}
    for member in members.values():
        if member.assignor is not None:
            votes[member.assignor] = votes.get(member.assignor, 0) + 1
    return min(votes, key=lambda name: (-votes[name], name)) if votes else DEFAULT_ASSIGNOR


def retarget(epoch: int, members: Mapping[str, Member], logs: LogView) -> tuple[GroupMeta, dict[str, Member]]:
    """A new target for `members` under the next `epoch`: the group's meta, and all members with what they are to read."""
    counts = partition_counts(members, logs)
    assignor = preferred_assignor(members)
    subscribers = {name: Subscriber(frozenset(member.topics), member.target) for name, member in members.items()}
    shares = ASSIGNORS[assignor](subscribers, counts)
    return GroupMeta(epoch, assignor, counts), {
        name: member if member.target == shares[name] else replace(member, target=shares[name])
        for name, member in members.items()
    }


def reconcile(
    member_id: str,
    member: Member,
    epoch: int,
    owners: Mapping[TopicPartition, str],
    owned: frozenset[TopicPartition] | None,
) -> Member:
    """One step of a member towards its target. `owned` is what it reported to hold; None when that is not known.

    What it has too much of becomes `revoking`, and counts as given up only when a report after this step does not have it,
    because only then was the member told. Even when the target wants it back meanwhile, it is given up first: the member may
    be half way through that, and what it was handed of the partition is dropped with it.
    """
    revoking = {p: given for p, given in member.revoking.items() if owned is None or p in owned}
    revoking.update((p, given) for p, given in member.assigned.items() if p not in member.target)
    assigned = {p: given for p, given in member.assigned.items() if p in member.target}
    previous_epoch, reached = member.previous_epoch, member.epoch
    if not revoking:
        if reached != epoch:
            previous_epoch, reached = reached, epoch
        for partition in member.target:
            if partition not in assigned and owners.get(partition, member_id) == member_id:
                assigned[partition] = epoch
    moved = replace(member, epoch=reached, previous_epoch=previous_epoch, assigned=assigned, revoking=revoking)
    return member if moved == member else moved


def to_wire(partitions: Iterable[TopicPartition]) -> list[TopicPartitions]:
    """Partitions by topic, both in order."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return [TopicPartitions(topic, numbers) for topic, numbers in by_topic.items()]


def from_wire(partitions: Iterable[TopicPartitions]) -> frozenset[TopicPartition]:
    return frozenset((entry.topic, partition) for entry in partitions for partition in entry.partitions)
