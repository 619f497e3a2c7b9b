"""Topics and groups: making, changing, describing. Each verb is one request; the async twin has the same verbs.

Every verb raises the broker's typed error, or RequestTimeout when no broker answered within `timeout_ms`. A request whose
answer was lost is sent again, so creating a topic that a lost request has made already ends in TopicExists: the error
says what is true now.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from logsvc_client.quotas import AsyncQuotaVerbs, QuotaVerbs
from logsvc_client.records import TopicPartition
from logsvc_client.transport import DEFAULT_CALL_TIMEOUT_MS, DEFAULT_SERVER, Transport
from logsvc_common.breaker import BreakerConfig
from logsvc_common.errors import UnknownTopic, from_wire
from logsvc_common.messages import (
    EARLIEST,
    LATEST,
    AlterTopic,
    CancelRedrive,
    CancelRedriveReply,
    ConfigureGroup,
    ConfigureGroupReply,
    CreateTopic,
    DeleteGroup,
    DeleteGroupReply,
    DeleteTopic,
    DescribeGroup,
    DescribeGroupReply,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchOffsetsResult,
    GroupListing,
    Hello,
    HelloReply,
    LetterTopic,
    ListGroups,
    ListGroupsReply,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
    ListRedrives,
    ListRedrivesReply,
    Message,
    Metadata,
    MetadataReply,
    Redrive,
    RedriveFilter,
    Request,
    ResetGroup,
    ResetGroupReply,
    ResetResult,
    Result,
    ResumeGroup,
    ResumeGroupReply,
    StartRedrive,
    StartRedriveReply,
    TopicDescription,
    TopicReply,
    TrimTopic,
    TrimTopicReply,
)
from logsvc_common.names import check_group, check_topic, is_dead_letter

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT", bound=Result)


def checked(result: ResultT) -> ResultT:
    """The result itself; raises the error it carries."""
    if result.error_code:
        raise from_wire(result.error_code, result.error_message)
    return result


def _described(reply: MetadataReply) -> list[TopicDescription]:
    return [checked(topic) for topic in reply.topics]


def _offsets(reply: ListOffsetsReply) -> dict[TopicPartition, int]:
    return {TopicPartition(r.topic, r.partition): checked(r).offset for r in reply.results}


def _committed(reply: FetchOffsetsReply) -> dict[TopicPartition, FetchOffsetsResult]:
    return {TopicPartition(r.topic, r.partition): checked(r) for r in reply.results}


def _list_offsets(times: Mapping[TopicPartition, int]) -> ListOffsets:
    return ListOffsets([ListOffsetsPartition(topic, partition, time_ms) for (topic, partition), time_ms in times.items()])


def _fetch_offsets(group: str, partitions: Sequence[TopicPartition] | None) -> FetchOffsets:
    wanted = None if partitions is None else [FetchOffsetsPartition(*partition) for partition in partitions]
    return FetchOffsets(check_group(group), wanted)


def _start_redrive(
    group: str, topic: str | None, where: RedriveFilter | None, rate_per_s: int, limit: int, dry_run: bool
) -> StartRedrive:
    # The token: should the answer be lost, the request that is sent again finds the redrive it has started.
    where = RedriveFilter() if where is None else where
    return StartRedrive(check_group(group), topic, where, rate_per_s, limit, dry_run, secrets.token_hex(16))


def _to_purge(topic: str) -> str:
    if not is_dead_letter(check_topic(topic)):
        raise UnknownTopic(f"{topic} is not a dead-letter topic")
    return topic


class _Connected:
    """A transport of its own, started."""

    def __init__(self, server: str = DEFAULT_SERVER, *, client_id: str = "", timeout_ms: int = DEFAULT_CALL_TIMEOUT_MS) -> None:
        self.timeout_ms = timeout_ms
        self._transport = Transport(server, client_id=client_id)
        self._transport.start()

    def _submit(self, body: Request, expected: type[ResponseT]) -> "Future[ResponseT]":
        return self._transport.submit(body, expected, self.timeout_ms)


class Admin(_Connected, QuotaVerbs):
    """Administration of a broker.

        with Admin("tcp://127.0.0.1:9292") as admin:
            admin.create_topic("orders", partitions=4, config={"retention.ms": "86400000"})

    `timeout_ms` bounds every verb. Safe to share between threads.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._transport.stop()

    def _call(self, body: Request, expected: type[ResponseT]) -> ResponseT:
        return self._submit(body, expected).result()

    def ping(self) -> HelloReply:
        """Who the broker is: its id (new with every start), its software and limits."""
        return self._call(Hello(), HelloReply)

    def create_topic(self, topic: str, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicDescription:
        """Make a topic. `config` holds settings by Kafka's names, values as text.

        Raises InvalidTopicName, TopicExists, InvalidPartitions, InvalidConfig.
        """
        return self._call(CreateTopic(check_topic(topic), partitions, dict(config or {})), TopicReply).topic

    def alter_topic(
        self, topic: str, *, partitions: int | None = None, config: Mapping[str, str | None] | None = None
    ) -> TopicDescription:
        """Grow a topic to `partitions`, change settings; None as a value goes back to the default."""
        return self._call(AlterTopic(check_topic(topic), partitions, dict(config or {})), TopicReply).topic

    def delete_topic(self, topic: str) -> TopicDescription:
        """Delete a topic and its records. Returns what it was. Raises UnknownTopic."""
        return self._call(DeleteTopic(check_topic(topic)), TopicReply).topic

    def list_topics(self, *, internal: bool = False) -> list[TopicDescription]:
        """Every topic, by name; with `internal`, the broker's own too."""
        topics = _described(self._call(Metadata(), MetadataReply))
        return sorted((t for t in topics if internal or not t.internal), key=lambda t: t.topic)

    def describe_topics(self, topics: Sequence[str] | None = None) -> list[TopicDescription]:
        """Topics with their settings and each partition's offsets, size and state. Raises UnknownTopic."""
        return _described(self._call(Metadata(None if topics is None else list(topics), True), MetadataReply))

    def trim(self, topic: str, partition: int, offset: int = -1) -> int:
        """Forget the records below `offset` (-1: all there are now). Returns the new start offset."""
        return self._call(TrimTopic(check_topic(topic), partition, offset), TrimTopicReply).start_offset

    def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The first offset at or after each time in ms since the epoch; -1 where there is none."""
        return _offsets(self._call(_list_offsets(times), ListOffsetsReply))

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        return self.offsets_for_times(dict.fromkeys(partitions, EARLIEST))

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """One past the last offset of each partition."""
        return self.offsets_for_times(dict.fromkeys(partitions, LATEST))

    def list_groups(self) -> list[GroupListing]:
        """Every group with its state, members and lag."""
        return self._call(ListGroups(), ListGroupsReply).groups

    def describe_group(self, group: str) -> DescribeGroupReply:
        """A group's members, and for each partition its offsets, lag and failed records. Raises UnknownGroup."""
        return self._call(DescribeGroup(check_group(group)), DescribeGroupReply)

    def configure_group(self, settings: ConfigureGroup) -> BreakerConfig:
        """Change the settings of a group that are not None; returns all of them. Raises InvalidConfig."""
        return self._call(settings, ConfigureGroupReply).breaker

    def reset_group(self, reset: ResetGroup) -> list[ResetResult]:
        """Set where a group reads on, as in `ResetGroup("billing", "earliest", topic="orders", dry_run=True)`. Returns the old
        and the new offset of each partition. Raises GroupNotEmpty while it has active members, UnknownGroup, UnknownTopic."""
        return [checked(result) for result in self._call(reset, ResetGroupReply).results]

    def delete_group(self, group: str) -> DeleteGroupReply:
        """Forget a group. Raises GroupNotEmpty while it has active members, UnknownGroup."""
        return self._call(DeleteGroup(check_group(group)), DeleteGroupReply)

    def resume_group(self, group: str, *, topic: str | None = None, partition: int | None = None) -> ResumeGroupReply:
        """Close a group's breaker, and let its paused records be tried again. Raises UnknownGroup."""
        return self._call(ResumeGroup(check_group(group), topic, partition), ResumeGroupReply)

    def committed_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, FetchOffsetsResult]:
        """Where a group stands, and which records it has failed; everywhere it has committed, or in `partitions`."""
        return _committed(self._call(_fetch_offsets(group, partitions), FetchOffsetsReply))

    def redrive(
        self,
        group: str,
        *,
        topic: str | None = None,
        where: RedriveFilter | None = None,
        rate_per_s: int = 0,
        limit: int = 0,
        dry_run: bool = False,
    ) -> Redrive:
        """Start to put dead letters of `group` back among what it has to handle; it goes on in the broker.

        `topic` is where the records came from, needed when the group has letters of several. `where` chooses letters, those
        redriven before are left out; `rate_per_s` and `limit` count letters, 0 for none; a dry run only counts. Raises
        UnknownGroup, UnknownTopic without dead letters, InvalidRequest.
        """
        body = _start_redrive(group, topic, where, rate_per_s, limit, dry_run)
        return self._call(body, StartRedriveReply).redrive

    def redrives(self, group: str | None = None) -> list[Redrive]:
        """The redrives of a group, or of all: those that run, and the last ones that are over."""
        return self._call(ListRedrives(group), ListRedrivesReply).redrives

    def cancel_redrive(self, redrive_id: int) -> Redrive:
        """Stop a redrive where it is; what was put back stays. Raises UnknownRedrive."""
        return self._call(CancelRedrive(redrive_id), CancelRedriveReply).redrive

    def dead_letter_topics(self, group: str | None = None) -> list[LetterTopic]:
        """The dead-letter topics of a group, or of all, with how many of their letters were redriven."""
        return self._call(ListRedrives(group), ListRedrivesReply).letters

    def purge_dead_letters(self, topic: str) -> int:
        """Forget all letters a dead-letter topic holds now. Returns how many offsets that were. Raises UnknownTopic."""
        (found,) = self.describe_topics([_to_purge(topic)])
        return sum(self.trim(topic, part.partition, part.end_offset) - part.start_offset for part in found.partitions)


