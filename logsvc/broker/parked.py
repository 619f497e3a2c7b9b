"""Requests that wait for something: long polls, parked by (what is still missing, deadline). Pure.

An entry waits on any number of keys (partition logs, groups). `wake` lowers what it still misses and gives back the
entries that miss nothing any more; `expire` gives back those whose deadline has passed. An entry leaves once, whole.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from sortedcontainers import SortedList

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

PARKED_MAX = 10_000  # more long polls than this are answered at once
PARKED_KEYS_MAX = 1_000_000  # as are those that would wait on more keys than this, all polls together


class _Entry(Generic[K, T]):
    __slots__ = ("deadline_ms", "item", "keys", "missing", "number")

    def __init__(self, item: T, keys: list[K], deadline_ms: int, missing: int, number: int) -> None:
        self.item = item
        self.keys = keys
        self.deadline_ms = deadline_ms
        self.missing = missing
        self.number = number


class Parked(Generic[K, T]):
    """Items of type T waiting on keys of type K. Times in milliseconds of whichever clock the caller uses throughout."""

    def __init__(self, limit: int = PARKED_MAX) -> None:
        self._limit = limit
        self._number = 0
        self._keys = 0
        # An ordered dict of entries per key: woken in the order they came.
        self._waiting: dict[K, dict[int, _Entry[K, T]]] = {}
        self._deadlines: SortedList[_Entry[K, T]] = SortedList(key=lambda entry: (entry.deadline_ms, entry.number))

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, item: T, keys: Iterable[K], *, deadline_ms: int, missing: int = 1) -> bool:
        """Park `item`; False when the limit is reached, and then the caller answers it at once."""
        # A key may be named twice in one request; it is waited on once.
        distinct = list(dict.fromkeys(keys))
        if len(self._deadlines) >= self._limit or self._keys + len(distinct) > PARKED_KEYS_MAX:
            return False
        self._number += 1
        self._keys += len(distinct)
        entry = _Entry(item, distinct, deadline_ms, missing, self._number)
        for key in entry.keys:
            self._waiting.setdefault(key, {})[entry.number] = entry
        self._deadlines.add(entry)
        return True

    def wake(self, key: K, amount: int | None = None) -> list[T]:
        """`amount` of what `key` gives has arrived; None satisfies whoever waits on it."""
        waiting = self._waiting.get(key)
        if not waiting:
            return []
        satisfied = []
        for entry in list(waiting.values()):
            entry.missing = 0 if amount is None else entry.missing - amount
            if entry.missing <= 0:
                satisfied.append(entry)
        return [self._remove(entry) for entry in satisfied]

    def expire(self, now_ms: int) -> list[T]:
        """Those whose deadline is `now_ms` or earlier."""
        expired = []
        while self._deadlines and self._deadlines[0].deadline_ms <= now_ms:
            expired.append(self._remove(self._deadlines[0]))
        return expired

    def drain(self) -> list[T]:
        """All of them: the broker stops."""
        return [self._remove(entry) for entry in list(self._deadlines)]

    def next_deadline_ms(self) -> int | None:
        return self._deadlines[0].deadline_ms if self._deadlines else None

    def _remove(self, entry: _Entry[K, T]) -> T:
        self._deadlines.remove(entry)
        self._keys -= len(entry.keys)
        for key in entry.keys:
            waiting = self._waiting[key]
            del waiting[entry.number]
            if not waiting:
                del self._waiting[key]
        return entry.item
