"""What the broker hands over at a scrape: its state, in pieces, as parallel columns.

A broker with 1,000 partitions and 50 groups has 50,000 positions. As columns they cost three lists instead of 50,000 objects,
and one list comprehension each to fill. A piece has at most `ROWS_PER_SAMPLE_MAX` rows, so that taking one is a short step
in the event loop; a scrape is many of them, with other work in between. Each piece is true as of its moment.
"""

from collections.abc import Sequence
from typing import NamedTuple

SERIES_PER_FAMILY_MAX = 250_000
ROWS_PER_SAMPLE_MAX = 500

PARTITION_STATES = ("online", "read_only", "failed")
GROUP_STATES = ("empty", "assigning", "reconciling", "stable")

TopicPartition = tuple[str, int]


class PartitionColumns(NamedTuple):
    """Some partitions. `states` are of PARTITION_STATES; an end offset is one past the last durable record."""

    where: Sequence[TopicPartition]
    start_offsets: Sequence[int]
    end_offsets: Sequence[int]
    sizes_bytes: Sequence[int]
    states: Sequence[str]


class GroupSample(NamedTuple):
    """One group. `state` is one of GROUP_STATES; `breaker_open` while its flood breaker is not closed."""

    group: str
    state: str
    members: int
    breaker_open: bool = False


class PositionColumns(NamedTuple):
    """Where a group stands in some of the partitions it has committed in. `lags_ms` are the ages of the first record not
    consumed: 0 when caught up, None where that is not known. `failed` are counts of failed offsets: (topic, partition,
    state, count)."""

    group: str
    where: Sequence[TopicPartition]
    committed: Sequence[int]
    lags: Sequence[int]
    lags_ms: Sequence[int | None]
    failed: Sequence[tuple[str, int, str, int]] = ()


class DeadLetterSample(NamedTuple):
    """The dead letters of a group on a source topic that are there now; the age of the oldest, None without any."""

    group: str
    topic: str
    letters: int
    oldest_age_ms: int | None


class DiskSample(NamedTuple):
    """The file system of the data folder. Below `reserve_bytes` of free space writes are refused."""

    free_bytes: int
    size_bytes: int
    reserve_bytes: int


class ScrubSample(NamedTuple):
    """How long ago the scrubber had read everything once more; None before it has."""

    round_age_ms: int | None


class DeferredSample(NamedTuple):
    """How many positions are shown with the lag in time of an earlier reading, for want of time to read them all."""

    positions: int


Sample = PartitionColumns | GroupSample | PositionColumns | DeadLetterSample | DiskSample | ScrubSample | DeferredSample
