"""The flood breaker of one group: what is held back while it is open, and which record is the probe.

`logsvc_common.breaker` says when a group pauses and when it may try; here it is said of which partition and which record.
While it is not closed every partition is full, no retry falls due, and failures spend no attempt. Half open, one probe:

    failed  the retry that is due first in a partition whose owner asks, due or not; nothing else is handed out
    fresh   new records of one partition, which is isolated meanwhile: its owner hands out one at a time

A probe whose partition has moved, or that a poll without membership took over, is handed out again, to whoever asks next.
All of it is soft: a restart finds the group going on, and the flood, if it still runs, pauses it again.
"""

from logsvc.coordinator.events import TopicPartition
from logsvc_common.breaker import Breaker, BreakerConfig, BreakerState
from logsvc_common.messages import BreakerDescription


class Flood:
    """The breaker of a group and its probe. Times are monotonic milliseconds."""

    __slots__ = ("breaker", "failed_probe", "fresh_probe")

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.failed_probe: tuple[TopicPartition, int] | None = None
        self.fresh_probe: TopicPartition | None = None

    @property
    def closed(self) -> bool:
        return self.breaker.state is BreakerState.CLOSED

    def configure(self, config: BreakerConfig) -> None:
        self.breaker.configure(config)
        self._forget_probe()

    def _forget_probe(self) -> None:
        self.failed_probe = self.fresh_probe = None

    def holds(self, partition: TopicPartition) -> bool:
        """True when no new records of the partition are to be handed out."""
        return self.breaker.state is not BreakerState.CLOSED and partition != self.fresh_probe

    def advance(self, now_ms: int) -> bool:
        """True when an open breaker has become half open."""
        return self.breaker.advance(now_ms)

    def close(self, now_ms: int) -> bool:
        """Close it now; True when it was not."""
        if self.closed:
            return False
        self.breaker.close(now_ms)
        self._forget_probe()
        return True

    def judge(self, partition: TopicPartition, done: list[int], failed: list[int], new_handled: int, now_ms: int) -> bool:
        """What a commit says about the probe: retries done, records failed, how many new ones were handled.

        True when something has changed for those who wait.
        """
        if self.breaker.state is not BreakerState.HALF_OPEN:
            return False
        if self.failed_probe is not None and self.failed_probe[0] == partition:
            offset = self.failed_probe[1]
            succeeded, spoiled = offset in done, offset in failed
        elif self.fresh_probe == partition:
            succeeded, spoiled = new_handled > 0, bool(failed)
        else:
            return False
        if spoiled:
            self._forget_probe()
            self.breaker.probe_failed(now_ms)
            return True
        if succeeded:
            self.failed_probe = None
            if self.breaker.probe_succeeded(now_ms):
                self._forget_probe()
            return True
        return False

    def describe(self, now_ms: int) -> BreakerDescription:
        breaker = self.breaker
        deliveries, failures = breaker.counted(now_ms)
        is_open = breaker.state is BreakerState.OPEN
        return BreakerDescription(
            state=str(breaker.state) if breaker.config.enabled else "off",
            deliveries=deliveries,
            failures=failures,
            retry_in_ms=max(0, breaker.until_ms - now_ms) if is_open else 0,
            successes=breaker.successes,
            opened=breaker.opened,
            config=breaker.config,
        )
