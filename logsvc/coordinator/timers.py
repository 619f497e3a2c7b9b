"""Deadlines by key: which have passed, and when the next one does."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from sortedcontainers import SortedList

KeyT = TypeVar("KeyT", bound=Hashable)


class Timers(Generic[KeyT]):
    """One deadline a key, monotonic milliseconds. As many entries as there are members and failed letters, no more."""

    def __init__(self) -> None:
        self._at: dict[KeyT, int] = {}
        self._order: SortedList = SortedList()

    def set(self, key: KeyT, at_ms: int) -> None:
        self.cancel(key)
        self._at[key] = at_ms
        self._order.add((at_ms, key))

    def cancel(self, key: KeyT) -> None:
        at_ms = self._at.pop(key, None)
        if at_ms is not None:
            self._order.remove((at_ms, key))

    def next_ms(self) -> int | None:
        """The earliest deadline; None when there is none."""
        if not self._order:
            return None
        at_ms: int = self._order[0][0]
        return at_ms

    def passed(self, now_ms: int) -> list[KeyT]:
        """The keys whose deadline is at or before `now_ms`, in its order. They stay until cancelled or set again."""
        keys: list[KeyT] = []
        for at_ms, key in self._order:
            if at_ms > now_ms:
                break
            keys.append(key)
        return keys
