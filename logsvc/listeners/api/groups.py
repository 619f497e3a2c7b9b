"""Consumer groups: is anyone behind, what has failed, who holds what; resuming one."""

import logging
from collections import Counter
from typing import Annotated

import msgspec

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.history import GroupHistory, group_history
from logsvc.listeners.api.operations import Given, Operation
from logsvc.listeners.api.topics import record_count
from logsvc_common.messages import (
    DescribeGroup,
    DescribeGroupReply,
    GroupPartition,
    ListGroups,
    ListGroupsReply,
    ListRedrives,
    ListRedrivesReply,
    Metadata,
    MetadataReply,
    ResumeGroup,
    ResumeGroupReply,
)
from logsvc_common.names import is_dead_letter

logger = logging.getLogger(__name__)


class BreakerState(msgspec.Struct, forbid_unknown_fields=True):
    """`state` is `closed`, `open` or `half_open`, or `off`."""

    state: str


class BreakerSettings(msgspec.Struct, forbid_unknown_fields=True):
    """When the group pauses, and for how long."""

    enabled: bool
    threshold: float
    window_ms: int
    min_failures: int
    open_ms: int
    open_max_ms: int
    probes: int


class Breaker(BreakerState, forbid_unknown_fields=True):
    """The flood breaker: `failures` of `deliveries` in its window; when open, the next probe is let through in
    `retry_in_ms`; `successes` probes in a row have succeeded; it has opened `opened` times since the broker started."""

    deliveries: int
    failures: int
    retry_in_ms: int
    successes: int
    opened: int
    config: BreakerSettings


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    """The policy under which a member's records are tried again."""

    max_attempts: int
    initial_ms: int
    max_ms: int
    multiplier: float
    jitter: float
    no_retry: list[str]
    on_exhausted: str
    ordering: str


class Held(msgspec.Struct, forbid_unknown_fields=True):
    """Partitions of one topic."""

    topic: str
    partitions: list[int]


