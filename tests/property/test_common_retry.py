"""Backoff, for every policy there can be."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc_common.retry import RetryPolicy
from tests.property.wire_strategies import POLICIES

ATTEMPTS = st.integers(0, 1 << 62)
UNITS = st.floats(0.0, 1.0, exclude_max=True)


@given(POLICIES, ATTEMPTS, UNITS)
def test_a_wait_lies_between_nothing_and_the_longest(policy: RetryPolicy, attempts: int, unit: float) -> None:
    assert 0 <= policy.backoff_ms(attempts, unit) <= policy.max_ms


@given(POLICIES, st.integers(1, 1_000), UNITS)
def test_waits_never_shrink_from_one_attempt_to_the_next(policy: RetryPolicy, attempts: int, unit: float) -> None:
    assert policy.backoff_ms(attempts, unit) <= policy.backoff_ms(attempts + 1, unit)


@given(POLICIES, st.integers(1, 1_000), UNITS)
def test_jitter_stays_within_its_share(policy: RetryPolicy, attempts: int, unit: float) -> None:
    middle = policy.backoff_ms(attempts, 0.5)
    assert abs(policy.backoff_ms(attempts, unit) - middle) <= middle * policy.jitter + 1
