"""Commits: progress and failures of a member's partitions, and those that its death amounts to.

Each function decides for one event and changes nothing that is recorded. A partition that cannot be committed fails on its
own, with its error code in its result. A member may commit what it holds, under an epoch that is not older than the one it was
given the partition at (KIP-1251): so a commit that crosses a heartbeat on its way is not taken for a zombie's.

A commit without failures costs one record. What else hangs on commits asks nothing of those: a partition without suspicion
skips `suspects`, and a breaker that is closed is told one number.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from logsvc.coordinator import suspects
from logsvc.coordinator.deadletter import make_intent, write_effect
from logsvc.coordinator.events import Effect, LogView, Now, Outcome, RetriesChanged, StateRecord, TopicPartition
from logsvc.coordinator.group import Group, Progress
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.offsets import check_committer, is_unread
from logsvc.coordinator.state_log import (
    CommittedOffset,
    Member,
    failure_record,
    intent_record,
    offset_record,
    suspect_record,
)
from logsvc_common.breaker import BreakerState
from logsvc_common.delivery import Plan
from logsvc_common.errors import (
    BrokerOverloaded,
    FencedMemberEpoch,
    InvalidRequest,
    LogsvcError,
    OffsetOutOfRange,
    UnknownPartition,
    UnknownTopic,
)
from logsvc_common.messages import Commit, CommitPartition, CommitReply, CommitResult
from logsvc_common.names import dead_letter_topic
from logsvc_common.retry import RetryPolicy
from logsvc_common.transitions import Spends, always

DEFAULT_POLICY = RetryPolicy()


class Deciding(NamedTuple):
    """What every decision about a commit needs to know. `unit` gives random numbers in [0, 1)."""

    now: Now
    logs: LogView
    limits: CoordinatorLimits
    unit: Callable[[], float]


def commit(group: Group, request: Commit, given: Deciding) -> Outcome:
    """Record progress and failures. Raises InvalidRequest when a partition is named twice, and what `check_committer` does."""
    member = check_committer(group, request)
    if len(request.partitions) > 1:
        named = {(part.topic, part.partition) for part in request.partitions}
        if len(named) != len(request.partitions):
            raise InvalidRequest("a partition is named twice in one commit")
    policy = request.retry if request.retry is not None else DEFAULT_POLICY
    records: list[StateRecord] = []
    effects: list[Effect] = []
    results: list[CommitResult] = []
    breaker_was = group.flood.breaker.state
    judged = False
    amid_successes = any(part.done or part.handled > 0 for part in request.partitions)
    for part in request.partitions:
        progress = group.progress_of(part.topic, part.partition)
        try:
            if member is not None:
                _check_holder(group, member, request.member_epoch, (part.topic, part.partition))
            _check_offsets(part, progress, given)
        except LogsvcError as error:
            results.append(_refused(part, progress.failed.committed, error))
            continue
        plan, probed = _plan(group, part, progress, policy, given, amid_successes)
        judged |= probed
        if plan.changes or plan.committed != progress.failed.committed:
            _record(group.name, part, progress, plan, given, records, effects)
        results.append(_result(group, part, progress, plan, request.member_id, given.limits, records))
    if judged or group.flood.breaker.state is not breaker_was:
        effects.append(RetriesChanged(group.name, answer=True))
    return Outcome(records, CommitReply(results), effects)


def _plan(
    group: Group, part: CommitPartition, progress: Progress, policy: RetryPolicy, given: Deciding, amid_successes: bool
) -> tuple[Plan, bool]:
    """The plan for one partition, counted by the breaker; and whether that was about a probe. `amid_successes`: the same commit
    tells of records that were handled, here or in another partition."""
    flood, now_ms = group.flood, given.now.monotonic_ms
    handled = _newly_handled(progress, part, given.logs)
    flood.breaker.succeeded(handled + len(part.done), now_ms)
    if not part.failed:
        plan = progress.failed.plan(part, policy, given.now.wall_ms, given.unit)
    else:
        spends: Spends = partial(flood.breaker.failed, now_ms, amid_successes=amid_successes or handled > 0)
        probe = (part.topic, part.partition), part.failed[0].offset
        if flood.failed_probe == probe and len(part.failed) == 1 and _nothing_else_is_left(group, given.logs):
            spends = always
        plan = progress.failed.plan(part, policy, given.now.wall_ms, given.unit, spends)
    if flood.closed:
        return plan, False
    failed = [failure.offset for failure in part.failed if failure.offset in plan.changes]
    return plan, flood.judge((part.topic, part.partition), part.done, failed, handled, now_ms)


def _nothing_else_is_left(group: Group, logs: LogView) -> bool:
    """True when the breaker has waited as long as it does, and there is no new record by which it could tell bad records from a
    dead downstream: only by spending their attempts do they come to an end."""
    if group.flood.breaker.state is not BreakerState.HALF_OPEN or not group.flood.breaker.at_its_longest:
        return False
    return not any(is_unread(group, partition, logs) for partition in {*group.owners, *group.progress})


def _newly_handled(progress: Progress, part: CommitPartition, logs: LogView) -> int:
    """How many new records a commit says were handled.

    Where it does not: records are read in order, so all below the highest one that is named were handed out, even while a slow
    one keeps the committed offset below. Some of them may still be in hand, and fail.
    """
    if part.handled >= 0:
        return part.handled
    begin = progress.seen
    if begin < 0:
        committed = progress.failed.committed
        begin = committed if committed >= 0 else logs.start_offset(part.topic, part.partition)
    end = part.offset
    if not (part.failed or part.parked):
        progress.seen = max(begin, end)
        return max(0, end - begin)
    named = [failure.offset for failure in part.failed] + [parked.offset for parked in part.parked]
    end = max(end, max(named) + 1)
    progress.seen = max(begin, end)
    return max(0, end - begin - sum(offset >= begin for offset in named))


def _result(
    group: Group,
    part: CommitPartition,
    progress: Progress,
    plan: Plan,
    member_id: str,
    limits: CoordinatorLimits,
    records: list[StateRecord],
) -> CommitResult:
    partition = (part.topic, part.partition)
    full = progress.failed.full(limits.failures_per_partition_max, plan.changes) or group.flood.holds(partition)
    isolated = group.flood.fresh_probe == partition
    if progress.suspicion is not None:
        redelivered = progress.failed.entry(part.attempting) is not None
        suspicion = suspects.after_commit(progress, part, plan, member_id, hands_out=redelivered or not full, limits=limits)
        if suspicion != progress.suspicion:
            records.append(suspect_record(group.name, part.topic, part.partition, suspicion))
        isolated = isolated or (suspicion is not None and suspicion.deaths >= limits.suspect_deaths)
    return CommitResult(
        topic=part.topic,
        partition=part.partition,
        committed=plan.committed,
        verdicts=plan.verdicts,
        full=full,
        isolated=isolated,
    )


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


def _check_offsets(part: CommitPartition, progress: Progress, given: Deciding) -> None:
    count = given.logs.partition_count(part.topic)
    if count is None:
        raise UnknownTopic(f"no topic {part.topic}")
    if not 0 <= part.partition < count:
        raise UnknownPartition(f"topic {part.topic} has {count} partitions, no {part.partition}")
    end = given.logs.end_offset(part.topic, part.partition)
    if not -1 <= part.offset <= end:
        raise OffsetOutOfRange(f"offset {part.offset} of {part.topic}-{part.partition}, which ends at {end}")
    if part.attempting >= end:
        raise OffsetOutOfRange(f"attempting offset {part.attempting} of {part.topic}-{part.partition}, which ends at {end}")
    if not (part.failed or part.parked):
        return
    for offset in (*(entry.offset for entry in part.failed), *(entry.offset for entry in part.parked)):
        if not 0 <= offset < end:
            raise OffsetOutOfRange(f"failed offset {offset} of {part.topic}-{part.partition}, which ends at {end}")
    if len(progress.failed) + len(part.failed) + len(part.parked) > given.limits.failures_per_partition_refused:
        raise BrokerOverloaded(f"{part.topic}-{part.partition} has {len(progress.failed)} failed records, as many as it may")


def _record(
    group: str,
    part: CommitPartition,
    progress: Progress,
    plan: Plan,
    given: Deciding,
    records: list[StateRecord],
    effects: list[Effect],
) -> None:
    if plan.committed != progress.failed.committed:
        records.append(offset_record(progress.key, CommittedOffset(plan.committed, given.now.wall_ms)))
    if not plan.changes:
        return
    records += (failure_record(group, part.topic, part.partition, offset, entry) for offset, entry in plan.changes.items())
    effects.append(RetriesChanged(group))
    if not plan.exhausted:
        return
    logs, letters = given.logs, dead_letter_topic(part.topic, group)
    search_from = logs.end_offset(letters, part.partition) if (logs.partition_count(letters) or 0) > part.partition else 0
    for exhausted in plan.exhausted:
        offset = exhausted.failure.offset
        intent = make_intent(
            exhausted,
            dead_letter_topic=letters,
            partition_count=logs.partition_count(part.topic) or part.partition + 1,
            search_from=search_from,
            limits=given.limits,
        )
        records.append(intent_record(group, part.topic, part.partition, offset, intent))
        effects.append(write_effect(group, part.topic, part.partition, offset, intent))


def died(group: Group, member_ids: Iterable[str], given: Deciding) -> tuple[list[StateRecord], list[Effect]]:
    """What it comes to that these members died, before they are removed: an attempt spent on the record that one had alone
    in hand, or suspicion. Members that are away have left."""
    records: list[StateRecord] = []
    effects: list[Effect] = []
    for member_id in member_ids:
        member = group.members[member_id]
        if member.away:
            continue
        policy = member.retry if member.retry is not None else DEFAULT_POLICY
        for topic, number in sorted((*member.assigned, *member.revoking)):
            if number >= (given.logs.partition_count(topic) or 0):
                continue
            progress = group.progress_of(topic, number)
            part = suspects.charge(progress, topic, number, member_id)
            plan = None if part is None else progress.failed.plan(part, policy, given.now.wall_ms, given.unit)
            if part is not None and plan is not None and plan.changes:
                _record(group.name, part, progress, plan, given, records, effects)
                assert progress.suspicion is not None, "nobody is charged without a suspicion"
                suspicion = suspects.charged(progress.suspicion, plan)
            else:
                suspicion = suspects.blamed(progress, topic, number, given.logs, given.limits)
            if suspicion != progress.suspicion:
                records.append(suspect_record(group.name, topic, number, suspicion))
    return records, effects


def put_back(group: Group, member_id: str) -> list[StateRecord]:
    """A member that leaves, or begins anew, has nothing in hand any more that it could die of."""
    return [
        suspect_record(group.name, topic, number, suspects.put_back(progress.suspicion))
        for (topic, number), progress in group.progress.items()
        if progress.suspicion is not None and progress.suspicion.attempted_by == member_id
    ]


def letter_written(group: Group, topic: str, partition: int, offset: int) -> Outcome:
    """The completion of a dead letter; nothing when it is complete already."""
    progress = group.progress.get((topic, partition))
    if progress is None or offset not in progress.intents:
        return Outcome([], None, ())
    plan = progress.failed.plan_letter_written(offset)
    records = [failure_record(group.name, topic, partition, done, entry) for done, entry in plan.changes.items()]
    records.append(intent_record(group.name, topic, partition, offset, None))
    return Outcome(records, None, (RetriesChanged(group.name),))
