"""The two clocks, in one place: everything else is handed the time.

Timeouts use the monotonic clock, which never goes back; records and dates use the wall clock, which may.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Times in whole milliseconds; `seconds` is the monotonic clock at its finest, for measuring."""

    def wall_ms(self) -> int: ...
    def monotonic_ms(self) -> int: ...
    def seconds(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def seconds(self) -> float:
        return time.perf_counter()
