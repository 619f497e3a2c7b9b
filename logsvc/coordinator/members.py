"""Sessions of members, and what each says it holds: the soft side of membership.

`membership` decides what a heartbeat, a join or a departure comes to; here are the clocks that end a session, and the line
between those who leave and those who die. A session that runs out is a death, and so is a static member that is replaced
before it has left: whoever died had work in hand, and `suspects` looks at it. Leaving is none, for good or for a while.
"""

from collections.abc import Mapping

from logsvc.coordinator import commits, membership
from logsvc.coordinator.commits import Deciding
from logsvc.coordinator.events import Effect, Now, Outcome, RetriesChanged, StateRecord, TopicPartition
from logsvc.coordinator.group import Change, Group, from_wire, to_wire
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.state_log import Member, group_record, member_record
from logsvc.coordinator.timers import Timers
from logsvc_common.messages import JOIN_EPOCH, STATIC_LEAVE_EPOCH, GroupHeartbeat, GroupHeartbeatReply

REFUSED_RETRY_MS = 1_000  # when what happened by itself is tried again, should its records be refused

_MemberKey = tuple[str, str]  # group, member id


class Members:
    """All members of all groups of one coordinator."""

    def __init__(self, groups: Mapping[str, Group], limits: CoordinatorLimits) -> None:
        self._groups = groups
        self._limits = limits
        self._sessions: Timers[_MemberKey] = Timers()
        self._owned: dict[_MemberKey, frozenset[TopicPartition]] = {}

    def begin_sessions(self, now: Now) -> None:
        """Every member gets a full session: the broker has just begun to listen, or to listen again."""
        for group in self._groups.values():
            for member_id, member in group.members.items():
                self._sessions.set((group.name, member_id), now.monotonic_ms + member.session_timeout_ms)

    def forget(self, group: str, member_id: str) -> None:
        self._sessions.cancel((group, member_id))
        self._owned.pop((group, member_id), None)

    def next_ms(self) -> int | None:
        """When the first session ends, monotonic; None without members."""
        return self._sessions.next_ms()

    def heartbeat(self, group: Group, request: GroupHeartbeat, given: Deciding) -> Outcome:
        """A join or a heartbeat. Raises what `membership.heartbeat` does."""
        key = (request.group, request.member_id)
        joins = request.member_epoch == JOIN_EPOCH
        owned = from_wire(request.owned) if request.owned is not None else None if joins else self._owned.get(key)
        change = membership.heartbeat(group, request, owned, given.logs, self._limits)
        old = group.members.get(request.member_id)
        records: list[StateRecord] = []
        effects = released(group, change)
        if joins and old is not None:
            # A member that joins again holds nothing any more, even when it is given the same partitions at the same epoch.
            for partition in (*old.assigned, *old.revoking):
                group.release(partition)
            records += commits.put_back(group, request.member_id)
        elif joins:
            replaced = [member_id for member_id, member in change.members.items() if member is None]
            died, caused = commits.died(group, replaced, given)
            records += died
            effects += caused
        member = change.members.get(request.member_id, old)
        assert member is not None, "a heartbeat does not remove its sender"
        self._sessions.set(key, given.now.monotonic_ms + member.session_timeout_ms)
        if owned is None:
            self._owned.pop(key, None)
        else:
            self._owned[key] = owned.intersection((*member.assigned, *member.revoking))
        known = owned == member.assigned.keys() and not member.revoking
        reply = GroupHeartbeatReply(
            member_id=request.member_id,
            member_epoch=member.epoch,
            heartbeat_interval_ms=self._heartbeat_interval_ms(member),
            assignment=None if known and request.member_epoch == member.epoch else to_wire(member.assigned),
        )
        return Outcome(records + change.records(group.name), reply, effects)

    def _heartbeat_interval_ms(self, member: Member) -> int:
        settled = not member.revoking and member.assigned.keys() == member.target
        usual = self._limits.heartbeat_interval_ms if settled else self._limits.heartbeat_interval_reconciling_ms
        return min(usual, max(1, member.session_timeout_ms // 3))

    def leave(self, group: Group | None, request: GroupHeartbeat, given: Deciding) -> Outcome:
        """Leaving twice is leaving: an answer that was lost must not keep a client from closing.

        Raises InvalidRequest when a member without `instance_id` says that it will be back.
        """
        reply = GroupHeartbeatReply(request.member_id, request.member_epoch, self._limits.heartbeat_interval_ms)
        if group is None or request.member_id not in group.members:
            return Outcome([], reply, ())
        records = commits.put_back(group, request.member_id)
        if request.member_epoch != STATIC_LEAVE_EPOCH:
            outcome = self._remove(group, [request.member_id], given)
            return Outcome(records + outcome.records, reply, outcome.effects)
        away = membership.away(group, request.member_id)
        self._sessions.set((group.name, request.member_id), given.now.monotonic_ms + away.session_timeout_ms)
        return Outcome([*records, member_record(group.name, request.member_id, away)], reply, ())

    def _remove(self, group: Group, member_ids: list[str], given: Deciding) -> Outcome:
        change = membership.remove(group, member_ids, given.logs)
        if len(member_ids) == len(group.members) and not group.progress:
            # Nothing is left worth remembering, and groups that came and went must not add up to the limit.
            return Outcome([*change._replace(meta=None).records(group.name), group_record(group.name, None)], None, ())
        return Outcome(change.records(group.name), None, released(group, change))

    def tick(self, given: Deciding) -> tuple[list[StateRecord], list[Effect]]:
        """Members whose session is over have died."""
        records: list[StateRecord] = []
        effects: list[Effect] = []
        expired: dict[str, list[str]] = {}
        for name, member_id in self._sessions.passed(given.now.monotonic_ms):
            group = self._groups.get(name)
            if group is None or member_id not in group.members:
                self.forget(name, member_id)  # a join that was never recorded
            else:
                self._sessions.set((name, member_id), given.now.monotonic_ms + REFUSED_RETRY_MS)
                expired.setdefault(name, []).append(member_id)
        for name, member_ids in expired.items():
            died, caused = commits.died(self._groups[name], member_ids, given)
            outcome = self._remove(self._groups[name], member_ids, given)
            records += died + outcome.records
            effects += [*caused, *outcome.effects]
        return records, effects


def released(group: Group, change: Change) -> list[Effect]:
    """A change of who holds what may make records due that were in somebody's hands."""
    return [RetriesChanged(group.name)] if change.members and group.progress else []