class AsyncAdmin(_Connected, AsyncQuotaVerbs):
    """The same verbs for asyncio: `async with AsyncAdmin(...) as admin: await admin.list_topics()`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Admin.close`."""
        await asyncio.to_thread(self._transport.stop)

    async def _call(self, body: Request, expected: type[ResponseT]) -> ResponseT:
        return await asyncio.wrap_future(self._submit(body, expected))

    async def ping(self) -> HelloReply:
        """As `Admin.ping`."""
        return await self._call(Hello(), HelloReply)

    async def create_topic(
        self, topic: str, *, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> TopicDescription:
        """As `Admin.create_topic`."""
        return (await self._call(CreateTopic(check_topic(topic), partitions, dict(config or {})), TopicReply)).topic

    async def alter_topic(
        self, topic: str, *, partitions: int | None = None, config: Mapping[str, str | None] | None = None
    ) -> TopicDescription:
        """As `Admin.alter_topic`."""
        return (await self._call(AlterTopic(check_topic(topic), partitions, dict(config or {})), TopicReply)).topic

    async def delete_topic(self, topic: str) -> TopicDescription:
        """As `Admin.delete_topic`."""
        return (await self._call(DeleteTopic(check_topic(topic)), TopicReply)).topic

    async def list_topics(self, *, internal: bool = False) -> list[TopicDescription]:
        """As `Admin.list_topics`."""
        topics = _described(await self._call(Metadata(), MetadataReply))
        return sorted((t for t in topics if internal or not t.internal), key=lambda t: t.topic)

    async def describe_topics(self, topics: Sequence[str] | None = None) -> list[TopicDescription]:
        """As `Admin.describe_topics`."""
        return _described(await self._call(Metadata(None if topics is None else list(topics), True), MetadataReply))

    async def trim(self, topic: str, partition: int, offset: int = -1) -> int:
        """As `Admin.trim`."""
        return (await self._call(TrimTopic(check_topic(topic), partition, offset), TrimTopicReply)).start_offset

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """As `Admin.offsets_for_times`."""
        return _offsets(await self._call(_list_offsets(times), ListOffsetsReply))

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `Admin.beginning_offsets`."""
        return await self.offsets_for_times(dict.fromkeys(partitions, EARLIEST))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """As `Admin.end_offsets`."""
        return await self.offsets_for_times(dict.fromkeys(partitions, LATEST))

    async def list_groups(self) -> list[GroupListing]:
        """As `Admin.list_groups`."""
        return (await self._call(ListGroups(), ListGroupsReply)).groups

    async def describe_group(self, group: str) -> DescribeGroupReply:
        """As `Admin.describe_group`."""
        return await self._call(DescribeGroup(check_group(group)), DescribeGroupReply)

    async def configure_group(self, settings: ConfigureGroup) -> BreakerConfig:
        """As `Admin.configure_group`."""
        return (await self._call(settings, ConfigureGroupReply)).breaker

    async def reset_group(self, reset: ResetGroup) -> list[ResetResult]:
        """As `Admin.reset_group`."""
        return [checked(result) for result in (await self._call(reset, ResetGroupReply)).results]

    async def delete_group(self, group: str) -> DeleteGroupReply:
        """As `Admin.delete_group`."""
        return await self._call(DeleteGroup(check_group(group)), DeleteGroupReply)

    async def resume_group(self, group: str, *, topic: str | None = None, partition: int | None = None) -> ResumeGroupReply:
        """As `Admin.resume_group`."""
        return await self._call(ResumeGroup(check_group(group), topic, partition), ResumeGroupReply)

    async def committed_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, FetchOffsetsResult]:
        """As `Admin.committed_offsets`."""
        return _committed(await self._call(_fetch_offsets(group, partitions), FetchOffsetsReply))

    async def redrive(
        self,
        group: str,
        *,
        topic: str | None = None,
        where: RedriveFilter | None = None,
        rate_per_s: int = 0,
        limit: int = 0,
        dry_run: bool = False,
    ) -> Redrive:
        """As `Admin.redrive`."""
        body = _start_redrive(group, topic, where, rate_per_s, limit, dry_run)
        return (await self._call(body, StartRedriveReply)).redrive

    async def redrives(self, group: str | None = None) -> list[Redrive]:
        """As `Admin.redrives`."""
        return (await self._call(ListRedrives(group), ListRedrivesReply)).redrives

    async def cancel_redrive(self, redrive_id: int) -> Redrive:
        """As `Admin.cancel_redrive`."""
        return (await self._call(CancelRedrive(redrive_id), CancelRedriveReply)).redrive

    async def dead_letter_topics(self, group: str | None = None) -> list[LetterTopic]:
        """As `Admin.dead_letter_topics`."""
        return (await self._call(ListRedrives(group), ListRedrivesReply)).letters

    async def purge_dead_letters(self, topic: str) -> int:
        """As `Admin.purge_dead_letters`."""
        (found,) = await self.describe_topics([_to_purge(topic)])
        return sum([await self.trim(topic, part.partition, part.end_offset) - part.start_offset for part in found.partitions])
