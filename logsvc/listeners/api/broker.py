"""The broker itself: is it well, how fast is it, who may write."""

import asyncio

import msgspec

import logsvc
from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.history import BrokerHistory, broker_history
from logsvc.listeners.api.operations import Given, Operation
from logsvc.listeners.api.process import measure
from logsvc.listeners.api.topics import group_listings
from logsvc_common.messages import Metadata, MetadataReply

DEGRADED_SHOWN = 100  # partitions named; their number is told


class Degraded(msgspec.Struct, forbid_unknown_fields=True):
    """A partition that is not online, and why."""

    topic: str
    partition: int
    state: str
    reason: str


class Disk(msgspec.Struct, forbid_unknown_fields=True):
    """The file system of the data folder. Writes are refused below `reserve_bytes` free."""

    free_bytes: int
    size_bytes: int
    reserve_bytes: int


class Rates(msgspec.Struct, forbid_unknown_fields=True):
    """What the broker takes and gives, a second; null until two moments are known."""

    appended_records_per_s: float | None
    appended_bytes_per_s: float | None
    fetched_bytes_per_s: float | None


class Quantiles(msgspec.Struct, forbid_unknown_fields=True):
    """Milliseconds; null while nothing was measured."""

    p50: float | None
    p99: float | None


class BrokerState(msgspec.Struct, forbid_unknown_fields=True):
    """The broker now. `status` is `ok`, or `degraded` while a partition is not online; the first 100 of those are named.
    `memory_bytes` is resident, `connected_clients` counts TCP connections to the endpoint. What is not known is null.
    `groups_error` says why no groups are served, while their log cannot be read."""

    version: str
    now_ms: int
    started_ms: int
    endpoint: str
    status: str
    writes: bool
    degraded_partition_count: int
    degraded_partitions: list[Degraded]
    disk: Disk | None
    rates: Rates
    append_ms: Quantiles
    fsync_ms: Quantiles
    memory_bytes: int | None
    open_files: int | None
    connected_clients: int | None
    topics: int
    partitions: int
    groups: int
    groups_error: str | None


class Session(msgspec.Struct, forbid_unknown_fields=True):
    """`token` goes into the header X-Logsvc-Token of what changes something; null where nothing may."""

    writes: bool
    token: str | None


async def get_broker(backend: Backend, given: Given) -> BrokerState:
    """Show how the broker is"""
    health = backend.health()
    process = await asyncio.to_thread(measure, backend.endpoint)
    topics = (await backend.ask(Metadata(), MetadataReply)).topics
    groups, groups_error = await group_listings(backend)
    return BrokerState(
        version=logsvc.__version__,
        now_ms=backend.clock.wall_ms(),
        started_ms=health.started_ms,
        endpoint=backend.endpoint,
        status="degraded" if health.degraded else "ok",
        writes=backend.writes,
        degraded_partition_count=len(health.degraded),
        degraded_partitions=[Degraded(**part._asdict()) for part in health.degraded[:DEGRADED_SHOWN]],
        disk=_disk(backend),
        rates=Rates(*backend.history.rates()),
        append_ms=Quantiles(*backend.history.append_ms()),
        fsync_ms=Quantiles(*backend.history.fsync_ms()),
        memory_bytes=process.memory_bytes,
        open_files=process.open_files,
        connected_clients=process.connected_clients,
        topics=len(topics),
        partitions=sum(topic.partition_count for topic in topics),
        groups=len(groups),
        groups_error=groups_error,
    )


def _disk(backend: Backend) -> Disk | None:
    try:
        return Disk(*backend.disk_space())
    except OSError:  # the disk is gone; its partitions say so
        return None


async def get_broker_history(backend: Backend, given: Given) -> BrokerHistory:
    """Show the broker's last hour"""
    return broker_history(backend.history)


async def get_session(backend: Backend, given: Given) -> Session:
    """Get the token that writes need

    It is made anew at every start of the broker. Only a page of the broker's own can read it.
    """
    return Session(backend.writes, backend.token if backend.writes else None)


OPERATIONS = (
    Operation("GET", "/broker", get_broker, BrokerState),
    Operation("GET", "/broker/history", get_broker_history, BrokerHistory),
    Operation("GET", "/session", get_session, Session),
)
