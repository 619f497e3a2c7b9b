"""The HTTP listener: its three pages, what they say in each state, and ports that cannot be had."""

import asyncio
import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from logsvc.listeners.http import DegradedPartition, Health, HttpListener
from logsvc.metrics import BrokerMetrics, DiskSample, PartitionColumns, Sample
from logsvc_common.errors import AddressInUse, StartError

READY = Health(recovered=True, started_ms=1_000)


@asynccontextmanager
async def listening(health: Health = READY, metrics: BrokerMetrics | None = None) -> AsyncIterator[HttpListener]:
    listener = HttpListener(host="127.0.0.1", port=0, metrics=metrics or BrokerMetrics(), health=lambda: health)
    listener.bind()
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


async def get(url: str, **headers: str) -> tuple[int, str, str]:
    def fetch() -> tuple[int, str, str]:
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()

    return await asyncio.to_thread(fetch)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_metrics_are_served_as_prometheus_text() -> None:
    async def scenario() -> None:
        metrics = BrokerMetrics(source=lambda: [PartitionColumns([("orders", 0)], [0], [5], [100], ["online"])])
        async with listening(metrics=metrics) as listener:
            status, content_type, body = await get(f"{listener.url}/metrics")
        assert status == 200
        assert content_type.startswith("text/plain; version=0.0.4")
        assert 'logsvc_partition_end_offset{topic="orders",partition="0"} 5' in body

    run(scenario)


def test_metrics_are_served_as_openmetrics_when_asked_for() -> None:
    async def scenario() -> None:
        async with listening() as listener:
            _, content_type, body = await get(f"{listener.url}/metrics", Accept="application/openmetrics-text;version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert body.endswith("# EOF\n")

    run(scenario)


def test_the_state_is_read_in_the_event_loop_that_owns_it() -> None:
    async def scenario() -> None:
        loops = []

        def source() -> Iterator[Sample]:
            loops.append(asyncio.get_running_loop())  # RuntimeError in any other thread
            yield DiskSample(1, 2, 3)

        async with listening(metrics=BrokerMetrics(source=source)) as listener:
            status, _, _ = await get(f"{listener.url}/metrics")
        assert status == 200
        assert loops == [asyncio.get_running_loop()]

    run(scenario)


def test_healthy_and_ready() -> None:
    async def scenario() -> None:
        async with listening() as listener:
            status, _, body = await get(f"{listener.url}/healthz")
            assert (status, json.loads(body)["status"]) == (200, "ok")
            status, _, body = await get(f"{listener.url}/readyz")
            assert (status, json.loads(body)) == (200, {"status": "ready"})

    run(scenario)


def test_a_failed_partition_is_named_but_the_process_counts_as_alive() -> None:
    async def scenario() -> None:
        health = READY._replace(degraded=[DegradedPartition("orders", 3, "failed", "fsync: EIO")])
        async with listening(health) as listener:
            status, _, body = await get(f"{listener.url}/healthz")
        assert status == 200
        assert json.loads(body)["status"] == "degraded"
        assert json.loads(body)["degraded_partitions"] == [
            {"topic": "orders", "partition": 3, "state": "failed", "reason": "fsync: EIO"}
        ]

    run(scenario)


def test_ten_thousand_failed_partitions_are_counted_and_the_first_hundred_named() -> None:
    async def scenario() -> None:
        health = READY._replace(degraded=[DegradedPartition("t", partition, "failed") for partition in range(10_000)])
        async with listening(health) as listener:
            _, _, body = await get(f"{listener.url}/healthz")
        assert json.loads(body)["degraded_partition_count"] == 10_000
        assert len(json.loads(body)["degraded_partitions"]) == 100

    run(scenario)


@pytest.mark.parametrize(
    ("health", "status"), [(Health(recovered=False), "recovering"), (Health(recovered=True, stopping=True), "stopping")]
)
def test_not_ready_while_recovering_or_stopping(health: Health, status: str) -> None:
    async def scenario() -> None:
        async with listening(health) as listener:
            code, _, body = await get(f"{listener.url}/readyz")
        assert (code, json.loads(body)) == (503, {"status": status})

    run(scenario)


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/healthz/", "/..%2fetc/passwd"])
def test_unknown_paths_are_not_found(path: str) -> None:
    async def scenario() -> None:
        async with listening() as listener:
            status, _, _ = await get(f"{listener.url}{path}")
        assert status == 404

    run(scenario)


def test_a_port_in_use_is_told_with_what_to_do_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        listener = HttpListener(host="127.0.0.1", port=port, metrics=BrokerMetrics(), health=Health)
        with pytest.raises(AddressInUse, match=rf"127\.0\.0\.1:{port} is in use.*--http-port"):
            listener.bind()


def test_an_address_of_another_machine_is_told() -> None:
    listener = HttpListener(host="192.0.2.1", port=0, metrics=BrokerMetrics(), health=Health)
    with pytest.raises(StartError, match="--http-host"):
        listener.bind()


def test_the_port_is_free_again_after_stop_and_stopping_twice_does_no_harm() -> None:
    async def scenario() -> None:
        async with listening() as listener:
            port = listener.port
            await listener.stop()
        await listener.stop()
        with socket.create_server(("127.0.0.1", port)):
            pass

    run(scenario)


def test_bound_but_never_started_gives_the_port_back() -> None:
    async def scenario() -> None:
        listener = HttpListener(host="127.0.0.1", port=0, metrics=BrokerMetrics(), health=Health)
        listener.bind()
        port = listener.port
        await listener.stop()
        with socket.create_server(("127.0.0.1", port)):
            pass

    run(scenario)


def test_signal_handlers_stay_the_applications() -> None:
    async def scenario() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with listening():
            assert signal.getsignal(signal.SIGTERM) is before

    run(scenario)
