"""How long the first record that a group has not consumed has waited: its timestamp, read from the log, remembered.

A timestamp is read once for each committed offset and kept with it, so a scrape costs no read for a group that stands still,
and none for one that has caught up. At most one reading is kept for each partition a group has committed in.

When many groups move, there may be more to read than a scrape has time for. A pass over all groups therefore has a budget;
what it cannot read keeps its earlier reading, of a record that came before: the lag shown is then too long, never too short,
by at most the time the group has moved since. The next pass begins where this one ended, so that everyone's turn comes.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from logsvc.coordinator.events import TopicPartition
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import LogsvcError

PASS_SECONDS_MAX = 0.025  # of reading in one pass
STEP_SECONDS_MAX = 0.0003  # of reading before others get the event loop
CAUGHT_UP_MS = 0


class Unread(NamedTuple):
    """The first record that a group has not consumed in a partition where there is one."""

    group: str
    where: TopicPartition
    log: PartitionLog
    offset: int


class _Reading(NamedTuple):
    offset: int
    timestamp_ms: int | None
    log: PartitionLog  # a topic that was deleted and made anew has another


class LagClock:
    """The readings of all groups. `seconds` is a monotonic clock, for the budget."""

    def __init__(
        self,
        seconds: Callable[[], float],
        *,
        pass_seconds_max: float = PASS_SECONDS_MAX,
        step_seconds_max: float = STEP_SECONDS_MAX,
    ) -> None:
        self._seconds = seconds
        self._pass_seconds_max = pass_seconds_max
        self._step_seconds_max = step_seconds_max
        self._readings: dict[str, dict[TopicPartition, _Reading]] = {}
        self._turn = 0
        self.deferred = 0  # of the last pass: what it had no time to read

    def lag_ms(self, unread: Unread, now_ms: int) -> int | None:
        """The age of one record, now, whatever it costs to read; None when it cannot be read. Never negative."""
        if not self._is_known(unread):
            self._read(unread)
        return self.known_lag_ms(unread.group, unread.where, now_ms)

    def known_lag_ms(self, group: str, where: TopicPartition, now_ms: int) -> int | None:
        """The age by the last reading; None without one. A producer's clock ahead of ours makes no negative lag."""
        reading = self._readings[group].get(where) if group in self._readings else None
        if reading is None:
            return None
        return CAUGHT_UP_MS if reading.timestamp_ms is None else max(0, now_ms - reading.timestamp_ms)

    def unknown(
        self,
        group: str,
        where: Sequence[TopicPartition],
        logs: Sequence[PartitionLog],
        firsts: Sequence[int],
        lags: Sequence[int],
    ) -> list[Unread]:
        """Of columns of positions, those that are behind and whose first record has not been read."""
        known = self._readings.get(group, {})
        return [
            Unread(group, there, log, first)
            for there, log, first, lag in zip(where, logs, firsts, lags, strict=True)
            if lag and ((reading := known.get(there)) is None or reading[0] != first or reading[2] is not log)
        ]

    def read(self, wanted: Sequence[Unread]) -> Iterator[None]:
        """Read what a pass wants, in short steps, while its budget lasts."""
        spent = 0.0
        done = 0
        # Groups that stand at the same record share one read.
        shared: dict[tuple[PartitionLog, int], _Reading] = {}
        while done < len(wanted) and spent < self._pass_seconds_max:
            began = now = self._seconds()
            while done < len(wanted) and now - began < self._step_seconds_max:
                unread = wanted[(self._turn + done) % len(wanted)]
                done += 1
                reading = shared.get((unread.log, unread.offset))
                if reading is not None:
                    self._readings.setdefault(unread.group, {})[unread.where] = reading
                    continue
                reading = self._read(unread)
                if reading is not None:
                    shared[unread.log, unread.offset] = reading
                now = self._seconds()
            spent += now - began
            yield
        self._turn = (self._turn + done) % len(wanted) if done < len(wanted) else 0
        self.deferred = len(wanted) - done

    def keep(self, groups: Collection[str]) -> None:
        """Forget the readings of all other groups."""
        for group in self._readings.keys() - set(groups):
            del self._readings[group]

    def keep_of(self, group: str, where: Collection[TopicPartition]) -> None:
        """Forget the readings of a group in other partitions."""
        readings = self._readings.get(group)
        if readings is not None and len(readings) > len(where):
            for gone in readings.keys() - set(where):
                del readings[gone]

    def __len__(self) -> int:
        return sum(map(len, self._readings.values()))

    def _is_known(self, unread: Unread) -> bool:
        reading = self._readings.get(unread.group, {}).get(unread.where)
        return reading is not None and reading.offset == unread.offset and reading.log is unread.log

    def _read(self, unread: Unread) -> _Reading | None:
        readings = self._readings.setdefault(unread.group, {})
        try:
            timestamp_ms = unread.log.timestamp_at(unread.offset)
        except LogsvcError:  # the partition has failed, says so itself, and what was known of it is not true for ever
            readings.pop(unread.where, None)
            return None
        reading = readings[unread.where] = _Reading(unread.offset, timestamp_ms, unread.log)
        return reading
