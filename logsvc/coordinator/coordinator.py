"""The group coordinator: events in; records to write, a reply and effects out.

What the internal log says changes in `replay` and nowhere else, so what a restart rebuilds is what ran. `handle` decides
against that state and returns records; its caller replays them, writes them as one atomic batch, and only when they are
durable sends the reply and carries out the effects. State is thus ahead of the disk by what has not been answered yet,
which is safe: whoever builds on it has records later in the same log.

Beside it stands soft state that no record speaks of: when each session ends, what each member said it owns, which records
are in a consumer's hands, which letters are to be tried again. A restart forgets it: members get a full session anew,
hand-outs fall due again, letters are asked for again.
"""

from collections.abc import Callable, Iterable, Iterator

from logsvc.coordinator import commits, group_admin, membership, offsets
from logsvc.coordinator.commits import Deciding
from logsvc.coordinator.deadletter import write_effect
from logsvc.coordinator.events import (
    NOTHING,
    DeadLetterFailed,
    DeadLetterWritten,
    Effect,
    Event,
    LettersRead,
    LogView,
    Now,
    Outcome,
    ResetOffsets,
    RetriesChanged,
    StateRecord,
    Tick,
    TopicDeleted,
    TopicsChanged,
)
from logsvc.coordinator.group import Group
from logsvc.coordinator.limits import DEFAULT_LIMITS, CoordinatorLimits
from logsvc.coordinator.members import REFUSED_RETRY_MS, Members, released
from logsvc.coordinator.redrive import Redrives
from logsvc.coordinator.standings import Positions, Standing, positions, standing, topics
from logsvc.coordinator.state_log import GroupMeta, RecordType, decode, group_record
from logsvc.coordinator.timers import Timers
from logsvc.coordinator.views import GroupView, view
from logsvc_common.errors import GroupFull, UnknownGroup, UnknownMember
from logsvc_common.messages import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
    CancelRedrive,
    Commit,
    ConfigureGroup,
    DeleteGroup,
    FetchOffsets,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    ListRedrives,
    ResumeGroup,
    RetriesResult,
    StartRedrive,
)
from logsvc_common.names import check_group
from logsvc_common.retry import RetryPolicy

CLOCK_STEP_MS = 100  # the wall clock may be this far behind its latest reading before due times are looked at again

_LetterKey = tuple[str, str, int, int]  # group, topic, partition, offset


