"""The trace of a simulation: every message, disk operation and fault, in order. Its hash tells two runs apart."""

import hashlib
from collections.abc import Callable

DETAIL_CHARACTERS_MAX = 1_000

Print = Callable[[str], object]


class Trace:
    """`show` prints each line as it comes; without it only the hash is kept, and the last lines."""

    def __init__(self, clock: Callable[[], int], show: Print | None = None) -> None:
        self.lines = 0
        self._clock = clock
        self._show = show
        self._hash = hashlib.sha256()

    def __call__(self, who: str, what: str) -> None:
        line = f"{self._clock():>9} ms  {who:<16} {what}"
        self.lines += 1
        self._hash.update(line.encode())
        if self._show is not None:
            self._show(line)

    def detail(self, who: str, what: object) -> None:
        """For whoever reads along: shown, and not a part of the trace, because writing it out costs too much."""
        if self._show is not None:
            self._show(f"{self._clock():>9} ms  {who:<16}   {what!r}"[:DETAIL_CHARACTERS_MAX])

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()[:16]
