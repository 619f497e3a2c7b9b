"""Redriving dead letters: starting, watching and cancelling it. What a filter means is decided in `logsvc_common.letters`."""

from typing import Annotated, ClassVar

import msgspec

from logsvc_common.messages.base import Api, Int64, Message, Request

FILTER_VALUES_MAX = 100  # alternatives of one condition
FILTER_TEXT_CHARACTERS_MAX = 1_024

Text = Annotated[str, msgspec.Meta(max_length=FILTER_TEXT_CHARACTERS_MAX)]
Range = tuple[Int64, Int64]  # first and last, both included
Texts = Annotated[list[Text], msgspec.Meta(max_length=FILTER_VALUES_MAX)]
Numbers = Annotated[list[Int64], msgspec.Meta(max_length=FILTER_VALUES_MAX)]
Ranges = Annotated[list[Range], msgspec.Meta(max_length=FILTER_VALUES_MAX)]


class RedriveFilter(Message, frozen=True):
    """Which letters. A letter must meet every condition that is set, and of each one any of its values.

    `error_contains`: a part of the last error's message, upper and lower case alike; `error_is`: all of it.
    `exception_classes`: dotted, or the last part. `partitions` and `offsets` are those of the record that failed, `letters`
    the offsets of the letters themselves, `redrives` how often the letter's failure was redriven before. `since_ms` and
    `until_ms` (not included) bound the time the letter was written; -1 is no bound.
    """

    error_contains: Texts = []
    error_is: Texts = []
    exception_classes: Texts = []
    partitions: Numbers = []
    offsets: Ranges = []
    letters: Ranges = []
    redrives: Ranges = []
    since_ms: Int64 = -1
    until_ms: Int64 = -1


class StartRedrive(Request, frozen=True):
    """Put dead letters of `group` back among what it has to handle, with a fresh budget of attempts.

    `topic` is the one the records come from; None when the group has letters of one topic only. `rate_per_s` and `limit` are
    in letters, 0 for none. `dry_run` looks and counts, and changes nothing. A request that comes twice with the same `token`
    (random, chosen by the client) starts one redrive.
    """

    API: ClassVar[Api] = Api.START_REDRIVE
    group: str
    topic: str | None = None
    where: RedriveFilter = RedriveFilter()
    rate_per_s: Int64 = 0
    limit: Int64 = 0
    dry_run: bool = False
    token: Text = ""


class Redrive(Message, frozen=True):
    """One redrive, running or over.

    `state` is `running`, `cancelled` or `done`. Of the `total` letters there were when it began, `scanned` are behind it;
    `matched` meet the filter and had not been redriven; of those `redriven` were put back, and `skipped` could not be: the
    group has them in hand already, has yet to read them, or nothing is left of the record. `waiting` says what a running one
    waits for, empty when it goes on.
    """

    redrive_id: Int64
    group: str
    topic: str
    dead_letter_topic: str
    state: str
    where: RedriveFilter
    rate_per_s: Int64
    limit: Int64
    dry_run: bool
    total: Int64
    scanned: Int64
    matched: Int64
    redriven: Int64
    skipped: Int64
    created_ms: Int64
    updated_ms: Int64
    waiting: str = ""


class StartRedriveReply(Message, frozen=True):
    redrive: Redrive


class ListRedrives(Request, frozen=True):
    """The redrives of a group, or of all when it is None: those that run, and the last ones that are over."""

    API: ClassVar[Api] = Api.LIST_REDRIVES
    group: str | None = None


class LetterTopic(Message, frozen=True):
    """A dead-letter topic that a group writes to. `redriven` counts those of its letters that were put back."""

    dead_letter_topic: str
    topic: str
    group: str
    redriven: Int64


class ListRedrivesReply(Message, frozen=True):
    """`redrives` by their number, `letters` by the name of the dead-letter topic."""

    redrives: list[Redrive]
    letters: list[LetterTopic] = []


class CancelRedrive(Request, frozen=True):
    """Stop a redrive where it is. What it has put back stays; a new one with the same filter goes on with the rest."""

    API: ClassVar[Api] = Api.CANCEL_REDRIVE
    redrive_id: Int64


class CancelRedriveReply(Message, frozen=True):
    """The redrive as it is now: `done` when it was over before."""

    redrive: Redrive
