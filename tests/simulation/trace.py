"""The trace of a simulation: every message, disk operation and fault, in order. Its hash tells whether two runs were the same."""

import hashlib
from collections.abc import Callable

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

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()[:16]
