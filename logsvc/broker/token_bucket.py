"""Bytes per second, as a bucket of tokens: pure, in whole numbers, the time is given.

It holds what `BURST_MS` bring and fills steadily. Whoever takes is never refused here: the level goes below zero, and the
time until it is back at zero is how long he is to wait. So a batch larger than a full bucket passes, and is paid for after.

The level counts thousandths of bytes: bytes a second times milliseconds, so that nothing is ever rounded.
"""

BURST_MS = 1_000  # what an idle client has saved up: one sample of Kafka's (quota.window.size.seconds)
DEBT_MS_MAX = 30_000  # a debt that takes longer to pay is forgiven down to this: one huge batch must not silence a client


class TokenBucket:
    """`rate` in bytes a second, at least 1. Times in monotonic milliseconds; one that goes back counts as standing still."""

    __slots__ = ("_at_ms", "_level", "_rate")

    def __init__(self, rate: int, now_ms: int) -> None:
        self._rate = rate
        self._level = rate * BURST_MS
        self._at_ms = now_ms

    @property
    def burst_bytes(self) -> int:
        """What a full bucket holds, at least 1."""
        return max(1, self._rate * BURST_MS // 1_000)

    def take(self, size: int, now_ms: int) -> None:
        """`size` bytes went through."""
        self._fill(now_ms)
        self._level = max(self._level - size * 1_000, -self._rate * DEBT_MS_MAX)

    def wait_ms(self, now_ms: int) -> int:
        """How long until nothing is owed."""
        self._fill(now_ms)
        return 0 if self._level >= 0 else -(self._level // self._rate)

    def is_full(self, now_ms: int) -> bool:
        """True when a new bucket would be no different."""
        self._fill(now_ms)
        return self._level == self._rate * BURST_MS

    def change_rate(self, rate: int, now_ms: int) -> None:
        """From now on so many bytes a second; what is owed stays owed."""
        self._fill(now_ms)
        self._rate = rate
        self._level = max(min(self._level, rate * BURST_MS), -rate * DEBT_MS_MAX)

    def _fill(self, now_ms: int) -> None:
        if now_ms > self._at_ms:
            self._level = min(self._rate * BURST_MS, self._level + self._rate * (now_ms - self._at_ms))
            self._at_ms = now_ms
