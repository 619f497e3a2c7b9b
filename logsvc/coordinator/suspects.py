"""Poison pills: records that kill their consumer, found by elimination. Pure decisions about a partition's `Suspicion`.

Nothing is recorded while nobody dies. A member dies when its session runs out, or when a static one is replaced before it has
left; each partition it had work in is then suspect:

    1st death   a Suspicion: some record from the committed offset on, or one of the retries that were out
    2nd death   the partition is isolated: its owner hands out one record at a time, and commits which before it does
    then        a member that dies is known to have died of that record: it spends an attempt, as any failure does

So a pill costs at most `suspect_deaths` deaths and one for each attempt it has, and ends as exhausted failures do. A suspicion
ends when everything it was about has been got past alive, or when its culprit is finished.
"""

from collections.abc import Collection

from msgspec.structs import replace

from logsvc.coordinator.events import LogView
from logsvc.coordinator.group import Progress
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.state_log import Suspicion
from logsvc_common.delivery import FailedOffset, Plan, State
from logsvc_common.messages import CommitPartition, Failure

DIED_ERROR = "the consumer died while it had this record alone in hand"
DIED_CLASS = "logsvc.ConsumerDied"

FINISHED = (State.DONE, State.DEAD_LETTERING)


def is_isolated(progress: Progress | None, limits: CoordinatorLimits) -> bool:
    suspicion = None if progress is None else progress.suspicion
    return suspicion is not None and suspicion.deaths >= limits.suspect_deaths


def blamed(progress: Progress, topic: str, partition: int, logs: LogView, limits: CoordinatorLimits) -> Suspicion | None:
    """The suspicion after a death that no record in particular is to blame for; None when there was no work to die of."""
    in_hand = progress.failed.in_hand()[: limits.suspect_in_hand_max]
    suspicion = progress.suspicion
    if suspicion is not None:
        together = sorted({*suspicion.in_hand, *in_hand})[: limits.suspect_in_hand_max]
        return replace(suspicion, deaths=suspicion.deaths + 1, in_hand=tuple(together), attempting=-1, attempted_by="")
    end = logs.end_offset(topic, partition)
    begin = max(progress.failed.committed, logs.start_offset(topic, partition))
    if begin >= end and not in_hand:
        return None
    return Suspicion(1, min(end, begin + limits.suspect_records_max), tuple(in_hand))


def charge(progress: Progress, topic: str, partition: int, member_id: str) -> CommitPartition | None:
    """The failure of the record that `member_id` had alone in hand, with the commit that passes it; None when it had none."""
    suspicion = progress.suspicion
    if suspicion is None or suspicion.attempting < 0 or suspicion.attempted_by != member_id:
        return None
    offset, entry = suspicion.attempting, progress.failed.entry(suspicion.attempting)
    failure = Failure(
        offset,
        DIED_ERROR,
        DIED_CLASS,
        key_hash=suspicion.attempting_key_hash,
        attempt=1 if entry is None else entry.attempts + 1,
    )
    passing = offset + 1 if offset == progress.failed.committed else -1
    return CommitPartition(topic, partition, passing, failed=[failure])


def charged(suspicion: Suspicion, plan: Plan) -> Suspicion | None:
    """The suspicion after `charge` was carried out as `plan`; None when its record is finished by it."""
    culprit = suspicion.attempting
    if _is_finished(plan.changes.get(culprit)):
        return None
    return replace(
        suspicion,
        deaths=suspicion.deaths + 1,
        end_offset=max(suspicion.end_offset, plan.committed),
        in_hand=tuple(sorted({*suspicion.in_hand, culprit})),
        attempting=-1,
        attempting_key_hash=None,
        attempted_by="",
        culprit=culprit,
    )


def after_commit(
    progress: Progress, part: CommitPartition, plan: Plan, member_id: str, *, hands_out: bool, limits: CoordinatorLimits
) -> Suspicion | None:
    """The suspicion after a commit of a suspect partition; None when it has ended.

    `hands_out`: the record that the commit names as `attempting` will be handed out.
    """
    suspicion = progress.suspicion
    assert suspicion is not None
    survived = {*part.done, *(failure.offset for failure in part.failed)}
    in_hand = tuple(
        offset
        for offset in suspicion.in_hand
        if (offset == suspicion.culprit or offset not in survived) and not _is_finished(_entry(progress, plan, offset))
    )
    if suspicion.culprit >= 0 and suspicion.culprit not in in_hand:
        return None
    if plan.committed >= suspicion.end_offset and not in_hand:
        return None
    attempting = part.attempting if hands_out and member_id and suspicion.deaths >= limits.suspect_deaths else -1
    return replace(
        suspicion,
        in_hand=in_hand,
        attempting=attempting,
        attempting_key_hash=part.attempting_key_hash if attempting >= 0 else None,
        attempted_by=member_id if attempting >= 0 else "",
    )


def put_back(suspicion: Suspicion) -> Suspicion:
    """The suspicion when the record in hand was given back unhandled: nobody will have died of it."""
    return replace(suspicion, attempting=-1, attempting_key_hash=None, attempted_by="")


def after_reset(suspicion: Suspicion, committed: int, dropped: Collection[int]) -> Suspicion | None:
    """The suspicion after the committed offset was set anew, and the failures at `dropped` were forgotten."""
    in_hand = tuple(offset for offset in suspicion.in_hand if offset not in dropped)
    if committed >= suspicion.end_offset and not in_hand:
        return None
    culprit = suspicion.culprit if suspicion.culprit in in_hand else -1
    return replace(put_back(suspicion), in_hand=in_hand, culprit=culprit)


def _entry(progress: Progress, plan: Plan, offset: int) -> FailedOffset | None:
    return plan.changes[offset] if offset in plan.changes else progress.failed.entry(offset)


def _is_finished(entry: FailedOffset | None) -> bool:
    return entry is None or entry.state in FINISHED
