"""Commits, and what is read back of them: committed offsets, outstanding failures, records that are due.

Each function decides for one request and changes nothing that is recorded. A partition that cannot be committed fails on
its own, with its error code in its result. A member may commit what it holds, under an epoch that is not older than the one
it was given the partition at (KIP-1251): so a commit that crosses a heartbeat on its way is not taken for a zombie's.
"""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from logsvc.coordinator.deadletter import make_intent, write_effect
from logsvc.coordinator.events import (
    Effect,
    LogView,
    Now,
    Outcome,
    RetriesChanged,
    StateRecord,
    TopicPartition,
)
from logsvc.coordinator.group import Group, Progress, to_wire
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.membership import find_member
from logsvc.coordinator.state_log import (
    CommittedOffset,
    Member,
    failure_record,
    group_record,
    intent_record,
    offset_record,
)
from logsvc_common.delivery import Plan
from logsvc_common.errors import (
    BrokerOverloaded,
    FencedMemberEpoch,
    GroupNotEmpty,
    InvalidRequest,
    LogsvcError,
    OffsetOutOfRange,
    UnknownPartition,
    UnknownTopic,
)
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    CommitResult,
    FetchOffsets,
    FetchOffsetsReply,
    FetchOffsetsResult,
    FetchRetries,
    FetchRetriesReply,
    RetriesResult,
)
from logsvc_common.names import dead_letter_topic
from logsvc_common.retry import RetryPolicy

DEFAULT_POLICY = RetryPolicy()


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


def commit(
    group: Group, request: Commit, now: Now, logs: LogView, limits: CoordinatorLimits, unit: Callable[[], float]
) -> Outcome:
    """Record progress and failures. Raises InvalidRequest when a partition is named twice, and what `check_committer` does."""
    member = check_committer(group, request)
    named = {(part.topic, part.partition) for part in request.partitions}
    if len(named) != len(request.partitions):
        raise InvalidRequest("a partition is named twice in one commit")
    policy = request.retry if request.retry is not None else DEFAULT_POLICY
    records: list[StateRecord] = []
    effects: list[Effect] = []
    results: list[CommitResult] = []
    for part in request.partitions:
        progress = group.progress_of(part.topic, part.partition)
        failed = progress.failed
        try:
            if member is not None:
                _check_holder(group, member, request.member_epoch, (part.topic, part.partition))
            _check_offsets(part, progress, logs, limits)
        except LogsvcError as error:
            results.append(_refused(part, failed.committed, error))
            continue
        plan = failed.plan(part, policy, now.wall_ms, unit)
        if plan.committed != failed.committed:
            records.append(offset_record(progress.key, CommittedOffset(plan.committed, now.wall_ms)))
        if plan.changes:
            records += (
                failure_record(group.name, part.topic, part.partition, offset, entry) for offset, entry in plan.changes.items()
            )
            effects.append(RetriesChanged(group.name))
            _record_intents(group.name, part, plan, logs, limits, records, effects)
        results.append(
            CommitResult(
                topic=part.topic,
                partition=part.partition,
                committed=plan.committed,
                verdicts=plan.verdicts,
                full=failed.full(limits.failures_per_partition_max, plan.changes),
            )
        )
    return Outcome(records, CommitReply(results), effects)


def _refused(part: CommitPartition, committed: int, error: LogsvcError) -> CommitResult:
    return CommitResult(
        topic=part.topic, partition=part.partition, committed=committed, error_code=error.code, error_message=error.message
    )


def _check_holder(group: Group, member: Member, member_epoch: int, partition: TopicPartition) -> None:
    given = member.holds(partition)
    if given is None or member_epoch < given:
        raise FencedMemberEpoch(
            f"{partition[0]}-{partition[1]} is not this member's in group {group.name} at epoch {member_epoch}"
        )


