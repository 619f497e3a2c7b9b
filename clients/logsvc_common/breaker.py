"""The flood breaker of a consumer group: a circuit breaker over the failures of its deliveries.

When what the handler calls is dead, every record fails, and a group that goes on would drain its topic into the dead letters.
So the group pauses when too large a part of its deliveries fails, and finds out by itself when to go on:

    CLOSED --- failures >= min_failures and failures / deliveries >= threshold, over the window ---> OPEN
    OPEN ----- open_ms have passed; twice as many each time in a row, up to open_max_ms -----------> HALF_OPEN
    HALF_OPEN  a probe fails -> OPEN;   `probes` in a row succeed -> CLOSED

Failures count against their records' budgets up to the one that opens the breaker, and not from there until it closes. The
window holds WINDOW_BUCKETS counters, so it costs the same however much is delivered.

A probe is one record. Its kinds take turns: one that has failed is asked first, because it loses nothing; if it fails again,
that may be its own fault, and the next probe is a record nobody has tried yet. So a run of bad records cannot hold a group
for good. Which record it is, is up to whoever uses this module.

Pure: times are monotonic milliseconds and passed in.
"""

import msgspec

from logsvc_common.errors import InvalidConfig

WINDOW_BUCKETS = 10
WINDOW_MS_LIMIT = 3_600_000
OPEN_MS_LIMIT = 86_400_000
COUNT_LIMIT = 1_000_000


class BreakerConfig(msgspec.Struct, frozen=True, array_like=True):
    """When a group pauses, and for how long. `threshold` is a share of deliveries, above 0 up to 1; `window_ms` what it is
    measured over; fewer than `min_failures` never open it. `open_ms` is the first pause, `open_max_ms` the longest;
    `probes` records in a row must succeed to go on."""

    enabled: bool = True
    threshold: float = 0.5
    window_ms: int = 10_000
    min_failures: int = 20
    open_ms: int = 5_000
    open_max_ms: int = 60_000
    probes: int = 3

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise InvalidConfig(f"the breaker's threshold is {self.threshold}; it lies above 0 and is at most 1")
        if not WINDOW_BUCKETS <= self.window_ms <= WINDOW_MS_LIMIT:
            raise InvalidConfig(f"window_ms is {self.window_ms}; it lies between {WINDOW_BUCKETS} and {WINDOW_MS_LIMIT}")
        if not 1 <= self.open_ms <= self.open_max_ms <= OPEN_MS_LIMIT:
            raise InvalidConfig(
                f"open_ms is {self.open_ms}, open_max_ms {self.open_max_ms}; they rise from 1 to at most {OPEN_MS_LIMIT}"
            )
        if not 1 <= self.min_failures <= COUNT_LIMIT or not 1 <= self.probes <= COUNT_LIMIT:
            raise InvalidConfig(f"min_failures and probes lie between 1 and {COUNT_LIMIT}")


DEFAULT_BREAKER = BreakerConfig()
