"""The flood breaker and retries: bad records that fail again and again are no flood, a downstream that is gone is one."""

from logsvc_common.breaker import RUN_FACTOR, Breaker, BreakerState

LONG = RUN_FACTOR * Breaker().config.min_failures
WINDOW_MS = Breaker().config.window_ms


def test_a_burst_of_retries_that_all_fail_is_no_flood() -> None:
    breaker = Breaker()
    for second in range(60):
        now_ms = second * 1_000
        breaker.succeeded(990, now_ms)
        for _ in range(10):
            assert breaker.failed(now_ms, 1, amid_successes=True)
        # What has failed before is due again, all of it at once, ahead of new records.
        for attempt in (2, 3):
            for _ in range(500):
                assert breaker.failed(now_ms + 500, attempt)
        assert breaker.state is BreakerState.CLOSED
    assert breaker.counted(59_500) == (10 * 1_000, 10 * 10)


def test_after_a_pause_the_retries_that_come_first_do_not_open_it_again() -> None:
    breaker = Breaker()
    for _ in range(LONG):
        breaker.failed(0)
    assert breaker.state is BreakerState.OPEN
    breaker.close(5_000)
    for _ in range(LONG):
        assert breaker.failed(5_001, 2)
    assert breaker.state is BreakerState.CLOSED


def test_many_failures_in_one_report_with_successes_are_no_run() -> None:
    breaker = Breaker()
    breaker.succeeded(9_900, 0)
    for _ in range(100):
        breaker.failed(0, 1, amid_successes=True)
    assert breaker.state is BreakerState.CLOSED


def test_first_tries_that_fail_without_a_success_between_them_open_it_at_once() -> None:
    breaker = Breaker()
    breaker.succeeded(100_000, 0)
    for _ in range(LONG - 1):
        breaker.failed(1)
        breaker.failed(1, 2)
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(1)
    assert breaker.state is BreakerState.OPEN


def test_records_that_wait_for_each_other_open_it_by_their_retries_once_that_has_lasted() -> None:
    # One partition in order, five tries a record: a first try is seldom.
    breaker, now_ms, failures = Breaker(), 0, 0
    while breaker.state is BreakerState.CLOSED and failures < 10 * LONG:
        failures += 1
        breaker.failed(now_ms, 1 + failures % 5)
        now_ms += 500
    assert failures == LONG
    assert now_ms >= WINDOW_MS


def test_a_retry_that_succeeds_ends_a_run() -> None:
    breaker = Breaker()
    for second in range(100):
        for attempt in (1, 2, 3):
            breaker.failed(second * 1_000, attempt)
        if second % 4 == 3:
            breaker.succeeded(6, second * 1_000)
    assert breaker.opened == 0
