"""Counters with labels: one child for each label set, handed out once and kept by whoever counts.

Not prometheus_client's: a child here is one integer that the broker's event loop alone changes and anyone may read, so a count
costs no lock, the console reads the totals it draws, and ten thousand children become text in pieces.

A family is limited. Label sets beyond the limit share one child whose labels are all `__other__`, and are numbered.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from logsvc.metrics.text import SECONDS, WHOLE, labels_text

LABEL_SETS_MAX = 10_000
OTHER = "__other__"

log = logging.getLogger("logsvc.metrics")


class Counter:
    """Counts up, from zero at the start of the broker. Event loop only."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        self.value += amount


class Names(NamedTuple):
    """What a metric is called; `name` is without `_total`. It is counted in `per_unit` parts of its unit."""

    name: str
    help: str
    per_unit: int = 1


class _Child(NamedTuple):
    labels_text: bytes
    counters: tuple[Counter, ...]


class CounterFamily:
    """A few counters that share their labels, at most `limit` label sets of them."""

    def __init__(self, counters: Sequence[Names], labels: Sequence[str], limit: int) -> None:
        self.counters = tuple(counters)
        self._labels = tuple(labels)
        self._limit = limit
        self._children: dict[tuple[str, ...], _Child] = {}
        self._folded: set[tuple[str, ...]] = set()

    def get(self, *labels: str) -> tuple[Counter, ...]:
        """The counters of one label set, in the order in which the family names them."""
        known = self._children.get(labels)
        return self._add(labels) if known is None else known.counters

    def _add(self, labels: tuple[str, ...]) -> tuple[Counter, ...]:
        other = (OTHER,) * len(labels)
        if len(self._children) >= self._limit and labels != other:
            if not self._folded:
                name = self.counters[0].name
                log.warning("metrics: %s has %d label sets, its limit; more are counted as %s", name, self._limit, OTHER)
            if len(self._folded) < self._limit:
                self._folded.add(labels)
            return self.get(*other)
        made = _Child(labels_text(self._labels, labels), tuple(Counter() for _ in self.counters))
        self._children[labels] = made
        return made.counters

    def known(self, *labels: str) -> tuple[Counter, ...] | None:
        """The counters of a label set that has been counted before; None else. Adds nothing."""
        found = self._children.get(labels)
        return None if found is None else found.counters

    def drop(self, position: int, value: str) -> None:
        """Forget the label sets that have `value` at `position`; whoever still holds a child counts into nothing."""
        for labels in [labels for labels in self._children if labels[position] == value]:
            del self._children[labels]
        self._folded = {labels for labels in self._folded if labels[position] != value}

    @property
    def folded(self) -> int:
        """How many label sets share `__other__`."""
        return len(self._folded)

    def totals(self) -> Iterator[tuple[tuple[str, ...], tuple[Counter, ...]]]:
        """Every label set and its counters."""
        return ((labels, child.counters) for labels, child in self._children.items())

    def lines(self, number: int, step: int) -> Iterator[bytes]:
        """The samples of counter `number` of the family, `step` of them at a time, as of when each piece is asked for."""
        names = self.counters[number]
        line = f"{names.name}_total%b".encode() + (WHOLE if names.per_unit == 1 else SECONDS) + b"\n"
        children = list(self._children.values())
        for start in range(0, len(children), step):
            yield b"".join(
                [
                    line % (child.labels_text, _in_units(child.counters[number].value, names.per_unit))
                    for child in children[start : start + step]
                ]
            )


def _in_units(value: int, per_unit: int) -> float:
    return value if per_unit == 1 else value / per_unit  # a whole number stays one, however large