class Coordinator:
    """All groups of one broker. Not thread-safe: one caller, which replays an outcome before it asks for the next.

    `logs` is read while deciding; `unit` gives random numbers in [0, 1), for jitter.
    """

    def __init__(self, logs: LogView, *, limits: CoordinatorLimits = DEFAULT_LIMITS, unit: Callable[[], float]) -> None:
        self._logs = logs
        self._limits = limits
        self._unit = unit
        self._groups: dict[str, Group] = {}
        self._members = Members(self._groups, limits)
        self._pauses: Timers[str] = Timers()  # groups whose breaker is open
        self._letters: Timers[_LetterKey] = Timers()  # failed writes, to be tried again
        self._letter_failures: dict[_LetterKey, int] = {}
        self._letter_backoff = RetryPolicy(initial_ms=limits.dead_letter_backoff_ms, max_ms=limits.dead_letter_backoff_max_ms)
        self._redrives = Redrives(self._groups, logs, limits)
        self._latest_wall_ms = 0

    # State

    def replay(self, record: StateRecord) -> None:
        """Apply one record of the internal log. Raises UnsupportedVersion for a record this version does not know."""
        decoded = decode(record)
        group = self._groups.get(decoded.group)
        if group is None:
            if decoded.value is None:
                return
            group = self._groups[decoded.group] = Group(decoded.group)
        group.apply(decoded)
        if decoded.type is RecordType.REDRIVE:
            self._redrives.recorded(decoded.path[0], decoded.value)
        if decoded.value is not None:
            return
        if decoded.type is RecordType.MEMBER:
            self._members.forget(decoded.group, decoded.path[0])
        elif decoded.type is RecordType.INTENT:
            self._forget_letter((decoded.group, *decoded.path))
        if not group:
            del self._groups[decoded.group]

    def snapshot(self) -> Iterator[StateRecord]:
        """The records that rebuild this state, and no others: what a compacted internal log holds."""
        for _, group in sorted(self._groups.items()):
            yield from group.snapshot()

    def loaded(self, now: Now) -> Outcome:
        """Call once, after the internal log was replayed at start.

        Every member gets a full session from now on; letters that were intended are asked for again; groups whose topics
        have changed meanwhile get a new target. A topic that is not there was deleted as the broker died: what groups have
        recorded about it must not be taken for what they have read of the next one of that name.
        """
        self._latest_wall_ms = now.wall_ms
        effects: list[Effect] = []
        records: list[StateRecord] = []
        for group in self._groups.values():
            gone = {topic for topic in offsets.topics_of(group) if self._logs.partition_count(topic) is None}
            for topic in sorted(gone):
                records += offsets.forget_topic(group, topic)
            for (topic, partition), progress in group.progress.items():
                if topic in gone:
                    continue
                progress.failed.reanchor(now.wall_ms)
                effects += (
                    write_effect(group.name, topic, partition, offset, intent)
                    for offset, intent in sorted(progress.intents.items())
                )
        self._members.begin_sessions(now)
        self._redrives.loaded(now)
        outcome = self._topics_changed()
        return Outcome(records + outcome.records, None, [*outcome.effects, *effects])

    # Events

    def handle(self, event: Event, now: Now) -> Outcome:
        """Decide about one event. Raises a LogsvcError when a request is refused; nothing has changed then."""
        self._watch_clock(now.wall_ms)
        match event:
            case Commit():
                return self._commit(event, now)
            case GroupHeartbeat():
                return self._heartbeat(event, now)
            case FetchRetries():
                return self._fetch_retries(event, now)
            case FetchOffsets():
                return Outcome([], offsets.fetch_offsets(self._groups.get(event.group), event, self._limits), ())
            case Tick():
                return self._tick(now)
            case DeadLetterWritten():
                return self._letter_written(event, now)
            case DeadLetterFailed():
                return self._letter_failed(event, now)
            case TopicDeleted():
                return self._topic_deleted(event.topic)
            case TopicsChanged():
                return self._topics_changed()
            case StartRedrive():
                return self._redrives.start(event, now)
            case ListRedrives():
                return Outcome([], self._redrives.listing(event), ())
            case CancelRedrive():
                return self._redrives.cancel(event, now)
            case LettersRead():
                return self._redrives.letters_read(event, now)
            case ConfigureGroup():
                return group_admin.configure(self._groups.get(event.group) or self._new_group(event.group), event)
            case ResetOffsets():
                return group_admin.reset(self._groups.get(event.group) or self._new_group(event.group), event, now)
            case DeleteGroup():
                return group_admin.delete(self._group(event.group), event)
            case ResumeGroup():
                return group_admin.resume(self._group(event.group), event, now)

    def _watch_clock(self, wall_ms: int) -> None:
        """Due times of a clock that has gone back since would be far away: look at them again."""
        if wall_ms < self._latest_wall_ms - CLOCK_STEP_MS:
            for group in self._groups.values():
                for progress in group.progress.values():
                    progress.failed.reanchor(wall_ms)
        elif wall_ms < self._latest_wall_ms:
            return
        self._latest_wall_ms = wall_ms

    def _commit(self, request: Commit, now: Now) -> Outcome:
        group = self._groups.get(request.group)
        if group is not None:
            outcome = commits.commit(group, request, self._given(now))
            if not group.flood.closed:
                self._pauses.set(group.name, group.flood.breaker.until_ms)
            return outcome
        if not offsets.is_outside(request):
            raise UnknownMember(f"group {check_group(request.group)} has no members")
        group = self._new_group(request.group)
        outcome = commits.commit(group, request, self._given(now))
        if not outcome.records:
            return outcome
        meta = GroupMeta(0, group.meta.assignor, {})
        return outcome._replace(records=[group_record(group.name, meta), *outcome.records])

    def _fetch_retries(self, request: FetchRetries, now: Now) -> Outcome:
        group = self._groups.get(request.group)
        if group is not None:
            return offsets.fetch_retries(group, request, now, self._logs, self._limits)
        if not offsets.is_outside(request):
            raise UnknownMember(f"group {check_group(request.group)} has no members")
        return Outcome([], FetchRetriesReply([]), ())

    def _heartbeat(self, request: GroupHeartbeat, now: Now) -> Outcome:
        group = self._groups.get(request.group)
        if request.member_epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH):
            return self._members.leave(group, request, self._given(now))
        if group is None:
            if request.member_epoch != JOIN_EPOCH:
                raise UnknownMember(f"group {check_group(request.group)} has no members: join with epoch 0")
            group = self._new_group(request.group)
        return self._members.heartbeat(group, request, self._given(now))

    def _given(self, now: Now) -> Deciding:
        return Deciding(now, self._logs, self._limits, self._unit)

    def _tick(self, now: Now) -> Outcome:
        records, effects = self._redrives.tick(now)
        died, caused = self._members.tick(self._given(now))
        records += died
        effects += caused
        for name in self._pauses.passed(now.monotonic_ms):
            self._pauses.cancel(name)
            if name in self._groups and self._groups[name].flood.advance(now.monotonic_ms):
                effects.append(RetriesChanged(name, answer=True))
        # Effects go with their records, which may be refused; letters then wait for the next tick, at once, instead.
        for letter in self._letters.passed(now.monotonic_ms) if not records else ():
            self._letters.cancel(letter)
            name, topic, partition, offset = letter
            intent = self._groups[name].progress[topic, partition].intents[offset]
            effects.append(write_effect(name, topic, partition, offset, intent))
        return Outcome(records, None, effects)

    def _letter_written(self, event: DeadLetterWritten, now: Now) -> Outcome:
        group = self._groups.get(event.group)
        outcome = NOTHING if group is None else commits.letter_written(group, event.topic, event.partition, event.offset)
        if outcome.records:
            # Should these records be refused (disk full), the letter is looked for again, found, and completed then.
            self._letters.set((event.group, event.topic, event.partition, event.offset), now.monotonic_ms + REFUSED_RETRY_MS)
        return outcome

    def _letter_failed(self, event: DeadLetterFailed, now: Now) -> Outcome:
        key = (event.group, event.topic, event.partition, event.offset)
        group = self._groups.get(event.group)
        progress = group.progress.get((event.topic, event.partition)) if group is not None else None
        if progress is None or event.offset not in progress.intents:
            return NOTHING
        failures = self._letter_failures[key] = self._letter_failures.get(key, 0) + 1
        self._letters.set(key, now.monotonic_ms + self._letter_backoff.backoff_ms(failures, self._unit()))
        return NOTHING

    def _topic_deleted(self, topic: str) -> Outcome:
        records = [record for group in self._groups.values() for record in offsets.forget_topic(group, topic)]
        changed = self._topics_changed()
        return Outcome(records + changed.records, None, changed.effects)

    def _topics_changed(self) -> Outcome:
        records: list[StateRecord] = []
        effects: list[Effect] = []
        for group in self._groups.values():
            change = membership.recount(group, self._logs)
            if change is not None:
                records += change.records(group.name)
                effects += released(group, change)
        return Outcome(records, None, effects)

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            raise UnknownGroup(f"no group {check_group(name)}")
        return group

    def _new_group(self, name: str) -> Group:
        """A group that is not kept yet: the records that this event writes make it."""
        check_group(name)
        if len(self._groups) >= self._limits.groups_max:
            raise GroupFull(f"there are {len(self._groups)} groups, as many as there may be")
        return Group(name)

    def _forget_letter(self, key: _LetterKey) -> None:
        self._letters.cancel(key)
        self._letter_failures.pop(key, None)

    def put_back(self, group: str, results: Iterable[RetriesResult]) -> None:
        """These were handed out just now and found no room in the answer: they are due as before."""
        for result in results:
            offsets = [record.offset for record in result.records]
            self._groups[group].progress[result.topic, result.partition].failed.put_back(offsets)

    # Time

    def stalled(self, now: Now) -> None:
        """The broker did not run for a while, and heard nobody: every member gets a full session from now on."""
        self._members.begin_sessions(now)

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which a Tick is useful; None when nothing waits for one."""
        deadlines = (self._members.next_ms(), self._pauses.next_ms(), self._letters.next_ms(), self._redrives.next_ms())
        return min((at for at in deadlines if at is not None), default=None)

    def next_due_ms(self, request: FetchRetries, now: Now) -> int | None:
        """Wall-clock time at which the next record that this request may be given falls due; None when none will by itself.

        What is due for another member is no reason to ask again.
        """
        group = self._groups.get(request.group)
        return None if group is None else offsets.next_due_ms(group, request, now, self._limits)

    # Views

    def groups(self, now: Now) -> list[GroupView]:
        """Every group, by name."""
        return [view(group, now.monotonic_ms, self._limits) for _, group in sorted(self._groups.items())]

    def group_names(self) -> list[str]:
        """In order."""
        return sorted(self._groups)

    def standing(self, group: str) -> Standing | None:
        """How a group stands, without its partitions and topics; None when there is none of that name."""
        found = self._groups.get(group)
        return None if found is None else standing(found)

    def topics(self, group: str) -> list[str]:
        """The topics of a group; none when there is no group of that name."""
        found = self._groups.get(group)
        return [] if found is None else topics(found)

    def positions(self, group: str, rows_max: int) -> Iterator[Positions]:
        """Where a group stands, `rows_max` partitions at a time; nothing when there is none of that name."""
        found = self._groups.get(group)
        return iter(()) if found is None else positions(found, rows_max)

    def describe(self, group: str, now: Now) -> GroupView:
        """Raises UnknownGroup."""
        return view(self._group(group), now.monotonic_ms, self._limits)
