"""The broker's state for a scrape, in pieces: partitions, groups, dead letters, disk.

Every step of `samples` is short, a fraction of a millisecond, and gives the event loop back when it ends; what it gave was true
at that moment. `None` is a step that had nothing to show yet.
"""

import logging
from collections.abc import Callable, Iterator

from logsvc.broker.letter_piles import LetterPiles
from logsvc.metrics import ROWS_PER_SAMPLE_MAX, DeadLetterSample, DiskSample, PartitionColumns, Sample, ScrubSample
from logsvc.storage.log_directory import LogDirectory

logger = logging.getLogger(__name__)


class Sampler:
    """`group_samples` gives the groups, in the same manner; `scrub_age_ms` how long ago the scrubber's last round ended;
    `wall_ms` is the clock that letters are dated by."""

    def __init__(
        self,
        logs: LogDirectory,
        piles: LetterPiles,
        group_samples: Callable[[], Iterator[Sample | None]],
        scrub_age_ms: Callable[[], int | None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._logs = logs
        self._piles = piles
        self._group_samples = group_samples
        self._scrub_age_ms = scrub_age_ms
        self._wall_ms = wall_ms

    def samples(self) -> Iterator[Sample | None]:
        """Everything that is read at a scrape."""
        yield from self._partitions()
        yield from self._group_samples()
        yield from self._dead_letters()
        yield ScrubSample(self._scrub_age_ms())
        try:
            yield DiskSample(*self._logs.disk_space())
        except OSError as error:
            logger.warning("the free space of the disk is not known: %s", error)

    def _partitions(self) -> Iterator[PartitionColumns]:
        every = self._logs.all_partitions()
        for start in range(0, len(every), ROWS_PER_SAMPLE_MAX):
            logs = every[start : start + ROWS_PER_SAMPLE_MAX]
            yield PartitionColumns(
                [(log.topic, log.partition) for log in logs],
                [log.start_offset for log in logs],
                [log.high_watermark for log in logs],
                [log.size_bytes for log in logs],
                [str(log.state) for log in logs],
            )

    def _dead_letters(self) -> Iterator[DeadLetterSample | None]:
        for pile in self._piles.steps():
            if pile is None:
                yield None
                continue
            age_ms = None if pile.oldest_ms is None else max(0, self._wall_ms() - pile.oldest_ms)
            yield DeadLetterSample(pile.group, pile.source_topic, pile.letters, age_ms)
