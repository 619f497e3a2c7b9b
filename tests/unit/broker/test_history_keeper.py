"""The history as a whole broker keeps it, in a simulation where ten seconds pass in no time."""

from itertools import zip_longest

import pytest

from logsvc.broker.history import INTERVAL_MS
from logsvc.metrics import PositionColumns, Sample
from logsvc_common.batch import RecordData, encode
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CreateTopic,
    Fetch,
    FetchPartition,
    ListGroups,
    Produce,
    ProducePartition,
)
from tests.simulation.service import SimulatedService


def pass_time(service: SimulatedService, ms: int) -> None:
    until_ms = service.time.now_ms + ms
    service.time.call_later(ms / 1000, lambda: None)
    service.time.run(lambda: service.time.now_ms >= until_ms, limit_ms=ms + 1_000)
    service.time.run(lambda: service.broker._keeper._gathering is None)


def commit(service: SimulatedService, offset: int) -> None:
    service.ask(Commit("billing", "", NO_MEMBER_EPOCH, [CommitPartition("orders", 0, offset)]))


def test_a_point_every_ten_seconds_tells_rates_and_lag() -> None:
    service = SimulatedService(seed=1)
    pass_time(service, 100)  # the first point
    service.ask(CreateTopic("orders", 1))
    written_ms = service.time.now_ms
    batch = encode([RecordData(b"value", None, written_ms) for _ in range(50)])
    service.ask(Produce([ProducePartition("orders", 0)]), [batch])
    commit(service, 10)
    service.ask(Fetch([FetchPartition("orders", 0, 0, 1 << 20)], max_wait_ms=0, min_bytes=1, max_bytes=1 << 20))
    pass_time(service, INTERVAL_MS)
    history = service.broker.history
    assert history.rates().appended_records_per_s == pytest.approx(5.0, rel=0.01)
    topic = history.topic("orders")
    assert topic is not None
    assert topic.series["appended_records_per_s"][-1] == pytest.approx(5.0, rel=0.01)
    assert (topic.series["fetched_bytes_per_s"][-1] or 0) > 0
    group = history.group("billing")
    assert group is not None
    assert group.series["lag"][-1] == 40
    assert group.series["failed"][-1] == 0
    assert group.series["lag_seconds"][-1] == pytest.approx((group.times_ms[-1] - written_ms) / 1_000, abs=0.1)

    commit(service, 50)
    pass_time(service, INTERVAL_MS)
    group = history.group("billing")
    assert group is not None
    assert (group.series["lag"][-1], group.series["lag_seconds"][-1]) == (0, 0)
    assert history.rates().appended_records_per_s == 0.0
    assert history.topic("__logsvc_groups") is None


def test_a_broker_that_nobody_uses_keeps_its_hour_and_no_more() -> None:
    service = SimulatedService(seed=2)
    service.ask(CreateTopic("idle", 1, {}))
    pass_time(service, 4_000_000)
    view = service.broker.history.broker()
    assert len(view.times_ms) == 360
    assert view.times_ms == sorted(view.times_ms)
    assert {later - earlier for earlier, later in zip(view.times_ms, view.times_ms[1:], strict=False)} == {INTERVAL_MS}
    assert view.series["appended_records_per_s"] == [0.0] * 360
    assert view.series["fsync_p99_ms"] == [None] * 360


def test_passes_over_the_groups_may_overlap() -> None:
    service = SimulatedService(seed=3)
    service.ask(CreateTopic("orders", 40))
    for partition in range(40):
        batch = encode([RecordData(b"value", None, service.time.now_ms - 1_000 * partition) for _ in range(3)])
        service.ask(Produce([ProducePartition("orders", partition)]), [batch])
    for group in ("a", "b"):
        service.ask(Commit(group, "", NO_MEMBER_EPOCH, [CommitPartition("orders", partition, 1) for partition in range(40)]))
    passes = [service.broker.groups.samples() for _ in range(3)]
    found: list[list[Sample]] = [[] for _ in passes]
    for number, step in enumerate(zip_longest(*passes)):
        for samples, sample in zip(found, step, strict=True):
            samples += [sample] if sample is not None else []
        if number == 1:
            service.ask(CreateTopic("another", 3))  # all partitions have other numbers now
            service.ask(ListGroups())
    alone = [sample for sample in service.broker.groups.samples() if sample is not None]
    positions = [sample for sample in alone if isinstance(sample, PositionColumns)]
    assert [(sample.group, len(sample.where)) for sample in positions] == [("a", 40), ("b", 40)]
    for samples in found:
        assert [sample for sample in samples if isinstance(sample, PositionColumns)] == positions
