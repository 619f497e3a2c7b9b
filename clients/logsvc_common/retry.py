"""How often a failed record is tried again, and how long it waits in between."""

import msgspec

from logsvc_common.errors import InvalidConfig

ATTEMPTS_LIMIT = 1_000_000
BACKOFF_LIMIT_MS = 366 * 86_400_000  # a wait added to a date still is one
NO_RETRY_LIMIT = 100  # exception classes a policy may name


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True):
    """Exponential backoff with jitter, within a budget of attempts.

    `max_attempts` counts every run of the handler, the first one too: 5 means one try and four retries. The wait before
    attempt n+1 is `initial_ms * multiplier ** (n-1)`, at most `max_ms`, and then spread by `jitter` to either side
    (0.2 = plus or minus 20%). `no_retry` names exception classes (bare or dotted) whose failures are not tried again.
    `on_exhausted` is what happens when the budget is gone: `dead-letter`, `pause` (the partition waits for a person) or
    `discard`. `ordering` is what waits behind a failure: later records of its `key`, the whole `partition`, or `none`.
    """

    max_attempts: int = 5
    initial_ms: int = 1_000
    max_ms: int = 300_000
    multiplier: float = 2.0
    jitter: float = 0.2
    no_retry: tuple[str, ...] = ()
    on_exhausted: str = "dead-letter"
    ordering: str = "key"

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= ATTEMPTS_LIMIT:
            raise InvalidConfig(f"max_attempts is {self.max_attempts}; it lies between 1 (the first try) and {ATTEMPTS_LIMIT}")
        if not 0 <= self.initial_ms <= self.max_ms <= BACKOFF_LIMIT_MS:
            raise InvalidConfig(
                f"initial_ms is {self.initial_ms}, max_ms {self.max_ms}; they rise from 0 to at most {BACKOFF_LIMIT_MS}"
            )
        if not 1.0 <= self.multiplier <= 100.0 or not 0.0 <= self.jitter <= 1.0:
            raise InvalidConfig("multiplier lies between 1 and 100, jitter between 0 and 1")
        if len(self.no_retry) > NO_RETRY_LIMIT:
            raise InvalidConfig(f"no_retry names {len(self.no_retry)} exception classes, at most {NO_RETRY_LIMIT} are allowed")
        if self.on_exhausted not in ("dead-letter", "pause", "discard"):
            raise InvalidConfig(f"on_exhausted is {self.on_exhausted!r}; it takes dead-letter, pause or discard")
        if self.ordering not in ("key", "partition", "none"):
            raise InvalidConfig(f"ordering is {self.ordering!r}; it takes key, partition or none")

    def backoff_ms(self, attempts: int, unit: float) -> int:
        """How long to wait after `attempts` spent attempts. `unit` is a random number in [0, 1) that sets the jitter."""
        # The exponent is bounded so that a large budget cannot overflow a float.
        wait = min(float(self.max_ms), self.initial_ms * self.multiplier ** min(max(attempts - 1, 0), 64))
        return min(self.max_ms, round(wait * (1.0 + self.jitter * (2.0 * unit - 1.0))))

    def skips_retries(self, exception_class: str) -> bool:
        """True when `exception_class` (dotted) is named in `no_retry`, in full or by its last part."""
        return exception_class in self.no_retry or exception_class.rpartition(".")[2] in self.no_retry
