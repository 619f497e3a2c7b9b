"""The flood breaker of a consumer group: a circuit breaker over the failures of its deliveries.

When what the handler calls is dead, every record fails, and a group that goes on would drain its topic into the dead letters.
So the group pauses when too large a part of its deliveries fails, and finds out by itself when to go on:

    CLOSED --- failures >= min_failures and failures / deliveries >= threshold, or a long run -----> OPEN
    OPEN ----- open_ms have passed; twice as many each time in a row, up to open_max_ms -----------> HALF_OPEN
    HALF_OPEN  a probe fails -> OPEN;   `probes` in a row succeed -> CLOSED

What counts is a record's first try. The retries of records that are bad come in bursts, ahead of new ones, and all fail again:
counted too, one bad record in a hundred would pause a group that is well. A retry that succeeds does say something.

The share is taken over the window, and over its latest part too, so that a busy stretch of successes does not hide what came
after it. A run of failures without a single success, RUN_FACTOR * min_failures long, opens it at once: that is a downstream
that is gone, and at a thousand records a second even a tenth of the window would be a thousand dead letters under a policy of
one attempt. Where records wait for each other, each takes all its tries before the next has its first; so retries count in a
run too, once it has lasted for the whole window.

Failures count against their records' budgets up to the one that opens the breaker, and not from there until it closes. The
window is WINDOW_BUCKETS counters, so it costs the same however much is delivered.

A probe is one record. Its kinds take turns: one that has failed is asked first, because it loses nothing; if it fails again,
that may be its own fault, and the next probe is a record nobody has tried yet. So a run of bad records cannot hold a group
for good. Which record it is, is up to whoever uses this module. Where there are no new records, bad ones would: so once the
pauses are the longest they get (`at_its_longest`), a probe may spend an attempt of its record.

After a pause many failed records are due at once. For a window they are handed out a few at a time (`allowance`), between new
records: a downstream that has just come back is not given everything at once.

Pure: times are monotonic milliseconds and passed in.
"""

from enum import StrEnum

import msgspec

from logsvc_common.errors import InvalidConfig

WINDOW_BUCKETS = 10
RUN_FACTOR = 2
ALLOWANCE_DIVISOR = 4  # retries in a tenth of a window, as a part of `min_failures`
WINDOW_MS_LIMIT = 3_600_000
OPEN_MS_LIMIT = 86_400_000
COUNT_LIMIT = 1_000_000


