"""What many failed offsets cost. Memory is counted by the allocator, so the figure does not depend on the machine."""

import tracemalloc

import pytest

from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Now, StateRecord
from logsvc.coordinator.state_log import failure_record
from logsvc_common.delivery import FailedOffset, State
from tests.unit.coordinator.harness import WALL_MS, FakeLogs

BYTES_EACH_MAX = 1_000  # 100,000 failed offsets stay below 100 MiB


def records(count: int) -> list[StateRecord]:
    return [
        failure_record(
            "g",
            "t",
            offset % 4,
            offset,
            FailedOffset(
                State.WAITING,
                1,
                offset * 7_919,
                due_ms=WALL_MS + offset,
                wait_ms=1_000,
                first_failure_ms=WALL_MS + offset,
                error=f"ValueError: cannot parse line {offset}: unexpected token near the end of the request field",
            ),
        )
        for offset in range(count)
    ]


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_failed_offset_costs_less_than_a_kilobyte(count: int) -> None:
    made = records(count)
    coordinator = Coordinator(FakeLogs(t=[count] * 4), unit=lambda: 0.5)
    tracemalloc.start()
    for record in made:
        coordinator.replay(record)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert coordinator.describe("g", Now(WALL_MS, 0)).failed == count
    assert used / count < BYTES_EACH_MAX
