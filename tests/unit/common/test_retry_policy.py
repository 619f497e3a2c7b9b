"""How often and how long: the limits of a policy, and the waits it gives."""

import pytest

from logsvc_common.errors import InvalidConfig
from logsvc_common.retry import ATTEMPTS_LIMIT, BACKOFF_LIMIT_MS, NO_RETRY_LIMIT, RetryPolicy


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": ATTEMPTS_LIMIT + 1},
        {"initial_ms": -1},
        {"initial_ms": 11, "max_ms": 10},
        {"max_ms": BACKOFF_LIMIT_MS + 1},
        {"multiplier": 0.99},
        {"multiplier": 100.1},
        {"multiplier": float("nan")},
        {"multiplier": float("inf")},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": float("nan")},
        {"no_retry": ("E",) * (NO_RETRY_LIMIT + 1)},
        {"on_exhausted": "shrug"},
        {"ordering": "chaos"},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_waits_double_from_the_first_up_to_the_longest() -> None:
    policy = RetryPolicy(initial_ms=100, max_ms=1_000, jitter=0)
    assert [policy.backoff_ms(attempts, 0.5) for attempts in range(1, 7)] == [100, 200, 400, 800, 1_000, 1_000]


def test_jitter_spreads_to_either_side_but_never_over_the_longest() -> None:
    policy = RetryPolicy(initial_ms=1_000, max_ms=1_100, jitter=0.2)
    assert [policy.backoff_ms(1, unit) for unit in (0.0, 0.5, 0.75, 0.999)] == [800, 1_000, 1_100, 1_100]


def test_exceptions_that_skip_retries_go_by_full_name_or_last_part() -> None:
    policy = RetryPolicy(no_retry=("ValueError", "app.Gone"))
    assert policy.skips_retries("ValueError")
    assert policy.skips_retries("json.ValueError")
    assert policy.skips_retries("app.Gone")
    assert not policy.skips_retries("Gone")
    assert not policy.skips_retries("other.Gone")
    assert not policy.skips_retries("")
