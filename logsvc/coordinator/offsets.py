"""What is read back of a group's progress: committed offsets, outstanding failures, and the records that are due.

Nothing here is recorded. A hand-out is not: after a restart, or when its partition moves, what was handed out is due again.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from logsvc.coordinator import redrive_step
from logsvc.coordinator.events import Effect, LogView, Now, Outcome, RecordsRetried, StateRecord, TopicPartition
from logsvc.coordinator.group import Group, Progress, to_wire
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.membership import find_member
from logsvc.coordinator.state_log import Member, failure_record, group_record, intent_record, offset_record, suspect_record
from logsvc.coordinator.suspects import is_isolated
from logsvc_common.breaker import BreakerState
from logsvc_common.delivery import State
from logsvc_common.errors import FencedMemberEpoch, GroupNotEmpty
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    DueRecord,
    FetchOffsets,
    FetchOffsetsReply,
    FetchOffsetsResult,
    FetchRetries,
    FetchRetriesReply,
    RetriesResult,
)

AT_ONCE_MS = 1 << 62  # later than any due time


def is_outside(request: Commit | FetchRetries) -> bool:
    """True for a consumer that does not claim to be a member."""
    return request.member_id == "" and request.member_epoch == NO_MEMBER_EPOCH


def check_committer(group: Group, request: Commit | FetchRetries) -> Member | None:
    """The member that commits; None for a consumer that is none, which is let in while the group has no members.

    Raises GroupNotEmpty, UnknownMember, or FencedMemberEpoch for an epoch under which nothing it holds was given.
    """
    if is_outside(request):
        if group.members:
            raise GroupNotEmpty(f"group {group.name} has {len(group.members)} members: only they may commit")
        return None
    member_id, member_epoch = request.member_id, request.member_epoch
    member = find_member(group, member_id)
    if member_epoch != member.epoch:
        oldest = min((*member.assigned.values(), *member.revoking.values()), default=member.epoch)
        if not oldest <= member_epoch < member.epoch:
            raise FencedMemberEpoch(f"member {member_id} of group {group.name} is at epoch {member.epoch}, not {member_epoch}")
    return member


def topics_of(group: Group) -> set[str]:
    """The topics the group has recorded something about: those it reads, and those that letters on their way may be in."""
    intents = (intent for progress in group.progress.values() for intent in progress.intents.values())
    return {topic for topic, _ in group.progress} | {intent.dead_letter_topic for intent in intents if intent.search_from}


def forget_topic(group: Group, topic: str) -> list[StateRecord]:
    """Takes back all the group has recorded about a topic that is deleted.

    Letters that were still to go to it will be looked for from the start of the topic that takes its place.
    """
    records = redrive_step.forget_topic(group, topic)
    for (of_topic, partition), progress in group.progress.items():
        if of_topic != topic:
            records += (
                intent_record(group.name, of_topic, partition, offset, replace(intent, search_from=0))
                for offset, intent in progress.intents.items()
                if intent.dead_letter_topic == topic
            )
            continue
        records += (failure_record(group.name, topic, partition, offset, None) for offset in progress.failed.entries())
        records += (intent_record(group.name, topic, partition, offset, None) for offset in progress.intents)
        if progress.failed.committed >= 0:
            records.append(offset_record(progress.key, None))
        if progress.suspicion is not None:
            records.append(suspect_record(group.name, topic, partition, None))
    if records and not group.members and all(of_topic == topic for of_topic, _ in group.progress):
        records.append(group_record(group.name, None))
    return records


def fetch_offsets(group: Group | None, request: FetchOffsets, limits: CoordinatorLimits) -> FetchOffsetsReply:
    """Where the group stands. A group that is not known has committed nothing."""
    if request.partitions is None:
        asked = sorted(group.progress) if group is not None else []
    else:
        asked = [(entry.topic, entry.partition) for entry in request.partitions]
    results: list[FetchOffsetsResult] = []
    for topic, partition in asked:
        progress = group.progress.get((topic, partition)) if group is not None else None
        held = group is not None and group.flood.holds((topic, partition))
        if progress is None:
            results.append(FetchOffsetsResult(topic=topic, partition=partition, full=held))
            continue
        results.append(
            FetchOffsetsResult(
                topic=topic,
                partition=partition,
                committed=progress.failed.committed,
                outstanding=progress.failed.outstanding(),
                full=held or progress.failed.full(limits.failures_per_partition_max),
                isolated=is_isolated(progress, limits),
            )
        )
    return FetchOffsetsReply(results)


def readable(group: Group, request: FetchRetries) -> Iterator[tuple[TopicPartition, Progress | None]]:
    """The partitions of a request that this member may read now, with the group's progress there. Each poll begins with
    another one, or those with much that is due would keep the others waiting; not while the breaker looks for a probe."""
    member = group.members.get(request.member_id)
    first = request.poll % len(request.partitions) if request.partitions and group.flood.closed else 0
    for entry in (*request.partitions[first:], *request.partitions[:first]):
        partition = (entry.topic, entry.partition)
        if member is None or partition in member.assigned:
            yield partition, group.progress.get(partition)


def fetch_retries(group: Group, request: FetchRetries, now: Now, logs: LogView, limits: CoordinatorLimits) -> Outcome:
    """Hand out what is due. Partitions that were just taken from the member are passed over, without an error.

    A poll that the network kept, or that still waits here on a connection that broke, is given nothing once a later one has
    come: nobody would hear the answer, and the records would be out until the member is gone.

    Handing out is not recorded. What a repeated poll was given before counts for nothing: it was counted then. Raises what
    `check_committer` does.
    """
    member = check_committer(group, request)
    if member is not None and group.is_stale(request.member_id, request.poll):
        return Outcome([], FetchRetriesReply([]), ())
    left = min(request.max_records, limits.retries_per_fetch_max)
    breaker = group.flood.breaker
    allowance = breaker.allowance(now.monotonic_ms) if group.flood.closed else None
    fresh_left = left if allowance is None else min(left, allowance)
    effects: list[Effect] = []
    results: list[RetriesResult] = []
    full: list[TopicPartition] = []
    isolated: list[TopicPartition] = []
    for partition, progress in readable(group, request):
        if progress is not None:
            if member is None and request.poll == 1:
                # Outside the membership nobody says when a consumer went; a first poll is that of its successor.
                progress.failed.release()
            records = again = progress.failed.again(request.poll)
            if group.flood.closed:
                limit = min(left, fresh_left + len(again))
                records = progress.failed.due(
                    now.wall_ms,
                    limit,
                    request.poll,
                    alone=is_isolated(progress, limits),
                    behind=max(0, min(request.behind_max, limits.retries_behind_max)),
                )
                known = {record.offset for record in again}
                fresh = [record for record in records if record.offset not in known]
                fresh_left -= len(fresh)
                breaker.grant(len(fresh))
                if retried := sum(record.attempt > 1 for record in fresh):
                    effects.append(RecordsRetried(group.name, partition[0], retried))
            if records:
                left -= len(records)
                results.append(RetriesResult(topic=partition[0], partition=partition[1], records=records))
        if not group.flood.closed and left > 0:
            probe = _probe(group, partition, progress, request.poll, logs, limits)
            if probe is not None:
                left -= 1
                results.append(RetriesResult(topic=partition[0], partition=partition[1], records=[probe]))
                if probe.attempt > 1:
                    effects.append(RecordsRetried(group.name, partition[0], 1))
        if group.flood.holds(partition) or (progress is not None and progress.failed.full(limits.failures_per_partition_max)):
            full.append(partition)
        if partition == group.flood.fresh_probe or is_isolated(progress, limits):
            isolated.append(partition)
    return Outcome([], FetchRetriesReply(results, to_wire(full), to_wire(isolated)), effects)


def next_due_ms(group: Group, request: FetchRetries, now: Now, limits: CoordinatorLimits) -> int | None:
    """Wall-clock time at which asking again may give a record; None when only something that happens can bring that about."""
    if not group.flood.closed:
        return None
    found = [progress for _, progress in readable(group, request) if progress is not None]
    times = [
        progress.failed.next_due_ms()
        for progress in found
        if progress.suspicion is None or not (is_isolated(progress, limits) and progress.failed.leading_in_hand())
    ]
    due_ms = min((at for at in times if at is not None), default=None)
    breaker = group.flood.breaker
    if due_ms is None or breaker.allowance(now.monotonic_ms) != 0:
        return due_ms
    return max(due_ms, now.wall_ms + breaker.next_allowance_ms(now.monotonic_ms) - now.monotonic_ms)


def _probe(
    group: Group,
    partition: TopicPartition,
    progress: Progress | None,
    poll: int,
    logs: LogView,
    limits: CoordinatorLimits,
) -> DueRecord | None:
    """Make this partition the one that is probed, if none is; a retry that is the probe is handed out."""
    flood = group.flood
    if flood.breaker.state is not BreakerState.HALF_OPEN or _is_probing(group, logs, limits):
        return None
    if flood.breaker.prefers_fresh and _has_fresh(group, partition, logs, limits):
        flood.fresh_probe = partition
        return None
    records = [] if progress is None else progress.failed.due(AT_ONCE_MS, 1, poll, alone=is_isolated(progress, limits))
    if records:
        flood.failed_probe = (partition, records[0].offset)
        return records[0]
    if _has_fresh(group, partition, logs, limits):
        flood.fresh_probe = partition
    return None


def _is_probing(group: Group, logs: LogView, limits: CoordinatorLimits) -> bool:
    """True while the probe is in somebody's hands, or to be had; one that is lost is forgotten."""
    flood = group.flood
    if flood.failed_probe is not None:
        partition, offset = flood.failed_probe
        progress = group.progress.get(partition)
        if progress is not None and progress.failed.state(offset) is State.DELIVERED:
            return True
        flood.failed_probe = None
    if flood.fresh_probe is not None:
        if _has_fresh(group, flood.fresh_probe, logs, limits):
            return True
        flood.fresh_probe = None
    return False


def _has_fresh(group: Group, partition: TopicPartition, logs: LogView, limits: CoordinatorLimits) -> bool:
    """True when there are new records in a partition, and nothing of its own keeps them from being handed out."""
    progress = group.progress.get(partition)
    full = progress is not None and progress.failed.full(limits.failures_per_partition_max)
    return not full and is_unread(group, partition, logs)


def is_unread(group: Group, partition: TopicPartition, logs: LogView) -> bool:
    """True when there are records in a partition that the group has not got to."""
    topic, number = partition
    if number >= (logs.partition_count(topic) or 0):
        return False
    progress = group.progress.get(partition)
    if progress is None:
        return logs.end_offset(topic, number) > logs.start_offset(topic, number)
    return progress.failed.committed < logs.end_offset(topic, number)
