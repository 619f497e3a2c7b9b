"""The whole service, simulated from seeds: nothing acknowledged is lost, nothing comes twice or out of order, everything ends.

`make simulate` runs as many as you like; see docs/simulation.md. A seed that fails here is replayed by `make simulate SEED=n`.
"""

import os
import subprocess
import sys
import time

import pytest

from logsvc.storage.producer_state import ProducerState
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_client.lanes import Lanes
from logsvc_client.progress import PartitionProgress
from logsvc_common.delivery import FailedOffsets
from tests.simulation.plan import FAULTS, Fault, plan_of
from tests.simulation.world import World

CASES = 10
SEEDS_PER_CASE = 50
SEEDS_PER_LONG_CASE = 1_000


def run_block(first: int, count: int) -> None:
    begun, virtual_ms, deaths, records = time.process_time(), 0, 0, 0
    for seed in range(first, first + count):
        world = World(seed)
        wrong = world.run()
        assert not wrong, f"make simulate SEED={seed}: {wrong[:5]}"
        virtual_ms += world.time.monotonic_ms()
        deaths += world.host.deaths
        records += len(world.ledger.acked)
    seconds = time.process_time() - begun
    print(
        f"{count} seeds from {first}: {records} records acknowledged, {deaths} deaths of the broker, "
        f"{virtual_ms / 60_000:.0f} virtual minutes, {seconds:.1f} s of CPU, {count / seconds:.1f} seeds/s"
    )


@pytest.mark.parametrize("block", range(CASES))
def test_whatever_goes_wrong_the_history_has_no_anomaly(block: int) -> None:
    run_block(1 + block * SEEDS_PER_CASE, SEEDS_PER_CASE)


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_seeds(block: int) -> None:
    run_block(100_000 + block * SEEDS_PER_LONG_CASE, SEEDS_PER_LONG_CASE)


def test_a_seed_is_one_run_and_no_other() -> None:
    first, again, other = World(7), World(7), World(8)
    assert first.run() == again.run()
    assert first.trace.hash == again.trace.hash
    assert first.trace.lines == again.trace.lines > 500
    other.run()
    assert other.trace.hash != first.trace.hash


def test_a_trace_that_is_shown_is_the_same_trace() -> None:
    lines: list[str] = []
    shown, unseen = World(11, show=lines.append), World(11)
    shown.run()
    unseen.run()
    assert shown.trace.hash == unseen.trace.hash
    assert len(lines) > shown.trace.lines


def test_a_run_does_not_depend_on_how_python_hashes() -> None:
    seeds = (3, 9, 14)
    code = (
        "from tests.simulation.world import World\n"
        f"for seed in {seeds}:\n    world = World(seed); world.run(); print(world.trace.hash)\n"
    )
    found = set()
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        found.add(ran.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == len(seeds)


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {fault.kind for seed in range(1, 1 + CASES * SEEDS_PER_CASE) for fault in plan_of(seed).faults}
    assert drawn == {kind for kind, _ in FAULTS}


# The harness is tested: a service that breaks a promise does not pass.


def caught(kinds: set[str], *, disk: type[SimulatedDisk] = SimulatedDisk, **changes: object) -> bool:
    """Whether one of a few seeds, their plans changed, shows one of these anomalies."""
    for seed in range(30, 60):
        world = World(seed, plan=plan_of(seed)._replace(**{"records": 60, "chaos_ms": 4_000, **changes}))
        world.host.disk = disk()
        if kinds & {anomaly.kind for anomaly in world.run()}:
            return True
    return False


def often(kind: str) -> tuple[Fault, ...]:
    return tuple(Fault(at_ms, kind) for at_ms in range(300, 3_000, 300))


class LyingDisk(SimulatedDisk):
    """Its datasync does nothing."""

    def sync_file(self, node: object) -> None:
        pass


def test_a_disk_that_lies_is_caught() -> None:
    assert caught({"lost-write"}, disk=LyingDisk)


def test_a_broker_that_forgets_its_producers_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProducerState, "check", lambda _self, _header: None)
    assert caught({"duplicate", "nonmonotonic-send"}, records=100, faults=often("cut one way") + often("kill"))


def test_a_client_that_forgets_a_refused_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartitionProgress, "refused", lambda _self, _sent: None)
    assert caught({"unseen"}, producers=1, faults=often("disk error"), bad_share=0.5)


def test_a_consumer_that_forgets_the_order_of_keys_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lanes, "waits", lambda _self, _key: False)
    monkeypatch.setattr(Lanes, "any_waits", lambda _self, _records: False)
    assert caught({"key-order-broken"}, bad_share=0.5, faults=())


def test_a_redriven_record_that_is_dropped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lanes, "follow", lambda _self, _record, _key_hash: None)
    assert caught({"stuck", "unseen"}, bad_share=0.5, faults=often("redrive"))


def test_a_coordinator_that_hands_records_to_those_who_are_gone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailedOffsets, "release", lambda _self: None)
    assert caught({"stuck", "unseen"}, faults=often("kill client"), bad_share=0.5)
