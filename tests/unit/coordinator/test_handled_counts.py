"""Consumers with many threads finish records in any order: what they count as handled is what the breaker goes by."""

from logsvc_common.breaker import RUN_FACTOR, BreakerState
from logsvc_common.messages import NO_MEMBER_EPOCH, Commit, CommitPartition
from tests.unit.coordinator.harness import STEADY, Harness, failure

IN_HAND = 16


def commit(broker: Harness, offsets: range, handled: int) -> None:
    """Failures of `offsets`, while a record below them keeps the committed offset where it is."""
    part = CommitPartition("t", 0, -1, [failure(offset, attempt=1) for offset in offsets], handled=handled)
    broker.handle(Commit("g", "", NO_MEMBER_EPOCH, [part], STEADY))


def breaker_state(broker: Harness) -> BreakerState:
    return broker.coordinator._groups["g"].flood.breaker.state


def test_records_still_in_hand_do_not_hide_that_every_one_fails() -> None:
    broker = Harness()
    failed = 0
    # Each report names every second of what was handed out; the others are still in hand.
    for begin in range(1, 1_000, IN_HAND):
        if failed and breaker_state(broker) is not BreakerState.CLOSED:
            break
        offsets = range(begin, min(begin + IN_HAND, 1_000), 2)
        commit(broker, offsets, handled=0)
        failed += len(offsets)
    assert failed <= RUN_FACTOR * 20 + IN_HAND


def test_records_handled_behind_a_slow_one_count_before_the_committed_offset_passes_them() -> None:
    broker = Harness()
    for begin in range(1, 1_000, 100):
        commit(broker, range(begin, begin + 5), handled=95)
    assert breaker_state(broker) is BreakerState.CLOSED
