"""What goes into the coordinator and what comes out: times, its view of the logs, events, effects, outcomes.

An event is a request from `logsvc_common.messages` or one of the structs here. An outcome lists the records to write to the
internal log, the reply, and the effects to carry out once those records are durable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from logsvc_common.letters import Letter
from logsvc_common.messages import (
    CancelRedrive,
    Commit,
    ConfigureGroup,
    DeleteGroup,
    FetchOffsets,
    FetchRetries,
    GroupHeartbeat,
    ListRedrives,
    Message,
    ResumeGroup,
    StartRedrive,
)

TopicPartition = tuple[str, int]


class Now(NamedTuple):
    """Both clocks at one moment: the wall clock for due times and letters, the monotonic one for timeouts."""

    wall_ms: int
    monotonic_ms: int


class LogView(Protocol):
    """What the coordinator may know of the logs. It reads, it never changes them."""

    def partition_count(self, topic: str) -> int | None:
        """None when there is no such topic."""

    def start_offset(self, topic: str, partition: int) -> int: ...

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the last durable record."""

    def check_online(self, topic: str, partition: int) -> None:
        """Raises StorageFailed when the disk has failed under a partition: its offsets may then say that it is empty."""


class StateRecord(NamedTuple):
    """One record of the internal log. The last value of a key is the truth; None takes the key away."""

    key: bytes
    value: bytes | None


# Events beside the requests


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: see `Coordinator.next_deadline_ms`."""


@dataclass(frozen=True, slots=True)
class DeadLetterWritten:
    """The letter for this failure is durable, at `letter_offset` of the dead-letter partition."""

    group: str
    topic: str
    partition: int
    offset: int
    letter_offset: int


@dataclass(frozen=True, slots=True)
class DeadLetterFailed:
    """The letter could not be written now; the coordinator asks again after a while."""

    group: str
    topic: str
    partition: int
    offset: int
    error: str


@dataclass(frozen=True, slots=True)
class TopicDeleted:
    """A topic is gone: every group forgets its offsets and failures there."""

    topic: str


@dataclass(frozen=True, slots=True)
class TopicsChanged:
    """A topic was created or has grown."""


@dataclass(frozen=True, slots=True)
class LettersRead:
    """What a ReadLetters asked for: the letters from `from_offset` up to, not including, `next_offset`, ascending. `error` says
    why there are none."""

    redrive_id: int
    partition: int
    from_offset: int
    next_offset: int
    letters: Sequence[Letter]
    error: str = ""


@dataclass(frozen=True, slots=True)
class ResetOffsets:
    """A ResetGroup whose offsets were looked up: where each partition is to be read on, within what its log holds."""

    group: str
    offsets: Sequence[tuple[TopicPartition, int]]
    dry_run: bool = False
    drop_failed: bool = False


Event = (
    GroupHeartbeat
    | Commit
    | FetchOffsets
    | FetchRetries
    | Tick
    | DeadLetterWritten
    | DeadLetterFailed
    | TopicDeleted
    | TopicsChanged
    | StartRedrive
    | ListRedrives
    | CancelRedrive
    | LettersRead
    | ConfigureGroup
    | ResetOffsets
    | DeleteGroup
    | ResumeGroup
)


# Effects


@dataclass(frozen=True, slots=True)
class WriteDeadLetter:
    """Write the letter of one exhausted failure, unless it is there already; then report it by DeadLetterWritten.

    `dead_letter_topic` is created, or grown, to `partition_count`; the letter goes to the same `partition`. Whether it was
    written before a crash is found out by reading that partition from `search_from` on: `deadletter.identity`.
    `headers` lack what only the original record knows: `deadletter.letter` completes them. `letter` is where the dead letter
    lies that the record was redriven from, -1 when it was not.
    """

    group: str
    topic: str
    partition: int
    offset: int
    dead_letter_topic: str
    partition_count: int
    headers: list[tuple[str, bytes]]
    search_from: int
    reason: str = "exhausted"
    letter: int = -1


@dataclass(frozen=True, slots=True)
class RetriesChanged:
    """Something may be due in this group sooner than was known: look again at its parked FetchRetries. With `answer`, answer
    them even so: which partitions are full, or isolated, is news."""

    group: str
    answer: bool = False


@dataclass(frozen=True, slots=True)
class ReadLetters:
    """Read some `max_letters` dead letters from `from_offset` on, none at or above `end_offset`; report them by LettersRead."""

    redrive_id: int
    dead_letter_topic: str
    partition: int
    from_offset: int
    end_offset: int
    max_letters: int


@dataclass(frozen=True, slots=True)
class LettersRedriven:
    """So many records of a topic were put back among what the group has to handle."""

    group: str
    topic: str
    count: int


@dataclass(frozen=True, slots=True)
class RecordsRetried:
    """So many records of a topic that had failed are handed out to be tried again."""

    group: str
    topic: str
    count: int


Effect = RecordsRetried | WriteDeadLetter | RetriesChanged | ReadLetters | LettersRedriven


class Outcome(NamedTuple):
    """Write `records` in one atomic batch; once they are durable, send `reply` and carry out `effects`."""

    records: list[StateRecord]
    reply: Message | None
    effects: Sequence[Effect]


NOTHING = Outcome([], None, ())
