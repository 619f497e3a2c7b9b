"""Which letters of one partition of a dead-letter topic were redriven: ranges of offsets, in blocks.

A redrive takes most letters, so ranges are few; with a filter that takes every other one they are many. A block covers
BLOCK_LETTERS offsets and is one state record, so that whatever the filter, a record stays below some 30 KB and a step of a
redrive writes one or two of them.
"""

from bisect import bisect_right
from collections.abc import Iterable

from logsvc.coordinator.state_log import Redriven

BLOCK_LETTERS = 4_096
_AFTER_ALL = 1 << 63


class RedrivenLetters:
    """Changed only by `put`, when a state record is replayed."""

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks: dict[int, Redriven] = {}

    def __bool__(self) -> bool:
        return bool(self.blocks)

    def put(self, block: int, redriven: Redriven | None) -> None:
        if redriven is None:
            self.blocks.pop(block, None)
        else:
            self.blocks[block] = redriven

    def __contains__(self, letter_offset: int) -> bool:
        return self.first_left(letter_offset) != letter_offset

    def first_left(self, letter_offset: int) -> int:
        """The first offset from `letter_offset` on that was not redriven."""
        while (found := self.blocks.get(letter_offset // BLOCK_LETTERS)) is not None:
            place = bisect_right(found.ranges, (letter_offset, _AFTER_ALL)) - 1
            if place < 0 or found.ranges[place][1] < letter_offset:
                break
            letter_offset = found.ranges[place][1] + 1
        return letter_offset

    def count(self, start_offset: int) -> int:
        """How many letters from `start_offset` on were redriven."""
        return sum(
            last - max(first, start_offset) + 1
            for redriven in self.blocks.values()
            for first, last in redriven.ranges
            if last >= start_offset
        )

    def adding(self, letter_offsets: Iterable[int]) -> dict[int, Redriven]:
        """The blocks that change when these letters are redriven too, as they will be."""
        added: dict[int, list[int]] = {}
        for letter_offset in letter_offsets:
            added.setdefault(letter_offset // BLOCK_LETTERS, []).append(letter_offset)
        return {block: Redriven(_joined(self._ranges(block), offsets)) for block, offsets in added.items()}

    def _ranges(self, block: int) -> tuple[tuple[int, int], ...]:
        found = self.blocks.get(block)
        return () if found is None else found.ranges


def _joined(ranges: Iterable[tuple[int, int]], offsets: Iterable[int]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, *((offset, offset) for offset in offsets)]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)
