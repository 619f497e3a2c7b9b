"""Progress passes records that are parked or skipped while earlier ones are still in the user's hands."""

from itertools import permutations

import pytest

from logsvc_client.progress import PartitionProgress
from logsvc_client.records import Record, TopicPartition

TP = TopicPartition("t", 0)


def record(offset: int, key: bytes = b"k") -> Record:
    return Record("t", 0, offset, 0, key, b"v")


@pytest.mark.parametrize("order", list(permutations(["fail 0", "finish 1", "park 2", "skip 3"])))
def test_whatever_the_order_all_are_passed_at_the_end_and_nothing_is_left_in_hand(order: tuple[str, ...]) -> None:
    progress = PartitionProgress(TP)
    progress.begin(0)
    for offset in range(4):
        progress.hand_out([record(offset)])
    told: set[int] = set()
    for step in order:
        # Never past a record that nothing has been said about.
        assert progress.handled <= min(set(range(4)) - told)
        what, number = step.split()
        offset = int(number)
        told.add(offset)
        if what == "fail":
            progress.fail(record(offset), "no", "ValueError", "")
        elif what == "park":
            progress.park(record(offset))
        elif what == "skip":
            progress.skip(offset)
        else:
            progress.finish(record(offset))
    assert progress.handled == 4
    assert not progress.in_hand
