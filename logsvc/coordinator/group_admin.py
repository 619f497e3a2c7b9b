"""What operators change about a group: its settings, where it reads on, what holds it, and its end.

Resetting and deleting are refused while the group has members that may be reading: what they hold would not fit what is
recorded any more. Static members that are away are not reading; a reset leaves them their place, a deletion does not.
"""

from msgspec.structs import replace

from logsvc.coordinator import suspects
from logsvc.coordinator.events import Now, Outcome, ResetOffsets, RetriesChanged, StateRecord
from logsvc.coordinator.group import Group
from logsvc.coordinator.state_log import (
    CommittedOffset,
    GroupConfig,
    GroupMeta,
    config_record,
    failure_record,
    group_record,
    offset_record,
    suspect_record,
)
from logsvc_common.breaker import DEFAULT_BREAKER
from logsvc_common.delivery import State
from logsvc_common.errors import GroupNotEmpty
from logsvc_common.messages import (
    ConfigureGroup,
    ConfigureGroupReply,
    DeleteGroup,
    DeleteGroupReply,
    ResetGroupReply,
    ResetResult,
    ResumeGroup,
    ResumeGroupReply,
)


def _check_inactive(group: Group) -> None:
    active = sum(not member.away for member in group.members.values())
    if active:
        raise GroupNotEmpty(f"group {group.name} has {active} active members; stop them first")


def _made(group: Group) -> list[StateRecord]:
    """The record that makes a group that is not kept yet."""
    return [] if group else [group_record(group.name, GroupMeta(0, group.meta.assignor, {}))]


def configure(group: Group, request: ConfigureGroup) -> Outcome:
    """Raises InvalidConfig for a value that cannot be."""
    known = DEFAULT_BREAKER if request.defaults or group.config is None else group.config.breaker
    wanted = {name: getattr(request, name) for name in known.__struct_fields__}
    given = {name: value for name, value in wanted.items() if value is not None}
    breaker = replace(known, **given) if given else known
    records = [*_made(group), config_record(group.name, GroupConfig(breaker))]
    return Outcome(records, ConfigureGroupReply(group.name, breaker), [RetriesChanged(group.name, answer=True)])


def reset(group: Group, event: ResetOffsets, now: Now) -> Outcome:
    """Set committed offsets. What becomes of failed records: `messages.ResetGroup`. Raises GroupNotEmpty."""
    _check_inactive(group)
    records = _made(group)
    results: list[ResetResult] = []
    for (topic, partition), offset in event.offsets:
        progress = group.progress_of(topic, partition)
        plan = progress.failed.plan_reset(offset, drop_failed=event.drop_failed)
        entries = progress.failed.entries()
        unfinished = {at for at, entry in entries.items() if entry.state is not State.DONE}
        dropped = unfinished & plan.changes.keys()
        results.append(
            ResetResult(
                topic=topic,
                partition=partition,
                old_offset=progress.failed.committed,
                new_offset=offset,
                dropped=len(dropped),
                kept=len(unfinished) - len(dropped),
            )
        )
        if offset != progress.failed.committed:
            records.append(offset_record(progress.key, CommittedOffset(offset, now.wall_ms)))
        records += (failure_record(group.name, topic, partition, at, entry) for at, entry in plan.changes.items())
        if progress.suspicion is not None:
            suspicion = suspects.after_reset(progress.suspicion, offset, dropped)
            if suspicion != progress.suspicion:
                records.append(suspect_record(group.name, topic, partition, suspicion))
    reply = ResetGroupReply(results)
    if event.dry_run:
        return Outcome([], reply, ())
    return Outcome(records, reply, [RetriesChanged(group.name, answer=True)])


def delete(group: Group, request: DeleteGroup) -> Outcome:
    """Take back every record that speaks of the group. Raises GroupNotEmpty."""
    _check_inactive(group)
    failed = sum(sum(progress.failed.counts().values()) for progress in group.progress.values())
    reply = DeleteGroupReply(request.group, len(group.progress), failed)
    records = [StateRecord(record.key, None) for record in group.snapshot()]
    return Outcome(records, reply, [RetriesChanged(group.name, answer=True)])


def resume(group: Group, request: ResumeGroup, now: Now) -> Outcome:
    """Close the breaker, release paused records."""
    records: list[StateRecord] = []
    for (topic, partition), progress in group.progress.items():
        if request.topic not in (None, topic) or request.partition not in (None, partition):
            continue
        plan = progress.failed.plan_resume(now.wall_ms)
        records += (failure_record(group.name, topic, partition, offset, entry) for offset, entry in plan.changes.items())
    closed = group.flood.close(now.monotonic_ms)
    reply = ResumeGroupReply(group.name, closed, len(records))
    return Outcome(records, reply, [RetriesChanged(group.name, answer=True)])
