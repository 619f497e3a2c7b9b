"""How far groups are behind, in records and in time: columns, for a broker that may have 50,000 positions.

Lag in time is the age of the first record not consumed: its timestamp, read from the log once for each committed offset and
kept with it. A scrape costs no read for a group that stands still, and none for one that has caught up. One reading is kept
for each partition of a group, and goes with it.

When many groups move there may be more to read than a scrape has time for. A pass over all groups therefore has a budget; what
it cannot read keeps its earlier reading, of a record that came before. The lag shown is then too long, never too short, by at
most the time between the two records. The next pass begins where this one ended, so that everyone's turn comes; the pass that
the history makes every ten seconds, for which nobody waits, has the larger budget, and 50,000 positions that move all the time
are each read about once a minute.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import compress, islice
from typing import NamedTuple

from logsvc.broker.log_table import LogTable
from logsvc.coordinator.events import TopicPartition
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import LogsvcError

SCRAPE_SECONDS_MAX = 0.015  # of reading in a pass that somebody waits for
UPKEEP_SECONDS_MAX = 0.25  # of reading in one that nobody waits for
STEP_SECONDS_MAX = 0.0002  # of reading before others get the event loop
SHARED_PER_STEP_MAX = 500  # positions that take over another group's reading in one step
NOTHING_READ = -1  # an offset that no reading is of
NO_RECORD_MS = 1 << 62  # the time of a record that compaction has removed: nothing waits

Reading = tuple[int, int | None]
"""An offset, and the timestamp of the first record from there on."""


class Run:
    """Some positions of a group, their numbers in the table, and the readings: of which offset, and its timestamp.

    `kept` says which of the given positions have a log; None when all have.
    """

    __slots__ = ("generation", "given", "kept", "logs", "numbers", "read_at", "timestamps_ms", "where")

    def __init__(self, given: Sequence[TopicPartition], table: LogTable) -> None:
        self.given = given
        self.generation = table.generation
        there = [where in table.numbers for where in given]
        self.kept = None if all(there) else there
        self.where = given if self.kept is None else list(compress(given, there))
        self.numbers = [table.numbers[where] for where in self.where]
        self.logs = [table.logs[number] for number in self.numbers]
        self.read_at = [NOTHING_READ] * len(self.where)
        self.timestamps_ms: list[int | None] = [None] * len(self.where)

    def take_over(self, known: Mapping[PartitionLog, Reading]) -> None:
        """Keep what has been read. A topic that was deleted and made anew has another log, and nothing was read of it."""
        for place, log in enumerate(self.logs):
            if log in known:
                self.read_at[place], self.timestamps_ms[place] = known[log]


class Lags(NamedTuple):
    """How far a run of positions is behind: `firsts` is the first offset not consumed, `lags` how many records there are."""

    run: Run
    committed: Sequence[int]
    firsts: list[int]
    lags: list[int]

    def unread(self) -> list[int]:
        """The places of those that are behind and whose first record has not been read."""
        return [
            place
            for place, (first, read_at, lag) in enumerate(zip(self.firsts, self.run.read_at, self.lags, strict=True))
            if first != read_at and lag
        ]

    def ages_ms(self, now_ms: int) -> list[int | None]:
        """The age of each first record: 0 when caught up, or by a producer's clock ahead of ours; None when not known, nor that
        of one before it: a group that was reset to earlier records has only a reading of a later one."""
        run = self.run
        return [
            0 if not lag else None if at_ms is None or read_at > first else now_ms - at_ms if now_ms > at_ms else 0
            for lag, at_ms, read_at, first in zip(self.lags, run.timestamps_ms, run.read_at, self.firsts, strict=True)
        ]


Unread = tuple[Lags, list[int]]
"""Positions whose first record is to be read, by their places. No object for each: fifty thousand that live as long as a scrape
would bring on a full garbage collection, which keeps the event loop for as long as everything else."""


class LagClock:
    """The readings of all groups. `seconds` is a monotonic clock, for the budget."""

    def __init__(self, table: LogTable, seconds: Callable[[], float]) -> None:
        self._table = table
        self._seconds = seconds
        self._runs: dict[str, list[Run]] = {}
        self._turn = 0
        self.deferred = 0  # positions that the last pass had no time to read

    def lags(self, group: str, piece: int, where: Sequence[TopicPartition], committed: Sequence[int]) -> Lags:
        """How far a group is behind in some partitions, by the table as it stands; those without a log are left out.

        `piece` numbers the pieces of a group from 0 on; from pass to pass they mostly hold the same partitions. `committed`
        below a log's start, or -1, reads on at its start.
        """
        run = self._run(group, piece, where)
        if run.kept is not None:
            committed = list(compress(committed, run.kept))
        starts, ends = self._table.starts, self._table.ends
        firsts = [at if at > (start := starts[n]) else start for at, n in zip(committed, run.numbers, strict=True)]
        lags = [end - first if (end := ends[n]) > first else 0 for first, n in zip(firsts, run.numbers, strict=True)]
        return Lags(run, committed, firsts, lags)

    def _run(self, group: str, piece: int, where: Sequence[TopicPartition]) -> Run:
        runs = self._runs.setdefault(group, [])
        if piece < len(runs) and runs[piece].generation == self._table.generation and runs[piece].given == where:
            return runs[piece]
        run = Run(where, self._table)
        run.take_over(self.readings(group))
        runs[piece : piece + 1] = [run]
        return run

    def end_group(self, group: str, pieces: int) -> None:
        """A pass has seen all pieces of a group: forget what it had beyond."""
        if group in self._runs:
            del self._runs[group][pieces:]

    def keep(self, groups: Collection[str]) -> None:
        """Forget all other groups."""
        for group in self._runs.keys() - set(groups):
            del self._runs[group]

    def read(self, wanted: Sequence[Unread], seconds_max: float = SCRAPE_SECONDS_MAX) -> Iterator[None]:
        """Read what a pass wants, in short steps, while its budget lasts."""
        spent = 0.0
        done = 0
        count = sum(len(places) for _, places in wanted)
        places = _from_turn(wanted, self._turn if self._turn < count else 0)
        # Groups that stand at the same record share one read.
        shared: dict[tuple[PartitionLog, int], int | None] = {}
        while done < count and spent < seconds_max:
            began = now = self._seconds()
            for lags, place in islice(places, SHARED_PER_STEP_MAX):
                done += 1
                run, offset = lags.run, lags.firsts[place]
                where = (run.logs[place], offset)
                if where not in shared:
                    shared[where] = timestamp_ms(*where)
                    now = self._seconds()
                found = shared[where]
                run.timestamps_ms[place] = found
                run.read_at[place] = NOTHING_READ if found is None else offset
                if now - began >= STEP_SECONDS_MAX:
                    break
            spent += now - began
            yield
        self._turn = (self._turn + done) % count if done < count else 0
        self.deferred = count - done

    def readings(self, group: str) -> dict[PartitionLog, Reading]:
        """What has been read for a group: of which offset, and its timestamp."""
        return {
            log: (read_at, at_ms)
            for run in self._runs.get(group, ())
            for log, read_at, at_ms in zip(run.logs, run.read_at, run.timestamps_ms, strict=True)
        }


def timestamp_ms(log: PartitionLog, offset: int) -> int | None:
    """The timestamp of the first record from `offset` on; None when it cannot be read: the partition then says why itself."""
    try:
        found = log.timestamp_at(offset)
    except LogsvcError:
        return None
    return NO_RECORD_MS if found is None else found


def _from_turn(wanted: Sequence[Unread], turn: int) -> Iterator[tuple[Lags, int]]:
    """Every place, beginning with number `turn` of them, round to the one before."""
    for again in (False, True):
        number = 0
        for lags, places in wanted:
            skipped = min(max(turn - number, 0), len(places))
            for place in places[:skipped] if again else places[skipped:]:
                yield lags, place
            number += len(places)