def _check_offsets(part: CommitPartition, progress: Progress, logs: LogView, limits: CoordinatorLimits) -> None:
    count = logs.partition_count(part.topic)
    if count is None:
        raise UnknownTopic(f"no topic {part.topic}")
    if not 0 <= part.partition < count:
        raise UnknownPartition(f"topic {part.topic} has {count} partitions, no {part.partition}")
    end = logs.end_offset(part.topic, part.partition)
    if not -1 <= part.offset <= end:
        raise OffsetOutOfRange(f"offset {part.offset} of {part.topic}-{part.partition}, which ends at {end}")
    if not (part.failed or part.parked):
        return
    for offset in (*(entry.offset for entry in part.failed), *(entry.offset for entry in part.parked)):
        if not 0 <= offset < end:
            raise OffsetOutOfRange(f"failed offset {offset} of {part.topic}-{part.partition}, which ends at {end}")
    if len(progress.failed) + len(part.failed) + len(part.parked) > limits.failures_per_partition_refused:
        raise BrokerOverloaded(f"{part.topic}-{part.partition} has {len(progress.failed)} failed records, as many as it may")


def _record_intents(
    group: str,
    part: CommitPartition,
    plan: Plan,
    logs: LogView,
    limits: CoordinatorLimits,
    records: list[StateRecord],
    effects: list[Effect],
) -> None:
    if not plan.exhausted:
        return
    letters = dead_letter_topic(part.topic, group)
    search_from = logs.end_offset(letters, part.partition) if (logs.partition_count(letters) or 0) > part.partition else 0
    for exhausted in plan.exhausted:
        offset = exhausted.failure.offset
        intent = make_intent(
            exhausted,
            dead_letter_topic=letters,
            partition_count=logs.partition_count(part.topic) or part.partition + 1,
            search_from=search_from,
            limits=limits,
        )
        records.append(intent_record(group, part.topic, part.partition, offset, intent))
        effects.append(write_effect(group, part.topic, part.partition, offset, intent))


def letter_written(group: Group, topic: str, partition: int, offset: int) -> Outcome:
    """The completion of a dead letter; nothing when it is complete already."""
    progress = group.progress.get((topic, partition))
    if progress is None or offset not in progress.intents:
        return Outcome([], None, ())
    plan = progress.failed.plan_letter_written(offset)
    records = [failure_record(group.name, topic, partition, done, entry) for done, entry in plan.changes.items()]
    records.append(intent_record(group.name, topic, partition, offset, None))
    return Outcome(records, None, (RetriesChanged(group.name),))


def forget_topic(group: Group, topic: str) -> list[StateRecord]:
    """Takes back all the group has recorded about a topic that is deleted.

    Letters that were still to go to it will be looked for from the start of the topic that takes its place.
    """
    records: list[StateRecord] = []
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
        if progress is None:
            results.append(FetchOffsetsResult(topic=topic, partition=partition))
            continue
        results.append(
            FetchOffsetsResult(
                topic=topic,
                partition=partition,
                committed=progress.failed.committed,
                outstanding=progress.failed.outstanding(),
                full=progress.failed.full(limits.failures_per_partition_max),
            )
        )
    return FetchOffsetsReply(results)


def readable(group: Group, request: FetchRetries) -> Iterator[tuple[TopicPartition, Progress]]:
    """The partitions of a request that have progress and that this member may read now."""
    member = group.members.get(request.member_id)
    for entry in request.partitions:
        partition = (entry.topic, entry.partition)
        progress = group.progress.get(partition)
        if progress is not None and (member is None or partition in member.assigned):
            yield partition, progress


def fetch_retries(group: Group, request: FetchRetries, now: Now, limits: CoordinatorLimits) -> FetchRetriesReply:
    """Hand out what is due. Partitions that were just taken from the member are passed over, without an error.

    Handing out is not recorded. Raises what `check_committer` does.
    """
    member = check_committer(group, request)
    left = min(request.max_records, limits.retries_per_fetch_max)
    results: list[RetriesResult] = []
    full: list[TopicPartition] = []
    for partition, progress in readable(group, request):
        failed = progress.failed
        if member is None and request.poll == 1:
            # Outside the membership nobody says when a consumer went; a first poll is that of its successor.
            failed.release()
        if failed.full(limits.failures_per_partition_max):
            full.append(partition)
        records = failed.due(now.wall_ms, left, request.poll)
        if records:
            left -= len(records)
            results.append(RetriesResult(topic=partition[0], partition=partition[1], records=records))
    return FetchRetriesReply(results, to_wire(full))
