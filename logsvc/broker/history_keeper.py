"""Gathers the points of the history, in short steps with a pause after each: nobody waits for it, and nothing waits because
of it. A point of a broker with 50,000 positions takes half a second to gather, or three when all ages are to be read anew."""

import logging
from collections.abc import Callable, Iterable, Iterator

from logsvc.broker.history import GroupPoint, History, Point, Totals
from logsvc.broker.lag_clock import UPKEEP_SECONDS_MAX
from logsvc.clock import Clock
from logsvc.metrics import BrokerMetrics, GroupSample, PositionColumns, Sample
from logsvc.storage.log_directory import LogDirectory

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.002  # after each step: nine tenths of the event loop are for others meanwhile
NOTHING_COUNTED = (0, 0, 0)


class HistoryKeeper:
    """`group_samples` gives the groups in steps, and reads their ages for so many seconds at most; `later` runs a
    callable in the event loop after so many seconds."""

    def __init__(
        self,
        history: History,
        logs: LogDirectory,
        metrics: BrokerMetrics,
        group_samples: Callable[[float], Iterable[Sample | None]],
        clock: Clock,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._history = history
        self._logs = logs
        self._metrics = metrics
        self._group_samples = group_samples
        self._clock = clock
        self._later = later
        self._gathering: Iterator[None] | None = None

    def begin(self) -> None:
        """Gather a point, unless one is being gathered."""
        if self._gathering is None:
            self._gathering = self._gather()
            self._step()

    def _step(self) -> None:
        assert self._gathering is not None
        try:
            next(self._gathering)
        except StopIteration:
            self._gathering = None
        except Exception:
            self._gathering = None
            logger.exception("a point of the history could not be gathered")
        else:
            self._later(PAUSE_SECONDS, self._step)

    def _gather(self) -> Iterator[None]:
        groups: dict[str, GroupPoint] = {}
        for sample in self._group_samples(UPKEEP_SECONDS_MAX):
            if isinstance(sample, GroupSample):
                groups[sample.group] = GroupPoint(0, 0.0, 0)
            elif isinstance(sample, PositionColumns):
                groups[sample.group] = _with(groups[sample.group], sample)
            yield
        # What is counted is taken in one turn with the time it is counted at.
        counted = self._metrics.topics()
        topics = {
            name: Totals(*(counter.value for counter in counted[name])) if name in counted else Totals(*NOTHING_COUNTED)
            for name, topic in self._logs.topics.items()
            if not topic.internal
        }
        append = self._metrics.append_duration_seconds.counts()
        fsync = self._metrics.fsync_duration_seconds.counts()
        self._history.put(Point(self._clock.wall_ms(), self._clock.monotonic_ms(), topics, groups, append, fsync))


def _with(point: GroupPoint, columns: PositionColumns) -> GroupPoint:
    ages_ms = [age_ms for age_ms in columns.lags_ms if age_ms is not None]
    # A lag that is not known anywhere is told as the worst of those that are; known nowhere, it is a gap.
    seconds = point.lag_seconds
    if ages_ms:
        seconds = max(seconds or 0.0, max(ages_ms) / 1000)
    elif columns.lags_ms and not seconds:
        seconds = None
    failed = sum(count for *_, count in columns.failed)
    return GroupPoint(point.lag + sum(columns.lags), seconds, point.failed + failed)
