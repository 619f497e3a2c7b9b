"""The token bucket against its promise: over any stretch of time no more than the rate allows, and never less for long."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc.broker.token_bucket import BURST_MS, DEBT_MS_MAX, TokenBucket

RATES = st.integers(1, 1 << 40)
STEPS = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 1 << 30)), min_size=1, max_size=40)


@given(RATES, STEPS)
def test_whoever_waits_as_told_keeps_to_the_rate(rate: int, steps: list[tuple[int, int]]) -> None:
    # Given somebody who pauses as he likes, but never sends before the time he was told
    bucket, now_ms, sent = TokenBucket(rate, 0), 0, 0
    largest = min(max(size for _, size in steps), rate * (DEBT_MS_MAX - BURST_MS) // 1_000)
    for pause_ms, size in steps:
        now_ms += pause_ms
        now_ms += bucket.wait_ms(now_ms)
        assert bucket.wait_ms(now_ms) == 0
        # Then up to any moment he has sent what the rate brings since the start, a burst, and one request at most.
        assert sent * 1_000 <= rate * (now_ms + BURST_MS) + largest * 1_000
        size = min(size, largest)
        bucket.take(size, now_ms)
        sent += size


@given(RATES, STEPS)
def test_nothing_is_taken_away_that_was_not_used(rate: int, steps: list[tuple[int, int]]) -> None:
    # Whatever went through, the wait is no longer than the debt needs, nor than DEBT_MS_MAX.
    bucket, now_ms, sent = TokenBucket(rate, 0), 0, 0
    for pause_ms, size in steps:
        now_ms += pause_ms
        bucket.take(size, now_ms)
        sent += size
        wait_ms = bucket.wait_ms(now_ms)
        assert wait_ms <= min(DEBT_MS_MAX, -(-sent * 1_000 // rate))
        # And waiting so long is enough, while less is not.
        if wait_ms:
            assert bucket.wait_ms(now_ms + wait_ms - 1) == 1
            now_ms += wait_ms
            assert bucket.wait_ms(now_ms) == 0


@given(RATES, RATES, st.integers(0, 1 << 40), st.integers(0, 100_000))
def test_a_new_rate_keeps_the_debt_and_the_burst_in_bounds(first: int, second: int, size: int, later_ms: int) -> None:
    bucket = TokenBucket(first, 0)
    bucket.take(size, 0)
    owed = max(0, min(size * 1_000, first * (BURST_MS + DEBT_MS_MAX)) - first * BURST_MS)
    bucket.change_rate(second, 0)
    assert bucket.wait_ms(0) == min(DEBT_MS_MAX, -(-owed // second))
    assert bucket.wait_ms(later_ms) <= DEBT_MS_MAX
    assert bucket.is_full(DEBT_MS_MAX + BURST_MS + 1 + later_ms)


@given(RATES, st.lists(st.integers(-10_000, 10_000), max_size=20))
def test_a_clock_that_goes_back_stands_still(rate: int, times_ms: list[int]) -> None:
    bucket = TokenBucket(rate, 0)
    bucket.take(rate * 5, 0)
    latest = 0
    for now_ms in times_ms:
        latest = max(latest, now_ms)
        assert bucket.wait_ms(now_ms) == max(0, 4_000 - latest)