class BreakerConfig(msgspec.Struct, frozen=True, array_like=True):
    """When a group pauses, and for how long.

    `threshold` is a share of first tries, above 0 up to 1; `window_ms` what it is measured over; fewer than `min_failures`
    never open it, and RUN_FACTOR times as many in a row always do. `open_ms` is the first pause, `open_max_ms` the longest;
    `probes` records in a row must succeed to go on.
    """

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


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The state of one group's breaker. Not thread-safe. All of it is soft: a new one is closed."""

    __slots__ = (
        "_bucket_ms",
        "_calm_ms",
        "_deliveries",
        "_failures",
        "_first",
        "_granted",
        "_granted_in",
        "_repeats",
        "_run",
        "_run_since_ms",
        "_run_tries",
        "config",
        "opened",
        "state",
        "successes",
        "until_ms",
    )

    def __init__(self, config: BreakerConfig = DEFAULT_BREAKER) -> None:
        self.state = BreakerState.CLOSED
        self.until_ms = 0  # when an open one is half open
        self.successes = 0  # probes in a row
        self.opened = 0
        self._repeats = 0  # pauses in a row before this one
        self._calm_ms = 0  # the end of the time after a pause; one that opens later begins with the first pause again
        self._granted = 0
        self._granted_in = 0  # the counter's number it is about
        self.configure(config)

    def configure(self, config: BreakerConfig) -> None:
        """Other settings: what was counted is forgotten, a pause goes on. One that is not enabled is closed."""
        self.config = config
        self._bucket_ms = config.window_ms // WINDOW_BUCKETS
        self._clear(0)
        self._end_run()
        if not config.enabled:
            self.state = BreakerState.CLOSED

    def _clear(self, bucket: int) -> None:
        self._first = bucket  # the number of the first counter
        self._deliveries = [0]
        self._failures = [0]

    def _end_run(self) -> None:
        self._run = 0  # first tries that have failed since the last success
        self._run_tries = 0  # and all tries
        self._run_since_ms = 0

    # Counting

    def _turn(self, now_ms: int) -> None:
        """Bring the window up to `now_ms`; the last counter is the present one."""
        ahead = now_ms // self._bucket_ms - self._first - len(self._failures) + 1
        if ahead <= 0:
            return
        if ahead >= WINDOW_BUCKETS:
            self._clear(now_ms // self._bucket_ms)
            return
        self._deliveries += [0] * ahead
        self._failures += [0] * ahead
        surplus = len(self._failures) - WINDOW_BUCKETS
        if surplus > 0:
            del self._deliveries[:surplus]
            del self._failures[:surplus]
            self._first += surplus

    def succeeded(self, count: int, now_ms: int) -> None:
        """`count` records were handled."""
        if self.state is BreakerState.CLOSED:
            self._turn(now_ms)
            self._deliveries[-1] += count
            if count:
                self._end_run()

    def failed(self, now_ms: int, attempt: int = 1, *, amid_successes: bool = False) -> bool:
        """Try number `attempt` of a record has failed. False when that is not to spend an attempt, because the breaker was open
        before. `amid_successes`: it was reported together with records that were handled, in whichever order: no run."""
        if not self.config.enabled:
            return True
        if self.state is not BreakerState.CLOSED:
            return False
        first = attempt <= 1
        if first:
            self._turn(now_ms)
            self._deliveries[-1] += 1
            self._failures[-1] += 1
        if not amid_successes:
            if not self._run_tries:
                self._run_since_ms = now_ms
            self._run += first
            self._run_tries += 1
        if self._is_long_run(now_ms) or (first and (self._floods(2) or self._floods(WINDOW_BUCKETS))):
            self._open(now_ms)
        return True

    def _is_long_run(self, now_ms: int) -> bool:
        long = RUN_FACTOR * self.config.min_failures
        return self._run >= long or (self._run_tries >= long and now_ms - self._run_since_ms >= self.config.window_ms)

    def _floods(self, buckets: int) -> bool:
        failures = sum(self._failures[-buckets:])
        if failures < self.config.min_failures:
            return False
        return failures >= self.config.threshold * sum(self._deliveries[-buckets:])

    def allowance(self, now_ms: int) -> int | None:
        """How many retries a closed one lets out now; None for any number."""
        if now_ms >= self._calm_ms:
            return None
        bucket = now_ms // self._bucket_ms
        if bucket != self._granted_in:
            self._granted, self._granted_in = 0, bucket
        return max(0, max(1, self.config.min_failures // ALLOWANCE_DIVISOR) - self._granted)

    def grant(self, retries: int) -> None:
        """So many were let out."""
        self._granted += retries

    def next_allowance_ms(self, now_ms: int) -> int:
        """When there is a new allowance."""
        return (now_ms // self._bucket_ms + 1) * self._bucket_ms

    def counted(self, now_ms: int) -> tuple[int, int]:
        """Deliveries and failures in the window."""
        self._turn(now_ms)
        return sum(self._deliveries), sum(self._failures)

    # Opening, probing, closing

    def _open(self, now_ms: int) -> None:
        if self.state is BreakerState.CLOSED and now_ms >= self._calm_ms:
            self._repeats = 0
        self.state = BreakerState.OPEN
        self.opened += 1
        self.successes = 0
        # The exponent is bounded: a pause is never longer than a day, whatever it began with.
        self.until_ms = now_ms + min(self.config.open_max_ms, self.config.open_ms << min(self._repeats, 27))
        self._repeats += 1

    @property
    def prefers_fresh(self) -> bool:
        """Which kind of probe is next: a record nobody has tried, or one that has failed. They take turns."""
        return self._repeats % 2 == 0

    @property
    def at_its_longest(self) -> bool:
        """True when no pause could have been longer than the last one."""
        return self.config.open_ms << min(max(0, self._repeats - 1), 27) >= self.config.open_max_ms

    def advance(self, now_ms: int) -> bool:
        """True when an open breaker has become half open."""
        if self.state is not BreakerState.OPEN or now_ms < self.until_ms:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def probe_failed(self, now_ms: int) -> None:
        """Open again, for longer. Has no effect unless half open."""
        if self.state is BreakerState.HALF_OPEN:
            self._open(now_ms)

    def probe_succeeded(self, now_ms: int) -> bool:
        """One more; True when that has closed it. Has no effect unless half open."""
        if self.state is not BreakerState.HALF_OPEN:
            return False
        self.successes += 1
        if self.successes < self.config.probes:
            return False
        self.close(now_ms)
        return True

    def close(self, now_ms: int) -> None:
        """Go on, as if nothing had been counted."""
        self.state = BreakerState.CLOSED
        self._clear(now_ms // self._bucket_ms)
        self._end_run()
        self._calm_ms = now_ms + self.config.window_ms
