"""Quantiles from histogram buckets, as Prometheus' `histogram_quantile` estimates them."""

from typing import NamedTuple


class HistogramCounts(NamedTuple):
    """How many observations were at most `bounds[i]`; the last bound is infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def since(self, earlier: "HistogramCounts") -> "HistogramCounts":
        """What came after `earlier`, a reading of the same histogram."""
        return HistogramCounts(self.bounds, tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True)))


def quantile(q: float, histogram: HistogramCounts) -> float | None:
    """The value that the fraction `q` of the observations does not exceed, interpolated within its bucket; the highest finite
    bound when it lies above. None without observations."""
    bounds, counts = histogram
    total = counts[-1] if counts else 0
    if total <= 0:
        return None
    rank = q * total
    below, bound_below = 0.0, 0.0
    for bound, count in zip(bounds[:-1], counts[:-1], strict=True):
        if count >= rank:
            return bound_below + (bound - bound_below) * (rank - below) / (count - below) if count > below else bound
        below, bound_below = count, bound
    return bound_below
