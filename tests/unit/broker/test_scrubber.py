"""The scrubber goes round all segments at its rate, marks what is damaged as a read would, and mends what is derived."""

import errno
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc.broker.scrubber import BATCH_BYTES_MIN, FIRST_ROUND_AFTER_MS, Scrubber, due_after
from logsvc.metrics import BrokerMetrics
from logsvc.storage import scrub
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionState
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.errors import PartitionCorrupt
from logsvc_common.messages import CreateTopic, Produce, ProducePartition
from tests.simulation.service import SimulatedService
from tests.storage_support import append_numbered, encode, numbered, read_all

RATE = 1 << 20
INTERVAL_MS = 3_600_000
DATA = "data"


class World:
    """A data folder, its scrubber, a clock, and one worker thread that runs when it is told to."""

    def __init__(self, *, topics: int = 2, batches: int = 60, rate: int = RATE, segment_bytes: int = 1_024) -> None:
        self.disk = SimulatedDisk()
        self.logs = LogDirectory.open(self.disk, DATA, now_ms=0)
        for number in range(topics):
            self.logs.create_topic(f"t{number}", 1, {"segment.bytes": str(segment_bytes), "index.interval.bytes": "200"})
            for _ in range(batches):
                append_numbered(self.log(number))
            self.log(number).sync()
        self.now_ms = 0
        self.metrics = BrokerMetrics()
        self.jobs: list[Callable[[], None]] = []
        self.scrubber = Scrubber(
            self.logs,
            self.metrics.scrub,
            bytes_per_second=rate,
            interval_ms=INTERVAL_MS,
            monotonic_ms=lambda: self.now_ms,
            unit=Random(1).random,
            run_in_thread=self.jobs.append,
            from_thread=lambda call: call(),
        )

    def log(self, number: int):  # type: ignore[no-untyped-def]
        return self.logs.partition(f"t{number}", 0)

    def step(self) -> bool:
        """Wait for what is due and let it happen; False when nothing ever is."""
        due_ms = self.scrubber.next_due_ms()
        if due_ms is None:
            return False
        self.now_ms = max(self.now_ms, due_ms)
        self.scrubber.run(self.now_ms)
        while self.jobs:
            self.jobs.pop(0)()
        return True

    def round(self) -> None:
        """Run until a whole round has ended."""
        before = self.scrubber.round_age_ms()
        for _ in range(10_000):
            assert self.step()
            age_ms = self.scrubber.round_age_ms()
            if age_ms == 0 and (before is None or age_ms <= before):
                return
        raise AssertionError("the round does not end")

    def files(self, number: int, suffix: str) -> list[str]:
        folder = f"{DATA}/t{number}-0"
        return [f"{folder}/{name}" for name in self.disk.listdir(folder) if name.endswith(suffix)]

    def flip(self, path: str, position: int) -> None:
        node = self.disk._file(path)  # in place: the active segment's file is open
        for content in (node.content, node.durable):
            if position < len(content):  # indexes are not synced
                content[position] ^= 1

    @property
    def damaged(self) -> int:
        return self.metrics.scrub.damaged_batches.value


@given(st.integers(0, 1 << 40), st.integers(0, 64 << 20), st.integers(0, 1_000), st.integers(1, 1 << 33))
def test_the_rate_is_never_exceeded(began_ms: int, checked_bytes: int, batches: int, rate: int) -> None:
    waits_ms = due_after(began_ms, checked_bytes, batches, rate) - began_ms
    assert waits_ms * rate >= 1_000 * max(checked_bytes, batches * BATCH_BYTES_MIN)
    assert (waits_ms - 1) * rate < 1_000 * max(checked_bytes, batches * BATCH_BYTES_MIN)


def test_a_sound_log_is_read_once_a_round_to_the_last_byte_and_stays_as_it_is() -> None:
    world = World()
    size = sum(world.log(number).size_bytes for number in range(2))
    world.round()
    assert world.metrics.scrub.checked_bytes.value == size
    assert (world.damaged, world.metrics.scrub.rebuilt_indexes.value) == (0, 0)
    began_ms = world.now_ms
    world.round()
    assert world.metrics.scrub.checked_bytes.value == 2 * size
    assert world.now_ms - began_ms >= INTERVAL_MS - 60_000
    assert {log.state for log in world.logs.all_partitions()} == {PartitionState.ONLINE}


def test_the_first_round_waits_for_the_start_to_be_over_and_rate_zero_is_off() -> None:
    assert World(topics=0).scrubber.next_due_ms() == FIRST_ROUND_AFTER_MS
    off = World(rate=0)
    assert off.scrubber.next_due_ms() is None
    off.scrubber.run(10**9)
    assert not off.jobs


def test_a_round_takes_as_long_as_its_bytes_at_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "STRETCH_BYTES", 4_096)
    world = World(topics=1, batches=2_000, rate=4 * BATCH_BYTES_MIN, segment_bytes=64 << 10)
    batches = 2_000
    world.round()
    seconds = (world.now_ms - FIRST_ROUND_AFTER_MS) / 1_000
    assert seconds == pytest.approx(batches * BATCH_BYTES_MIN / (4 * BATCH_BYTES_MIN), rel=0.05)


