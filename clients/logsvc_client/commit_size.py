"""How much one commit may say: a broker takes no longer message, and what it never answers would be sent again for good.

A handler that fails at once, while the broker is away or its disk is slow, fails thousands of records before the next commit;
each comes with a stack trace. What finds no room goes with the commit after.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from logsvc_common.messages import ENTRIES_MAX, Failure, Parked

COMMIT_CHARACTERS_MAX = 1 << 20  # at up to four bytes each half of HEADER_FRAME_BYTES_MAX
ENTRY_CHARACTERS = 60  # what an entry takes beside its texts

EntryT = TypeVar("EntryT", Failure, Parked, int)


@dataclass(slots=True)
class CommitRoom:
    """What is left of one commit."""

    partitions: int = ENTRIES_MAX
    characters: int = COMMIT_CHARACTERS_MAX

    @property
    def left(self) -> bool:
        return self.partitions > 0 and self.characters > 0

    def fill(self, entries: Collection[EntryT]) -> list[EntryT]:
        """The first of `entries`, as many as there is room for. The last may be larger than that."""
        return list(takewhile(self._takes, entries))

    def _takes(self, entry: Failure | Parked | int) -> bool:
        if self.characters <= 0:
            return False
        self.characters -= ENTRY_CHARACTERS
        if isinstance(entry, Failure):
            self.characters -= len(entry.error) + len(entry.exception_class) + len(entry.stacktrace)
        return True