class Member(msgspec.Struct, forbid_unknown_fields=True):
    """A consumer: what it holds, and what it is about to hold (`target`)."""

    member_id: str
    client_id: str
    instance_id: str | None
    member_epoch: int
    owned: list[Held]
    target: list[Held]
    retry: Retry | None


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a group stands in a partition. `committed` is null before its first commit, and `lag` then counts what the
    partition holds. `failed` counts failed offsets by state. `isolated`: a record seems to kill consumers, `deaths` of them."""

    topic: str
    partition: int
    committed: int | None
    start_offset: int
    end_offset: int
    lag: int
    lag_seconds: float
    owner: str | None
    failed: dict[str, int]
    deaths: int
    isolated: bool


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """A group. `lag` is in records, over all its partitions; `lag_seconds` the worst of them: the age of the first record not
    consumed. `failed` counts failed offsets by state, `dead_letters` the letters there are now."""

    group: str
    state: str
    members: int
    topics: list[str]
    lag: int
    lag_seconds: float
    failed: dict[str, int]
    dead_letters: int
    breaker: BreakerState


class Groups(msgspec.Struct, forbid_unknown_fields=True):
    """Every group, by name."""

    groups: list[Group]


class GroupDetail(msgspec.Struct, forbid_unknown_fields=True):
    """A group with its members, its progress and its breaker. `retry` is its members' policy: the first one's that
    has one."""

    group: str
    state: str
    epoch: int
    assignor: str
    members: int
    topics: list[str]
    lag: int
    lag_seconds: float
    failed: dict[str, int]
    dead_letters: int
    member_list: list[Member]
    partition_list: list[Progress]
    retry: Retry | None
    breaker: Breaker


class Resume(msgspec.Struct, forbid_unknown_fields=True):
    """Which paused records are tried again: all, those of a topic, or of one partition of it."""

    topic: str | None = None
    partition: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Resumed(msgspec.Struct, forbid_unknown_fields=True):
    """`breaker_closed`: it was open or half open; `resumed` paused records are tried again."""

    group: str
    breaker_closed: bool
    resumed: int


async def list_groups(backend: Backend, given: Given) -> Groups:
    """List the consumer groups"""
    letters = await _letters(backend, None)
    return Groups(
        [
            Group(
                group=found.group,
                state=found.state,
                members=found.members,
                topics=found.topics,
                lag=found.lag,
                lag_seconds=max(0, found.lag_ms) / 1000,
                failed=dict(found.failed_states),
                dead_letters=letters[found.group],
                breaker=BreakerState(found.breaker),
            )
            for found in (await backend.ask(ListGroups(), ListGroupsReply)).groups
        ]
    )


async def get_group(backend: Backend, given: Given) -> GroupDetail:
    """Describe a consumer group"""
    found = await backend.ask(DescribeGroup(given.path["group"]), DescribeGroupReply)
    failed: Counter[str] = Counter()
    for partition in found.partitions:
        failed.update(partition.failed)
    members = [msgspec.convert(member, Member, from_attributes=True) for member in found.members]
    owned = {held.topic for member in found.members for held in (*member.owned, *member.target)}
    return GroupDetail(
        group=found.group,
        state=found.state,
        epoch=found.epoch,
        assignor=found.assignor,
        members=len(found.members),
        topics=sorted({partition.topic for partition in found.partitions} | owned),
        lag=sum(partition.lag for partition in found.partitions),
        lag_seconds=max((partition.lag_ms for partition in found.partitions), default=0) / 1000,
        failed=dict(failed),
        dead_letters=(await _letters(backend, found.group))[found.group],
        member_list=members,
        partition_list=[_progress(partition) for partition in found.partitions],
        retry=next((member.retry for member in members if member.retry is not None), None),
        breaker=msgspec.convert(found.breaker, Breaker, from_attributes=True),
    )


def _progress(found: GroupPartition) -> Progress:
    return Progress(
        topic=found.topic,
        partition=found.partition,
        committed=found.committed if found.committed >= 0 else None,
        start_offset=found.start_offset,
        end_offset=found.end_offset,
        lag=found.lag,
        lag_seconds=found.lag_ms / 1000,
        owner=found.member_id or None,
        failed=dict(found.failed),
        deaths=found.deaths,
        isolated=found.isolated,
    )


async def _letters(backend: Backend, group: str | None) -> Counter[str]:
    """How many dead letters each group has now, or one of them."""
    known = (await backend.ask(ListRedrives(group), ListRedrivesReply)).letters
    topics = {letters.dead_letter_topic: letters.group for letters in known if is_dead_letter(letters.dead_letter_topic)}
    counts: Counter[str] = Counter()
    # One that has no letters yet, or none any more, need not be there.
    for found in (await backend.ask(Metadata(sorted(topics), True), MetadataReply)).topics:
        counts[topics[found.topic]] += record_count(found.partitions)
    return counts


async def get_group_history(backend: Backend, given: Given) -> GroupHistory:
    """Show a group's lag over the last hour"""
    found = await backend.ask(DescribeGroup(given.path["group"]), DescribeGroupReply)
    return group_history(backend.history, found.group)


async def resume_group(backend: Backend, given: Given) -> Resumed:
    """Resume a group

    Closes its flood breaker, and lets paused records be tried again with a fresh budget.
    """
    body: Resume = given.body
    done = await backend.ask(ResumeGroup(given.path["group"], body.topic, body.partition), ResumeGroupReply)
    logger.info("group %s resumed over HTTP by %s: %d records", done.group, given.peer, done.resumed)
    return Resumed(done.group, done.breaker_closed, done.resumed)


OPERATIONS = (
    Operation("GET", "/groups", list_groups, Groups, tag="groups"),
    Operation("GET", "/groups/{group}", get_group, GroupDetail, tag="groups"),
    Operation("GET", "/groups/{group}/history", get_group_history, GroupHistory, tag="groups"),
    Operation("POST", "/groups/{group}/resume", resume_group, Resumed, body=Resume, tag="groups"),
)
