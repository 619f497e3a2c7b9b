"""One step of a redrive: which of the letters that were read go back to the group, as what, and where the step ends.

A letter is passed over when its record is not done: the group has it in hand already, or has yet to read it after a reset;
then it comes by itself. One whose completion has not been recorded yet is waited for: putting its record back now would have
that completion finish it unseen.
"""

from typing import NamedTuple

from logsvc.coordinator.events import LettersRead, Now, StateRecord
from logsvc.coordinator.group import Group
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.redriven import RedrivenLetters
from logsvc.coordinator.state_log import RedriveTask, redrive_record, redriven_record
from logsvc_common.keys import murmur2
from logsvc_common.letters import Letter, matches
from logsvc_common.names import dead_letter_topic
from logsvc_common.transitions import ENTRY_ERROR_BYTES_MAX, Draft, FailedOffset, State, cut

RATE_SLICE_MS = 200  # a redrive with a rate takes so much of it in one step
COMPLETING = "a dead letter that is being completed"
NONE_REDRIVEN = RedrivenLetters()


class Step(NamedTuple):
    """What the letters of one read come to. `entries` are failed offsets to put, `letters` to mark as redriven.

    The step ends before `next_offset`; `waits_for` says why that is before the end of what was read, when it is not because
    it has taken as many as it may.
    """

    next_offset: int
    entries: dict[int, FailedOffset]
    letters: list[int]
    matched: int
    skipped: int
    waits_for: str


def room_of(group: Group, task: RedriveTask, partition: int, limits: CoordinatorLimits) -> int:
    """How many records may be put back into a partition now; a dry run puts none back and always has room."""
    progress = group.progress.get((task.topic, partition))
    if task.dry_run or progress is None:
        return limits.redrive_failures_max
    return limits.redrive_failures_max - len(progress.failed)


def redriven_of(group: Group, task: RedriveTask, partition: int) -> RedrivenLetters:
    return group.redriven.get((task.dead_letter_topic, partition), NONE_REDRIVEN)


def _quota(task: RedriveTask, limits: CoordinatorLimits) -> int:
    quota = limits.redrive_letters
    if task.rate_per_s and not task.dry_run:
        quota = min(quota, max(1, task.rate_per_s * RATE_SLICE_MS // 1_000))
    if task.limit:
        quota = min(quota, task.limit - (task.matched if task.dry_run else task.redriven))
    return quota


def decide(group: Group, task: RedriveTask, event: LettersRead, now: Now, limits: CoordinatorLimits) -> Step:
    """What the letters of `event` come to. Changes nothing."""
    partition = event.partition
    failed = group.progress_of(task.topic, partition).failed
    draft = Draft(failed, failed.committed)
    redriven = redriven_of(group, task, partition)
    quota, room = _quota(task, limits), room_of(group, task, partition, limits)
    step = Step(event.next_offset, {}, [], 0, 0, "")
    for letter in event.letters:
        if (
            letter.offset is None
            or not letter.is_of(group.name, task.topic, partition)
            or not matches(task.where, letter)
            or letter.letter_offset in redriven
        ):
            continue
        if failed.state(letter.offset) is State.DEAD_LETTERING:
            return step._replace(next_offset=letter.letter_offset, waits_for=COMPLETING)
        if len(step.entries) >= min(quota, room):
            return step._replace(next_offset=letter.letter_offset)
        entry = _entry(letter, now)
        if letter.missing is None and draft.redrive(letter.offset, entry):
            step.entries[letter.offset] = entry
            step.letters.append(letter.letter_offset)
            step = step._replace(matched=step.matched + 1)
        else:
            step = step._replace(matched=step.matched + 1, skipped=step.skipped + 1)
    return step


def _entry(letter: Letter, now: Now) -> FailedOffset:
    return FailedOffset(
        State.WAITING,
        0,
        None if letter.key is None else murmur2(letter.key),
        due_ms=now.wall_ms,
        first_failure_ms=max(0, letter.first_failure_ms or 0),
        error=cut(letter.error or "", ENTRY_ERROR_BYTES_MAX),
        redrives=max(0, letter.redrives or 0) + 1,
        letter=letter.letter_offset,
    )


def forget_topic(group: Group, topic: str) -> list[StateRecord]:
    """Takes back what the group has recorded about redrives of, or to, a topic that is deleted."""
    gone = {topic, dead_letter_topic(topic, group.name)}
    records = [
        redrive_record(group.name, redrive_id, None)
        for redrive_id, task in group.redrives.items()
        if task.dead_letter_topic in gone
    ]
    records += (
        redriven_record(group.name, letters, partition, block, None)
        for (letters, partition), redriven in group.redriven.items()
        if letters in gone
        for block in redriven.blocks
    )
    return records
