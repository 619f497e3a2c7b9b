"""Redriving: dead letters go back among the failed offsets of the group that failed them, with a fresh budget.

A redrive is a state record. It works in steps, one at a time:

    ReadLetters (effect) -> the broker reads a few hundred letters -> LettersRead (event) -> one atomic batch of records:
        the failed offsets, WAITING and due now | the letters' marks as redriven | how far the redrive is

So whatever crashes when, a letter is put back exactly once: its mark and its failed offset are durable together or not at
all, and the restart goes on from the step before. Marks outlive the redrive: the next one passes over them. A redrive ends
where the dead-letter partitions ended when it began, or a record that fails again would go round for ever.

What a step does with each letter is decided in `redrive_step`. A partition with many failed records is waited for
(`redrive_failures_max`), the others go on meanwhile.

Soft state, which a restart forgets: when a redrive may take its next step, what it waits for, and dry runs as a whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from logsvc.coordinator.events import (
    NOTHING,
    Effect,
    LettersRead,
    LettersRedriven,
    LogView,
    Now,
    Outcome,
    ReadLetters,
    RetriesChanged,
    StateRecord,
)
from logsvc.coordinator.group import Group
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.redrive_step import Step, decide, redriven_of, room_of
from logsvc.coordinator.state_log import RedriveState, RedriveTask, failure_record, redrive_record, redriven_record
from logsvc.coordinator.timers import Timers
from logsvc_common.errors import BrokerOverloaded, InvalidRequest, UnknownGroup, UnknownRedrive, UnknownTopic
from logsvc_common.messages import (
    CancelRedrive,
    CancelRedriveReply,
    LetterTopic,
    ListRedrives,
    ListRedrivesReply,
    Redrive,
    StartRedrive,
    StartRedriveReply,
)
from logsvc_common.names import check_group, dead_letter_topic

REFUSED_RETRY_MS = 1_000  # when a step is taken again whose records were refused


@dataclass(slots=True)
class _Run:
    """The soft side of a running redrive. `reading` is the partition and offset of the read under way."""

    group: str
    due_ms: int  # monotonic time of the next step, once this one is recorded
    reading: tuple[int, int] | None = None
    partition: int = -1  # the one read last: they take turns
    held: dict[int, tuple[int, str]] = field(default_factory=dict)  # partitions left alone until then, and why
    waits_for: str = ""


class Redrives:
    """All redrives of a broker. `groups` is the coordinator's own; what is recorded about a redrive is read from it."""

    def __init__(self, groups: Mapping[str, Group], logs: LogView, limits: CoordinatorLimits) -> None:
        self._groups = groups
        self._logs = logs
        self._limits = limits
        self._timers: Timers[int] = Timers()
        self._runs: dict[int, _Run] = {}
        self._dry_runs: dict[int, tuple[str, RedriveTask]] = {}

    # State

    def loaded(self, now: Now) -> None:
        """Go on with what was running when the broker stopped."""
        for redrive_id, group, task in self._all():
            if task.state is RedriveState.RUNNING:
                self._runs[redrive_id] = _Run(group, now.monotonic_ms)
                self._timers.set(redrive_id, now.monotonic_ms)

    def recorded(self, redrive_id: int, task: RedriveTask | None) -> None:
        """A record of a redrive was replayed."""
        run = self._runs.get(redrive_id)
        if run is None:
            return
        if task is not None and task.state is RedriveState.RUNNING:
            self._timers.set(redrive_id, run.due_ms)
        else:
            self._forget(redrive_id)

    def _forget(self, redrive_id: int) -> None:
        self._runs.pop(redrive_id, None)
        self._timers.cancel(redrive_id)

    def _all(self) -> Iterator[tuple[int, str, RedriveTask]]:
        for name, group in self._groups.items():
            yield from ((redrive_id, name, task) for redrive_id, task in group.redrives.items())
        yield from ((redrive_id, name, task) for redrive_id, (name, task) in self._dry_runs.items() if name in self._groups)

    def _task_of(self, redrive_id: int, run: _Run) -> RedriveTask | None:
        """What is recorded of a redrive; None when it is not running, or its group is gone."""
        group = self._groups.get(run.group)
        task = None if group is None else group.redrives.get(redrive_id)
        if redrive_id in self._dry_runs:
            task = self._dry_runs[redrive_id][1]
        return task if group is not None and task is not None and task.state is RedriveState.RUNNING else None

    def next_ms(self) -> int | None:
        """Monotonic time of the next step."""
        return self._timers.next_ms()

    # Requests

    def start(self, request: StartRedrive, now: Now) -> Outcome:
        """Raises UnknownGroup, UnknownTopic without dead letters, InvalidRequest when there is a choice of topics, and
        StorageFailed when letters cannot be read."""
        group = self._groups.get(check_group(request.group))
        if group is None:
            raise UnknownGroup(f"no group {request.group}")
        if request.rate_per_s < 0 or request.limit < 0:
            raise InvalidRequest("rate and limit are numbers of letters, 0 for none")
        tasks = list(self._all())
        for redrive_id, name, task in tasks:
            if request.token and task.token == request.token and name == group.name:
                return Outcome([], StartRedriveReply(self._shown(redrive_id, name, task)), ())
        if sum(task.state is RedriveState.RUNNING for _, _, task in tasks) >= self._limits.redrives_running_max:
            raise BrokerOverloaded(f"{self._limits.redrives_running_max} redrives are running, as many as may")
        task = self._new_task(group, request, now)
        redrive_id = 1 + max((found for found, _, _ in tasks), default=0)
        if task.state is RedriveState.RUNNING:
            self._runs[redrive_id] = _Run(group.name, now.monotonic_ms)
            self._timers.set(redrive_id, now.monotonic_ms + REFUSED_RETRY_MS)
        records = [] if task.dry_run else self._without_oldest(group)
        records += self._keep(group.name, redrive_id, task)
        return Outcome(records, StartRedriveReply(self._shown(redrive_id, group.name, task)), ())

    def _new_task(self, group: Group, request: StartRedrive, now: Now) -> RedriveTask:
        topic = request.topic if request.topic is not None else self._only_topic(group)
        if self._logs.partition_count(topic) is None:
            raise UnknownTopic(f"no topic {topic}")
        letters = dead_letter_topic(topic, group.name)
        count = self._logs.partition_count(letters)
        if count is None:
            raise UnknownTopic(f"group {group.name} has no dead letters of {topic}: there is no topic {letters}")
        for partition in range(count):
            self._logs.check_online(letters, partition)
        starts = tuple(self._logs.start_offset(letters, partition) for partition in range(count))
        ends = tuple(self._logs.end_offset(letters, partition) for partition in range(count))
        total = sum(ends) - sum(starts)
        return RedriveTask(
            topic=topic,
            dead_letter_topic=letters,
            where=request.where,
            rate_per_s=request.rate_per_s,
            limit=request.limit,
            dry_run=request.dry_run,
            token=request.token,
            created_ms=now.wall_ms,
            updated_ms=now.wall_ms,
            total=total,
            next_offsets=starts,
            end_offsets=ends,
            state=RedriveState.RUNNING if total else RedriveState.DONE,
        )

    def _only_topic(self, group: Group) -> str:
        topics = self._letter_topics(group)
        if not topics:
            raise UnknownTopic(f"group {group.name} has no dead letters")
        if len(topics) > 1:
            raise InvalidRequest(f"group {group.name} has dead letters of {', '.join(topics)}: name one of these topics")
        return topics[0]

    def _letter_topics(self, group: Group) -> list[str]:
        topics = sorted({topic for topic, _ in group.progress})
        return [topic for topic in topics if self._logs.partition_count(dead_letter_topic(topic, group.name)) is not None]

    def _without_oldest(self, group: Group) -> list[StateRecord]:
        over = sorted(found for found, task in group.redrives.items() if task.state is not RedriveState.RUNNING)
        return [redrive_record(group.name, old, None) for old in over[: max(0, len(over) + 1 - self._limits.redrives_kept)]]

    def listing(self, request: ListRedrives) -> ListRedrivesReply:
        if request.group is not None:
            check_group(request.group)
        wanted = [group for name, group in sorted(self._groups.items()) if request.group in (None, name)]
        letters = [
            LetterTopic(letters, topic, group.name, self._count_redriven(group, letters))
            for group in wanted
            for topic in self._letter_topics(group)
            for letters in (dead_letter_topic(topic, group.name),)
        ]
        redrives = [self._shown(*found) for found in self._all() if request.group in (None, found[1])]
        return ListRedrivesReply(
            sorted(redrives, key=lambda redrive: redrive.redrive_id), sorted(letters, key=lambda found: found.dead_letter_topic)
        )

    def _count_redriven(self, group: Group, letters: str) -> int:
        partitions = range(self._logs.partition_count(letters) or 0)
        return sum(
            group.redriven[letters, partition].count(self._logs.start_offset(letters, partition))
            for partition in partitions
            if (letters, partition) in group.redriven
        )

    def cancel(self, request: CancelRedrive, now: Now) -> Outcome:
        """Raises UnknownRedrive."""
        group, task = next(((group, task) for found, group, task in self._all() if found == request.redrive_id), ("", None))
        if task is None:
            raise UnknownRedrive(f"no redrive {request.redrive_id}")
        records: list[StateRecord] = []
        if task.state is RedriveState.RUNNING:
            task = replace(task, state=RedriveState.CANCELLED, updated_ms=now.wall_ms)
            records = self._keep(group, request.redrive_id, task)
        return Outcome(records, CancelRedriveReply(self._shown(request.redrive_id, group, task)), ())

    def _shown(self, redrive_id: int, group: str, task: RedriveTask) -> Redrive:
        run = self._runs.get(redrive_id)
        left = sum(end - self._position(group, task, partition) for partition, end in enumerate(task.end_offsets))
        return Redrive(
            redrive_id=redrive_id,
            group=group,
            topic=task.topic,
            dead_letter_topic=task.dead_letter_topic,
            state=str(task.state),
            where=task.where,
            rate_per_s=task.rate_per_s,
            limit=task.limit,
            dry_run=task.dry_run,
            total=task.total,
            scanned=task.total - left,
            matched=task.matched,
            redriven=task.redriven,
            skipped=task.skipped,
            created_ms=task.created_ms,
            updated_ms=task.updated_ms,
            waiting="" if run is None or task.state is not RedriveState.RUNNING else run.waits_for,
        )

    # Steps

    def tick(self, now: Now) -> tuple[list[StateRecord], list[Effect]]:
        """Begin the steps that are due."""
        records: list[StateRecord] = []
        effects: list[Effect] = []
        for redrive_id in self._timers.passed(now.monotonic_ms):
            run = self._runs[redrive_id]
            group, task = run.group, self._task_of(redrive_id, run)
            if task is None:
                self._forget(redrive_id)  # its start was never recorded, or its group is gone
                self._dry_runs.pop(redrive_id, None)
                continue
            # Should nothing come of it, because the disk is full, it is tried again.
            self._timers.set(redrive_id, now.monotonic_ms + REFUSED_RETRY_MS)
            left = [p for p, end in enumerate(task.end_offsets) if self._position(group, task, p) < end]
            if not left:
                records += self._keep(group, redrive_id, replace(task, state=RedriveState.DONE, updated_ms=now.wall_ms))
                continue
            left.sort(key=lambda p: (p <= run.partition, p))
            waits = {p: reason for p in left if (reason := self._why_wait(group, task, run, p, now))}
            readable = next((p for p in left if p not in waits), None)
            if readable is None:
                run.waits_for = waits[left[0]]
                self._timers.set(redrive_id, now.monotonic_ms + self._limits.redrive_wait_ms)
                continue
            run.partition = readable
            run.reading = (readable, self._position(group, task, readable))
            effects.append(
                ReadLetters(
                    redrive_id, task.dead_letter_topic, *run.reading, task.end_offsets[readable], self._limits.redrive_letters
                )
            )
        return records, effects

    def _position(self, group: str, task: RedriveTask, partition: int) -> int:
        """The next letter to look at; the end when none is left. Letters that are gone or were redriven are behind it."""
        end = task.end_offsets[partition]
        if partition >= (self._logs.partition_count(task.dead_letter_topic) or 0):
            return end
        offset = max(task.next_offsets[partition], self._logs.start_offset(task.dead_letter_topic, partition))
        return min(end, redriven_of(self._groups[group], task, partition).first_left(offset))

    def _why_wait(self, group: str, task: RedriveTask, run: _Run, partition: int, now: Now) -> str:
        until_ms, reason = run.held.get(partition, (0, ""))
        if now.monotonic_ms < until_ms:
            return reason
        if room_of(self._groups[group], task, partition, self._limits) > 0:
            return ""
        return f"{task.topic}-{partition}, which has {self._limits.redrive_failures_max} failed records"

    def letters_read(self, event: LettersRead, now: Now) -> Outcome:
        """Decide about the letters that were read, and when the next step is."""
        run = self._runs.get(event.redrive_id)
        task = None if run is None else self._task_of(event.redrive_id, run)
        if run is None or task is None or run.reading != (event.partition, event.from_offset):
            return NOTHING
        name, run.reading = run.group, None
        group = self._groups[name]
        if event.error:
            step = Step(event.from_offset, {}, [], 0, 0, event.error)
        else:
            step = decide(group, task, event, now, self._limits)
        next_offsets = list(task.next_offsets)
        next_offsets[event.partition] = step.next_offset
        task = replace(
            task,
            next_offsets=tuple(next_offsets),
            updated_ms=now.wall_ms,
            matched=task.matched + step.matched,
            skipped=task.skipped + step.skipped,
            redriven=task.redriven + (0 if task.dry_run else len(step.entries)),
        )
        if self._is_over(name, task):
            task = replace(task, state=RedriveState.DONE)
        wait_ms = -(-len(step.entries) * 1_000 // task.rate_per_s) if task.rate_per_s and not task.dry_run else 0
        run.due_ms = now.monotonic_ms + wait_ms
        run.waits_for = ""
        if step.waits_for:
            run.held[event.partition] = (now.monotonic_ms + self._limits.redrive_wait_ms, step.waits_for)
        if task.dry_run:
            return Outcome(self._keep(name, event.redrive_id, task), None, ())
        return self._recorded(group, event, task, step)

    def _is_over(self, group: str, task: RedriveTask) -> bool:
        if task.limit and (task.matched if task.dry_run else task.redriven) >= task.limit:
            return True
        return all(self._position(group, task, partition) >= end for partition, end in enumerate(task.end_offsets))

    def _recorded(self, group: Group, event: LettersRead, task: RedriveTask, step: Step) -> Outcome:
        topic, partition = task.dead_letter_topic, event.partition
        records = [failure_record(group.name, task.topic, partition, offset, entry) for offset, entry in step.entries.items()]
        redriven = redriven_of(group, task, partition).adding(step.letters)
        records += (redriven_record(group.name, topic, partition, block, ranges) for block, ranges in redriven.items())
        records.append(redrive_record(group.name, event.redrive_id, task))
        effects: tuple[Effect, ...] = ()
        if step.entries:
            effects = (RetriesChanged(group.name), LettersRedriven(group.name, task.topic, len(step.entries)))
        return Outcome(records, None, effects)

    def _keep(self, group: str, redrive_id: int, task: RedriveTask) -> list[StateRecord]:
        """The record of a redrive as it is now; none of a dry run, which is kept here."""
        if not task.dry_run:
            return [redrive_record(group, redrive_id, task)]
        self._dry_runs[redrive_id] = (group, task)
        over = [found for found, (_, dry_run) in self._dry_runs.items() if dry_run.state is not RedriveState.RUNNING]
        for oldest in over[: -self._limits.redrives_kept]:
            del self._dry_runs[oldest]
        self.recorded(redrive_id, task)
        return []
