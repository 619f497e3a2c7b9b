"""Joining, heartbeating, leaving and being removed: what each comes to, decided without changing the group.

Epochs are checked as in KIP-848. A member is accepted with the epoch the group has for it, or with the one before when the
answer that carried the newer one was lost; that is certain when it holds nothing but what the group says. A member that is
not known has left, or its session ran out: it drops everything and joins again with epoch 0, under the same id if it likes.

Static members (KIP-345) carry an `instance_id` and keep their partitions over a restart. KIP-848 refuses a second member with
the same one while the first lives; here whoever comes last takes its place, at once and without a new epoch, and the one
before is fenced. A process that crashed is thus replaced without waiting for its session to run out.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from logsvc.coordinator.assignors import ASSIGNORS
from logsvc.coordinator.events import LogView, TopicPartition
from logsvc.coordinator.group import Change, Group, partition_counts, reconcile, retarget
from logsvc.coordinator.limits import IDENTIFIER_CHARACTERS_MAX, CoordinatorLimits
from logsvc.coordinator.state_log import Member
from logsvc_common.errors import FencedInstanceId, FencedMemberEpoch, GroupFull, InvalidConfig, InvalidRequest, UnknownMember
from logsvc_common.messages import JOIN_EPOCH, GroupHeartbeat
from logsvc_common.names import check_topic


def find_member(group: Group, member_id: str) -> Member:
    """Raise UnknownMember when the group does not have it."""
    member = group.members.get(member_id)
    if member is None:
        raise UnknownMember(
            f"group {group.name} has no member {member_id[:IDENTIFIER_CHARACTERS_MAX]!r}: join again with epoch 0"
        )
    return member


def heartbeat(
    group: Group,
    request: GroupHeartbeat,
    owned: frozenset[TopicPartition] | None,
    logs: LogView,
    limits: CoordinatorLimits,
) -> Change:
    """A join or a heartbeat. `owned` is what the member holds by its latest report; None when it has not said.

    Raises UnknownMember, FencedMemberEpoch, FencedInstanceId, GroupFull, or InvalidRequest, InvalidConfig and InvalidTopicName
    for a subscription that cannot be.
    """
    member_id, owners = request.member_id, group.owners
    gone: dict[str, Member | None] = {}
    if request.member_epoch == JOIN_EPOCH:
        old = group.members.get(member_id)
        replaced = _same_instance(group, request)
        if replaced is not None:
            old = group.members[replaced]
            gone[replaced] = None
            owners = {partition: member_id if owner == replaced else owner for partition, owner in owners.items()}
        member = _joining(group, request, old, limits)
    else:
        old = _known(group, request)
        _check_epoch(group, request, old)
        member = old
    member = _subscribed(member, request, limits)
    members = {name: each for name, each in group.members.items() if name not in gone} | {member_id: member}
    if old is not None and (member.topics, member.assignor) == (old.topics, old.assignor):
        reached = reconcile(member_id, member, group.meta.epoch, owners, owned)
        return Change(None, gone if reached == old and not gone else {**gone, member_id: reached})
    meta, members = retarget(group.meta.epoch + 1, members, logs)
    members[member_id] = reconcile(member_id, members[member_id], meta.epoch, owners, owned)
    return Change(meta, gone | _differing(group, members))


def _same_instance(group: Group, request: GroupHeartbeat) -> str | None:
    """The other member that has the `instance_id` of this request."""
    if request.instance_id is None:
        return None
    same = (name for name, member in group.members.items() if member.instance_id == request.instance_id)
    return next((name for name in same if name != request.member_id), None)


def _known(group: Group, request: GroupHeartbeat) -> Member:
    """The member that heartbeats. Raises FencedInstanceId when it was replaced, UnknownMember when it went."""
    if request.member_id not in group.members and _same_instance(group, request) is not None:
        instance = (request.instance_id or "")[:IDENTIFIER_CHARACTERS_MAX]
        raise FencedInstanceId(f"instance {instance!r} of group {group.name} is another member's now")
    member = find_member(group, request.member_id)
    if member.away:
        raise UnknownMember(f"member {request.member_id} of group {group.name} has left: join again with epoch 0")
    return member


def away(group: Group, member_id: str) -> Member:
    """The static member as it is while it is away. Raises InvalidRequest for one that is not static."""
    member = find_member(group, member_id)
    if member.instance_id is None:
        raise InvalidRequest(f"member {member_id} of group {group.name} has no instance_id to come back with")
    return replace(member, away=True)


def remove(group: Group, member_ids: list[str], logs: LogView) -> Change:
    """Members leave, or their sessions have run out; what they were to read goes to those who stay."""
    gone: dict[str, Member | None] = dict.fromkeys(member_ids)
    members = {member_id: member for member_id, member in group.members.items() if member_id not in gone}
    meta, members = retarget(group.meta.epoch + 1, members, logs)
    return Change(meta, gone | _differing(group, members))


def recount(group: Group, logs: LogView) -> Change | None:
    """A new target when topics were created, deleted or have grown; None when this group is not concerned."""
    if not group.members or partition_counts(group.members, logs) == group.meta.topics:
        return None
    meta, members = retarget(group.meta.epoch + 1, group.members, logs)
    return Change(meta, _differing(group, members))


def _differing(group: Group, members: Mapping[str, Member]) -> dict[str, Member | None]:
    return {member_id: member for member_id, member in members.items() if group.members.get(member_id) != member}


def _joining(group: Group, request: GroupHeartbeat, old: Member | None, limits: CoordinatorLimits) -> Member:
    """The member at epoch 0, holding nothing. One that joins again, or takes the place of `old`, keeps the target: nothing
    moves because of it."""
    if old is not None and request.member_id in group.members:
        return replace(old, epoch=0, previous_epoch=-1, assigned={}, revoking={}, away=False)
    if old is None and len(group.members) >= limits.members_per_group_max:
        raise GroupFull(f"group {group.name} has {len(group.members)} members, as many as it may")
    for what, identifier in (
        ("member_id", request.member_id),
        ("instance_id", request.instance_id or ""),
        ("client_id", request.client_id),
    ):
        if len(identifier) > IDENTIFIER_CHARACTERS_MAX or (what == "member_id" and not identifier):
            raise InvalidRequest(f"{what} has {len(identifier)} characters; at most {IDENTIFIER_CHARACTERS_MAX} are allowed")
    if request.topics is None:
        raise InvalidRequest("a member that joins names the topics it wants")
    member = Member(request.client_id, request.instance_id, (), None, limits.session_timeout_default_ms)
    return member if old is None else replace(member, target=old.target)


def _check_epoch(group: Group, request: GroupHeartbeat, member: Member) -> None:
    if request.member_epoch == member.epoch:
        return
    if request.member_epoch == member.previous_epoch and all(
        member.holds((entry.topic, partition)) is not None for entry in request.owned or () for partition in entry.partitions
    ):
        return
    raise FencedMemberEpoch(
        f"member {request.member_id} of group {group.name} is at epoch {member.epoch}, not {request.member_epoch}: join again"
    )


def _subscribed(member: Member, request: GroupHeartbeat, limits: CoordinatorLimits) -> Member:
    """The member with what the request changes about its subscription."""
    topics, assignor, session_timeout_ms = member.topics, member.assignor, member.session_timeout_ms
    retry = member.retry if request.retry is None else request.retry
    if request.topics is not None:
        if len(request.topics) > limits.topics_per_member_max:
            raise InvalidRequest(f"{len(request.topics)} topics; a member may want {limits.topics_per_member_max}")
        topics = tuple(sorted({check_topic(topic) for topic in request.topics}))
    if request.assignor is not None:
        assignor = request.assignor
        if assignor not in ASSIGNORS:
            raise InvalidConfig(f"unknown assignor {assignor[:IDENTIFIER_CHARACTERS_MAX]!r}; there are {', '.join(ASSIGNORS)}")
    if request.session_timeout_ms is not None:
        session_timeout_ms = request.session_timeout_ms
        low, high = limits.session_timeout_min_ms, limits.session_timeout_max_ms
        if not low <= session_timeout_ms <= high:
            raise InvalidConfig(f"session_timeout_ms is {session_timeout_ms}; it lies between {low} and {high}")
    return replace(member, topics=topics, assignor=assignor, session_timeout_ms=session_timeout_ms, retry=retry)
