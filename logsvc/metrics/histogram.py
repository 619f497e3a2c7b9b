"""Histograms of durations, cheap enough for every request: one bisect and one addition, in the event loop, without a lock."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from math import inf

from logsvc.metrics.quantiles import HistogramCounts
from logsvc.metrics.text import labels_text


class Histogram:
    """Counts observations by upper bounds in seconds. Event loop only."""

    __slots__ = ("_bounds", "_counts", "_lines", "sum")

    def __init__(self, name: str, bounds: Sequence[float], labels: Sequence[str] = (), values: Sequence[str] = ()) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self._lines = _template(name, self._bounds, tuple(labels), tuple(values))

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def counts(self) -> HistogramCounts:
        """As they stand, each bucket with all below it."""
        cumulative = []
        total = 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return HistogramCounts((*self._bounds, inf), tuple(cumulative))

    def text(self) -> bytes:
        """Its samples."""
        counts = self.counts().counts
        return self._lines % (*counts, self.sum, counts[-1])


@lru_cache(maxsize=1_024)
def _template(name: str, bounds: tuple[float, ...], labels: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    """The samples with room for their numbers. Remembered, because a simulation makes a broker's metrics a thousand times."""
    bucket = b"".join(
        b"%b_bucket%b %%d\n" % (name.encode(), _labels((*labels, "le"), (*values, _number(bound)))) for bound in (*bounds, inf)
    )
    shared = _labels(labels, values)
    return bucket + b"%b_sum%b %%a\n%b_count%b %%d\n" % (name.encode(), shared, name.encode(), shared)


def _labels(names: Sequence[str], values: Sequence[str]) -> bytes:
    return labels_text(names, values).replace(b"%", b"%%")


def _number(bound: float) -> str:
    """As Go, and so Prometheus, writes a bound."""
    return "+Inf" if bound == inf else repr(float(bound))
