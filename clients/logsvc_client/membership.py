"""A member of a consumer group, seen from the member, as a pure machine (KIP-848).

The broker assigns; the member heartbeats and says what it holds. Epoch 0 joins, the answer gives the epoch to use from
then on and, when something is to change, the whole target. The consumer gives up what is not in the target, takes what is
new, and says so with its next heartbeat, which then goes out at once.

    OUT --join (epoch 0)--> IN: heartbeat every interval, `owned` until an answer comes without an assignment
     ^                       |
     +-- fenced, unknown ----+   everything held is lost, and the member joins again

A static member (`instance_id`, KIP-345) whose place another has taken is fenced for good: it does not join again.

Only the answer to a heartbeat decides about membership. Another request refused for its epoch may just have crossed the
answer that raised it: `ask_again` sends a heartbeat at once, and its answer tells.
"""

from collections import defaultdict
from collections.abc import Iterable

from logsvc_client.records import TopicPartition
from logsvc_common.errors import FencedInstanceId, FencedMemberEpoch, LogsvcError, UnknownMember
from logsvc_common.messages import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
    GroupHeartbeat,
    GroupHeartbeatReply,
    TopicPartitions,
)
from logsvc_common.retry import RetryPolicy

RETRY_MS = 100
REFUSED_RETRY_MS = 1_000
HEARTBEAT_INTERVAL_MS = 1_000  # until the broker has said which


def grouped(partitions: Iterable[TopicPartition]) -> list[TopicPartitions]:
    """Partitions by topic, in order, as they travel."""
    topics: dict[str, list[int]] = defaultdict(list)
    for topic, partition in sorted(partitions):
        topics[topic].append(partition)
    return [TopicPartitions(topic, numbers) for topic, numbers in topics.items()]


def ungrouped(topics: Iterable[TopicPartitions]) -> frozenset[TopicPartition]:
    """The other way round."""
    return frozenset(TopicPartition(entry.topic, number) for entry in topics for number in entry.partitions)


class Membership:
    """The state of one member. `member_id` is random and made by the caller."""

    def __init__(
        self,
        group: str,
        member_id: str,
        topics: list[str],
        *,
        instance_id: str | None = None,
        client_id: str = "",
        assignor: str | None = None,
        session_timeout_ms: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.group = group
        self.member_id = member_id
        self.epoch = JOIN_EPOCH
        self.target: frozenset[TopicPartition] | None = None  # None: nothing was assigned since joining
        self.answers = 0  # heartbeats answered well; whoever waits for a verdict on the epoch compares
        self._topics = topics
        self._instance_id = instance_id
        self._client_id = client_id
        self._assignor = assignor
        self._session_timeout_ms = session_timeout_ms
        self._retry = retry
        self._retry_told = False
        self._owned: frozenset[TopicPartition] = frozenset()
        self._owned_told = False
        self._in_flight = False
        self._due_ms = 0
        self._interval_ms = HEARTBEAT_INTERVAL_MS
        self._left = False

    @property
    def joined(self) -> bool:
        """True while the broker counts this member in, as far as is known."""
        return self.epoch > JOIN_EPOCH and not self._left

    def next_heartbeat(self, now_ms: int) -> GroupHeartbeat | None:
        """The heartbeat to send now, if one is due. One is under way at a time."""
        if self._in_flight or self._left or now_ms < self._due_ms:
            return None
        self._in_flight = True
        joining = self.epoch == JOIN_EPOCH
        retry = None if self._retry_told and not joining else self._retry
        return GroupHeartbeat(
            self.group,
            self.member_id,
            self.epoch,
            self._instance_id,
            self._client_id,
            self._topics if joining else None,
            self._assignor if joining else None,
            self._session_timeout_ms if joining else None,
            None if self._owned_told and not joining else grouped(self._owned),
            retry,
        )

    def answered(self, reply: GroupHeartbeatReply, sent: GroupHeartbeat, now_ms: int) -> None:
        """The broker's answer to `sent`."""
        self._in_flight = False
        if self._left:
            return
        self.answers += 1
        self.epoch = reply.member_epoch
        self._retry_told = self._retry_told or sent.retry == self._retry
        self._interval_ms = max(1, reply.heartbeat_interval_ms)
        self._due_ms = now_ms + self._interval_ms
        if reply.assignment is not None:
            self.target = ungrouped(reply.assignment)
            self._owned_told = False
        elif sent.owned is not None and ungrouped(sent.owned) == self._owned:
            self._owned_told = True
        if sent.owned is not None and ungrouped(sent.owned) != self._owned:
            self._due_ms = now_ms  # It changed while the heartbeat was under way.

    def refused(self, error: LogsvcError, now_ms: int) -> bool:
        """A heartbeat ended in an error. Returns True when the membership is lost: drop everything that was held."""
        self._in_flight = False
        if isinstance(error, FencedInstanceId):
            # Another process has taken this member's place, and must not be pushed out again.
            self._left = True
            return True
        if isinstance(error, UnknownMember | FencedMemberEpoch):
            lost = self.epoch != JOIN_EPOCH
            self.reset(now_ms if lost else now_ms + REFUSED_RETRY_MS)
            return lost
        self._due_ms = now_ms + (RETRY_MS if error.retriable else REFUSED_RETRY_MS)
        return False

    def reset(self, due_ms: int) -> None:
        """Join again, from nothing."""
        self.epoch = JOIN_EPOCH
        self.target = None
        self._owned = frozenset()
        self._owned_told = False
        self._due_ms = due_ms

    def set_owned(self, owned: Iterable[TopicPartition], now_ms: int) -> None:
        """What the member holds has changed: the broker hears of it at once."""
        held = frozenset(owned)
        if held != self._owned:
            self._owned = held
            self._owned_told = False
            self._due_ms = min(self._due_ms, now_ms)

    def set_retry(self, retry: RetryPolicy, now_ms: int) -> None:
        """The policy for records that kill this member: the broker hears of a change at once."""
        if retry != self._retry:
            self._retry = retry
            self._retry_told = False
            self._due_ms = min(self._due_ms, now_ms)

    def ask_again(self, now_ms: int) -> int:
        """Heartbeat at once. The verdict is there when `answers` exceeds what is returned."""
        self._due_ms = min(self._due_ms, now_ms)
        return self.answers

    def leave(self) -> GroupHeartbeat | None:
        """The heartbeat that leaves, a static member for a while; None when there is nothing to leave."""
        was_in = self.joined
        self._left = True
        epoch = LEAVE_EPOCH if self._instance_id is None else STATIC_LEAVE_EPOCH
        return GroupHeartbeat(self.group, self.member_id, epoch, self._instance_id) if was_in else None

    def next_due_ms(self) -> int | None:
        """When the next heartbeat is due; None while one is under way."""
        return None if self._in_flight or self._left else self._due_ms