def test_one_stretch_at_a_time_however_long_the_disk_takes() -> None:
    world = World()
    world.now_ms = FIRST_ROUND_AFTER_MS
    world.scrubber.run(world.now_ms)
    assert len(world.jobs) == 1
    world.now_ms += 60_000
    world.scrubber.run(world.now_ms)
    assert len(world.jobs) == 1


@pytest.mark.parametrize("which", [0, 1, -1])
def test_damage_makes_the_partition_read_only_and_is_counted_and_named(which: int) -> None:
    world = World()
    path = world.files(1, ".log")[which]
    world.flip(path, 70)
    offset = int(path.rpartition("/")[2].removesuffix(".log"))
    world.round()
    log = world.log(1)
    assert log.state is PartitionState.READ_ONLY
    assert f"offset {offset}" in log.state_reason
    assert world.damaged == 1
    assert world.log(0).state is PartitionState.ONLINE
    assert read_all(log, offset + 2)[0][0] == offset + 2
    with pytest.raises(PartitionCorrupt, match=f"offset {offset}"):
        log.read(offset, 1)
    reborn = LogDirectory.open(world.disk.kill(), DATA, now_ms=0)
    assert reborn.partition("t1", 0).state is PartitionState.READ_ONLY, "a restart does not forget it"


def test_a_rotten_index_is_built_anew_and_nobody_notices() -> None:
    world = World()
    path = world.files(0, ".index")[0]
    good = world.disk.content(path)
    world.flip(path, 3)
    world.round()
    assert world.disk.content(path) == good
    assert world.metrics.scrub.rebuilt_indexes.value == 2
    assert world.log(0).state is PartitionState.ONLINE
    assert read_all(world.log(0)) == numbered(0, 120)


def test_a_disk_that_cannot_be_read_takes_the_partition_offline_as_a_read_would() -> None:
    world = World()
    world.disk.fail("read", path_part="t1-0", forever=True)
    world.round()
    assert world.log(1).state is PartitionState.FAILED
    assert world.log(0).state is PartitionState.ONLINE


def test_too_few_file_descriptors_are_not_the_disks_fault() -> None:
    world = World()
    world.disk.fail("open", path_part="t1-0", nth=2, error=errno.EMFILE)
    world.round()
    assert {log.state for log in world.logs.all_partitions()} == {PartitionState.ONLINE}
    assert world.metrics.scrub.checked_bytes.value == sum(world.log(number).size_bytes for number in range(2))


def test_what_is_trimmed_rewritten_or_deleted_under_the_scrubber_is_not_held_against_the_log() -> None:
    world = World(topics=3)
    world.now_ms = FIRST_ROUND_AFTER_MS
    changes: list[Callable[[], object]] = [
        lambda: world.log(0).trim(60),
        lambda: world.logs.delete_topic("t1"),
        lambda: world.logs.create_topic("t1", 1, {}),
        lambda: world.log(2).trim(120),
    ]
    rounds = 0
    while rounds < 2:
        world.now_ms = max(world.now_ms, world.scrubber.next_due_ms() or 0)
        world.scrubber.run(world.now_ms)
        if changes:
            changes.pop(0)()
        while world.jobs:
            world.jobs.pop(0)()
        rounds += world.scrubber.round_age_ms() == 0
    assert world.damaged == 0
    assert {log.state for log in world.logs.all_partitions()} == {PartitionState.ONLINE}


def test_records_appended_meanwhile_are_read_when_they_are_durable() -> None:
    world = World(topics=1, batches=3)
    for _ in range(3):
        append_numbered(world.log(0))
    durable_bytes = world.log(0)._durable.position
    world.round()
    assert world.metrics.scrub.checked_bytes.value == durable_bytes
    world.log(0).sync()
    world.round()
    assert world.metrics.scrub.checked_bytes.value == durable_bytes + world.log(0).size_bytes


def test_the_broker_scrubs_by_its_own_timer_and_says_what_it_found() -> None:
    service = SimulatedService(1)
    service.ask(CreateTopic("orders", 1))
    for _ in range(3):
        service.ask(Produce([ProducePartition("orders", 0)]), [encode([b"value" * 20])])
    node = service.disk._file(f"/data/orders-0/{0:020d}.log")
    node.content[200] ^= 1
    node.durable[200] ^= 1
    log = service.logs.partition("orders", 0)
    service.time.run(lambda: log.state is PartitionState.READ_ONLY, limit_ms=FIRST_ROUND_AFTER_MS + 5_000)
    service.metrics.source = service.broker.samples
    service.time.run(lambda: "\nlogsvc_scrub_round_age_seconds " in service.metrics.render()[0].decode(), limit_ms=5_000)
    scraped = service.metrics.render()[0].decode()
    assert "\nlogsvc_scrub_damaged_batches_total 1\n" in scraped
    assert 'logsvc_partition_state{topic="orders",partition="0",state="read_only"} 1' in scraped
