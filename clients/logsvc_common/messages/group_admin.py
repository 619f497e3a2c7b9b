"""Changing a group by hand: its settings, where it reads on, what holds it, and its end."""

from typing import ClassVar

from logsvc_common.breaker import BreakerConfig
from logsvc_common.messages.base import Api, Entries, Int64, Message, Request, Result

EARLIEST_OFFSET = "earliest"
LATEST_OFFSET = "latest"
AT_OFFSET = "offset"
AT_TIME = "time"
BY_DURATION = "duration"
BY_SHIFT = "shift"


class ConfigureGroup(Request, frozen=True):
    """Change the settings that are not None; `defaults` brings all of them back to their defaults first. A group that is not
    there yet is made: it can be set up before its first consumer comes. The settings are those of BreakerConfig."""

    API: ClassVar[Api] = Api.CONFIGURE_GROUP
    group: str
    defaults: bool = False
    enabled: bool | None = None
    threshold: float | None = None
    window_ms: Int64 | None = None
    min_failures: Int64 | None = None
    open_ms: Int64 | None = None
    open_max_ms: Int64 | None = None
    probes: Int64 | None = None


class ConfigureGroupReply(Message, frozen=True):
    """All settings, as they are now."""

    group: str
    breaker: BreakerConfig


class ResetGroup(Request, frozen=True):
    """Set the committed offsets of a group that has no active members. GroupNotEmpty while it has some.

    `to` says how `value` is meant: `earliest` and `latest` need none; `offset`; `time` in ms since the epoch, or `duration` in
    ms before now, is the first record at or after it; `shift` goes forward by so many records, back when below 0, from the
    committed offset, or from the log's start where there is none. An offset that the log does not hold is moved to the
    nearest it does.

    `topic` None: every partition of every topic the group has committed in. `partitions` None: all of the topic's.

    Records at and above the new offset will be read again, so their failures are forgotten; failures below it stay and are
    tried again, unless `drop_failed`. A dead letter that is being written is not taken back. `dry_run` changes nothing.
    """

    API: ClassVar[Api] = Api.RESET_GROUP
    group: str
    to: str
    value: Int64 = 0
    topic: str | None = None
    partitions: Entries[Int64] | None = None
    dry_run: bool = False
    drop_failed: bool = False


class ResetResult(Result, frozen=True, kw_only=True):
    """`old_offset` is -1 where nothing was committed. `dropped` failed records are forgotten, `kept` are still to be tried."""

    topic: str
    partition: Int64
    old_offset: Int64 = -1
    new_offset: Int64 = -1
    dropped: Int64 = 0
    kept: Int64 = 0


class ResetGroupReply(Message, frozen=True):
    results: list[ResetResult]


class DeleteGroup(Request, frozen=True):
    """Forget a group without active members: offsets, failed records, settings, redrives. GroupNotEmpty while it has some.

    Dead letters stay; of those that are on their way, each may still be written.
    """

    API: ClassVar[Api] = Api.DELETE_GROUP
    group: str


class DeleteGroupReply(Message, frozen=True):
    """How many partitions it had progress in, and how many failed records were not done."""

    group: str
    partitions: Int64
    failed: Int64


class ResumeGroup(Request, frozen=True):
    """Close the group's breaker now, and let paused records (`on_exhausted=pause`) be tried again with a fresh budget: all of
    them, or those of a topic, or of one partition of it."""

    API: ClassVar[Api] = Api.RESUME_GROUP
    group: str
    topic: str | None = None
    partition: Int64 | None = None


class ResumeGroupReply(Message, frozen=True):
    """`breaker_closed`: it was open, or half open. `resumed` counts the paused records."""

    group: str
    breaker_closed: bool
    resumed: Int64
