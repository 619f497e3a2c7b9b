"""The flood breaker: when it opens, when it tries again, when it closes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc_common.breaker import RUN_FACTOR, Breaker, BreakerConfig, BreakerState
from logsvc_common.errors import InvalidConfig

CONFIG = BreakerConfig(threshold=0.5, window_ms=10_000, min_failures=20, open_ms=5_000, open_max_ms=60_000, probes=3)


def opened(now_ms: int = 0) -> Breaker:
    breaker = Breaker(CONFIG)
    while breaker.state is BreakerState.CLOSED:
        breaker.failed(now_ms)
    return breaker


class TestOpening:
    def test_a_share_of_failures_below_the_threshold_never_opens_it(self) -> None:
        breaker = Breaker(CONFIG)
        for second in range(100):
            breaker.succeeded(51, second * 1_000)
            for _ in range(49):
                assert breaker.failed(second * 1_000, amid_successes=True)
        assert breaker.state is BreakerState.CLOSED

    def test_the_failure_that_reaches_the_threshold_opens_it_and_is_the_last_that_counts(self) -> None:
        breaker = Breaker(CONFIG)
        breaker.succeeded(20, 0)
        assert all(breaker.failed(0) for _ in range(19))
        assert breaker.state is BreakerState.CLOSED, "too few"
        assert breaker.failed(0), "the one that opens it spends its attempt"
        assert breaker.state is BreakerState.OPEN
        assert not breaker.failed(0), "the next one does not"

    def test_a_few_failures_are_none_even_when_nothing_succeeds(self) -> None:
        breaker = Breaker(CONFIG)
        for second in range(100):
            breaker.failed(second * 2_000)
            breaker.succeeded(1, second * 2_000)
        assert breaker.state is BreakerState.CLOSED

    def test_what_is_older_than_the_window_is_forgotten(self) -> None:
        breaker = Breaker(CONFIG)
        for _ in range(19):
            breaker.failed(0)
        breaker.succeeded(1, 9_000)
        assert breaker.counted(9_999) == (20, 19)
        assert breaker.counted(10_000) == (1, 0)
        breaker.failed(10_500)
        assert breaker.state is BreakerState.CLOSED

    def test_a_busy_stretch_of_successes_does_not_hide_what_comes_after_it(self) -> None:
        breaker = Breaker(CONFIG)
        for tenth in range(50):
            breaker.succeeded(1_000, tenth * 100)
        # A brown-out: two of three fail. The window is full of successes, its latest part is not.
        spent = 0
        for tenth in range(60, 200):
            breaker.succeeded(1, tenth * 100)
            spent += breaker.failed(tenth * 100) + breaker.failed(tenth * 100)
            if breaker.state is BreakerState.OPEN:
                break
        assert breaker.state is BreakerState.OPEN
        assert spent < 60

    def test_a_long_run_of_failures_opens_it_at_once(self) -> None:
        breaker = Breaker(CONFIG)
        breaker.succeeded(100_000, 0)
        spent = sum(breaker.failed(1) for _ in range(1_000))
        assert spent == RUN_FACTOR * CONFIG.min_failures

    def test_one_that_is_off_never_opens(self) -> None:
        breaker = Breaker(BreakerConfig(enabled=False))
        assert all(breaker.failed(0) for _ in range(10_000))
        assert breaker.state is BreakerState.CLOSED


class TestProbing:
    def test_it_is_half_open_when_the_pause_is_over_and_not_before(self) -> None:
        breaker = opened()
        assert not breaker.advance(4_999)
        assert breaker.advance(5_000)
        assert breaker.state is BreakerState.HALF_OPEN
        assert not breaker.failed(5_000), "nothing is spent while probing"

    def test_probes_in_a_row_close_it(self) -> None:
        breaker = opened()
        breaker.advance(5_000)
        assert [breaker.probe_succeeded(5_000 + n) for n in range(3)] == [False, False, True]
        assert breaker.state is BreakerState.CLOSED
        assert breaker.counted(5_003) == (0, 0)

    def test_one_that_fails_opens_it_for_twice_as_long_up_to_a_limit(self) -> None:
        breaker, now_ms = opened(), 0
        pauses = []
        for _ in range(7):
            pauses.append(breaker.until_ms - now_ms)
            now_ms = breaker.until_ms
            assert breaker.advance(now_ms)
            breaker.probe_succeeded(now_ms)
            breaker.probe_failed(now_ms)
            assert breaker.state is BreakerState.OPEN
        assert pauses == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]

    def test_the_kinds_of_probes_take_turns(self) -> None:
        breaker = opened()
        kinds = []
        for _ in range(4):
            breaker.advance(breaker.until_ms)
            kinds.append(breaker.prefers_fresh)
            breaker.probe_failed(breaker.until_ms)
        assert kinds == [False, True, False, True]

    def test_results_that_come_when_nothing_is_probed_have_no_effect(self) -> None:
        breaker = Breaker(CONFIG)
        assert not breaker.probe_succeeded(0)
        breaker.probe_failed(0)
        assert breaker.state is BreakerState.CLOSED
        breaker = opened()
        assert not breaker.probe_succeeded(0)
        assert (breaker.state, breaker.opened) == (BreakerState.OPEN, 1)


class TestAfterAPause:
    def test_pauses_grow_when_it_opens_again_soon_and_not_when_it_went_well_for_a_window(self) -> None:
        breaker = opened()
        breaker.close(5_000)
        while breaker.opened < 2:
            breaker.failed(6_000)
        assert breaker.until_ms - 6_000 == 10_000
        breaker.close(20_000)
        while breaker.opened < 3:
            breaker.failed(30_000)
        assert breaker.until_ms - 30_000 == 5_000

    def test_retries_are_let_out_a_few_at_a_time_for_a_window(self) -> None:
        breaker = opened()
        breaker.close(5_000)
        assert breaker.allowance(5_000) == 5
        breaker.grant(5)
        assert breaker.allowance(5_999) == 0
        assert breaker.next_allowance_ms(5_999) == 6_000
        assert breaker.allowance(6_000) == 5
        assert breaker.allowance(14_999) == 5
        assert breaker.allowance(15_000) is None

    def test_one_that_never_opened_lets_out_all(self) -> None:
        assert Breaker(CONFIG).allowance(0) is None


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"threshold": 0.0},
            {"threshold": 1.01},
            {"threshold": float("nan")},
            {"window_ms": 9},
            {"min_failures": 0},
            {"open_ms": 0},
            {"open_ms": 2_000, "open_max_ms": 1_000},
            {"probes": 0},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InvalidConfig):
            BreakerConfig(**wrong)  # type: ignore[arg-type]

    def test_switching_it_off_closes_it_and_other_settings_leave_a_pause_alone(self) -> None:
        breaker = opened()
        breaker.configure(BreakerConfig(min_failures=5))
        assert breaker.state is BreakerState.OPEN
        breaker.configure(BreakerConfig(enabled=False))
        assert breaker.state is BreakerState.CLOSED


@given(
    steps=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 50), st.integers(0, 50)), max_size=60),
    window_ms=st.integers(10, 20_000),
)
def test_the_window_counts_what_happened_in_it(steps: list[tuple[int, int, int]], window_ms: int) -> None:
    breaker = Breaker(BreakerConfig(window_ms=window_ms, min_failures=1_000_000))
    bucket_ms = window_ms // 10
    now_ms, log = 0, []
    for wait_ms, successes, failures in steps:
        now_ms += wait_ms
        breaker.succeeded(successes, now_ms)
        for _ in range(failures):
            assert breaker.failed(now_ms)
        log.append((now_ms // bucket_ms, successes, failures))
    recent = [(s, f) for bucket, s, f in log if bucket > now_ms // bucket_ms - 10]
    assert breaker.counted(now_ms) == (sum(s + f for s, f in recent), sum(f for _, f in recent))


@given(st.lists(st.sampled_from(["fail", "succeed", "wait", "probe failed", "probe succeeded"]), max_size=300))
def test_whatever_happens_it_is_in_one_of_its_states_and_goes_on_by_itself(events: list[str]) -> None:
    breaker, now_ms = Breaker(BreakerConfig(min_failures=2, probes=2)), 0
    times = [0]
    for event in events:
        now_ms += 1_700 if event == "wait" else 1
        breaker.advance(now_ms)
        before = breaker.state
        match event:
            case "fail":
                assert breaker.failed(now_ms) == (before is BreakerState.CLOSED)
            case "succeed":
                breaker.succeeded(1, now_ms)
            case "probe failed":
                breaker.probe_failed(now_ms)
            case "probe succeeded":
                breaker.probe_succeeded(now_ms)
        if breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            times.append(breaker.until_ms)
        assert breaker.until_ms <= now_ms + breaker.config.open_max_ms
    assert all(sooner <= later for sooner, later in pairwise(times))
    breaker.advance(now_ms + breaker.config.open_max_ms)
    assert breaker.state in (BreakerState.CLOSED, BreakerState.HALF_OPEN)
