"""The commits of a consumer, one under way at a time, as a pure machine.

One at a time keeps them in order and lets whatever happens meanwhile travel together in the next. A commit whose answer is
lost is sent again as it was: the broker sees that it knows it. A commit refused for its epoch may only have crossed a
heartbeat that raised the epoch; it is sent again under the epoch of the next heartbeat's answer, and given up when the
membership turns out to be lost. What the broker could not record, because its disk fails, goes with the next commit, after
REFUSED_RETRY_MS: a later one that passes a failure without naming it would lose the record.
"""

from collections.abc import Sequence

from logsvc_client.commit_size import CommitRoom
from logsvc_client.membership import Membership
from logsvc_client.progress import PartitionProgress
from logsvc_client.records import TopicPartition
from logsvc_common.errors import (
    Disconnected,
    FencedMemberEpoch,
    GroupError,
    LogsvcError,
    UnknownMember,
    UnknownTopic,
    from_wire,
)
from logsvc_common.messages import NO_MEMBER_EPOCH, Commit, CommitPartition, CommitReply
from logsvc_common.retry import RetryPolicy

COMMIT_RETRY_MS = 50
REFUSED_RETRY_MS = 1_000
EPOCH_RETRIES_MAX = 5


class Commits:
    """What is being committed. `membership` is None for a consumer that assigns its partitions itself."""

    def __init__(self, group: str, membership: Membership | None) -> None:
        self._group = group
        self._membership = membership
        self._partitions: list[CommitPartition] = []
        self._progress: dict[TopicPartition, PartitionProgress] = {}
        self._retry: RetryPolicy | None = None
        self._in_flight = False
        self._not_before_ms = 0
        self._wait_answers = -1  # heartbeats answered when the epoch was refused; go on once there are more
        self._epoch_retries = 0
        self._refused_until_ms = 0
        self._turn: TopicPartition | None = None  # the partition that the next one begins with
        self.more = False  # the one under way, or answered last, had no room for all

    @property
    def busy(self) -> bool:
        """True while a commit has no final answer."""
        return bool(self._partitions)

    def may_begin(self, now_ms: int) -> bool:
        """False while another is under way, and for a while after one that the broker could not record."""
        return not self._partitions and now_ms >= self._refused_until_ms

    def begin(self, candidates: Sequence[PartitionProgress], retry: RetryPolicy) -> bool:
        """Collect what is pending, as far as there is room; when there is not, the next begins with who comes after. Returns
        False when there is nothing. Needs `not busy`."""
        assert not self.busy
        room = CommitRoom()
        first = next((at for at, progress in enumerate(candidates) if progress.tp == self._turn), 0) if self._turn else 0
        self._turn = None
        for progress in (*candidates[first:], *candidates[:first]):
            if not room.left:
                self._turn = progress.tp
                break
            message = progress.take_commit(room)
            if message is not None:
                self._partitions.append(message)
                self._progress[progress.tp] = progress
                room.partitions -= 1
        self.more = not room.left and any(progress.pending for progress in candidates)
        self._retry = retry if any(part.failed or part.parked for part in self._partitions) else None
        self._epoch_retries = 0
        self._not_before_ms = 0
        self._wait_answers = -1
        return self.busy

    def next_request(self, now_ms: int) -> Commit | None:
        """The commit to send now, for the first time or again."""
        if not self._partitions or self._in_flight or now_ms < self._not_before_ms:
            return None
        member_id, epoch = "", NO_MEMBER_EPOCH
        if self._membership is not None:
            if not self._membership.joined or self._membership.answers <= self._wait_answers:
                return None
            member_id, epoch = self._membership.member_id, self._membership.epoch
        self._in_flight = True
        return Commit(self._group, member_id, epoch, self._partitions, self._retry)

    def answered(self, sent: Commit, answer: CommitReply | LogsvcError, now_ms: int) -> list[LogsvcError] | None:
        """What came back for `sent`. None: nothing to conclude yet. Else the commit is over, with the errors there were."""
        if sent.partitions is not self._partitions:
            return None  # It was given up meanwhile.
        self._in_flight = False
        if isinstance(answer, LogsvcError):
            errors = [answer]
        else:
            errors = [from_wire(r.error_code, r.error_message) for r in answer.results if r.error_code]
        if any(isinstance(error, UnknownMember | FencedMemberEpoch) for error in errors) and self._membership is not None:
            self._epoch_retries += 1
            if self._epoch_retries <= EPOCH_RETRIES_MAX:
                self._wait_answers = self._membership.ask_again(now_ms)
                return None
        elif any(error.retriable for error in errors):
            self._not_before_ms = now_ms + (0 if isinstance(errors[0], Disconnected) else COMMIT_RETRY_MS)
            return None
        refused = dict.fromkeys(range(len(sent.partitions)), answer) if isinstance(answer, LogsvcError) else {}
        if isinstance(answer, CommitReply):
            for place, result in enumerate(answer.results):
                progress = self._progress.get(TopicPartition(result.topic, result.partition))
                if result.error_code:
                    refused[place] = from_wire(result.error_code, result.error_message)
                elif progress is not None:
                    progress.committed(result)
        for place, error in refused.items():
            # A partition that went to another member, or whose topic is gone, has nothing to be told any more.
            if not isinstance(error, GroupError | UnknownTopic):
                part = sent.partitions[place]
                self._progress[TopicPartition(part.topic, part.partition)].refused(part)
                self._refused_until_ms = now_ms + REFUSED_RETRY_MS
        self.give_up()
        return errors

    def give_up(self) -> None:
        """Forget the commit under way."""
        for progress in self._progress.values():
            progress.commit_over()
        self._in_flight = False
        self._partitions = []
        self._progress = {}

    def next_due_ms(self) -> int | None:
        """When a commit that waits is to be sent again, or the next may begin."""
        if not self._partitions:
            return self._refused_until_ms or None
        return None if self._in_flight else self._not_before_ms
